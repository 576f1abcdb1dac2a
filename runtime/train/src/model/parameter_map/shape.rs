//! The dimensions of a model on a logical grid, and the part that a rank holds.

use std::ops::Range;

use aurora_compiler::fields::{Activation, Architecture, ModelFields};
use aurora_compiler::layout::LayerCosts;

use crate::kernels::Gelu;
use crate::model::ModelError;
use crate::parallel::{Grid, Mesh, mesh};

/// The function between a feed-forward block's two matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardActivation {
    Gelu(Gelu),
    /// silu(gate) · up: the first product has twice as many outputs.
    SwiGlu,
}

/// How queries, keys and values are arranged in the projections of a logical shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadArrangement {
    /// A key and value head is shared by several shards: a projection of its own, which every shard computes
    /// completely.
    Shared,
    /// Each head's query, key and value are adjacent (GPT-BigCode without multi-query attention).
    PerHead,
    /// All queries, then all keys, then all values of the shard.
    Stacked,
}

/// The dimensions of a model on a logical grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    pub architecture: Architecture,
    pub layers: usize,
    /// How layers are divided among pipeline ranks.
    pub work: LayerCosts,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    pub feed_forward: usize,
    pub context: usize,
    pub vocabulary: usize,
    pub activation: FeedForwardActivation,
    pub arrangement: HeadArrangement,
    /// Base of rotary positions; without one, positions are learned.
    pub rotary: Option<f64>,
    /// The output layer is the word embedding.
    pub tied: bool,
    pub epsilon: f32,
    /// Logical tensor shards.
    pub tensor: usize,
}

impl ModelShape {
    /// # Errors
    /// [`ModelError::Grid`] if the grid does not divide the model.
    pub fn new(model: &ModelFields, grid: &Grid) -> Result<Self, ModelError> {
        let [layers, hidden, heads, kv_heads] =
            [model.layers, model.hidden, model.heads, model.kv_heads].map(|n| n as usize);
        let [feed_forward, context, vocabulary] =
            [model.feed_forward, model.context, model.vocabulary].map(|n| n as usize);
        let tensor = grid.tensor;
        let invalid = |text: String| Err(ModelError::Grid(text));
        if [
            layers,
            hidden,
            heads,
            kv_heads,
            feed_forward,
            context,
            vocabulary,
            tensor,
        ]
        .contains(&0)
        {
            return invalid("a dimension of the model is 0".to_owned());
        }
        if !tensor.is_power_of_two() {
            return invalid(format!("{tensor} logical tensor shards: not a power of two"));
        }
        if hidden % heads != 0 {
            return invalid(format!("hidden {hidden} does not divide by {heads} heads"));
        }
        if heads % kv_heads != 0 {
            return invalid(format!("{heads} heads do not divide by {kv_heads} key and value heads"));
        }
        for (name, count) in [
            ("heads", heads),
            ("feed_forward", feed_forward),
            ("vocabulary", vocabulary),
        ] {
            if count % tensor != 0 {
                return invalid(format!(
                    "{name} {count} does not divide by {tensor} logical tensor shards"
                ));
            }
        }
        let bigcode = model.architecture == Architecture::GptBigcode;
        if bigcode != (model.activation != Activation::SwiGlu) || bigcode != model.rotary_base.is_none() {
            return invalid(
                "gpt_bigcode has gelu and learned positions, llama has swiglu and rotary positions".to_owned(),
            );
        }
        if bigcode && !model.tied_embeddings {
            return invalid("the output layer of gpt_bigcode is its word embedding".to_owned());
        }
        if !bigcode && (hidden / heads) % 2 != 0 {
            return invalid(format!(
                "rotary positions need an even head dimension, not {}",
                hidden / heads
            ));
        }
        let arrangement = if bigcode && kv_heads == heads {
            HeadArrangement::PerHead
        } else if bigcode && kv_heads != 1 {
            return invalid(format!(
                "gpt_bigcode has 1 or {heads} key and value heads, not {kv_heads}"
            ));
        } else if !bigcode && kv_heads.is_multiple_of(tensor) {
            HeadArrangement::Stacked
        } else if tensor.is_multiple_of(kv_heads) {
            HeadArrangement::Shared
        } else {
            return invalid(format!(
                "{kv_heads} key and value heads do not divide over {tensor} logical tensor shards"
            ));
        };
        Ok(Self {
            architecture: model.architecture,
            layers,
            work: LayerCosts::of(model),
            hidden,
            heads,
            kv_heads,
            head_size: hidden / heads,
            feed_forward,
            context,
            vocabulary,
            activation: match model.activation {
                Activation::Gelu => FeedForwardActivation::Gelu(Gelu::Erf),
                Activation::GeluTanh => FeedForwardActivation::Gelu(Gelu::Tanh),
                Activation::SwiGlu => FeedForwardActivation::SwiGlu,
            },
            arrangement,
            rotary: model.rotary_base.map(|base| base.to_f64()),
            tied: model.tied_embeddings,
            epsilon: model.norm_epsilon.to_f64() as f32,
            tensor,
        })
    }

    /// Heads of one logical shard.
    pub fn shard_heads(&self) -> usize {
        self.heads / self.tensor
    }

    /// Key and value heads of one logical shard; 0 if they are shared.
    pub fn shard_kv_heads(&self) -> usize {
        match self.arrangement {
            HeadArrangement::Shared => 0,
            HeadArrangement::PerHead => self.shard_heads(),
            HeadArrangement::Stacked => self.kv_heads / self.tensor,
        }
    }

    /// Columns of one shard's query projection, with the shard's own keys and values.
    pub fn projected(&self) -> usize {
        (self.shard_heads() + 2 * self.shard_kv_heads()) * self.head_size
    }

    /// Columns of the shared projection of keys and values; 0 without one.
    pub fn shared(&self) -> usize {
        if self.arrangement == HeadArrangement::Shared {
            2 * self.kv_heads * self.head_size
        } else {
            0
        }
    }

    /// Outputs of one shard's first feed-forward product.
    pub fn up(&self) -> usize {
        let width = self.feed_forward / self.tensor;
        if self.activation == FeedForwardActivation::SwiGlu {
            2 * width
        } else {
            width
        }
    }
}

/// The part of a model that one rank holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub shards: Range<usize>,
    pub layers: Range<usize>,
    /// The first and the last pipeline rank.
    pub first: bool,
    pub last: bool,
}

impl Holding {
    /// The complete model on one rank.
    pub fn complete(shape: &ModelShape) -> Self {
        Self {
            shards: 0..shape.tensor,
            layers: 0..shape.layers,
            first: true,
            last: true,
        }
    }

    /// The part that `rank` of a mesh holds. [`LayerCosts::layers_of`] divides the layers among pipeline ranks.
    pub fn new(shape: &ModelShape, of: &Mesh, rank: usize) -> Self {
        let at = of.coordinates(rank);
        let layers = shape.work.layers_of(of.pipeline as u32, at.pipeline as u32);
        Self {
            shards: mesh::split_range(shape.tensor, of.tensor, at.tensor),
            layers: layers.start as usize..layers.end as usize,
            first: at.pipeline == 0,
            last: at.pipeline + 1 == of.pipeline,
        }
    }
}
