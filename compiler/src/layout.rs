//! The parallel layout: how training is split among workers. It is not part of a key, because it never changes a result.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::ModelFields;

/// Degrees of the mesh, and options that change memory and speed. All workers of a run have the same layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub tensor: u32,
    pub pipeline: u32,
    pub data: u32,
    /// Threads of one worker.
    pub threads: u32,
    pub recompute: Recompute,
    pub sequence_parallel: bool,
    pub distributed_optimizer: bool,
}

impl Layout {
    /// One worker with this number of threads.
    pub fn one(threads: u32, recompute: Recompute) -> Self {
        Self {
            tensor: 1,
            pipeline: 1,
            data: 1,
            threads,
            recompute,
            sequence_parallel: false,
            distributed_optimizer: false,
        }
    }

    /// Returns the number of workers.
    pub fn world(&self) -> u32 {
        self.tensor.saturating_mul(self.pipeline).saturating_mul(self.data)
    }
}

/// Which activations the backward pass computes again instead of keeping them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    None,
    Selective,
    Full,
}

impl Recompute {
    const ALL: [Self; 3] = [Self::None, Self::Selective, Self::Full];

    /// The word in specs and in `--layout`.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Selective => "selective",
            Self::Full => "full",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recompute| recompute.word() == word)
    }
}

/// Costs by which layers are split among pipeline ranks, in multiplications per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerCosts {
    pub layers: u32,
    /// Cost of one layer.
    pub layer: u64,
    /// Cost of the output layer.
    pub head: u64,
}

impl LayerCosts {
    pub fn of(model: &ModelFields) -> Self {
        Self {
            layers: model.layers,
            // Attention has two products, with half of the positions on average.
            layer: model.layer_weights() + u64::from(model.context) * u64::from(model.hidden),
            head: model.head_weights(),
        }
    }

    /// The layers of one pipeline rank; there must be at least one layer per rank.
    ///
    /// A pipeline is as fast as its slowest rank. The last rank also has the output layer, so it gets fewer layers where
    /// that makes the slowest rank faster. The other layers are split as evenly as possible. Later ranks get the extra
    /// layers, because earlier ranks keep more micro-batches.
    pub fn layers_of(&self, pp_ranks: u32, pp_rank: u32) -> Range<u32> {
        let others = pp_ranks.saturating_sub(1);
        if others == 0 {
            return 0..self.layers;
        }
        let slowest = |last: u32| {
            let before = u64::from((self.layers - last).div_ceil(others));
            (before * self.layer).max(u64::from(last) * self.layer + self.head)
        };
        // Ties go to the one with the most layers on the last rank.
        let most = self.layers.saturating_sub(others).max(1);
        let last = (1..=most).rev().min_by_key(|&last| slowest(last)).unwrap_or(1);
        let before = self.layers.saturating_sub(last);
        let start = |pp_rank: u32| {
            let start = u64::from(before) * u64::from(pp_rank) / u64::from(others);
            u32::try_from(start).unwrap_or(before)
        };
        if pp_rank < others {
            start(pp_rank)..start(pp_rank + 1)
        } else {
            before..self.layers
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::{Activation, Architecture};

    fn model(layers: u32, hidden: u32, vocabulary: u32) -> ModelFields {
        ModelFields {
            architecture: Architecture::GptBigcode,
            layers,
            hidden,
            heads: 8,
            kv_heads: 1,
            feed_forward: 4 * hidden,
            context: 512,
            vocabulary,
            activation: Activation::GeluTanh,
            norm_epsilon: "1e-5".parse().unwrap(),
            rotary_base: None,
            tied_embeddings: true,
        }
    }

    fn counts(model: &ModelFields, pp_ranks: u32) -> Vec<usize> {
        (0..pp_ranks)
            .map(|pp_rank| LayerCosts::of(model).layers_of(pp_ranks, pp_rank).len())
            .collect()
    }

    #[test]
    fn the_last_rank_has_fewer_layers() {
        // 2.9 M per layer and 8.4 M for the output layer.
        assert_eq!(counts(&model(8, 512, 16_384), 2), [5, 3]);
        // StarCoder: the output layer (302 M) costs less than one of its layers.
        assert_eq!(counts(&model(40, 6144, 49_152), 4), [10, 10, 10, 10]);
        assert_eq!(counts(&model(9, 6144, 1024), 2), [5, 4]);
        assert_eq!(counts(&model(4, 128, 50_000), 4), [1, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn ranks_have_every_layer_once(layers in 1u32..64, pp_ranks in 1u32..16, vocabulary in 1u32..100_000) {
            prop_assume!(pp_ranks <= layers);
            let model = model(layers, 64, vocabulary);
            let all: Vec<u32> = (0..pp_ranks).flat_map(|pp_rank| LayerCosts::of(&model).layers_of(pp_ranks, pp_rank)).collect();
            prop_assert_eq!(all, (0..layers).collect::<Vec<_>>());
            prop_assert!(counts(&model, pp_ranks).iter().all(|count| *count > 0));
        }
    }
}
