//! Scores of several checkpoints: trend, forgetting, backward transfer.

use aurora_compiler::spec::Better;

/// A change for the better as a positive number.
pub fn signed(better: Better, change: f64) -> f64 {
    match better {
        Better::Higher => change,
        Better::Lower => -change,
    }
}

/// The change from the first to the last point of the straight line that fits best (least squares) to a score against
/// tokens. `None` if all points are at the same tokens.
pub fn fitted_change(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (tokens, score) = (mean(|point| point.0), mean(|point| point.1));
    let (mut both, mut squares) = (0.0, 0.0);
    for point in points {
        both += (point.0 - tokens) * (point.1 - score);
        squares += (point.0 - tokens) * (point.0 - tokens);
    }
    let (first, last) = (points.first()?, points.last()?);
    (squares > 0.0).then(|| both / squares * (last.0 - first.0))
}

/// What was lost since the best of the earlier scores: above zero is worse, whichever way the metric is better.
/// Source: Chaudhry et al. 2018, `f = max over earlier l of R[l] − R[T]`. `None` without an earlier score.
pub fn forgetting(earlier: &[f64], last: f64, better: Better) -> Option<f64> {
    let lost = earlier.iter().map(|score| -signed(better, last - score));
    lost.reduce(f64::max)
}

/// Backward transfer: what later stages did to scores, the mean over stages but the last of (score after the last stage −
/// score after the stage itself); above zero is better, whichever way the metric is.
/// Source: Lopez-Paz and Ranzato 2017 (GEM), `1/(T−1) · Σ R[T][j] − R[j][j]`; here `ends` has one score after each stage.
/// `None` for fewer than two stages.
pub fn backward_transfer(ends: &[f64], better: Better) -> Option<f64> {
    let (last, before) = ends.split_last()?;
    let changes: f64 = before.iter().map(|score| signed(better, last - score)).sum();
    (!before.is_empty()).then(|| changes / before.len() as f64)
}
