//! The data order of a stage: which sample of which component stands at each place of the sample stream.
//!
//! In: the stage's mixture and seed, and how many samples each component has. Out: `sample(i)` for any `i`, in constant
//! time, as a pure function: no index file, no iterator, no budget. Not here: the tokens of a sample (`tokens`: sample
//! `index` of a component is the tokens from `index × sequence` on).
//!
//! How: the stream is cut into blocks of [`BLOCK`] places. Each block holds each component as often as its weight says,
//! to one sample over *any* number of blocks (see `shares`); inside a block the places are shuffled. The samples of a
//! component are taken epoch by epoch, each epoch in an order of its own. A longer stage, another batch size or another
//! number of workers leaves every place as it was.

use std::ops::Range;

use aurora_compiler::fields::OrderFields;
use rayon::prelude::*;

use super::permutation::Permutation;
use super::random::Key;

/// Places of a block.
pub const BLOCK: u64 = 1000;

/// Weights are parts of this.
const WHOLE: u64 = 1_000_000;

/// Weights in millionths come out exact after so many blocks; the shares then start over.
const PERIOD: u64 = WHOLE / BLOCK;

/// What stands at one place of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Position in [`OrderFields::components`].
    pub component: usize,
    /// Sample of the component: its tokens start at `index × sequence`.
    pub index: u64,
    /// How often the whole component had been seen before.
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
    #[error("component `{name}` stands twice in the order")]
    Twice { name: String },
    #[error("component `{name}` has a weight but not one sample: its tokens are fewer than one sequence and one token")]
    Empty { name: String },
    #[error("component `{name}` has {samples} samples; the most is 2^62")]
    TooMany { name: String, samples: u64 },
}

#[derive(Clone, Debug)]
struct Part {
    weight: u64,
    key: Key,
    epoch: Permutation,
}

/// The order of one stage.
#[derive(Clone, Debug)]
pub struct Order {
    parts: Vec<Part>,
    /// Samples of each component in the first `b` blocks of a period, row by row for `b` in `0..=PERIOD`.
    before: Vec<u64>,
    blocks: Permutation,
    blocks_key: Key,
}

impl Order {
    /// `samples` are the samples of each component, in the order of the fields.
    ///
    /// # Errors
    /// If the weights do not sum to a million, a component with a weight has no samples, or a name stands twice.
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
        let sum = components.iter().map(|component| u64::from(component.weight_ppm)).sum();
        if sum != WHOLE {
            return Err(OrderError::Weights { sum });
        }
        let mut parts = Vec::with_capacity(components.len());
        for (at, (component, &samples)) in components.iter().zip(samples).enumerate() {
            let name = || component.name.clone();
            if components[..at].iter().any(|other| other.name == component.name) {
                return Err(OrderError::Twice { name: name() });
            }
            if samples == 0 && component.weight_ppm > 0 {
                return Err(OrderError::Empty { name: name() });
            }
            if samples > 1 << 62 {
                return Err(OrderError::TooMany { name: name(), samples });
            }
            parts.push(Part {
                weight: u64::from(component.weight_ppm),
                key: Key::derive(fields.seed, &format!("order.component.{}", component.name)),
                epoch: Permutation::new(samples),
            });
        }
        let weights: Vec<u64> = parts.iter().map(|part| part.weight).collect();
        Ok(Self {
            before: shares(&weights),
            parts,
            blocks: Permutation::new(BLOCK),
            blocks_key: Key::derive(fields.seed, "order.blocks"),
        })
    }

    /// What stands at place `i` of the stream, counted from 0. Constant time, any `i`.
    #[inline]
    pub fn sample(&self, i: u64) -> Sample {
        let (block, place) = (i / BLOCK, i % BLOCK);
        let mut rest = self.blocks.apply(self.blocks_key, block, place);
        let (before, after) = self.rows(block);
        for (component, part) in self.parts.iter().enumerate() {
            let here = after[component] - before[component];
            if rest < here {
                let taken = (block / PERIOD) * part.weight + before[component] + rest;
                let (epoch, within) = (taken / part.epoch.length(), taken % part.epoch.length());
                return Sample {
                    component,
                    index: part.epoch.apply(part.key, epoch, within),
                    epoch,
                };
            }
            rest -= here;
        }
        unreachable!("the shares of a block sum to its places")
    }

    /// How many of the first `length` places hold each component.
    pub fn counts(&self, length: u64) -> Vec<u64> {
        let block = length / BLOCK;
        let (before, _) = self.rows(block);
        let mut counts: Vec<u64> = self
            .parts
            .iter()
            .zip(before)
            .map(|(part, before)| (block / PERIOD) * part.weight + before)
            .collect();
        for i in block * BLOCK..length {
            counts[self.sample(i).component] += 1;
        }
        counts
    }

    fn rows(&self, block: u64) -> (&[u64], &[u64]) {
        let width = self.parts.len();
        let row = (block % PERIOD) as usize * width;
        (
            &self.before[row..row + width],
            &self.before[row + width..row + 2 * width],
        )
    }
}

/// Samples of each component in the first `b` blocks, for `b` in `0..=PERIOD`, row by row.
///
/// With `ideal = weight × b / 1000`, each count is `ideal` rounded down or up, the counts of a row sum to `1000 × b`, and
/// no count ever falls. Rounding each row by largest remainder alone would let counts of tiny weights fall, so the k-th
/// sample of a component is taken as a job: it may run from the block in which its ideal passes k − 1 and must run by the
/// one in which it reaches k. The ideal itself runs all jobs in time if it may split them, and earliest deadline first
/// then does so whole (unit jobs, equal machines).
fn shares(weights: &[u64]) -> Vec<u64> {
    let mut rows = vec![0u64; weights.len()];
    let mut candidates = Vec::with_capacity(weights.len());
    for block in 1..=PERIOD {
        let start = rows.len() - weights.len();
        let mut counts = rows[start..].to_vec();
        let mut free = BLOCK;
        for (count, weight) in counts.iter_mut().zip(weights) {
            let due = (weight * block / PERIOD).max(*count);
            free -= due - *count;
            *count = due;
        }
        candidates.clear();
        for (component, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
            if count * PERIOD < weight * block {
                // Earliest deadline; then the largest remainder; then the written order.
                let deadline = ((count + 1) * PERIOD).div_ceil(weight);
                candidates.push((deadline, std::cmp::Reverse(weight * block - count * PERIOD), component));
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

/// Places of one leaf of a commitment.
const LEAF: u64 = 1 << 16;

/// Commits to what stands at each of the places `range`: a hash over all of (component u32, index u64), little-endian.
///
/// Leaves of 65,536 places, cut at multiples of that from the start of the range, are hashed by BLAKE3 on all threads;
/// the root hashes the range's bounds and the leaves in order (derive-key mode). So the number of threads changes
/// nothing.
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
    use aurora_compiler::fields::Component;
    use proptest::prelude::*;

    fn fields(seed: u64, weights: &[u32]) -> OrderFields {
        let components = weights.iter().enumerate().map(|(at, &weight_ppm)| Component {
            name: format!("c{at}"),
            weight_ppm,
        });
        OrderFields {
            seed,
            sequence: 128,
            components: components.collect(),
        }
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
        fn shares_are_exact_to_one_sample(weights in weights()) {
            let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
            let rows = shares(&weights);
            let width = weights.len();
            for block in 0..=PERIOD {
                let row = &rows[block as usize * width..][..width];
                prop_assert_eq!(row.iter().sum::<u64>(), block * BLOCK);
                for (at, (&count, weight)) in row.iter().zip(&weights).enumerate() {
                    prop_assert!(count >= weight * block / PERIOD && count <= (weight * block).div_ceil(PERIOD));
                    prop_assert!(block == 0 || count >= rows[(block as usize - 1) * width + at]);
                }
            }
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
    fn shares_follow_the_weights_at_any_distance() {
        let order = Order::new(&fields(3, &[300_000, 150_000, 549_500, 500]), &[1000, 77, 123_456, 5]).expect("sound");
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
        // Far beyond any budget the epoch and index still fit.
        assert_eq!(order.sample(u64::MAX).component, order.sample(u64::MAX).component);
    }

    /// A place depends on nothing but the fields and counts: asking in another order or for a part gives the same.
    #[test]
    fn places_do_not_depend_on_what_was_asked_before() {
        let order = Order::new(&fields(9, &[600_000, 400_000]), &[50, 5000]).expect("sound");
        let forward: Vec<Sample> = (0..3000).map(|i| order.sample(i)).collect();
        let mut backward: Vec<Sample> = (0..3000).rev().map(|i| order.sample(i)).collect();
        backward.reverse();
        assert_eq!(forward, backward);
    }

    /// The order of a run that has been locked must never change. If this fails, the meaning of `order` has changed.
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
