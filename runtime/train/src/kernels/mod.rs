//! Kernels in plain Rust: slices in, slices out.
//!
//! Every result depends on the arguments only: each sum has a defined order (sixteen interleaved accumulators, added as
//! a tree), multiplications and additions are not contracted, and every function is implemented here, not in the C
//! library. Where multiplications and additions are fused (`gemm`), the source says so, and they are fused on every
//! processor. The same source is compiled for several instruction sets and the widest available one runs; without
//! contraction and reordering all give the same bits.
//!
//! Shape letters: see `model`. Not here: tensors (`model::ops` binds these kernels to tensors and contains their ATen
//! equivalents), threads.

// Loops over one index into several slices of the same length become vector code.
#![allow(clippy::needless_range_loop)]

mod activation;
mod attention;
mod element;
mod embedding;
mod gemm;
mod loss;
mod math;
mod norm;
mod probe;
mod rms_norm;
mod rotary;
mod sums;
mod swiglu;
mod update;

pub use activation::{Gelu, gelu_backward, gelu_forward};
pub use attention::{
    AttentionGradients, AttentionOutput, AttentionShape, HeadStrides, Heads, HeadsOut, attention_backward,
    attention_forward, attention_step,
};

pub use element::{Element, Stored};
pub use embedding::{embed_rows, embedding_gradient, position_gradient};
pub use gemm::{Epilogue, Matrix, extent, matmul, matmul_at, matmul_few_rows, matmul_few_rows_at};
pub use loss::{loss_gradient, row_losses, row_maxima, row_sums};
pub use math::{exp, log};
pub use norm::{norm_apply, norm_backward, norm_forward};
pub use probe::{probe, probe_at};
pub use rms_norm::{rms_norm_apply, rms_norm_backward, rms_norm_forward};
pub use rotary::{RotatedHeads, rotary_tables, rotate};
pub use sums::{accumulate, add_residual, cast, column_sums, fold_heads, sum_partials, sum_squares};
pub use swiglu::{swiglu_backward, swiglu_forward};
pub use update::{AdamWCoefficients, adamw, tree_into};

#[cfg(test)]
mod tests;

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Baseline,
    Avx2,
    Avx512,
}

/// The widest instruction set of this processor.
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Compiles a function for each [`Level`]. `NAME(…)` runs the widest one; `NAME::at(level, …)` runs a given one, or the
/// widest if this processor does not have it.
macro_rules! dispatch {
    ($(#[$meta:meta])* pub fn $name:ident [$($generic:ident : $bound:path),*] ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub fn $name<$($generic: $bound),*>($($arg: $ty),*) $(-> $ret)? {
            $name::at::<$($generic),*>($crate::kernels::level(), $($arg),*)
        }

        #[allow(dead_code)] // some kernels are called through `at` only
        #[allow(clippy::too_many_arguments)]
        pub(super) mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[inline(always)]
            fn body<$($generic: $bound),*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
            fn avx512<$($generic: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                body::<$($generic),*>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2<$($generic: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                body::<$($generic),*>($($arg),*)
            }

            pub fn at<$($generic: $bound),*>(level: $crate::kernels::Level, $($arg: $ty),*) $(-> $ret)? {
                let level = level.min($crate::kernels::level());
                match level {
                    // SAFETY: `level()` has detected these instruction sets.
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::Level::Avx512 => unsafe { avx512::<$($generic),*>($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::Level::Avx2 => unsafe { avx2::<$($generic),*>($($arg),*) },
                    _ => body::<$($generic),*>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;

/// Interleaved accumulators of a row sum.
pub(crate) const ACCUMULATORS: usize = 16;

/// Adds the sixteen accumulators of a row sum: a binary tree over neighbours.
#[inline(always)]
pub(crate) fn sum_accumulators(mut accumulators: [f32; ACCUMULATORS]) -> f32 {
    let mut width = ACCUMULATORS;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            accumulators[i] = accumulators[2 * i] + accumulators[2 * i + 1];
        }
    }
    accumulators[0]
}
