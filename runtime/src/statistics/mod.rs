//! Uncertainty of scores: intervals, tests, trends, forgetting.
//!
//! In: scores as functions of their items. Out: how each score would vary if the items were resampled. Item sampling is the
//! only source of randomness modelled: another training seed is another experiment. Nothing here has a state: a replicate
//! depends only on its number and the items' names, so that the bits do not depend on the number of threads, and two
//! checkpoints that answered the same items are resampled together. Not here: files, except for the lines of `items.jsonl`.

mod bootstrap;
mod difference;
mod gate;
mod items;
mod scored_items;
mod trend;

use serde::{Deserialize, Serialize};

pub use bootstrap::{REPLICATES, replicates};
pub use difference::{Tested, holm, mcnemar, paired};
pub use gate::{GateError, GateResult, GateVerdict, Judgement, judge};
pub use items::{ScoreError, Scored};
pub use scored_items::{ScoreFunction, ScoredItems};
pub use trend::{backward_transfer, fitted_change, forgetting, signed};

/// The default level of intervals.
pub const LEVEL: f64 = 0.95;

/// The range of a number over resampled items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The percentile interval of replicates: of equal tails, at `level` in 0..1. `None` if a replicate is not finite.
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

/// The quantile of sorted numbers at `fraction` in 0..1, interpolated linearly: Hyndman and Fan's type 7, the default of
/// numpy and R.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = libm::floor(place);
    let (low, high) = (
        sorted[below as usize],
        sorted[(below as usize + 1).min(sorted.len() - 1)],
    );
    low + (place - below) * (high - low)
}

#[cfg(test)]
mod tests;
