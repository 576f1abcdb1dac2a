//! The order in which a pipeline rank runs the forward and backward passes of its micro-batches: one forward, one
//! backward.
//!
//! Source: Narayanan et al. 2021 (Megatron-LM, PipeDream-Flush), the non-interleaved schedule. Backward passes run in
//! increasing order on every pipeline rank, so that gradients are added in the same order for any number of pipeline
//! ranks.

/// One pass of a pipeline rank, with the micro-batch's index in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduledPass {
    Forward(usize),
    Backward(usize),
}

/// Maximum number of micro-batches between their forward and backward pass on a pipeline rank.
pub fn in_flight(pipeline: usize, pp_rank: usize, count: usize) -> usize {
    (pipeline - pp_rank).min(count).max(1)
}

/// The passes of `pp_rank` of `pipeline` ranks with `count` micro-batches, in order.
pub fn one_forward_one_backward(pipeline: usize, pp_rank: usize, count: usize) -> impl Iterator<Item = ScheduledPass> {
    let warm_up = (pipeline - pp_rank - 1).min(count);
    let steady = (warm_up..count).flat_map(move |i| [ScheduledPass::Forward(i), ScheduledPass::Backward(i - warm_up)]);
    (0..warm_up)
        .map(ScheduledPass::Forward)
        .chain(steady)
        .chain((count - warm_up..count).map(ScheduledPass::Backward))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every pipeline rank runs every pass once, in order, within its buffers, and none waits forever.
        #[test]
        fn schedules_complete(pipeline in 1usize..7, count in 0usize..20) {
            let schedules: Vec<Vec<ScheduledPass>> =
                (0..pipeline).map(|pp_rank| one_forward_one_backward(pipeline, pp_rank, count).collect()).collect();
            for (pp_rank, schedules) in schedules.iter().enumerate() {
                let of = |kind: fn(&ScheduledPass) -> Option<usize>| schedules.iter().filter_map(kind).collect::<Vec<_>>();
                let forwards = of(|pass| if let ScheduledPass::Forward(i) = pass { Some(*i) } else { None });
                let backwards = of(|pass| if let ScheduledPass::Backward(i) = pass { Some(*i) } else { None });
                prop_assert_eq!(&forwards, &(0..count).collect::<Vec<_>>());
                prop_assert_eq!(&backwards, &forwards);
                let mut running = 0usize;
                for pass in schedules {
                    running = if matches!(pass, ScheduledPass::Forward(_)) { running + 1 } else { running - 1 };
                    prop_assert!(running <= in_flight(pipeline, pp_rank, count));
                }
            }
            // A pipeline rank continues when the pass it waits for has completed on the previous or the next rank.
            let mut at = vec![0; pipeline];
            let done = |pp_rank: usize, pass: ScheduledPass, at: &[usize]| schedules[pp_rank][..at[pp_rank]].contains(&pass);
            loop {
                let before = at.clone();
                for pp_rank in 0..pipeline {
                    let Some(&pass) = schedules[pp_rank].get(at[pp_rank]) else { continue };
                    let ready = match pass {
                        ScheduledPass::Forward(_) => pp_rank == 0 || done(pp_rank - 1, pass, &at),
                        ScheduledPass::Backward(_) => pp_rank + 1 == pipeline || done(pp_rank + 1, pass, &at),
                    };
                    at[pp_rank] += usize::from(ready);
                }
                if at == before {
                    break;
                }
            }
            prop_assert!(at.iter().zip(&schedules).all(|(at, schedules)| *at == schedules.len()), "stuck at {:?}", at);
        }
    }
}
