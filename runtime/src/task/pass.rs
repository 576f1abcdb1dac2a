//! temporary
pub fn pass_at_k(samples: u64, correct: u64, k: u64) -> f64 {
    if samples - correct < k {
        return 1.0;
    }
    1.0 - (samples - correct + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}
