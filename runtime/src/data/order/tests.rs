//! The order is exact, is a pure function, and never changes; its inverse is exact.

use super::*;
use aurora_compiler::fields::OrderComponent;
use proptest::prelude::*;

fn fields(seed: u64, weights: &[u32]) -> OrderFields {
    let components = weights.iter().enumerate().map(|(at, &weight_ppm)| OrderComponent {
        name: format!("c{at}"),
        weight_ppm,
        until_ppm: None,
    });
    OrderFields {
        seed,
        sequence: 128,
        components: components.collect(),
        samples: None,
    }
}

/// Weights that change over `samples` samples.
fn ramp(seed: u64, start: &[u32], end: &[u32], samples: u64) -> OrderFields {
    let mut fields = fields(seed, start);
    for (component, &until) in fields.components.iter_mut().zip(end) {
        component.until_ppm = Some(until);
    }
    fields.samples = Some(samples);
    fields
}

/// Two sets of weights for as many components.
fn pairs() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
    (weights(), weights()).prop_map(|(mut start, mut end)| {
        let width = start.len().max(end.len());
        start.resize(width, 0);
        end.resize(width, 0);
        (start, end)
    })
}

/// Weights that sum to a million, some of them tiny or zero.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    let cuts = proptest::collection::vec(prop_oneof![0u32..=1_000_000, 0u32..3000, 999_000u32..=1_000_000], 0..8);
    cuts.prop_map(|mut cuts| {
        cuts.extend([0, 1_000_000]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_are_exact_to_one_sample((start, end) in pairs(), samples in 1u64..300_000) {
        let lines: Vec<Line> = start.iter().zip(&end).map(|(&start, &end)| Line { start: start.into(), end: end.into() }).collect();
        let one = Line::denominator(samples);
        let rows = rows(&lines, samples);
        let width = lines.len();
        for block in 0..=samples.div_ceil(BLOCK) {
            let places = (block * BLOCK).min(samples);
            let row = &rows[block as usize * width..][..width];
            prop_assert_eq!(row.iter().sum::<u64>(), places);
            for (at, (&count, line)) in row.iter().zip(&lines).enumerate() {
                let due = line.due(places, samples);
                prop_assert!(u128::from(count) >= due / one && u128::from(count) <= due.div_ceil(one));
                prop_assert!(block == 0 || count >= rows[(block as usize - 1) * width + at]);
            }
        }
    }

    #[test]
    fn changing_weights_deal_exact_totals_and_no_sample_twice(
        (start, end) in pairs(),
        seed: u64,
        samples in 1u64..9000,
        sizes in proptest::collection::vec(1u64..700, 9),
    ) {
        // Constant weights need no end: their blocks are never cut.
        prop_assume!(start != end);
        let fields = ramp(seed, &start, &end, samples);
        let order = Order::new(&fields, &sizes[..start.len()]).expect("sound");
        let forward: Vec<Sample> = (0..samples).map(|i| order.sample(i)).collect();
        let counts = order.counts(samples);
        prop_assert_eq!(counts.iter().sum::<u64>(), samples);
        for (at, component) in fields.components.iter().enumerate() {
            // The mean of both weights, to one sample.
            let expected = fields.configured_fraction(component, samples) * samples as f64;
            prop_assert!((counts[at] as f64 - expected).abs() < 1.0 + 1e-6, "{} of {}", counts[at], expected);
        }
        // Any position alone has the same sample as in the sequence.
        for i in (0..samples).step_by(97) {
            prop_assert_eq!(order.sample(i), forward[i as usize]);
        }
        let mut seen: Vec<Vec<Sample>> = vec![Vec::new(); start.len()];
        forward.iter().for_each(|sample| seen[sample.component].push(*sample));
        for (seen, &size) in seen.iter().zip(&sizes) {
            let mut all: Vec<(u64, u64)> = seen.iter().map(|sample| (sample.epoch, sample.index)).collect();
            all.sort_unstable();
            let length = all.len();
            all.dedup();
            prop_assert_eq!(all.len(), length, "no sample twice in an epoch");
            prop_assert!(all.iter().all(|&(epoch, index)| epoch <= length as u64 / size && index < size));
        }
        // A range of the stage has the same samples however it is read.
        let part = samples / 3;
        let counted = forward[..part as usize].iter().fold(vec![0u64; start.len()], |mut counts, sample| {
            counts[sample.component] += 1;
            counts
        });
        prop_assert_eq!(order.counts(part), counted);
    }

    /// Weights that change to themselves give the same order as constant weights.
    #[test]
    fn a_ramp_between_equal_weights_is_none(weights in weights(), seed: u64, samples in 1u64..1_000_000, i: u64) {
        let sizes = vec![1000; weights.len()];
        let plain = Order::new(&fields(seed, &weights), &sizes).expect("sound");
        let level = Order::new(&ramp(seed, &weights, &weights, samples), &sizes).expect("sound");
        prop_assert_eq!(level.sample(i), plain.sample(i));
    }

    #[test]
    fn every_epoch_sees_every_sample_once(weights in weights(), seed: u64, sizes in proptest::collection::vec(1u64..700, 9)) {
        let fields = fields(seed, &weights);
        let order = Order::new(&fields, &sizes[..weights.len()]).expect("sound");
        let length = 7 * BLOCK;
        let mut seen: Vec<Vec<Sample>> = vec![Vec::new(); weights.len()];
        for i in 0..length {
            let sample = order.sample(i);
            seen[sample.component].push(sample);
        }
        prop_assert_eq!(order.counts(length), seen.iter().map(|seen| seen.len() as u64).collect::<Vec<_>>());
        for (seen, &size) in seen.iter().zip(&sizes) {
            for epoch in 0..seen.len() as u64 / size {
                let mut indexes: Vec<u64> =
                    seen.iter().filter(|sample| sample.epoch == epoch).map(|sample| sample.index).collect();
                indexes.sort_unstable();
                prop_assert_eq!(indexes, (0..size).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn counts_follow_the_weights_at_any_distance() {
    let (weights, sizes) = ([300_000, 150_000, 549_500, 500], [1000, 77, 123_456, 5]);
    let order = Order::new(&fields(3, &weights), &sizes).expect("the weights sum to a million");
    for length in [1_000_000u64, 3_000_000, 212_000_000] {
        let counts = order.counts(length);
        assert_eq!(
            counts,
            [
                length * 3 / 10,
                length * 15 / 100,
                length / 10_000 * 5495,
                length / 2000
            ]
        );
    }
    // Far beyond any budget, the epoch and the index are still exact.
    let last = order.sample(u64::MAX);
    let size = sizes[last.component];
    let samples = u128::from(u64::MAX) * u128::from(weights[last.component]) / u128::from(WHOLE);
    // Positions are shuffled inside a block, which may contain the end of an epoch.
    let epochs = samples / u128::from(size);
    assert!(
        u128::from(last.epoch).abs_diff(epochs) <= 1,
        "{last:?}, {epochs} epochs"
    );
    assert!(last.index < size, "{last:?}");
}

#[test]
fn weights_that_change_run_in_a_straight_line() {
    let fields = ramp(3, &[300_000, 700_000], &[100_000, 900_000], 1_000_000);
    let order = Order::new(&fields, &[1000, 1000]).expect("sound");
    // 30% falls to 10%: means of 25% and 15% over the two halves.
    assert_eq!(order.counts(500_000), [125_000, 375_000]);
    assert_eq!(order.counts(1_000_000), [200_000, 800_000]);
    let refused = |samples: Option<u64>| {
        let fields = OrderFields {
            samples,
            ..fields.clone()
        };
        Order::new(&fields, &[1000, 1000]).expect_err("refused")
    };
    assert_eq!(refused(None), OrderError::Length { samples: 0 });
    assert_eq!(refused(Some(u64::MAX)), OrderError::Length { samples: u64::MAX });
}

/// A position depends on the fields and counts only: reading in another order, or only a range, gives the same samples.
#[test]
fn places_do_not_depend_on_what_was_asked_before() {
    let order = Order::new(&fields(9, &[600_000, 400_000]), &[50, 5000]).expect("sound");
    let forward: Vec<Sample> = (0..3000).map(|i| order.sample(i)).collect();
    let mut backward: Vec<Sample> = (0..3000).rev().map(|i| order.sample(i)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
}

/// The order of a locked run must never change. If this fails, the meaning of `order` has changed.
#[test]
fn order_is_pinned() {
    let order = Order::new(&fields(1234, &[333_333, 333_333, 333_334]), &[10, 1_000_000, 3]).expect("sound");
    let places = [0, 1, 2, 999, 1000, 123_456_789, 1 << 60];
    let text: Vec<String> = places
        .map(|i| order.sample(i))
        .iter()
        .map(|s| format!("{}:{}:{}", s.component, s.index, s.epoch))
        .collect();
    assert_eq!(
        text.join(" "),
        "0:8:17 0:2:19 1:870831:0 2:2:62 0:1:37 2:1:13717430 1:63923:384306783895"
    );
    assert_eq!(
        commitment(&order, 0..200_000).to_hex().as_str(),
        "95428cb0d7c79ef962a5f3dd3024051b8959dc6af727be066da11aa68b598d08"
    );
}

#[test]
fn commitment_is_the_same_on_any_number_of_threads() {
    let order = Order::new(&fields(5, &[500_000, 500_000]), &[1000, 2000]).expect("sound");
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        pool.install(|| commitment(&order, 17..300_017))
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(4));
    assert_ne!(with(1), commitment(&order, 17..300_016));
    let other = Order::new(&fields(6, &[500_000, 500_000]), &[1000, 2000]).expect("sound");
    assert_ne!(with(1), commitment(&other, 17..300_017));
}

#[test]
fn faults_are_refused() {
    let refuse = |weights: &[u32], samples: &[u64]| Order::new(&fields(1, weights), samples).expect_err("refused");
    assert_eq!(refuse(&[], &[]), OrderError::NoComponents);
    assert_eq!(refuse(&[999_999], &[1]), OrderError::Weights { sum: 999_999 });
    assert_eq!(refuse(&[1_000_000], &[0]), OrderError::Empty { name: "c0".into() });
    assert_eq!(
        refuse(&[1_000_000], &[]),
        OrderError::CountsDiffer {
            components: 1,
            counts: 0
        }
    );
    let mut twice = fields(1, &[500_000, 500_000]);
    twice.components[1].name = "c0".into();
    assert_eq!(
        Order::new(&twice, &[1, 1]).expect_err("refused"),
        OrderError::Twice { name: "c0".into() }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_position_is_the_exact_inverse_of_a_sample(
        (start, end) in pairs(),
        changes: bool,
        seed: u64,
        length in 1u64..300_000,
        sizes in proptest::collection::vec(prop_oneof![1u64..700, 1u64..(1 << 40)], 9),
        far: u64,
        index: u64,
        epoch in 0u64..100_000,
    ) {
        let fields = if changes { ramp(seed, &start, &end, length) } else { fields(seed, &start) };
        let order = Order::new(&fields, &sizes[..start.len()]).expect("sound");
        let near = (0..2 * BLOCK).step_by(7);
        for i in near.chain([length - 1, length, far >> 1, far >> 20, far >> 40]) {
            prop_assert_eq!(order.position(order.sample(i)), Some(i));
        }
        for (component, &size) in sizes[..start.len()].iter().enumerate() {
            let sample = Sample { component, index: index % size, epoch };
            let is_drawn = if changes { order.counts(length)[component] > 0 } else { start[component] > 0 };
            match order.position(sample) {
                Some(position) => prop_assert_eq!(order.sample(position), sample),
                None => prop_assert!(!is_drawn || size > 1 << 30, "{:?}", sample),
            }
            if let Some((position, drawn)) = order.draw(component, far >> 20) {
                prop_assert_eq!(order.sample(position), drawn);
                prop_assert_eq!(drawn.epoch, (far >> 20) / size);
            } else {
                prop_assert!(!is_drawn || far >> 20 > 1 << 30);
            }
            prop_assert_eq!(order.position(Sample { index: size, ..sample }), None);
        }
        prop_assert_eq!(order.position(Sample { component: start.len(), index: 0, epoch: 0 }), None);
    }
}
