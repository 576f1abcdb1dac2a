//! The data order of a stage: which sample of which component is at each position of the sample stream.
//!
//! In: the stage's mixture and seed, and how many samples each component has. Out: `sample(i)` for any `i` and its inverse
//! `position(sample)`, in constant time, as pure functions: no index file, no iterator, no budget. Not here: the tokens of a sample (`tokens`: sample
//! `index` of a component is the tokens from `index × sequence` on).
//!
//! How: the stream is cut into blocks of [`BLOCK`] positions. Each block contains each component according to its weight,
//! exact to one sample over *any* number of blocks (see `rows`); inside a block the positions are shuffled. The samples of a
//! component are taken epoch by epoch, each epoch in its own order. A longer stage, another batch size or another number of
//! workers changes no position, except that a weight that changes over the stage depends on the length of the stage.

use std::ops::Range;

use aurora_compiler::fields::OrderFields;
use rayon::prelude::*;

use super::permutation::Permutation;
use super::random::PhiloxKey;

mod sizes;

pub use sizes::{ComponentSize, OrderSizes};

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

    /// The position of a sample: the inverse of [`sample`](Self::sample). Takes as long as `sample`, and a binary search over
    /// the blocks of a period.
    ///
    /// `None` if the component is never drawn, does not have this sample, or the position does not fit 64 bits.
    pub fn position(&self, sample: Sample) -> Option<u64> {
        let Sample {
            component,
            index,
            epoch,
        } = sample;
        let part = self.parts.get(component)?;
        if part.total == 0 || index >= part.epoch.length() {
            return None;
        }
        let within = part.epoch.invert(part.key, epoch, index);
        self.position_of_draw(component, epoch.checked_mul(part.epoch.length())?.checked_add(within)?)
    }

    /// The sample that a component gives at its draw `draw`, counted from 0 over all epochs, and its position. Inside a block,
    /// the positions of draws are shuffled.
    ///
    /// `None` as for [`position`](Self::position).
    pub fn draw(&self, component: usize, draw: u64) -> Option<(u64, Sample)> {
        let part = self.parts.get(component)?;
        let epoch = draw.checked_div(part.epoch.length())?;
        let index = part.epoch.apply(part.key, epoch, draw % part.epoch.length());
        let sample = Sample {
            component,
            index,
            epoch,
        };
        Some((self.position_of_draw(component, draw)?, sample))
    }

    fn position_of_draw(&self, component: usize, draw: u64) -> Option<u64> {
        let total = self.parts[component].total;
        let (round, rest) = (draw.checked_div(total)?, draw.checked_rem(total)?);
        let block = self.block_of(component, rest);
        let (before, after) = self.rows(block);
        // Inside its block, a component's samples come after those of the components before it.
        let earlier: u64 = (0..component).map(|other| after[other] - before[other]).sum();
        let blocks = self.period.div_ceil(BLOCK);
        let places = if block + 1 == blocks { &self.last } else { &self.blocks };
        let rank = earlier + rest - before[component];
        let place = places.invert(self.blocks_key, round.checked_mul(blocks)? + block, rank);
        round.checked_mul(self.period)?.checked_add(block * BLOCK + place)
    }

    /// The block of a period that has the sample number `rest` of a component, counted from the start of the period.
    fn block_of(&self, component: usize, rest: u64) -> u64 {
        let width = self.parts.len();
        let (mut low, mut high) = (0, self.period.div_ceil(BLOCK));
        // The last block whose earlier blocks have at most `rest` samples.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.before[middle as usize * width + component] <= rest {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Samples that a component has in one epoch.
    pub fn epoch_length(&self, component: usize) -> u64 {
        self.parts[component].epoch.length()
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
mod tests;
