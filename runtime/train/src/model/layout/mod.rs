//! Where each logical shard of each parameter stands in a rank's flat buffers of weights, gradients and moments.
//!
//! Every logical shard is one contiguous block of fixed shape and strides, whoever holds it. The list of parts is that
//! of the whole model on every rank; what a rank does not hold has no place there.

mod chunks;
mod part;
mod shape;

use std::ops::Range;

use aurora_compiler::fields::Architecture;

pub use chunks::{Chunk, Share, reported};
pub use part::{Part, Place, Split};
pub use shape::{FeedForward, Heads, Holding, Shape};

/// Blocks start at multiples of so many elements (64 bytes of `f32`, 64 of bf16 pairs).
const ALIGNMENT: usize = 32;

/// Some parts whose shards stand next to each other and are used as one matrix or vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// The first of them in [`Layout::parts`].
    pub first: usize,
    /// Of one shard, all parts together.
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
    /// Queries; also keys and values where a shard has its own.
    pub query: LinearParts,
    /// Keys and values that several shards share.
    pub key_value: Option<LinearParts>,
    pub out: LinearParts,
    pub norm2: NormParts,
    pub up: LinearParts,
    pub down: LinearParts,
}

/// All parts of a model, their order (also the order of the gradient norm's sum), and their places on one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub shape: Shape,
    pub holding: Holding,
    pub parts: Vec<Part>,
    pub word: Fused,
    /// Learned positions.
    pub position: Option<Fused>,
    pub layers: Vec<LayerParts>,
    pub final_norm: NormParts,
    /// The output layer's own weights, where it is not the word embedding.
    pub output: Option<Fused>,
    /// Elements of a buffer of weights. The word embedding, which two stages may hold, stands in front of all others.
    pub length: usize,
    /// Where the word embedding ends.
    pub word_end: usize,
    /// Row blocks of replicated parts' gradients, behind the weights' places in a buffer of gradients.
    pub blocks: Range<usize>,
    /// The tied output layer's own accumulator of the word embedding's gradient, behind them.
    pub tied: Range<usize>,
}

/// A tensor of the checkpoint, the first of its rows that is meant, and how many rows are.
type Rows = (String, usize, usize);

struct Builder {
    shape: Shape,
    holding: Holding,
    parts: Vec<Part>,
    length: usize,
    /// Elements of row blocks so far, and the parts that they belong to: they are moved behind the weights in the end.
    blocks: usize,
    blocked: Vec<usize>,
}

impl Builder {
    /// Adds parts that stand next to each other in each shard. `by_blocks`: the gradient is kept by row blocks.
    fn fused(&mut self, own: &[Rows], columns: usize, split: Split, here: bool, by_blocks: bool) -> Fused {
        let (first, width) = (self.parts.len(), columns.max(1));
        let shards = if split == Split::Replicated {
            1
        } else {
            self.shape.tensor
        };
        let whole: usize = own.iter().map(|(_, _, rows)| rows * width).sum();
        let stride = (whole / shards).next_multiple_of(ALIGNMENT);
        let held = match (here, split) {
            (false, _) => 0..0,
            (true, Split::Replicated) => 0..1,
            (true, _) => self.holding.shards.clone(),
        };
        let by_blocks = by_blocks && here;
        let mut inside = 0;
        for (tensor, first_row, rows) in own {
            let weights = Place {
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
            self.parts.push(Part {
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
            Split::Rows => (whole / width / shards, columns),
            Split::Columns => (whole / width, columns / shards),
            Split::Replicated => (whole / width, columns),
        };
        Fused { first, rows, columns }
    }

    /// A linear layer of a layer of the model. Names stand without `.weight`.
    fn linear(&mut self, layer: usize, own: &[(&str, usize, usize)], inputs: usize, split: Split) -> LinearParts {
        let here = self.holding.layers.contains(&layer);
        let named = |end: &str| -> Vec<Rows> {
            let of = |(name, first, rows): &(&str, usize, usize)| (self.layer_name(layer, name, end), *first, *rows);
            own.iter().map(of).collect()
        };
        let (weight, bias) = (named("weight"), named("bias"));
        let weight = self.fused(&weight, inputs, split, here, split == Split::Replicated);
        // The bias of a row-parallel layer is added once, after the sum: it is whole.
        let split = if split == Split::Columns {
            Split::Replicated
        } else {
            split
        };
        let bias = self
            .biased()
            .then(|| self.fused(&bias, 0, split, here, split == Split::Replicated));
        LinearParts { weight, bias }
    }

    fn norm(&mut self, name: &str, here: bool) -> NormParts {
        let rows = |end: &str| [(format!("{name}.{end}"), 0, self.shape.hidden)];
        let (weight, bias) = (rows("weight"), rows("bias"));
        NormParts {
            weight: self.fused(&weight, 0, Split::Replicated, here, true),
            bias: self
                .biased()
                .then(|| self.fused(&bias, 0, Split::Replicated, here, true)),
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
        let Shape {
            hidden, feed_forward, ..
        } = self.shape;
        let shared = self.shape.shared();
        let queries = if shared > 0 { hidden } else { 3 * hidden };
        LayerParts {
            norm1: self.layer_norm(layer, "ln_1"),
            query: self.linear(layer, &[("attn.c_attn", 0, queries)], hidden, Split::Rows),
            key_value: (shared > 0)
                .then(|| self.linear(layer, &[("attn.c_attn", hidden, shared)], hidden, Split::Replicated)),
            out: self.linear(layer, &[("attn.c_proj", 0, hidden)], hidden, Split::Columns),
            norm2: self.layer_norm(layer, "ln_2"),
            up: self.linear(layer, &[("mlp.c_fc", 0, feed_forward)], hidden, Split::Rows),
            down: self.linear(layer, &[("mlp.c_proj", 0, hidden)], feed_forward, Split::Columns),
        }
    }

    fn llama_layer(&mut self, layer: usize) -> LayerParts {
        let Shape {
            hidden, feed_forward, ..
        } = self.shape;
        let keys = self.shape.kv_heads * self.shape.head_size;
        let query = ("self_attn.q_proj", 0, hidden);
        let shared = [("self_attn.k_proj", 0, keys), ("self_attn.v_proj", 0, keys)];
        let apart = self.shape.shared() > 0;
        let gates = [("mlp.gate_proj", 0, feed_forward), ("mlp.up_proj", 0, feed_forward)];
        let norm1 = self.layer_norm(layer, "input_layernorm");
        let (query, key_value) = if apart {
            let query = self.linear(layer, &[query], hidden, Split::Rows);
            (query, Some(self.linear(layer, &shared, hidden, Split::Replicated)))
        } else {
            let all = [query, shared[0], shared[1]];
            (self.linear(layer, &all, hidden, Split::Rows), None)
        };
        LayerParts {
            norm1,
            query,
            key_value,
            out: self.linear(layer, &[("self_attn.o_proj", 0, hidden)], hidden, Split::Columns),
            norm2: self.layer_norm(layer, "post_attention_layernorm"),
            up: self.linear(layer, &gates, hidden, Split::Rows),
            down: self.linear(layer, &[("mlp.down_proj", 0, hidden)], feed_forward, Split::Columns),
        }
    }
}

impl Layout {
    pub fn new(shape: Shape, holding: Holding) -> Self {
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
            Split::Rows,
            word_here,
            false,
        );
        let word_end = to.length;
        let position = shape.rotary.is_none().then(|| {
            // Every rank sees all rows where this gradient is taken: it needs no blocks.
            let own = [("transformer.wpe.weight".to_owned(), 0, shape.context)];
            to.fused(&own, hidden, Split::Replicated, holding.first, false)
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
            to.fused(&own, hidden, Split::Rows, holding.last, false)
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

    /// The parts held here whose gradients are kept by row blocks.
    pub fn blocked(&self) -> impl Iterator<Item = &Part> {
        let held = |part: &&Part| !part.weights.held.is_empty();
        self.parts.iter().filter(|part| self.by_blocks(part)).filter(held)
    }

    /// Whether a part's gradient is kept by row blocks.
    pub fn by_blocks(&self, part: &Part) -> bool {
        self.blocks.contains(&part.gradients.offset)
    }

    /// The parts that make up a tensor of a checkpoint, in the order of their rows.
    pub fn parts_of<'a>(&'a self, tensor: &'a str) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(move |part| part.tensor == tensor)
    }

    /// Takes apart a checkpoint's tensor of `numbers`: what is held here goes to a buffer of weights.
    pub fn scatter(&self, tensor: &str, numbers: &[f32], buffer: &mut [f32]) {
        for part in self.parts_of(tensor) {
            for shard in part.weights.held.clone() {
                let to = &mut buffer[part.shard(shard)];
                for (at, own) in part.runs(shard, 0..part.shard_length()) {
                    let count = own.len();
                    to[own].copy_from_slice(&numbers[at..at + count]);
                }
            }
        }
    }

    /// Puts what is held of a checkpoint's tensor in its place in `numbers`.
    pub fn gather(&self, tensor: &str, buffer: &[f32], numbers: &mut [f32]) {
        for part in self.parts_of(tensor) {
            for shard in part.weights.held.clone() {
                let from = &buffer[part.shard(shard)];
                for (at, own) in part.runs(shard, 0..part.shard_length()) {
                    let count = own.len();
                    numbers[at..at + count].copy_from_slice(&from[own]);
                }
            }
        }
    }
}
