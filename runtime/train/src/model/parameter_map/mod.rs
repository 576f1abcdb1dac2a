//! Where each logical shard of each parameter is in a rank's flat buffers of weights, gradients and moments.
//!
//! Every logical shard is one contiguous block whose shape and strides do not depend on the rank. The list of parts
//! covers the complete model on every rank; parts that a rank does not hold have no elements in its buffers.

mod chunks;
mod part;
mod shape;

use std::ops::Range;

use aurora_compiler::fields::Architecture;

pub use chunks::{Chunk, OwnedRange, reported};
pub use part::{ParameterPart, ShardOffsets, Sharding};
pub use shape::{FeedForwardActivation, HeadArrangement, Holding, ModelShape};

/// Blocks start at multiples of this number of elements (128 bytes of `f32`, 64 of bf16).
const ALIGNMENT: usize = 32;

/// Parts whose shards are adjacent and used as one matrix or vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// Index of the first in [`ParameterMap::parts`].
    pub first: usize,
    /// Rows of one shard, all parts together.
    pub rows: usize,
    /// 0 for a vector.
    pub columns: usize,
}

/// A linear layer's weight and, if it has one, bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearParts {
    pub weight: Fused,
    pub bias: Option<Fused>,
}

/// A norm's weight and, if it has one, bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormParts {
    pub weight: Fused,
    pub bias: Option<Fused>,
}

/// The parts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerParts {
    pub norm1: NormParts,
    /// Queries; with keys and values if a shard has its own.
    pub query: LinearParts,
    /// Keys and values that several shards share.
    pub key_value: Option<LinearParts>,
    pub out: LinearParts,
    pub norm2: NormParts,
    pub up: LinearParts,
    pub down: LinearParts,
}

/// All parts of a model in the order in which the gradient norm is summed, and their offsets on one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterMap {
    pub shape: ModelShape,
    pub holding: Holding,
    pub parts: Vec<ParameterPart>,
    pub word: Fused,
    /// Learned positions.
    pub position: Option<Fused>,
    pub layers: Vec<LayerParts>,
    pub final_norm: NormParts,
    /// The output layer's own weights, if it is not tied to the word embedding.
    pub output: Option<Fused>,
    /// Elements of a buffer of weights. The word embedding, which two pipeline ranks may hold, comes first.
    pub length: usize,
    /// End of the word embedding.
    pub word_end: usize,
    /// Row blocks of replicated parts' gradients, after the weights' ranges in a buffer of gradients.
    pub blocks: Range<usize>,
    /// The tied output layer's own accumulator of the word embedding's gradient, after the row blocks.
    pub tied: Range<usize>,
}

/// A tensor of the checkpoint, its first row in this part, and the number of rows.
type TensorRows = (String, usize, usize);

struct Builder {
    shape: ModelShape,
    holding: Holding,
    parts: Vec<ParameterPart>,
    length: usize,
    /// Elements of row blocks so far, and the indices of their parts; the blocks are moved after the weights at the
    /// end.
    blocks: usize,
    blocked: Vec<usize>,
}

impl Builder {
    /// Adds parts that are adjacent in each shard. With `by_blocks` the gradient is kept by row blocks.
    fn fused(&mut self, own: &[TensorRows], columns: usize, split: Sharding, here: bool, by_blocks: bool) -> Fused {
        let (first, width) = (self.parts.len(), columns.max(1));
        let shards = if split == Sharding::Replicated {
            1
        } else {
            self.shape.tensor
        };
        let elements: usize = own.iter().map(|(_, _, rows)| rows * width).sum();
        let stride = (elements / shards).next_multiple_of(ALIGNMENT);
        let held = match (here, split) {
            (false, _) => 0..0,
            (true, Sharding::Replicated) => 0..1,
            (true, _) => self.holding.shards.clone(),
        };
        let by_blocks = by_blocks && here;
        let mut inside = 0;
        for (tensor, first_row, rows) in own {
            let weights = ShardOffsets {
                held: held.clone(),
                offset: self.length + inside,
                stride,
            };
            let mut gradients = weights.clone();
            if by_blocks {
                self.blocked.push(self.parts.len());
                gradients.held = self.holding.shards.clone();
                gradients.offset = self.blocks + inside;
            }
            inside += rows * width / shards;
            self.parts.push(ParameterPart {
                tensor: tensor.clone(),
                first_row: *first_row,
                rows: *rows,
                columns,
                split,
                shards,
                weights,
                gradients,
            });
        }
        self.length += stride * held.len();
        if by_blocks {
            self.blocks += stride * self.holding.shards.len();
        }
        let (rows, columns) = match split {
            Sharding::Rows => (elements / width / shards, columns),
            Sharding::Columns => (elements / width, columns / shards),
            Sharding::Replicated => (elements / width, columns),
        };
        Fused { first, rows, columns }
    }

    /// Adds a linear layer of a transformer layer. Names are without `.weight`.
    fn linear(&mut self, layer: usize, own: &[(&str, usize, usize)], inputs: usize, split: Sharding) -> LinearParts {
        let here = self.holding.layers.contains(&layer);
        let named = |end: &str| -> Vec<TensorRows> {
            let of = |(name, first, rows): &(&str, usize, usize)| (self.layer_name(layer, name, end), *first, *rows);
            own.iter().map(of).collect()
        };
        let (weight, bias) = (named("weight"), named("bias"));
        let weight = self.fused(&weight, inputs, split, here, split == Sharding::Replicated);
        // The bias of a row-parallel layer is added once, after the sum over shards: it is replicated.
        let split = if split == Sharding::Columns {
            Sharding::Replicated
        } else {
            split
        };
        let bias = self
            .biased()
            .then(|| self.fused(&bias, 0, split, here, split == Sharding::Replicated));
        LinearParts { weight, bias }
    }

    fn norm(&mut self, name: &str, here: bool) -> NormParts {
        let rows = |end: &str| [(format!("{name}.{end}"), 0, self.shape.hidden)];
        let (weight, bias) = (rows("weight"), rows("bias"));
        NormParts {
            weight: self.fused(&weight, 0, Sharding::Replicated, here, true),
            bias: self
                .biased()
                .then(|| self.fused(&bias, 0, Sharding::Replicated, here, true)),
        }
    }

    fn layer_norm(&mut self, layer: usize, name: &str) -> NormParts {
        let here = self.holding.layers.contains(&layer);
        let name = match self.shape.architecture {
            Architecture::GptBigcode => format!("transformer.h.{layer}.{name}"),
            Architecture::Llama => format!("model.layers.{layer}.{name}"),
        };
        self.norm(&name, here)
    }

    fn layer_name(&self, layer: usize, name: &str, end: &str) -> String {
        match self.shape.architecture {
            Architecture::GptBigcode => format!("transformer.h.{layer}.{name}.{end}"),
            Architecture::Llama => format!("model.layers.{layer}.{name}.{end}"),
        }
    }

    /// Whether linear layers and norms have biases.
    fn biased(&self) -> bool {
        self.shape.architecture == Architecture::GptBigcode
    }

    fn bigcode_layer(&mut self, layer: usize) -> LayerParts {
        let ModelShape {
            hidden, feed_forward, ..
        } = self.shape;
        let shared = self.shape.shared();
        let queries = if shared > 0 { hidden } else { 3 * hidden };
        LayerParts {
            norm1: self.layer_norm(layer, "ln_1"),
            query: self.linear(layer, &[("attn.c_attn", 0, queries)], hidden, Sharding::Rows),
            key_value: (shared > 0)
                .then(|| self.linear(layer, &[("attn.c_attn", hidden, shared)], hidden, Sharding::Replicated)),
            out: self.linear(layer, &[("attn.c_proj", 0, hidden)], hidden, Sharding::Columns),
            norm2: self.layer_norm(layer, "ln_2"),
            up: self.linear(layer, &[("mlp.c_fc", 0, feed_forward)], hidden, Sharding::Rows),
            down: self.linear(layer, &[("mlp.c_proj", 0, hidden)], feed_forward, Sharding::Columns),
        }
    }

    fn llama_layer(&mut self, layer: usize) -> LayerParts {
        let ModelShape {
            hidden, feed_forward, ..
        } = self.shape;
        let keys = self.shape.kv_heads * self.shape.head_size;
        let query = ("self_attn.q_proj", 0, hidden);
        let shared = [("self_attn.k_proj", 0, keys), ("self_attn.v_proj", 0, keys)];
        let separate = self.shape.shared() > 0;
        let gates = [("mlp.gate_proj", 0, feed_forward), ("mlp.up_proj", 0, feed_forward)];
        let norm1 = self.layer_norm(layer, "input_layernorm");
        let (query, key_value) = if separate {
            let query = self.linear(layer, &[query], hidden, Sharding::Rows);
            (query, Some(self.linear(layer, &shared, hidden, Sharding::Replicated)))
        } else {
            let all = [query, shared[0], shared[1]];
            (self.linear(layer, &all, hidden, Sharding::Rows), None)
        };
        LayerParts {
            norm1,
            query,
            key_value,
            out: self.linear(layer, &[("self_attn.o_proj", 0, hidden)], hidden, Sharding::Columns),
            norm2: self.layer_norm(layer, "post_attention_layernorm"),
            up: self.linear(layer, &gates, hidden, Sharding::Rows),
            down: self.linear(layer, &[("mlp.down_proj", 0, hidden)], feed_forward, Sharding::Columns),
        }
    }
}

impl ParameterMap {
    pub fn new(shape: ModelShape, holding: Holding) -> Self {
        let mut to = Builder {
            shape,
            holding: holding.clone(),
            parts: Vec::new(),
            length: 0,
            blocks: 0,
            blocked: Vec::new(),
        };
        let hidden = shape.hidden;
        let word_here = holding.first || (holding.last && shape.tied);
        let bigcode = shape.architecture == Architecture::GptBigcode;
        let name = if bigcode {
            "transformer.wte.weight"
        } else {
            "model.embed_tokens.weight"
        };
        let word = to.fused(
            &[(name.to_owned(), 0, shape.vocabulary)],
            hidden,
            Sharding::Rows,
            word_here,
            false,
        );
        let word_end = to.length;
        let position = shape.rotary.is_none().then(|| {
            // Every rank has all rows when this gradient is taken, so it needs no row blocks.
            let own = [("transformer.wpe.weight".to_owned(), 0, shape.context)];
            to.fused(&own, hidden, Sharding::Replicated, holding.first, false)
        });
        let layers = (0..shape.layers)
            .map(|layer| {
                if bigcode {
                    to.bigcode_layer(layer)
                } else {
                    to.llama_layer(layer)
                }
            })
            .collect();
        let final_norm = to.norm(if bigcode { "transformer.ln_f" } else { "model.norm" }, holding.last);
        let output = (!shape.tied).then(|| {
            let own = [("lm_head.weight".to_owned(), 0, shape.vocabulary)];
            to.fused(&own, hidden, Sharding::Rows, holding.last, false)
        });
        let length = to.length;
        let blocks = length..length + to.blocks;
        for &part in &to.blocked {
            to.parts[part].gradients.offset += length;
        }
        let second = shape.tied && holding.last;
        let tied = blocks.end..blocks.end + if second { word_end } else { 0 };
        Self {
            shape,
            holding,
            parts: to.parts,
            word,
            position,
            layers,
            final_norm,
            output,
            length,
            word_end,
            blocks,
            tied,
        }
    }

    /// Elements of a lane's buffer of gradients.
    pub fn gradient_length(&self) -> usize {
        self.tied.end
    }

    /// The parts on this rank whose gradients are kept by row blocks.
    pub fn blocked(&self) -> impl Iterator<Item = &ParameterPart> {
        let held = |part: &&ParameterPart| !part.weights.held.is_empty();
        self.parts.iter().filter(|part| self.by_blocks(part)).filter(held)
    }

    /// Whether a part's gradient is kept by row blocks.
    pub fn by_blocks(&self, part: &ParameterPart) -> bool {
        self.blocks.contains(&part.gradients.offset)
    }

    /// The parts of a checkpoint's tensor, in the order of their rows.
    pub fn parts_of<'a>(&'a self, tensor: &'a str) -> impl Iterator<Item = &'a ParameterPart> {
        self.parts.iter().filter(move |part| part.tensor == tensor)
    }

    /// Copies the part of a checkpoint's tensor that this rank holds to a buffer of weights.
    pub fn copy_from_tensor(&self, tensor: &str, values: &[f32], buffer: &mut [f32]) {
        for part in self.parts_of(tensor) {
            for shard in part.weights.held.clone() {
                let to = &mut buffer[part.shard(shard)];
                for (at, own) in part.tensor_ranges(shard, 0..part.shard_length()) {
                    let count = own.len();
                    to[own].copy_from_slice(&values[at..at + count]);
                }
            }
        }
    }

    /// Copies the part of a checkpoint's tensor that this rank holds from a buffer to `values`.
    pub fn copy_to_tensor(&self, tensor: &str, buffer: &[f32], values: &mut [f32]) {
        for part in self.parts_of(tensor) {
            for shard in part.weights.held.clone() {
                let from = &buffer[part.shard(shard)];
                for (at, own) in part.tensor_ranges(shard, 0..part.shard_length()) {
                    let count = own.len();
                    values[at..at + count].copy_from_slice(&from[own]);
                }
            }
        }
    }
}
