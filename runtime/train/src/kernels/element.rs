//! The element types of tensors.

use half::bf16;
use tch::Kind;

/// An element type of tensors.
pub trait Stored: Copy + 'static {
    const KIND: Kind;
}

impl Stored for f32 {
    const KIND: Kind = Kind::Float;
}

impl Stored for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// Ids and positions.
impl Stored for i64 {
    const KIND: Kind = Kind::Int64;
}

/// Losses.
impl Stored for f64 {
    const KIND: Kind = Kind::Double;
}

/// A floating-point type that kernels read and write; they always compute in `f32`.
pub trait Element: Stored + Default + PartialEq + Send + Sync + std::fmt::Debug {
    fn load(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn store(value: f32) -> Self;
    /// The slice itself, if this type is `f32`.
    fn floats(values: &[Self]) -> Option<&[f32]>;
    /// The slice itself, if this type is `f32`.
    fn as_floats(values: &mut [Self]) -> Option<&mut [f32]>;
}

impl Element for f32 {
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }
    fn floats(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
    fn as_floats(values: &mut [Self]) -> Option<&mut [f32]> {
        Some(values)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    // Without branches, unlike `bf16::from_f32`, so that loops become vector code.
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let nan = (bits >> 16) | 0x40;
        let is_nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        bf16::from_bits(if is_nan { nan } else { rounded } as u16)
    }
    fn floats(_: &[Self]) -> Option<&[f32]> {
        None
    }
    fn as_floats(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        let specials = [
            0.0,
            -0.0,
            1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-42,
        ];
        for value in specials
            .into_iter()
            .chain((0..200_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))))
        {
            let (ours, theirs) = (<bf16 as Element>::store(value), bf16::from_f32(value));
            assert!(
                ours == theirs || (ours.is_nan() && theirs.is_nan()),
                "{value:e}: {ours} {theirs}"
            );
        }
    }
}
