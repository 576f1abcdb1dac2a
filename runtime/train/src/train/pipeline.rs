//! The order in which a pipeline stage runs the forwards and backwards of its micro-batches: one forward, one backward.
//!
//! Source: Narayanan et al. 2021 (Megatron-LM, PipeDream-Flush), the non-interleaved schedule. Backwards run in
//! increasing order on every stage, so that gradients add up in the same order under any number of stages.

/// One piece of a stage's work, by the micro-batch's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Forward(usize),
    Backward(usize),
}

/// Micro-batches between their forward and their backward on a stage, at most.
pub fn under_way(stages: usize, stage: usize, count: usize) -> usize {
    (stages - stage).min(count).max(1)
}

/// What stage `stage` of `stages` does with `count` micro-batches, in order.
pub fn one_forward_one_backward(stages: usize, stage: usize, count: usize) -> impl Iterator<Item = Work> {
    let warm_up = (stages - stage - 1).min(count);
    let steady = (warm_up..count).flat_map(move |i| [Work::Forward(i), Work::Backward(i - warm_up)]);
    (0..warm_up)
        .map(Work::Forward)
        .chain(steady)
        .chain((count - warm_up..count).map(Work::Backward))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every stage does everything once, in order, within its room; and nobody waits for ever.
        #[test]
        fn stages_come_to_an_end(stages in 1usize..7, count in 0usize..20) {
            let works: Vec<Vec<Work>> =
                (0..stages).map(|stage| one_forward_one_backward(stages, stage, count).collect()).collect();
            for (stage, works) in works.iter().enumerate() {
                let of = |kind: fn(&Work) -> Option<usize>| works.iter().filter_map(kind).collect::<Vec<_>>();
                let forwards = of(|work| if let Work::Forward(i) = work { Some(*i) } else { None });
                let backwards = of(|work| if let Work::Backward(i) = work { Some(*i) } else { None });
                prop_assert_eq!(&forwards, &(0..count).collect::<Vec<_>>());
                prop_assert_eq!(&backwards, &forwards);
                let mut room = 0usize;
                for work in works {
                    room = if matches!(work, Work::Forward(_)) { room + 1 } else { room - 1 };
                    prop_assert!(room <= under_way(stages, stage, count));
                }
            }
            // Each stage goes on as soon as what it waits for has been done: by the stage before, or the one after.
            let mut at = vec![0; stages];
            let done = |stage: usize, work: Work, at: &[usize]| works[stage][..at[stage]].contains(&work);
            loop {
                let before = at.clone();
                for stage in 0..stages {
                    let Some(&work) = works[stage].get(at[stage]) else { continue };
                    let ready = match work {
                        Work::Forward(_) => stage == 0 || done(stage - 1, work, &at),
                        Work::Backward(_) => stage + 1 == stages || done(stage + 1, work, &at),
                    };
                    at[stage] += usize::from(ready);
                }
                if at == before {
                    break;
                }
            }
            prop_assert!(at.iter().zip(&works).all(|(at, works)| *at == works.len()), "stuck at {:?}", at);
        }
    }
}
