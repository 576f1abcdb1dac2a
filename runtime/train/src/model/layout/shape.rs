//! The numbers of a model on a grid, and what a rank holds of it.

use std::ops::Range;

use aurora_compiler::fields::{Activation, Architecture, ModelFields};
use aurora_compiler::placement::Work;

use crate::kernels::Gelu;
use crate::model::ModelError;
use crate::parallel::{Grid, Mesh, mesh};

/// What stands between a feed-forward block's two products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    Gelu(Gelu),
    /// silu(gate) · up: the first product has twice as many outputs.
    SwiGlu,
}

/// How queries, keys and values stand in the projections of a logical shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// A key and value head serves the heads of several shards: their projection is whole, and apart from the queries'.
    Shared,
    /// Each head's query, key and value stand together (GPT-BigCode without multi-query).
    PerHead,
    /// All queries, then all keys, then all values of the shard.
    Stacked,
}

/// The numbers of a model on a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub architecture: Architecture,
    pub layers: usize,
    /// What pipeline stages share out.
    pub work: Work,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    pub feed_forward: usize,
    pub context: usize,
    pub vocabulary: usize,
    pub activation: FeedForward,
    pub arrangement: Heads,
    /// Base of the rotary positions; without one, positions are learned.
    pub rotary: Option<f64>,
    /// The output layer is the word embedding.
    pub tied: bool,
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
            return unfit("a model of size zero".to_owned());
        }
        if !tensor.is_power_of_two() {
            return unfit(format!("{tensor} logical tensor shards are no power of two"));
        }
        if hidden % heads != 0 {
            return unfit(format!("hidden {hidden} does not divide by {heads} heads"));
        }
        if heads % kv_heads != 0 {
            return unfit(format!("{heads} heads do not divide by {kv_heads} key and value heads"));
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
        let bigcode = model.architecture == Architecture::GptBigcode;
        if bigcode != (model.activation != Activation::SwiGlu) || bigcode != model.rotary_base.is_none() {
            return unfit(
                "gpt_bigcode has gelu and learned positions, llama has swiglu and rotary positions".to_owned(),
            );
        }
        if bigcode && !model.tied_embeddings {
            return unfit("the output layer of gpt_bigcode is its word embedding".to_owned());
        }
        if !bigcode && (hidden / heads) % 2 != 0 {
            return unfit(format!(
                "rotary positions turn pairs: a head of {} numbers",
                hidden / heads
            ));
        }
        let arrangement = if bigcode && kv_heads == heads {
            Heads::PerHead
        } else if bigcode && kv_heads != 1 {
            return unfit(format!(
                "gpt_bigcode has 1 or {heads} key and value heads, not {kv_heads}"
            ));
        } else if !bigcode && kv_heads.is_multiple_of(tensor) {
            Heads::Stacked
        } else if tensor.is_multiple_of(kv_heads) {
            Heads::Shared
        } else {
            return unfit(format!(
                "{kv_heads} key and value heads do not divide over {tensor} logical tensor shards"
            ));
        };
        Ok(Self {
            architecture: model.architecture,
            layers,
            work: Work::of(model),
            hidden,
            heads,
            kv_heads,
            head_size: hidden / heads,
            feed_forward,
            context,
            vocabulary,
            activation: match model.activation {
                Activation::Gelu => FeedForward::Gelu(Gelu::Erf),
                Activation::GeluTanh => FeedForward::Gelu(Gelu::Tanh),
                Activation::SwiGlu => FeedForward::SwiGlu,
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
            Heads::Shared => 0,
            Heads::PerHead => self.shard_heads(),
            Heads::Stacked => self.kv_heads / self.tensor,
        }
    }

    /// Outputs of one shard's query projection, with the shard's own keys and values.
    pub fn projected(&self) -> usize {
        (self.shard_heads() + 2 * self.shard_kv_heads()) * self.head_size
    }

    /// Outputs of the shared projection of keys and values; 0 if there is none.
    pub fn shared(&self) -> usize {
        if self.arrangement == Heads::Shared {
            2 * self.kv_heads * self.head_size
        } else {
            0
        }
    }

    /// Outputs of one shard's first feed-forward product.
    pub fn up(&self) -> usize {
        let width = self.feed_forward / self.tensor;
        if self.activation == FeedForward::SwiGlu {
            2 * width
        } else {
            width
        }
    }
}

/// What one rank holds of a model: logical shards, layers, and whether it begins or ends the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub shards: Range<usize>,
    pub layers: Range<usize>,
    pub first: bool,
    pub last: bool,
}

impl Holding {
    /// All of it, on one rank.
    pub fn whole(shape: &Shape) -> Self {
        Self {
            shards: 0..shape.tensor,
            layers: 0..shape.layers,
            first: true,
            last: true,
        }
    }

    /// What `rank` of a mesh holds. How layers are spread over pipeline stages: [`Work::stage`].
    pub fn new(shape: &Shape, of: &Mesh, rank: usize) -> Self {
        let at = of.coordinates(rank);
        let layers = shape.work.stage(of.pipeline as u32, at.pipeline as u32);
        Self {
            shards: mesh::share(shape.tensor, of.tensor, at.tensor),
            layers: layers.start as usize..layers.end as usize,
            first: at.pipeline == 0,
            last: at.pipeline + 1 == of.pipeline,
        }
    }
}
