//! The operations that are no matrix products: one list, two implementations.
//!
//! `own` calls the kernels of this crate (CPU, fixed order of every sum); `aten` is made of libtorch's operations and
//! runs on any device. Matrix products are called in `product`, attention in `attention`.

mod aten;
mod own;
#[cfg(test)]
mod tests;

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::views::Norm;
use crate::kernels::{Element, Gelu, Turned, rotary_tables};

/// Which implementation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    Own,
    /// As `Own`, with matrix products and attention of this crate as well: the same bits on every processor.
    Portable,
    /// As `Own`, with products of a few rows, whose bits don't depend on their number: for the steps of a generation.
    Few,
    Aten,
}

/// What a layer norm keeps of its forward, and the width of a row.
#[derive(Clone, Copy)]
pub(super) struct Stats<'a> {
    pub mean: &'a Tensor,
    pub rstd: &'a Tensor,
}

/// The tables of rotary positions, each `[sequence, d/2]`.
#[derive(Debug)]
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// The tables of heads of `d` elements for up to `sequence` positions.
    ///
    /// # Errors
    /// [`ModelError`] if `d` is odd, or the device is out of memory.
    pub fn new(sequence: usize, d: usize, theta: f64, device: Device) -> Result<Self, ModelError> {
        if !d.is_multiple_of(2) {
            return Err(ModelError::Unfit(format!(
                "rotary positions need heads of an even size, not {d}"
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

    /// The tables of a row each, which stand at these positions.
    ///
    /// # Errors
    /// [`ModelError`] if a position is beyond the tables.
    pub fn at(&self, positions: &Tensor) -> Result<Self, ModelError> {
        Ok(Self {
            cos: self.cos.f_index_select(0, positions)?,
            sin: self.sin.f_index_select(0, positions)?,
        })
    }

    /// What of rows of `width` elements these tables turn: `heads` heads from column `first` on.
    fn turned(&self, width: usize, first: usize, heads: usize) -> Turned {
        let d = 2 * self.cos.size()[1] as usize;
        Turned { width, first, heads, d }
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
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident : $ty:ty),* $(,)?);)*) => {
        impl Kernels {
            $($(#[$meta])*
            #[allow(clippy::too_many_arguments)]
            pub(super) fn $name(self, $($arg: $ty),*) -> Result<(), ModelError> {
                match self {
                    Self::Own | Self::Portable | Self::Few => own::$name($($arg),*),
                    Self::Aten => aten::$name($($arg),*),
                }
            })*
        }
    };
}

operations! {
    /// `out[t, h] = word[id] (+ position[place])` for the rows whose id lies in these shards of the vocabulary, the first of
    /// which begins with `first`; other rows may hold anything.
    fn embed(
        ids: &Tensor, sequence: usize, first: i64, word: &[Tensor], position: Option<&Tensor>, out: &Tensor,
    );

    /// Adds the gradients of the embeddings' input side.
    fn embed_backward(
        ids: &Tensor, sequence: usize, first: i64, dx: &Tensor, word: &[Tensor], position: Option<&Tensor>,
    );

    /// Norm of `x` (`f32`) into `out`; fills `stats`.
    fn norm_forward(x: &Tensor, norm: &Norm, epsilon: f32, out: &Tensor, stats: Stats<'_>);

    /// The same output once more, from `stats`.
    fn norm_apply(x: &Tensor, norm: &Norm, out: &Tensor, stats: Stats<'_>);

    /// Adds the input's gradient to `dx`, and those of weight and bias by row blocks.
    fn norm_backward(
        dy: &Tensor, x: &Tensor, norm: &Norm, stats: Stats<'_>, blocks: &[Range<usize>], dx: &Tensor, gradient: &Norm,
    );

    /// `z += bias` in place; `out = gelu(z)`.
    fn gelu_forward(gelu: Gelu, z: &Tensor, bias: &Tensor, out: &Tensor);

    /// `gradient *= gelu'(z)` in place; `out = gelu(z)`.
    fn gelu_backward(gelu: Gelu, z: &Tensor, gradient: &Tensor, out: &Tensor);

    /// `out[t, f] = silu(gate) · up`, for `z` = `[t, 2f]`, gates first.
    fn swiglu_forward(z: &Tensor, out: &Tensor);

    /// `dz` = the gradient by `z` for `gradient` by the output; `out` = the output.
    fn swiglu_backward(z: &Tensor, gradient: &Tensor, dz: &Tensor, out: &Tensor);

    /// Turns `heads` heads from column `first` of `rows` on by the angles of their positions (row mod `sequence`), in
    /// place; `inverse` turns back.
    fn rotate(rows: &Tensor, rotary: &Rotary, sequence: usize, first: usize, heads: usize, inverse: bool);

    /// `out = residual + (tree sum of parts (+ bias))`.
    fn add_residual(parts: &[Tensor], bias: Option<&Tensor>, residual: &Tensor, out: &Tensor);

    /// `out = tree sum of parts (+ extra)`, in `f32`.
    fn sum_partials(parts: &[Tensor], extra: Option<&Tensor>, out: &Tensor);

    /// Adds to each gradient the sum of its block's rows.
    fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]);

    /// `gradient += ` tree sum of parts.
    fn add_partials(parts: &[Tensor], gradient: &Tensor);

    /// `out[t, 0..d]` and `out[t, d..2d]` = the sums over heads of `dk` and `dv` (`[t, n·d]`).
    fn fold_heads(dk: &Tensor, dv: &Tensor, heads: usize, out: &Tensor);

    /// Rounds `from` (`f32`) to the numbers of `to`; nothing if both are the same.
    fn cast(from: &Tensor, to: &Tensor);

    /// The largest logit of each row over all shards.
    fn row_maxima(logits: &[Tensor], maxima: &Tensor);

    /// `out[0]`: for each row the tree sum over shards of Σ exp(logit − maximum); with `keep` the logits turn into these
    /// exponentials. `out[1]`: the target's logit, or −∞ where the target is not in these shards, which begin at `first`.
    fn row_sums(logits: &[Tensor], targets: &Tensor, first: i64, maxima: &Tensor, out: &Tensor, keep: bool);

    /// −ln p of each row's target into `losses`, from the maxima and from sums and targets' logits (`both`); with `gradient`
    /// the exponentials turn into the gradient of the losses' sum.
    fn finish_loss(
        logits: &[Tensor], targets: &Tensor, first: i64, maxima: &Tensor, both: &Tensor, losses: &mut [f64], gradient: bool,
    );
}

/// The number type of a tensor, checked against what kernels know.
fn kind_of(tensor: &Tensor) -> Kind {
    tensor.kind()
}

/// Numbers of the tensor's element type, as a slice.
fn slices<E: Element>(tensors: &[Tensor]) -> Result<Vec<&[E]>, ModelError> {
    tensors.iter().map(super::access::elements::<E>).collect()
}
