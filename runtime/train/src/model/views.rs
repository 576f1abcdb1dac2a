//! A flat buffer seen as the shards of every parameter.

use tch::Tensor;

use super::{Layout, ModelError, Part};

/// Weight and bias of each logical shard of a linear layer; one bias if the layer is row-parallel.
#[derive(Debug)]
pub struct Linear {
    pub weight: Vec<Tensor>,
    pub bias: Vec<Tensor>,
}

#[derive(Debug)]
pub struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
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

/// The weights (in the numbers that the model computes with), or one lane's gradients without the second accumulator.
#[derive(Debug)]
pub struct Weights {
    pub word: Vec<Tensor>,
    pub position: Tensor,
    pub layers: Vec<Layer>,
    pub final_norm: Norm,
}

fn block(buffer: &Tensor, offset: usize, part: &Part) -> Result<Tensor, ModelError> {
    let flat = buffer.f_narrow(0, offset as i64, part.shard_length() as i64)?;
    Ok(flat.f_view(part.shard_shape().as_slice())?)
}

fn shards(buffer: &Tensor, part: &Part) -> Result<Vec<Tensor>, ModelError> {
    (0..part.shards)
        .map(|i| block(buffer, part.shard(i).start, part))
        .collect()
}

impl Weights {
    /// Views into `buffer`, which has at least the length of the layout.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the buffer is too short.
    pub fn new(layout: &Layout, buffer: &Tensor) -> Result<Self, ModelError> {
        let linear = |[weight, bias]: [usize; 2]| -> Result<Linear, ModelError> {
            Ok(Linear {
                weight: shards(buffer, &layout.parts[weight])?,
                bias: shards(buffer, &layout.parts[bias])?,
            })
        };
        let whole = |index: usize| block(buffer, layout.parts[index].offset, &layout.parts[index]);
        let norm = |[weight, bias]: [usize; 2]| -> Result<Norm, ModelError> {
            Ok(Norm {
                weight: whole(weight)?,
                bias: whole(bias)?,
            })
        };
        let layers = layout.layers.iter().map(|layer| {
            Ok(Layer {
                norm1: norm(layer.norm1)?,
                query: linear(layer.query)?,
                key_value: layer.key_value.map(linear).transpose()?,
                out: linear(layer.out)?,
                norm2: norm(layer.norm2)?,
                up: linear(layer.up)?,
                down: linear(layer.down)?,
            })
        });
        Ok(Self {
            word: shards(buffer, &layout.parts[layout.word])?,
            position: whole(layout.position)?,
            layers: layers.collect::<Result<_, ModelError>>()?,
            final_norm: norm(layout.final_norm)?,
        })
    }
}

/// One lane's gradients, in `f32`: sums over tokens, not yet divided by their number.
#[derive(Debug)]
pub struct Gradients {
    pub buffer: Tensor,
    /// The word embedding's part here is what comes from the input side.
    pub of: Weights,
    /// The word embedding's gradient from the output side.
    pub word_out: Vec<Tensor>,
}

impl Gradients {
    /// # Errors
    /// [`ModelError::Torch`] if memory runs out.
    pub fn new(layout: &Layout, device: tch::Device) -> Result<Self, ModelError> {
        let buffer = Tensor::f_zeros([layout.gradient_length as i64], (tch::Kind::Float, device))?;
        let word = &layout.parts[layout.word];
        let second = |i: usize| block(&buffer, layout.tied + i * word.stride, word);
        let word_out = (0..word.shards).map(second).collect::<Result<_, _>>()?;
        Ok(Self {
            of: Weights::new(layout, &buffer)?,
            word_out,
            buffer,
        })
    }

    pub fn zero(&mut self) -> Result<(), ModelError> {
        let _ = self.buffer.f_zero_()?;
        Ok(())
    }
}
