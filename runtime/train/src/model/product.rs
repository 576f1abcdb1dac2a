//! Matrix products: the only places where libtorch's GEMM is called.

use tch::{Kind, Tensor};

use super::{Kernels, ModelError};

/// `out = left · right`.
pub fn multiply(out: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
    let _ = left.f_mm_out(out, right)?;
    Ok(())
}

/// `out = rows · weightᵀ`, for a weight of shape `[outputs, inputs]`.
pub fn project(out: &Tensor, rows: &Tensor, weight: &Tensor) -> Result<(), ModelError> {
    multiply(out, rows, &weight.f_transpose(0, 1)?)
}

/// `out = rows · weightᵀ + bias`.
pub fn project_with_bias(
    out: &Tensor,
    rows: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(), ModelError> {
    let Some(bias) = bias else {
        return project(out, rows, weight);
    };
    let _ = bias.f_addmm_out(out, rows, &weight.f_transpose(0, 1)?)?;
    Ok(())
}

/// `gradient += leftᵀ · right`, all rows in one product.
pub fn add_product(gradient: &Tensor, left: &Tensor, right: &Tensor, kernels: Kernels) -> Result<(), ModelError> {
    let transposed = left.f_transpose(0, 1)?;
    if left.kind() == Kind::Float {
        let _ = gradient.shallow_clone().f_addmm_(&transposed, right)?;
        return Ok(());
    }
    kernels.add_partials(&[transposed.f_mm(right)?], gradient)
}
