//! Causal attention by the fused kernel of libtorch for a device: no scores in memory.
//!
//! In: queries `[b, n, s, d]`, keys and values `[b, g, s, d]`, in `bf16`. Out: the heads' outputs `[b, n, s, d]` and the
//! log-sum-exp of each row's scores `[b, n, s]`. Its backward pass is deterministic, since the worker sets libtorch's
//! switch. `composed_attention` is its reference and computes what it cannot: `f32`, masks, other head dimensions.

use tch::{Kind, Tensor};

use super::ModelError;

/// The head dimensions of the kernel are multiples of this, up to [`LARGEST_HEAD`].
const HEAD_UNIT: i64 = 8;
const LARGEST_HEAD: i64 = 256;

/// Whether the kernel computes attention of these queries.
pub fn fits(query_bnsd: &Tensor, mask: Option<&Tensor>) -> bool {
    let d = query_bnsd.size()[3];
    crate::gpu::current().is_some()
        && mask.is_none()
        && query_bnsd.kind() == Kind::BFloat16
        && d % HEAD_UNIT == 0
        && d <= LARGEST_HEAD
}

fn scale(query_bnsd: &Tensor) -> f64 {
    1.0 / (query_bnsd.size()[3] as f64).sqrt()
}

/// The heads' outputs, and the log-sum-exp of each row in `f32`.
///
/// # Errors
/// [`ModelError`] if memory runs out.
pub fn forward([query, key, value]: [&Tensor; 3]) -> Result<(Tensor, Tensor), ModelError> {
    let [out, lse] = aten_sys::flash_forward(query, key, value, scale(query))?;
    Ok((out, lse))
}

/// The gradients of queries, keys and values, given that of the output; `output` is the result of [`forward`].
///
/// # Errors
/// [`ModelError`] if memory runs out.
pub fn backward(
    dout: &Tensor,
    views: [&Tensor; 3],
    output: [&Tensor; 2],
) -> Result<(Tensor, Tensor, Tensor), ModelError> {
    let [dquery, dkey, dvalue] = aten_sys::flash_backward(dout, views, output, scale(views[0]))?;
    Ok((dquery, dkey, dvalue))
}
