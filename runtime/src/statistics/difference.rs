//! Whether two checkpoints differ on the same items.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::scored_items::ScoredItems;

/// Random exchanges of a permutation test: no p is below one in ten thousand.
const EXCHANGES: u32 = 9999;

/// The test that gave a p.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tested {
    /// The exact test of McNemar: of items that are right or wrong, those that changed.
    Mcnemar,
    /// The two checkpoints' rows of an item are exchanged at random.
    Permutation,
}

/// Two-sided p of the difference of two scores over the same items, under the hypothesis that it does not matter which
/// checkpoint gave which of an item's two results. `None` if the items' names differ.
pub fn paired(before: &ScoredItems, after: &ScoredItems) -> Option<(f64, Tested)> {
    if !before.pairs_with(after) {
        return None;
    }
    if before.is_binary() && after.is_binary() {
        let (mut lost, mut won) = (0, 0);
        for (before, after) in before.strata.iter().zip(&after.strata) {
            for (before, after) in before.rows.chunks_exact(2).zip(after.rows.chunks_exact(2)) {
                lost += u64::from(before[0] > after[0]);
                won += u64::from(before[0] < after[0]);
            }
        }
        return Some((mcnemar(lost, won), Tested::Mcnemar));
    }
    Some((permutation(before, after), Tested::Permutation))
}

/// p = (1 + exchanges that differ as much) ÷ (1 + exchanges); item `i` of a stratum is exchanged if bit `i mod 128` of the
/// counter (`i ÷ 128`, exchange, 0, 0) is set. For a mean this is the sign-flip test of the items' differences.
fn permutation(before: &ScoredItems, after: &ScoredItems) -> f64 {
    let width = before.form.width();
    let mut sums = [vec![0.0; width], vec![0.0; width]];
    let mut strata = Vec::new();
    for (before, after) in before.strata.iter().zip(&after.strata) {
        for (sums, stratum) in sums.iter_mut().zip([before, after]) {
            for row in stratum.rows.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        let change: Vec<f64> = before
            .rows
            .iter()
            .zip(&after.rows)
            .map(|(before, after)| after - before)
            .collect();
        strata.push((before.key("exchange"), change));
    }
    let form = before.form;
    let differ = |exchange: u32| {
        let mut moved = vec![0.0; width];
        for (key, change) in &strata {
            for (block, rows) in change.chunks(128 * width).enumerate() {
                let words = key.words([block as u32, exchange, 0, 0]);
                for (item, row) in rows.chunks_exact(width).enumerate() {
                    let share = f64::from(words[item / 32] >> (item % 32) & 1);
                    moved.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
                }
            }
        }
        let other = |sums: &[f64], sign: f64| {
            let exchanged: Vec<f64> = sums.iter().zip(&moved).map(|(sum, moved)| sum + sign * moved).collect();
            form.score(&exchanged)
        };
        (other(&sums[1], -1.0) - other(&sums[0], 1.0)).abs()
    };
    let observed = (form.score(&sums[1]) - form.score(&sums[0])).abs();
    // Exchanges whose difference is equal up to rounding count as large.
    let least = observed * (1.0 - 1e-9);
    let as_large = (0..EXCHANGES)
        .into_par_iter()
        .filter(|exchange| differ(*exchange) >= least)
        .count();
    (1 + as_large) as f64 / f64::from(1 + EXCHANGES)
}

/// Two-sided p of McNemar's exact test, for `lost` items that were right only before, and `won` only after.
pub fn mcnemar(lost: u64, won: u64) -> f64 {
    let changed = lost + won;
    let choose = |k: u64| {
        let of = |n: u64| libm::lgamma(n as f64 + 1.0);
        libm::exp(of(changed) - of(k) - of(changed - k) - changed as f64 * std::f64::consts::LN_2)
    };
    let tail: f64 = (0..=lost.min(won)).map(choose).sum();
    (2.0 * tail).min(1.0)
}

/// Corrects the p of a family of tests, so that the chance of any false alarm in the whole family stays below the level
/// (Holm 1979: without assumptions on the dependence of the tests). In the given order.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut corrected = vec![0.0; values.len()];
    let mut largest = 0.0f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((values[index] * (values.len() - rank) as f64).min(1.0));
        corrected[index] = largest;
    }
    corrected
}
