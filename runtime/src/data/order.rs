//! The data order of a stage: which sample of which component is at each position of the sample stream.
//!
//! In: the stage's mixture and seed, and how many samples each component has. Out: `sample(i)` for any `i`, in constant
//! time, as a pure function: no index file, no iterator, no budget. Not here: the tokens of a sample (`tokens`: sample
//! `index` of a component is the tokens from `index × sequence` on).
//!
//! How: the stream is cut into blocks of [`BLOCK`] positions. Each block contains each component according to its weight,
//! exact to one sample over *any* number of blocks (see `rows`); inside a block the positions are shuffled. The samples of a
//! component are taken epoch by epoch, each epoch in its own order. A longer stage, another batch size or another number of
//! workers changes no position, except that a weight that changes over the stage depends on the length of the stage.

use std::ops::Range;

use aurora_compiler::fields::OrderFields;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::permutation::Permutation;
use super::random::PhiloxKey;

/// Positions of a block.
pub const BLOCK: u64 = 1000;

/// Weights are fractions of this.
const WHOLE: u64 = 1_000_000;

/// The largest table of a stage whose weights change: its blocks times its components.
const MOST_ROWS: u64 = 1 << 26;

/// The sample at one position of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Position in [`OrderFields::components`].
    pub component: usize,
    /// Sample of the component: its tokens start at `index × sequence`.
    pub index: u64,
    /// How often the complete component has been read before.
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("an order needs at least one component")]
    NoComponents,
    #[error("the order has {components} components, but sample counts for {counts}")]
    CountsDiffer { components: usize, counts: usize },
    #[error("the weights sum to {sum} parts in a million")]
    Weights { sum: u64 },
    #[error("the order contains component `{name}` twice")]
    Twice { name: String },
    #[error("component `{name}` has a weight but no sample: it needs at least one sequence and one token")]
    Empty { name: String },
    #[error("component `{name}` has {samples} samples; the maximum is 2^62")]
    TooMany { name: String, samples: u64 },
    #[error("weights that change need a stage of at least one sample and of fewer blocks; it has {samples} samples")]
    Length { samples: u64 },
}

#[derive(Clone, Debug)]
struct Part {
    /// Samples in a complete period.
    total: u64,
    key: PhiloxKey,
    epoch: Permutation,
}

/// The order of one stage.
#[derive(Clone, Debug)]
pub struct Order {
    parts: Vec<Part>,
    /// Positions after which the counts repeat: where weights in millionths are exact, or the end of the stage.
    period: u64,
    /// Samples of each component in the first `b` blocks of a period, row by row.
    before: Vec<u64>,
    blocks: Permutation,
    /// The positions of a period's last block, which may be shorter.
    last: Permutation,
    blocks_key: PhiloxKey,
}

/// The weight of a component over the positions of a period.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u64,
    end: u64,
}

impl Line {
    /// Samples that are due after `n` of `period` positions, as a numerator over [`denominator`](Self::denominator):
    /// the integral of a straight line from `start` to `end`.
    fn due(self, n: u64, period: u64) -> u128 {
        let (n, period) = (u128::from(n), u128::from(period));
        let (start, end) = (u128::from(self.start), u128::from(self.end));
        // start·n + (end − start)·n² ÷ 2·period, over a million; the subtraction never underflows.
        start * n * 2 * period + end * n * n - start * n * n
    }

    fn denominator(period: u64) -> u128 {
        u128::from(WHOLE) * 2 * u128::from(period)
    }
}

/// The sizes of an order's components, in its order: `order.json` of an order node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentSizes {
    /// Samples that each component has.
    pub samples: Vec<u64>,
    pub tokens: Vec<u64>,
}

impl Order {
    /// `samples` are the samples of each component, in the order of the fields.
    ///
    /// # Errors
    /// If the weights do not sum to a million, a component with a weight has no samples, or a name occurs twice.
    pub fn new(fields: &OrderFields, samples: &[u64]) -> Result<Self, OrderError> {
        let components = &fields.components;
        if components.is_empty() {
            return Err(OrderError::NoComponents);
        }
        if components.len() != samples.len() {
            return Err(OrderError::CountsDiffer {
                components: components.len(),
                counts: samples.len(),
            });
        }
        let lines: Vec<Line> = components
            .iter()
            .map(|component| Line {
                start: component.weight_ppm.into(),
                end: component.until_ppm.unwrap_or(component.weight_ppm).into(),
            })
            .collect();
        for sum in [
            lines.iter().map(|line| line.start).sum(),
            lines.iter().map(|line| line.end).sum(),
        ] {
            if sum != WHOLE {
                return Err(OrderError::Weights { sum });
            }
        }
        let period = match lines.iter().any(|line| line.start != line.end) {
            true => fields.samples.unwrap_or(0),
            false => WHOLE,
        };
        if period == 0 || period.div_ceil(BLOCK).saturating_mul(components.len() as u64) > MOST_ROWS {
            return Err(OrderError::Length { samples: period });
        }
        let mut parts = Vec::with_capacity(components.len());
        for (at, (component, &samples)) in components.iter().zip(samples).enumerate() {
            let name = || component.name.clone();
            if components[..at].iter().any(|other| other.name == component.name) {
                return Err(OrderError::Twice { name: name() });
            }
            if samples == 0 && lines[at].start + lines[at].end > 0 {
                return Err(OrderError::Empty { name: name() });
            }
            if samples > 1 << 62 {
                return Err(OrderError::TooMany { name: name(), samples });
            }
            parts.push(Part {
                total: 0,
                key: PhiloxKey::derive(fields.seed, &format!("order.component.{}", component.name)),
                epoch: Permutation::new(samples),
            });
        }
        let before = rows(&lines, period);
        for (part, total) in parts.iter_mut().zip(&before[before.len() - lines.len()..]) {
            part.total = *total;
        }
        Ok(Self {
            before,
            parts,
            period,
            blocks: Permutation::new(BLOCK),
            last: Permutation::new((period - 1) % BLOCK + 1),
            blocks_key: PhiloxKey::derive(fields.seed, "order.blocks"),
        })
    }

    /// The sample at position `i` of the stream, counted from 0. Constant time for any `i`.
    #[inline]
    pub fn sample(&self, i: u64) -> Sample {
        let blocks = self.period.div_ceil(BLOCK);
        let (round, within) = (i / self.period, i % self.period);
        let (block, place) = (within / BLOCK, within % BLOCK);
        let places = if block + 1 == blocks { &self.last } else { &self.blocks };
        let mut rest = places.apply(self.blocks_key, round * blocks + block, place);
        let (before, after) = self.rows(block);
        for (component, part) in self.parts.iter().enumerate() {
            let here = after[component] - before[component];
            if rest < here {
                let taken = round * part.total + before[component] + rest;
                let (epoch, within) = (taken / part.epoch.length(), taken % part.epoch.length());
                return Sample {
                    component,
                    index: part.epoch.apply(part.key, epoch, within),
                    epoch,
                };
            }
            rest -= here;
        }
        unreachable!("the counts of a block sum to its positions")
    }

    /// How many of the first `length` positions have each component.
    pub fn counts(&self, length: u64) -> Vec<u64> {
        let (round, within) = (length / self.period, length % self.period);
        let block = within / BLOCK;
        let (before, _) = self.rows(block);
        let mut counts: Vec<u64> = self
            .parts
            .iter()
            .zip(before)
            .map(|(part, before)| round * part.total + before)
            .collect();
        for i in round * self.period + block * BLOCK..length {
            counts[self.sample(i).component] += 1;
        }
        counts
    }

    fn rows(&self, block: u64) -> (&[u64], &[u64]) {
        let width = self.parts.len();
        let row = block as usize * width;
        (
            &self.before[row..row + width],
            &self.before[row + width..row + 2 * width],
        )
    }
}

/// Samples of each component in the first `b` blocks of a period, row by row.
///
/// Each count is the number of samples due by then (see [`Line::due`]), rounded down or up; the counts of a row sum to its
/// positions, and no count ever decreases. Rounding each row by largest remainder alone would decrease counts of tiny
/// weights, so the k-th sample of a component is treated as a job: it may run from the block in which the due samples exceed
/// k − 1, and must run by the block in which they reach k. A schedule that splits jobs meets all deadlines, so earliest
/// deadline first meets them without splitting (unit jobs, equal machines).
fn rows(lines: &[Line], period: u64) -> Vec<u64> {
    let one = Line::denominator(period);
    let blocks = period.div_ceil(BLOCK);
    let after = |block: u64| (block * BLOCK).min(period);
    let mut rows = vec![0u64; lines.len()];
    let mut candidates = Vec::with_capacity(lines.len());
    for block in 1..=blocks {
        let start = rows.len() - lines.len();
        let mut counts = rows[start..].to_vec();
        let mut free = after(block) - after(block - 1);
        candidates.clear();
        for (component, (count, line)) in counts.iter_mut().zip(lines).enumerate() {
            let due = line.due(after(block), period);
            let whole = u64::try_from(due / one).unwrap_or(u64::MAX).max(*count);
            free -= whole - *count;
            *count = whole;
            let done = u128::from(whole) * one;
            if done < due {
                // Earliest deadline; then the largest remainder; then the written order.
                let deadline = first_block(blocks, |block| line.due(after(block), period) >= done + one);
                candidates.push((deadline, std::cmp::Reverse(due - done), component));
            }
        }
        candidates.sort_unstable();
        assert!(free as usize <= candidates.len(), "a block is always full");
        for &(_, _, component) in &candidates[..free as usize] {
            counts[component] += 1;
        }
        rows.extend(counts);
    }
    rows
}

/// The first block from which a condition holds for all later blocks; one past the last block if there is none.
fn first_block(blocks: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (1, blocks + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if middle <= blocks && !holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Positions in one leaf of a commitment.
const LEAF: u64 = 1 << 16;

/// Commits to the samples at the positions `range`: a hash over all (component u32, index u64), little-endian.
///
/// Leaves of 65,536 positions, counted from the start of the range, are hashed by BLAKE3 on all threads; the root hashes the
/// range's bounds and the leaves in order (derive-key mode). The number of threads does not change the result.
pub fn commitment(order: &Order, range: Range<u64>) -> blake3::Hash {
    let length = range.end.saturating_sub(range.start);
    let leaves: Vec<blake3::Hash> = (0..length.div_ceil(LEAF))
        .into_par_iter()
        .map(|leaf| {
            let first = range.start + leaf * LEAF;
            let last = (first + LEAF).min(range.end);
            let mut bytes = Vec::with_capacity((last - first) as usize * 12);
            for i in first..last {
                let sample = order.sample(i);
                bytes.extend_from_slice(&(sample.component as u32).to_le_bytes());
                bytes.extend_from_slice(&sample.index.to_le_bytes());
            }
            blake3::hash(&bytes)
        })
        .collect();
    let mut root = blake3::Hasher::new_derive_key("aurora order commitment v1");
    root.update(&range.start.to_le_bytes());
    root.update(&range.end.to_le_bytes());
    for leaf in leaves {
        root.update(leaf.as_bytes());
    }
    root.finalize()
}

#[cfg(test)]
mod tests {
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
}
