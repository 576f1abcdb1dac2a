//! A flat buffer seen as the pieces of every parameter that a rank holds.

use std::ops::Range;

use tch::Tensor;

use super::layout::{Fused, LinearParts, NormParts};
use super::{Layout, ModelError};

/// The pieces of a linear layer that stand here: logical shards, or the row blocks of a replicated layer's gradient.
#[derive(Debug)]
pub struct Linear {
    pub weight: Vec<Tensor>,
    /// One a piece; a row-parallel layer's is whole. None if the family has no biases.
    pub bias: Vec<Tensor>,
}

/// Weight and bias of a norm; of its gradient, by row blocks. Without a bias it is a root-mean-square norm.
#[derive(Debug)]
pub struct Norm {
    pub weight: Vec<Tensor>,
    pub bias: Vec<Tensor>,
}

#[derive(Debug)]
pub struct Layer {
    pub norm1: Norm,
    pub query: Linear,
    pub key_value: Option<Linear>,
    pub out: Linear,
    pub norm2: Norm,
    pub up: Linear,
    pub down: Linear,
}

/// The weights that stand here (in the numbers that the model computes with), or one lane's gradients of them.
#[derive(Debug)]
pub struct Weights {
    /// Shards of the vocabulary; none beyond the first stage.
    pub word: Vec<Tensor>,
    pub position: Option<Tensor>,
    /// The layers held here.
    pub layers: Vec<Layer>,
    /// Nothing before the last stage.
    pub final_norm: Option<Norm>,
    /// Shards of the output layer; none before the last stage. A tied layer's gradient has an accumulator of its own.
    pub output: Vec<Tensor>,
}

/// What a buffer holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Weights,
    Gradients,
}

fn pieces(layout: &Layout, buffer: &Tensor, fused: &Fused, of: Of) -> Result<Vec<Tensor>, ModelError> {
    let part = &layout.parts[fused.first];
    let place = match of {
        Of::Weights => &part.weights,
        Of::Gradients => &part.gradients,
    };
    let length = fused.rows * fused.columns.max(1);
    let view = |index: usize| piece(buffer, &place.piece(index, length), fused);
    place.held.clone().map(view).collect()
}

fn piece(buffer: &Tensor, range: &Range<usize>, fused: &Fused) -> Result<Tensor, ModelError> {
    let flat = buffer.f_narrow(0, range.start as i64, range.len() as i64)?;
    Ok(if fused.columns == 0 {
        flat
    } else {
        flat.f_view([fused.rows as i64, fused.columns as i64])?
    })
}

impl Weights {
    /// Views into `buffer`, which has at least the length of the layout.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the buffer is too short.
    pub fn new(layout: &Layout, buffer: &Tensor) -> Result<Self, ModelError> {
        Self::of(layout, buffer, Of::Weights)
    }

    fn of(layout: &Layout, buffer: &Tensor, of: Of) -> Result<Self, ModelError> {
        let get = |fused: &Fused| pieces(layout, buffer, fused, of);
        let some = |fused: &Option<Fused>| fused.as_ref().map_or(Ok(Vec::new()), get);
        let linear = |parts: &LinearParts| -> Result<Linear, ModelError> {
            Ok(Linear {
                weight: get(&parts.weight)?,
                bias: some(&parts.bias)?,
            })
        };
        let norm = |parts: &NormParts| -> Result<Norm, ModelError> {
            Ok(Norm {
                weight: get(&parts.weight)?,
                bias: some(&parts.bias)?,
            })
        };
        let layers = layout.holding.layers.clone().map(|layer| {
            let layer = &layout.layers[layer];
            Ok(Layer {
                norm1: norm(&layer.norm1)?,
                query: linear(&layer.query)?,
                key_value: layer.key_value.as_ref().map(linear).transpose()?,
                out: linear(&layer.out)?,
                norm2: norm(&layer.norm2)?,
                up: linear(&layer.up)?,
                down: linear(&layer.down)?,
            })
        });
        let (first, last) = (layout.holding.first, layout.holding.last);
        let output = match (&layout.output, of) {
            (Some(own), _) => get(own)?,
            (None, _) if !last => Vec::new(),
            (None, Of::Weights) => get(&layout.word)?,
            (None, Of::Gradients) => {
                let (part, word) = (&layout.parts[layout.word.first], &layout.word);
                let length = word.rows * word.columns;
                let second = |index: usize| {
                    let range = part.weights.piece(index, length);
                    piece(
                        buffer,
                        &(layout.tied.start + range.start..layout.tied.start + range.end),
                        word,
                    )
                };
                part.weights.held.clone().map(second).collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            word: if first { get(&layout.word)? } else { Vec::new() },
            position: some(&layout.position)?.pop(),
            layers: layers.collect::<Result<_, ModelError>>()?,
            final_norm: last.then(|| norm(&layout.final_norm)).transpose()?,
            output,
        })
    }
}

/// One lane's gradients, in `f32`: sums over tokens, not yet divided by their number.
#[derive(Debug)]
pub struct Gradients {
    pub buffer: Tensor,
    pub of: Weights,
}

impl Gradients {
    /// # Errors
    /// [`ModelError::Torch`] if memory runs out.
    pub fn new(layout: &Layout, device: tch::Device) -> Result<Self, ModelError> {
        let buffer = Tensor::f_zeros([layout.gradient_length() as i64], (tch::Kind::Float, device))?;
        Ok(Self {
            of: Weights::of(layout, &buffer, Of::Gradients)?,
            buffer,
        })
    }

    pub fn zero(&mut self) -> Result<(), ModelError> {
        let _ = self.buffer.f_zero_()?;
        Ok(())
    }
}
