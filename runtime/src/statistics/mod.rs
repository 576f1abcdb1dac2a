//! What a score is worth: intervals, tests, trends, forgetting.
//!
//! In: scores as functions of their items. Out: what they would have been on other items like these. The items are the only
//! chance that is looked at: another seed of the training is another experiment. Nothing here has a state: a replicate is a
//! function of its number and of the items' names alone, so that every thread number gives the same bits, and two
//! checkpoints that answered the same items are drawn together. Not here: files (but for the lines of `items.jsonl`).

mod bootstrap;
mod difference;
mod gate;
mod items;
mod sample;
mod trend;

use serde::{Deserialize, Serialize};

pub use bootstrap::{REPLICATES, replicates};
pub use difference::{Tested, holm, mcnemar, paired};
pub use gate::{Gate, GateError, Judgement, Verdict, judge};
pub use items::{ScoreError, Scored};
pub use sample::{Form, Sample};
pub use trend::{backward_transfer, fitted_change, forgetting, signed};

/// The level of the intervals that nobody asked another level for.
pub const LEVEL: f64 = 0.95;

/// Where a number would lie on other items like these.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The percentile interval of replicates: of equal tails, at `level` in 0..1. Nothing if a replicate is no finite number.
    pub fn of(replicates: &[f64], level: f64) -> Option<Self> {
        if replicates.is_empty() || replicates.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = replicates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let tail = (1.0 - level) / 2.0;
        Some(Self {
            low: quantile(&sorted, tail),
            high: quantile(&sorted, 1.0 - tail),
        })
    }

    /// Half of its width.
    pub fn half(self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// The quantile of sorted numbers at `share` in 0..1, on a straight line between two of them: Hyndman and Fan's type 7,
/// which numpy and R take if nothing is said.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = libm::floor(place);
    let (low, high) = (
        sorted[below as usize],
        sorted[(below as usize + 1).min(sorted.len() - 1)],
    );
    low + (place - below) * (high - low)
}

#[cfg(test)]
mod tests;
