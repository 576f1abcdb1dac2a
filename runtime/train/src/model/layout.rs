//! Where each logical shard of each parameter stands in the flat buffers of weights, gradients and moments.
//!
//! A buffer is shard-major: every logical shard is one contiguous, 64-byte-aligned block of fixed shape and strides,
//! whoever holds it. The checkpoint's tensors are put together from these blocks, and taken apart into them.

use std::ops::Range;

use aurora_compiler::fields::{Activation, ModelFields};

use super::ModelError;
use crate::kernels::Gelu;
use crate::parallel::Grid;

/// Blocks start at multiples of so many elements (64 bytes of `f32`, 64 of bf16 pairs).
const ALIGNMENT: usize = 32;
/// Elements over which one sum of squares is taken, and one piece of optimizer work.
pub const CHUNK: usize = 65_536;

/// The numbers of a model on a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub head_size: usize,
    /// One key and value for all heads; otherwise each head has its own.
    pub multi_query: bool,
    pub feed_forward: usize,
    pub context: usize,
    pub vocabulary: usize,
    pub gelu: Gelu,
    pub epsilon: f32,
    /// Logical tensor shards.
    pub tensor: usize,
}

impl Shape {
    /// # Errors
    /// [`ModelError::Unfit`] if the model does not divide over the grid.
    pub fn new(model: &ModelFields, grid: &Grid) -> Result<Self, ModelError> {
        let [layers, hidden, heads, kv_heads] =
            [model.layers, model.hidden, model.heads, model.kv_heads].map(|n| n as usize);
        let [feed_forward, context, vocabulary] =
            [model.feed_forward, model.context, model.vocabulary].map(|n| n as usize);
        let tensor = grid.tensor;
        let unfit = |text: String| Err(ModelError::Unfit(text));
        if [layers, hidden, heads, feed_forward, context, vocabulary, tensor].contains(&0) {
            return unfit("a model of size zero".to_owned());
        }
        if !tensor.is_power_of_two() {
            return unfit(format!("{tensor} logical tensor shards are no power of two"));
        }
        if hidden % heads != 0 {
            return unfit(format!("hidden {hidden} does not divide by {heads} heads"));
        }
        if kv_heads != 1 && kv_heads != heads {
            return unfit(format!(
                "gpt_bigcode has 1 or {heads} key and value heads, not {kv_heads}"
            ));
        }
        for (name, count) in [
            ("heads", heads),
            ("feed_forward", feed_forward),
            ("vocabulary", vocabulary),
        ] {
            if count % tensor != 0 {
                return unfit(format!(
                    "{name} {count} does not divide by {tensor} logical tensor shards"
                ));
            }
        }
        Ok(Self {
            layers,
            hidden,
            heads,
            head_size: hidden / heads,
            multi_query: kv_heads == 1,
            feed_forward,
            context,
            vocabulary,
            gelu: match model.activation {
                Activation::Gelu => Gelu::Erf,
                Activation::GeluTanh => Gelu::Tanh,
            },
            epsilon: model.norm_epsilon.to_f64() as f32,
            tensor,
        })
    }
}

/// How a tensor is cut into logical shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each shard holds some rows (outputs): column-parallel layers and the vocabulary.
    Rows,
    /// Each shard holds some columns (inputs): row-parallel layers.
    Columns,
    /// There is one shard, and it is whole.
    Replicated,
}

/// A parameter, or the part of a checkpoint's tensor that is cut in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The checkpoint's tensor, and the first of its rows that belong here.
    pub tensor: String,
    pub first_row: usize,
    pub rows: usize,
    /// 0 for a vector.
    pub columns: usize,
    pub split: Split,
    /// Place of shard 0 in the flat buffer; shard `i` starts `i · stride` further on.
    pub offset: usize,
    pub stride: usize,
    pub shards: usize,
}

impl Part {
    /// Elements of one shard.
    pub fn shard_length(&self) -> usize {
        self.rows * self.columns.max(1) / self.shards
    }

    /// Shape of one shard.
    pub fn shard_shape(&self) -> Vec<i64> {
        let (rows, columns) = match self.split {
            Split::Rows => (self.rows / self.shards, self.columns),
            Split::Columns => (self.rows, self.columns / self.shards),
            Split::Replicated => (self.rows, self.columns),
        };
        if self.columns == 0 {
            vec![rows as i64]
        } else {
            vec![rows as i64, columns as i64]
        }
    }

    /// Where shard `index` stands in a flat buffer.
    pub fn shard(&self, index: usize) -> Range<usize> {
        let start = self.offset + index * self.stride;
        start..start + self.shard_length()
    }

    /// Weight decay is for matrices only.
    pub fn decays(&self) -> bool {
        self.columns > 0
    }

    /// Puts the part's full logical numbers, row by row, at the end of `out`.
    pub fn gather(&self, buffer: &[f32], out: &mut Vec<f32>) {
        match self.split {
            Split::Rows | Split::Replicated => {
                for shard in 0..self.shards {
                    out.extend_from_slice(&buffer[self.shard(shard)]);
                }
            }
            Split::Columns => {
                let width = self.columns / self.shards;
                for row in 0..self.rows {
                    for shard in 0..self.shards {
                        let start = self.shard(shard).start + row * width;
                        out.extend_from_slice(&buffer[start..start + width]);
                    }
                }
            }
        }
    }

    /// The way back: takes the part's full logical numbers apart.
    pub fn scatter(&self, numbers: &[f32], buffer: &mut [f32]) {
        match self.split {
            Split::Rows | Split::Replicated => {
                for (shard, numbers) in numbers.chunks_exact(self.shard_length()).enumerate() {
                    buffer[self.shard(shard)].copy_from_slice(numbers);
                }
            }
            Split::Columns => {
                let width = self.columns / self.shards;
                for (row, numbers) in numbers.chunks_exact(self.columns).enumerate() {
                    for (shard, numbers) in numbers.chunks_exact(width).enumerate() {
                        let start = self.shard(shard).start + row * width;
                        buffer[start..start + width].copy_from_slice(numbers);
                    }
                }
            }
        }
    }
}

/// The places of a layer's parts in [`Layout::parts`].
#[derive(Clone, Debug, PartialEq)]
pub struct LayerParts {
    pub norm1: [usize; 2],
    /// Weight and bias of the query projection; of query, key and value per head if there are several key heads.
    pub query: [usize; 2],
    /// The projection that all heads share; nothing if there are several key heads.
    pub key_value: Option<[usize; 2]>,
    pub out: [usize; 2],
    pub norm2: [usize; 2],
    pub up: [usize; 2],
    pub down: [usize; 2],
}

/// All parts of a model, their order (also the order of the gradient norm's sum) and places.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub shape: Shape,
    pub parts: Vec<Part>,
    pub word: usize,
    pub position: usize,
    pub layers: Vec<LayerParts>,
    pub final_norm: [usize; 2],
    /// Elements of a flat buffer of weights.
    pub length: usize,
    /// Where a gradient buffer's second accumulator of the word embedding starts; the buffer is that much longer.
    pub tied: usize,
    pub gradient_length: usize,
}

struct Builder {
    tensor: usize,
    parts: Vec<Part>,
    length: usize,
}

impl Builder {
    fn add(&mut self, name: &str, first_row: usize, rows: usize, columns: usize, split: Split) -> usize {
        let shards = if split == Split::Replicated { 1 } else { self.tensor };
        let stride = (rows * columns.max(1) / shards).next_multiple_of(ALIGNMENT);
        let tensor = name.to_owned();
        self.parts.push(Part {
            tensor,
            first_row,
            rows,
            columns,
            split,
            offset: self.length,
            stride,
            shards,
        });
        self.length += stride * shards;
        self.parts.len() - 1
    }

    fn linear(&mut self, name: &str, first_row: usize, rows: usize, columns: usize, split: Split) -> [usize; 2] {
        // The bias of a row-parallel layer is added once, after the sum: it is whole.
        let bias = if split == Split::Columns {
            Split::Replicated
        } else {
            split
        };
        [
            self.add(&format!("{name}.weight"), first_row, rows, columns, split),
            self.add(&format!("{name}.bias"), first_row, rows, 0, bias),
        ]
    }

    fn norm(&mut self, name: &str, hidden: usize) -> [usize; 2] {
        ["weight", "bias"].map(|part| self.add(&format!("{name}.{part}"), 0, hidden, 0, Split::Replicated))
    }
}

impl Layout {
    pub fn new(shape: Shape) -> Self {
        let mut to = Builder {
            tensor: shape.tensor,
            parts: Vec::new(),
            length: 0,
        };
        let (hidden, kv) = (shape.hidden, 2 * shape.head_size);
        let word = to.add("transformer.wte.weight", 0, shape.vocabulary, hidden, Split::Rows);
        let position = to.add("transformer.wpe.weight", 0, shape.context, hidden, Split::Replicated);
        let mut layers = Vec::new();
        for layer in 0..shape.layers {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            let attention = name("attn.c_attn");
            let norm1 = to.norm(&name("ln_1"), hidden);
            let (query, key_value) = if shape.multi_query {
                let query = to.linear(&attention, 0, hidden, hidden, Split::Rows);
                (
                    query,
                    Some(to.linear(&attention, hidden, kv, hidden, Split::Replicated)),
                )
            } else {
                (to.linear(&attention, 0, 3 * hidden, hidden, Split::Rows), None)
            };
            layers.push(LayerParts {
                norm1,
                query,
                key_value,
                out: to.linear(&name("attn.c_proj"), 0, hidden, hidden, Split::Columns),
                norm2: to.norm(&name("ln_2"), hidden),
                up: to.linear(&name("mlp.c_fc"), 0, shape.feed_forward, hidden, Split::Rows),
                down: to.linear(&name("mlp.c_proj"), 0, hidden, shape.feed_forward, Split::Columns),
            });
        }
        let final_norm = to.norm("transformer.ln_f", hidden);
        let length = to.length;
        let tied = length;
        let gradient_length = length + to.parts[word].stride * to.parts[word].shards;
        Self {
            shape,
            parts: to.parts,
            word,
            position,
            layers,
            final_norm,
            length,
            tied,
            gradient_length,
        }
    }

    /// The pieces of optimizer work and of the gradient norm: at most [`CHUNK`] elements of one shard each, in the
    /// order (part, shard, chunk).
    pub fn chunks(&self) -> Vec<(usize, Range<usize>)> {
        let mut chunks = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            for shard in 0..part.shards {
                let range = part.shard(shard);
                let starts = range.clone().step_by(CHUNK);
                chunks.extend(starts.map(|start| (index, start..range.end.min(start + CHUNK))));
            }
        }
        chunks
    }

    /// The parts that make up a tensor of a checkpoint, in the order of their rows.
    pub fn parts_of<'a>(&'a self, tensor: &'a str) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(move |part| part.tensor == tensor)
    }

    /// Puts a checkpoint's tensor together, at the end of `out`.
    pub fn gather(&self, tensor: &str, buffer: &[f32], out: &mut Vec<f32>) {
        for part in self.parts_of(tensor) {
            part.gather(buffer, out);
        }
    }

    /// Takes a checkpoint's tensor apart. `numbers` has the length of the tensor.
    pub fn scatter(&self, tensor: &str, numbers: &[f32], buffer: &mut [f32]) {
        let mut rest = numbers;
        for part in self.parts_of(tensor) {
            let (own, later) = rest.split_at(part.rows * part.columns.max(1));
            part.scatter(own, buffer);
            rest = later;
        }
    }
}
