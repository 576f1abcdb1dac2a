//! Matrix products: the only places where a GEMM is called, libtorch's or, under `portable` numerics, this crate's.

use tch::{Kind, Tensor};

use super::{Kernels, ModelError, portable};

impl Kernels {
    /// `out = left · right`.
    pub(super) fn multiply(self, out: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
        if self == Self::Portable {
            return portable::multiply(out, left, right);
        }
        let _ = left.f_mm_out(out, right)?;
        Ok(())
    }

    /// `out = rows · weightᵀ`, for a weight of shape `[outputs, inputs]`.
    pub(super) fn project(self, out: &Tensor, rows: &Tensor, weight: &Tensor) -> Result<(), ModelError> {
        if self == Self::Few {
            return portable::project_few(out, rows, weight, None);
        }
        self.multiply(out, rows, &weight.f_transpose(0, 1)?)
    }

    /// `out = rows · weightᵀ (+ bias)`.
    pub(super) fn project_with_bias(
        self,
        out: &Tensor,
        rows: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<(), ModelError> {
        let Some(bias) = bias else {
            return self.project(out, rows, weight);
        };
        if self == Self::Few {
            return portable::project_few(out, rows, weight, Some(bias));
        }
        if self == Self::Portable {
            return portable::project_with_bias(out, rows, weight, bias);
        }
        let _ = bias.f_addmm_out(out, rows, &weight.f_transpose(0, 1)?)?;
        Ok(())
    }

    /// `gradient += leftᵀ · right`, all rows in one product; the gradient is `f32`.
    pub(super) fn add_product(self, gradient: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
        if self == Self::Portable {
            return portable::add_product(gradient, left, right);
        }
        let transposed = left.f_transpose(0, 1)?;
        if left.kind() == Kind::Float {
            let _ = gradient.shallow_clone().f_addmm_(&transposed, right)?;
            return Ok(());
        }
        self.add_partials(&[transposed.f_mm(right)?], gradient)
    }
}
