//! pass@k: the probability that one of k programs passes, estimated from n programs.

/// The unbiased estimate 1 − C(n − c, k) / C(n, k) of n samples, of which c are correct; 1 where fewer than k are wrong.
/// NaN where fewer than k were drawn: then there is no estimate.
///
/// Source: Chen et al. 2021, eq. 1, in the stable form of its figure 3, multiplied in the same order.
pub fn pass_at_k(samples: u64, correct: u64, k: u64) -> f64 {
    if k > samples || correct > samples {
        return f64::NAN;
    }
    let wrong = samples - correct;
    if wrong < k {
        return 1.0;
    }
    let none = (wrong + 1..=samples).fold(1.0, |none, i| none * (1.0 - k as f64 / i as f64));
    1.0 - none
}

#[cfg(test)]
mod tests {
    use super::pass_at_k;

    /// C(n, k), exact: each quotient is whole.
    fn choose(n: u64, k: u64) -> u128 {
        (1..=u128::from(k)).fold(1, |product, i| product * (u128::from(n) - u128::from(k) + i) / i)
    }

    fn exact(samples: u64, correct: u64, k: u64) -> f64 {
        let all = choose(samples, k);
        let none = if samples - correct < k {
            0
        } else {
            choose(samples - correct, k)
        };
        (all - none) as f64 / all as f64
    }

    #[test]
    fn it_is_the_estimate_of_exact_arithmetic() {
        for samples in 1..=40 {
            for correct in 0..=samples {
                for k in 1..=samples {
                    let (found, exact) = (pass_at_k(samples, correct, k), exact(samples, correct, k));
                    // Each of up to forty factors is rounded twice.
                    assert!(
                        (found - exact).abs() <= 40.0 * f64::EPSILON,
                        "{samples} {correct} {k}: {found} {exact}"
                    );
                }
            }
        }
        // 200 samples, the number of the paper; C(200, 10) has 55 bits.
        for correct in 0..=200 {
            for k in [1, 10] {
                let (found, exact) = (pass_at_k(200, correct, k), exact(200, correct, k));
                assert!(
                    (found - exact).abs() <= 200.0 * f64::EPSILON,
                    "{correct} {k}: {found} {exact}"
                );
            }
        }
    }

    /// Six samples of one problem, three correct: the value that the README of openai/human-eval prints for its
    /// examples, which is not exactly 1/2.
    #[test]
    fn it_is_the_published_value() {
        assert_eq!(pass_at_k(6, 3, 1), 0.4999999999999999);
    }

    #[test]
    fn its_ends_are_sure() {
        assert_eq!(pass_at_k(10, 0, 10), 0.0);
        assert_eq!(pass_at_k(10, 10, 1), 1.0);
        assert_eq!(pass_at_k(10, 1, 10), 1.0);
        assert_eq!(pass_at_k(10, 6, 5), 1.0);
        assert!(pass_at_k(9, 0, 10).is_nan());
        assert!(pass_at_k(9, 10, 1).is_nan());
    }
}
