//! A register of sums on each instruction set, and the tile that fits its registers.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::Level;

/// A few adjacent columns of a row of sums, in one register.
///
/// Uses intrinsics because whether the compiler vectorizes arrays here depends on the tile's size: it did for 12 × 32
/// sums and not for 8 × 32, which was fifty times slower.
pub(super) trait Vector: Copy {
    const COUNT: usize;
    /// Rows of a tile, and vectors in each row: as many as fit the registers and hide the latency of a multiply-add.
    const ROWS: usize;
    const VECTORS: usize;

    fn zero() -> Self;
    fn splat(value: f32) -> Self;
    /// Loads the first [`Vector::COUNT`] elements.
    fn load(from: &[f32]) -> Self;
    fn store(self, to: &mut [f32]);
    /// `self · b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Fused by the processor if it can, otherwise by the C library: the same bits.
impl Vector for [f32; 4] {
    const COUNT: usize = 4;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        [from[0], from[1], from[2], from[3]]
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..4].copy_from_slice(&self);
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(b[i], c[i]))
    }
}

/// Implements [`Vector`] for a register. These functions are inlined into functions that are compiled for, and called
/// on, processors with these instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! register {
    ($ty:ty, $count:literal, $rows:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $mul_add:ident) => {
        impl Vector for $ty {
            const COUNT: usize = $count;
            const ROWS: usize = $rows;
            const VECTORS: usize = 2;

            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: the processor has the instruction, see the macro.
                unsafe { $zero() }
            }
            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: as above.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            fn load(from: &[f32]) -> Self {
                let from = &from[..$count];
                // SAFETY: as above; the slice has as many elements as the register.
                unsafe { $load(from.as_ptr()) }
            }
            #[inline(always)]
            fn store(self, to: &mut [f32]) {
                let to = &mut to[..$count];
                // SAFETY: as above; the slice has as many elements as the register.
                unsafe { $store(to.as_mut_ptr(), self) }
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                unsafe { $mul_add(self, b, c) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
register!(
    __m256,
    8,
    6,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
register!(
    __m512,
    16,
    12,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps
);

/// Calls a generic function for the vectors of a level.
macro_rules! by_level {
    ($level:expr, $vector:ident => $body:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                type $vector = __m512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                type $vector = __m256;
                $body
            }
            _ => {
                type $vector = [f32; 4];
                $body
            }
        }
    };
}

/// Rows of a panel of the left operand.
pub fn rows(level: Level) -> usize {
    by_level!(level, V => V::ROWS)
}

/// Columns of a panel of the right operand, and of a vector.
pub fn columns(level: Level) -> (usize, usize) {
    by_level!(level, V => (V::VECTORS * V::COUNT, V::COUNT))
}
