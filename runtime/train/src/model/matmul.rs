//! Matrix products: the only calls of a GEMM, libtorch's or, for `portable` numerics, this crate's.

use tch::{Kind, Tensor};

use super::{Kernels, ModelError, portable};

impl Kernels {
    /// `out = left · right`.
    pub(super) fn matmul(self, out: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
        if self == Self::Portable {
            return portable::matmul(out, left, right);
        }
        let _ = left.f_mm_out(out, right)?;
        Ok(())
    }

    /// `out = rows · weightᵀ`, for a weight of shape `[outputs, inputs]`.
    pub(super) fn linear(self, out: &Tensor, rows: &Tensor, weight_oi: &Tensor) -> Result<(), ModelError> {
        if self == Self::FewRows {
            return portable::linear_few_rows(out, rows, weight_oi, None);
        }
        self.matmul(out, rows, &weight_oi.f_transpose(0, 1)?)
    }

    /// `out = rows · weightᵀ (+ bias)`.
    pub(super) fn linear_with_bias(
        self,
        out: &Tensor,
        rows: &Tensor,
        weight_oi: &Tensor,
        bias_o: Option<&Tensor>,
    ) -> Result<(), ModelError> {
        let Some(bias_o) = bias_o else {
            return self.linear(out, rows, weight_oi);
        };
        if self == Self::FewRows {
            return portable::linear_few_rows(out, rows, weight_oi, Some(bias_o));
        }
        if self == Self::Portable {
            return portable::linear_with_bias(out, rows, weight_oi, bias_o);
        }
        let _ = bias_o.f_addmm_out(out, rows, &weight_oi.f_transpose(0, 1)?)?;
        Ok(())
    }

    /// `gradient += leftᵀ · right`, all rows in one product; `gradient` is `f32`.
    pub(super) fn add_matmul(self, gradient: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
        if self == Self::Portable {
            return portable::add_matmul(gradient, left, right);
        }
        let transposed = left.f_transpose(0, 1)?;
        if left.kind() == Kind::Float {
            let _ = gradient.shallow_clone().f_addmm_(&transposed, right)?;
            return Ok(());
        }
        if self == Self::Device && gradient.device().is_cuda() {
            // The product is added in `f32`.
            let _ = gradient.f_addmm_dtype_out(gradient, &transposed, right, Kind::Float)?;
            return Ok(());
        }
        self.add_partials(&[transposed.f_mm(right)?], gradient)
    }
}
