//! Scalar functions whose bits depend on the argument only.

/// eˣ, within 2 units in the last place; 0 below −87.3, infinite above 88.37.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 × 2²³: adding it rounds to an integer
    // Nine bits, so that its product with a small integer is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x > 88.37 { 88.37 } else { x };
    let bounded = if bounded < -87.3 { -87.3 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (bounded - n * LN2_HIGH) - n * LN2_LOW;
    // The series of eʳ for |r| ≤ ½ ln 2; the remainder is below 1e-8.
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = f32::from_bits(((shifted.to_bits() as i32).wrapping_add(127) << 23) as u32);
    let value = p * power;
    let value = if x < -87.3 { 0.0 } else { value };
    let value = if x > 88.37 { f32::INFINITY } else { value };
    if x.is_nan() { x } else { value }
}

/// Natural logarithm in `f64`.
pub fn log(x: f64) -> f64 {
    libm::log(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Level, dispatch};

    dispatch! {
    /// `exp` of each element, in place.
    pub fn exp_slice [] (values: &mut [f32]) {
        for value in values {
            *value = exp(*value);
        }
    }
    }

    #[test]
    fn exp_is_right_to_two_units() {
        let mut x = -87.2f32;
        while x < 88.36 {
            let exact = libm::exp(f64::from(x));
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
            x += 0.0137;
        }
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e9), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp_has_the_same_bits_at_every_level() {
        let values: Vec<f32> = (0..100_003).map(|i| (i as f32 - 50_000.0) * 0.0017).collect();
        let run = |level| {
            let mut values = values.clone();
            exp_slice::at(level, &mut values);
            values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(Level::Baseline), run(Level::Avx2));
        assert_eq!(run(Level::Baseline), run(Level::Avx512));
        let mut widest = values.clone();
        exp_slice(&mut widest);
        assert_eq!(
            run(Level::Baseline),
            widest.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        );
    }
}
