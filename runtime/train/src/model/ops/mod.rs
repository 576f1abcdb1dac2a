//! Operations other than matrix products, in two implementations.
//!
//! `own` calls this crate's kernels for CPUs (fixed order of every sum), `gpu` those for devices; `aten` uses libtorch's
//! operations and runs anywhere: it is the reference of both. `matmul` contains the matrix products, `attention` the attention.
//!
//! # Memory
//! The kernels of `own` work on slices of the tensors ([`HostAccess`]). Every buffer has one owner while kernels run: a
//! thread's workspace, gradients and recorded activations belong to that thread, which makes one kernel call at a time.
//! Weights are shared by threads and written between steps only. So no other thread and no call of libtorch uses what a
//! kernel call writes.

mod aten;
mod gpu;
mod own;
#[cfg(test)]
mod tests;

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::host_access::HostAccess;
use super::views::Norm;
use crate::kernels::{AdamWCoefficients, Gelu, RotatedHeads, rotary_tables};

/// Which kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    Own,
    /// As `Own`, also for matrix products and attention: bitwise identical on every processor.
    Portable,
    /// As `Own`, with matrix products whose bits do not depend on the number of rows: for generation.
    FewRows,
    Aten,
    /// On a device, without host access: this crate's kernels for devices if they are loaded, else libtorch's operations.
    Device,
}

/// Mean and reciprocal standard deviation of each row, which a norm keeps for its backward pass. A root-mean-square
/// norm has no mean.
#[derive(Clone, Copy)]
pub(super) struct NormStats<'a> {
    pub mean_t: &'a Tensor,
    pub rstd_t: &'a Tensor,
}

/// Cosines and sines of rotary positions, each `[sequence, d/2]`.
#[derive(Debug)]
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// Tables of heads of `d` elements for up to `sequence` positions.
    ///
    /// # Errors
    /// [`ModelError`] if `d` is odd, or the device is out of memory.
    pub fn new(sequence: usize, d: usize, theta: f64, device: Device) -> Result<Self, ModelError> {
        if !d.is_multiple_of(2) {
            return Err(ModelError::Grid(format!(
                "rotary positions need an even head dimension, not {d}"
            )));
        }
        let (cos, sin) = rotary_tables(sequence, d, theta);
        let table = |values: &[f32]| -> Result<Tensor, ModelError> {
            let table = Tensor::f_from_slice(values)?.f_view([sequence as i64, (d / 2) as i64])?;
            Ok(table.f_to_device(device)?)
        };
        Ok(Self {
            cos: table(&cos)?,
            sin: table(&sin)?,
        })
    }

    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        [&self.cos, &self.sin].map(crate::model::workspace::bytes).iter().sum()
    }

    /// Tables with one row for each of `positions`.
    ///
    /// # Errors
    /// [`ModelError`] if a position is beyond the tables.
    pub fn at(&self, positions: &Tensor) -> Result<Self, ModelError> {
        Ok(Self {
            cos: self.cos.f_index_select(0, positions)?,
            sin: self.sin.f_index_select(0, positions)?,
        })
    }

    /// The part of rows of `width` elements that is rotated: `heads` heads starting at column `first`.
    fn rotated(&self, width: usize, first: usize, heads: usize) -> RotatedHeads {
        let d = 2 * self.cos.size()[1] as usize;
        RotatedHeads { width, first, heads, d }
    }
}

/// Calls a generic function for the element type of `kind`.
macro_rules! by_kind {
    ($kind:expr, $element:ident => $body:expr) => {
        match $kind {
            tch::Kind::Float => {
                type $element = f32;
                $body
            }
            tch::Kind::BFloat16 => {
                type $element = half::bf16;
                $body
            }
            found => Err($crate::model::ModelError::Kind {
                found,
                expected: tch::Kind::Float,
            }),
        }
    };
}
pub(crate) use by_kind;

macro_rules! operations {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?);)*) => {
        impl Kernels {
            $($(#[$meta])*
            #[allow(clippy::too_many_arguments)]
            $vis fn $name(self, $($arg: $ty),*) -> Result<(), ModelError> {
                match self {
                    Self::Own | Self::Portable | Self::FewRows => {
                        // SAFETY: see "Memory" in this module's documentation.
                        let host = unsafe { HostAccess::new() };
                        own::$name(&host, $($arg),*)
                    }
                    Self::Aten => aten::$name($($arg),*),
                    Self::Device => match crate::gpu::current() {
                        Some(gpu) => gpu::$name(gpu, $($arg),*),
                        None => aten::$name($($arg),*),
                    },
                }
            })*
        }
    };
}

operations! {
    /// `out[t, h] = word[id] (+ position[row mod sequence])` for the rows whose id is in these shards of the vocabulary, the
    /// first of which starts at id `first`; other rows are undefined.
    pub(super) fn embed(
        ids_t: &Tensor, sequence: usize, first: i64, word_vh: &[Tensor], position_sh: Option<&Tensor>, out_th: &Tensor,
    );

    /// Adds the gradients of the input embeddings to `dword_vh` and `dposition_sh`.
    pub(super) fn embed_backward(
        ids_t: &Tensor, sequence: usize, first: i64, dx_th: &Tensor, dword_vh: &[Tensor], dposition_sh: Option<&Tensor>,
    );

    /// Normalizes `x_th` (`f32`) into `out_th` and writes `stats`.
    pub(super) fn norm_forward(x_th: &Tensor, norm: &Norm, epsilon: f32, out_th: &Tensor, stats: NormStats<'_>);

    /// Computes the same output again from `stats`.
    pub(super) fn norm_apply(x_th: &Tensor, norm: &Norm, out_th: &Tensor, stats: NormStats<'_>);

    /// Adds the input's gradient to `dx_th`, and the gradients of weight and bias by row blocks to `gradient`.
    pub(super) fn norm_backward(
        dy_th: &Tensor, x_th: &Tensor, norm: &Norm, stats: NormStats<'_>, blocks: &[Range<usize>], dx_th: &Tensor,
        gradient: &Norm,
    );

    /// `z += bias` in place; `out = gelu(z)`.
    pub(super) fn gelu_forward(gelu: Gelu, z_tf: &Tensor, bias_f: &Tensor, out_tf: &Tensor);

    /// `gradient *= gelu'(z)` in place; `out = gelu(z)`.
    pub(super) fn gelu_backward(gelu: Gelu, z_tf: &Tensor, gradient_tf: &Tensor, out_tf: &Tensor);

    /// `out = silu(gate) · up`, where each row of `z` holds the gates, then the ups.
    pub(super) fn swiglu_forward(z_tu: &Tensor, out_tf: &Tensor);

    /// Writes the gradient of `z` to `dz`, given the gradient of the output; `out` = the output.
    pub(super) fn swiglu_backward(z_tu: &Tensor, gradient_tf: &Tensor, dz_tu: &Tensor, out_tf: &Tensor);

    /// Rotates `heads` heads starting at column `first` of `rows` by the angles of their positions (row mod `sequence`), in
    /// place; `inverse` rotates back.
    pub(super) fn rotate(rows: &Tensor, rotary: &Rotary, sequence: usize, first: usize, heads: usize, inverse: bool);

    /// `out = residual + (tree sum of the partials (+ bias))`.
    pub(super) fn add_residual(partials_th: &[Tensor], bias_h: Option<&Tensor>, residual_th: &Tensor, out_th: &Tensor);

    /// `out = tree sum of the partials (+ extra)`, in `f32`.
    pub(crate) fn sum_partials(partials: &[Tensor], extra: Option<&Tensor>, out: &Tensor);

    /// Adds to each gradient the sum of the rows of its block.
    pub(super) fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]);

    /// `gradient +=` tree sum of the partials.
    pub(super) fn add_partials(partials: &[Tensor], gradient: &Tensor);

    /// `to += from`, both `f32`.
    pub(crate) fn accumulate(to: &Tensor, from: &Tensor);

    /// `first = tree sum of first and others`, all `f32`.
    pub(crate) fn add_tree(first: &Tensor, others: &[Tensor]);

    /// `out[t, 0..d]` and `out[t, d..2d]` = the sums over heads of `dk` and `dv`.
    pub(super) fn fold_heads(dk_ta: &Tensor, dv_ta: &Tensor, heads: usize, out_te: &Tensor);

    /// Rounds `from` (`f32`) to the element type of `to`; does nothing if both are the same tensor.
    pub(super) fn cast(from: &Tensor, to: &Tensor);

    /// The largest logit of each row over all shards.
    pub(super) fn row_maxima(logits_rv: &[Tensor], maxima_r: &Tensor);

    /// `out[0]`: for each row the tree sum over shards of Σ exp(logit − maximum); with `keep` these exponentials replace
    /// the logits, except on a device. `out[1]`: the target's logit, or −∞ if the target is not in these shards, which start at id `first`.
    pub(super) fn row_sums(logits_rv: &[Tensor], targets_r: &Tensor, first: i64, maxima_r: &Tensor, out_2r: &Tensor, keep: bool);

    /// Writes −ln p of each row's target to `losses_r` (`f64`), 0 for a target below zero, given the maxima and the result
    /// of `row_sums`; with `gradient` the gradient of the sum of losses replaces the exponentials.
    pub(super) fn finish_loss(
        logits_rv: &[Tensor], targets_r: &Tensor, first: i64, maxima_r: &Tensor, sums_2r: &Tensor, losses_r: &Tensor,
        gradient: bool,
    );
}

/// Where the heads of a kind are in a row: the first column, and the columns from one head to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadColumns {
    pub first: i64,
    pub step: i64,
}

/// A chunk of the optimizer's update.
#[derive(Clone, Debug)]
pub struct UpdateChunk {
    /// In a buffer of weights.
    pub range: Range<usize>,
    pub master: Range<usize>,
    pub moments: Range<usize>,
    pub decays: bool,
}

impl UpdateChunk {
    /// The chunks as kernels of a device read them: `[chunks, 5]`.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if memory runs out.
    pub(crate) fn table(chunks: &[Self], device: Device) -> Result<Tensor, ModelError> {
        let numbers = |chunk: &Self| {
            [
                chunk.range.start as i64,
                chunk.master.start as i64,
                chunk.moments.start as i64,
                chunk.range.len() as i64,
                i64::from(chunk.decays),
            ]
        };
        let numbers: Vec<i64> = chunks.iter().flat_map(numbers).collect();
        super::to_device(&numbers, device)
    }
}

/// The buffers of an update: weights in `f32`, gradients, both moments, and the weights that the model computes with.
pub(crate) type UpdateBuffers<'a> = [&'a Tensor; 5];

impl Kernels {
    /// One AdamW update of some chunks, with the decay of `coefficients` for those that decay. The rounded weights are
    /// written unless they are the master weights themselves. `table` is that of the chunks, for devices.
    pub(crate) fn adamw_chunks(
        self,
        coefficients: AdamWCoefficients,
        chunks: &[UpdateChunk],
        table: Option<&Tensor>,
        buffers: UpdateBuffers<'_>,
    ) -> Result<(), ModelError> {
        if let (Self::Device, Some(gpu), Some(table)) = (self, crate::gpu::current(), table) {
            return gpu::adamw_chunks(gpu, coefficients, chunks, table, buffers);
        }
        let [theta, g, m, v, compute] = buffers;
        let cut = |tensor: &Tensor, range: &Range<usize>| tensor.f_narrow(0, range.start as i64, range.len() as i64);
        for chunk in chunks {
            let decay = if chunk.decays { coefficients.decay } else { 1.0 };
            let coefficients = AdamWCoefficients { decay, ..coefficients };
            let (theta, g) = (cut(theta, &chunk.master)?, cut(g, &chunk.range)?);
            let (m, v) = (cut(m, &chunk.moments)?, cut(v, &chunk.moments)?);
            let compute = cut(compute, &chunk.range)?;
            if matches!(self, Self::Aten | Self::Device) {
                aten::adamw(coefficients, &theta, &g, &m, &v, &compute)?;
                continue;
            }
            // SAFETY: see "Memory" in this module's documentation.
            let host = unsafe { HostAccess::new() };
            own::adamw(&host, coefficients, &theta, &g, &m, &v, &compute)?;
        }
        Ok(())
    }

    /// `row_maxima`, `row_sums` and `finish_loss` at once for a vocabulary that is not divided; false where no kernel can.
    pub(super) fn whole_loss(
        self,
        logits_rv: &[Tensor],
        targets_r: &Tensor,
        losses_r: &Tensor,
        gradient: bool,
    ) -> Result<bool, ModelError> {
        let (Self::Device, Some(gpu), [logits_rv]) = (self, crate::gpu::current(), logits_rv) else {
            return Ok(false);
        };
        gpu::whole_loss(gpu, logits_rv, targets_r, losses_r, gradient)?;
        Ok(true)
    }

    /// Writes the gradients of heads, each `[rows, heads, d]` and dense, to their columns in the rows of `to`; queries and
    /// keys are rotated back by the angles of their positions (row mod `sequence`). False where no kernel can.
    pub(super) fn pack_heads(
        self,
        heads: [&Tensor; 3],
        rotary: Option<&Rotary>,
        sequence: usize,
        columns: [HeadColumns; 3],
        to: &Tensor,
    ) -> Result<bool, ModelError> {
        let dense = heads.iter().all(|heads| heads.is_contiguous()) && to.is_contiguous();
        let (Self::Device, Some(gpu), true) = (self, crate::gpu::current(), dense) else {
            return Ok(false);
        };
        gpu::pack_heads(gpu, heads, rotary, sequence, columns, to)?;
        Ok(true)
    }

    /// The sum of the squares of each range of a buffer on a device, in `f64`; `table` has starts and lengths, `[2, n]`.
    pub(crate) fn sum_squares(
        self,
        buffer: &Tensor,
        ranges: &[Range<usize>],
        table: &Tensor,
    ) -> Result<Tensor, ModelError> {
        if let (Self::Device, Some(gpu)) = (self, crate::gpu::current()) {
            return gpu::sum_squares(gpu, buffer, [&table.f_select(0, 0)?, &table.f_select(0, 1)?]);
        }
        let of = |range: &Range<usize>| -> Result<Tensor, ModelError> {
            let chunk = buffer.f_narrow(0, range.start as i64, range.len() as i64)?;
            Ok(chunk.f_to_kind(Kind::Double)?.f_square()?.f_sum(Kind::Double)?)
        };
        let sums = ranges.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        if sums.is_empty() {
            return Ok(Tensor::f_empty([0], (Kind::Double, buffer.device()))?);
        }
        Ok(Tensor::f_stack(&sums, 0)?)
    }
}
