//! Views of a flat buffer as the parameters that a rank holds. Shape letters: see `model`; `o` and `i` are a layer's
//! outputs and inputs.

use std::ops::Range;

use tch::Tensor;

use super::parameter_map::{Fused, LinearParts, NormParts};
use super::{ModelError, ParameterMap};

/// The parts of a linear layer on this rank: logical shards, or the row blocks of a replicated layer's gradient.
#[derive(Debug)]
pub struct Linear {
    pub weight_oi: Vec<Tensor>,
    /// One per shard or block; a row-parallel layer has one. Empty if the architecture has no biases.
    pub bias_o: Vec<Tensor>,
}

/// Weight and bias of a norm, or their gradients by row blocks. A norm without a bias is a root-mean-square norm.
#[derive(Debug)]
pub struct Norm {
    pub weight_h: Vec<Tensor>,
    pub bias_h: Vec<Tensor>,
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

/// The weights on this rank (in the model's element type), or one lane's gradients of them.
#[derive(Debug)]
pub struct Weights {
    /// Shards of the word embedding; empty except on the first pipeline rank.
    pub word_vh: Vec<Tensor>,
    pub position_sh: Option<Tensor>,
    /// The layers on this rank.
    pub layers: Vec<Layer>,
    /// On the last pipeline rank only.
    pub final_norm: Option<Norm>,
    /// Shards of the output layer; empty except on the last pipeline rank. The gradient of a tied layer has its own
    /// accumulator.
    pub output_vh: Vec<Tensor>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Weights,
    Gradients,
}

fn views(
    parameters: &ParameterMap,
    buffer: &Tensor,
    fused: &Fused,
    content: Content,
) -> Result<Vec<Tensor>, ModelError> {
    let part = &parameters.parts[fused.first];
    let offsets = match content {
        Content::Weights => &part.weights,
        Content::Gradients => &part.gradients,
    };
    let length = fused.rows * fused.columns.max(1);
    let view = |index: usize| self::view(buffer, &offsets.range(index, length), fused);
    offsets.held.clone().map(view).collect()
}

fn view(buffer: &Tensor, range: &Range<usize>, fused: &Fused) -> Result<Tensor, ModelError> {
    let flat = buffer.f_narrow(0, range.start as i64, range.len() as i64)?;
    Ok(if fused.columns == 0 {
        flat
    } else {
        flat.f_view([fused.rows as i64, fused.columns as i64])?
    })
}

impl Weights {
    /// Views of `buffer`, which is at least as long as the parameter map.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the buffer is too short.
    pub fn new(parameters: &ParameterMap, buffer: &Tensor) -> Result<Self, ModelError> {
        Self::with_content(parameters, buffer, Content::Weights)
    }

    fn with_content(parameters: &ParameterMap, buffer: &Tensor, content: Content) -> Result<Self, ModelError> {
        let get = |fused: &Fused| views(parameters, buffer, fused, content);
        let some = |fused: &Option<Fused>| fused.as_ref().map_or(Ok(Vec::new()), get);
        let linear = |parts: &LinearParts| -> Result<Linear, ModelError> {
            Ok(Linear {
                weight_oi: get(&parts.weight)?,
                bias_o: some(&parts.bias)?,
            })
        };
        let norm = |parts: &NormParts| -> Result<Norm, ModelError> {
            Ok(Norm {
                weight_h: get(&parts.weight)?,
                bias_h: some(&parts.bias)?,
            })
        };
        let layers = parameters.holding.layers.clone().map(|layer| {
            let layer = &parameters.layers[layer];
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
        let (first, last) = (parameters.holding.first, parameters.holding.last);
        let output_vh = match (&parameters.output, content) {
            (Some(own), _) => get(own)?,
            (None, _) if !last => Vec::new(),
            (None, Content::Weights) => get(&parameters.word)?,
            (None, Content::Gradients) => {
                let (part, word) = (&parameters.parts[parameters.word.first], &parameters.word);
                let length = word.rows * word.columns;
                let accumulator = |index: usize| {
                    let range = part.weights.range(index, length);
                    view(
                        buffer,
                        &(parameters.tied.start + range.start..parameters.tied.start + range.end),
                        word,
                    )
                };
                part.weights.held.clone().map(accumulator).collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            word_vh: if first { get(&parameters.word)? } else { Vec::new() },
            position_sh: some(&parameters.position)?.pop(),
            layers: layers.collect::<Result<_, ModelError>>()?,
            final_norm: last.then(|| norm(&parameters.final_norm)).transpose()?,
            output_vh,
        })
    }
}

/// One lane's gradients in `f32`: sums over tokens, not yet divided by their number.
#[derive(Debug)]
pub struct Gradients {
    pub buffer: Tensor,
    pub views: Weights,
}

impl Gradients {
    /// # Errors
    /// [`ModelError::Torch`] if memory runs out.
    pub fn new(parameters: &ParameterMap, device: tch::Device) -> Result<Self, ModelError> {
        let buffer = Tensor::f_zeros([parameters.gradient_length() as i64], (tch::Kind::Float, device))?;
        Ok(Self {
            views: Weights::with_content(parameters, &buffer, Content::Gradients)?,
            buffer,
        })
    }

    pub fn zero(&mut self) -> Result<(), ModelError> {
        let _ = self.buffer.f_zero_()?;
        Ok(())
    }
}
