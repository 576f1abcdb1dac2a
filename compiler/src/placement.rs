//! How training is spread over workers. No part of a node's identity: it never changes a result.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::ModelFields;

/// Degrees of the mesh and what else of a layout workers are told. All workers of a run have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub tensor: u32,
    pub pipeline: u32,
    pub data: u32,
    /// Of one worker.
    pub threads: u32,
    pub recompute: Recompute,
    pub sequence_parallel: bool,
    pub distributed_optimizer: bool,
}

impl Placement {
    /// One worker of so many threads.
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

    /// Number of workers.
    pub fn world(&self) -> u32 {
        self.tensor.saturating_mul(self.pipeline).saturating_mul(self.data)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    None,
    Selective,
    Full,
}

impl Recompute {
    const ALL: [Self; 3] = [Self::None, Self::Selective, Self::Full];

    /// As specs and `--layout` write it.
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

/// What of a model is spread over pipeline stages, in multiplications for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub layers: u32,
    /// Of a layer.
    pub layer: u64,
    /// Of the output layer.
    pub head: u64,
}

impl Work {
    pub fn of(model: &ModelFields) -> Self {
        Self {
            layers: model.layers,
            // Attention: two products with half of the positions, on average.
            layer: model.layer_weights() + u64::from(model.context) * u64::from(model.hidden),
            head: model.head_weights(),
        }
    }

    /// The layers of one of so many pipeline stages; there are at least as many layers.
    ///
    /// A pipeline is as fast as its slowest stage. The last one also has the output layer, so it has fewer layers where that
    /// makes the slowest stage faster. The others are spread as evenly as they can be, and later stages have one more:
    /// earlier ones hold more micro-batches.
    pub fn stage(&self, stages: u32, stage: u32) -> Range<u32> {
        let others = stages.saturating_sub(1);
        if others == 0 {
            return 0..self.layers;
        }
        let slowest = |last: u32| {
            let before = u64::from((self.layers - last).div_ceil(others));
            (before * self.layer).max(u64::from(last) * self.layer + self.head)
        };
        // Of equals the one with most layers at the end.
        let most = self.layers.saturating_sub(others).max(1);
        let last = (1..=most).rev().min_by_key(|&last| slowest(last)).unwrap_or(1);
        let before = self.layers.saturating_sub(last);
        let start = |stage: u32| {
            let start = u64::from(before) * u64::from(stage) / u64::from(others);
            u32::try_from(start).unwrap_or(before)
        };
        if stage < others {
            start(stage)..start(stage + 1)
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

    fn counts(model: &ModelFields, stages: u32) -> Vec<usize> {
        (0..stages)
            .map(|stage| Work::of(model).stage(stages, stage).len())
            .collect()
    }

    #[test]
    fn the_output_layer_takes_the_place_of_layers() {
        // 2.9 M a layer and 8.4 M of the output layer.
        assert_eq!(counts(&model(8, 512, 16_384), 2), [5, 3]);
        // StarCoder: 302 M of the output layer are less than one of its layers.
        assert_eq!(counts(&model(40, 6144, 49_152), 4), [10, 10, 10, 10]);
        assert_eq!(counts(&model(9, 6144, 1024), 2), [5, 4]);
        assert_eq!(counts(&model(4, 128, 50_000), 4), [1, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn stages_have_every_layer_once(layers in 1u32..64, stages in 1u32..16, vocabulary in 1u32..100_000) {
            prop_assume!(stages <= layers);
            let model = model(layers, 64, vocabulary);
            let all: Vec<u32> = (0..stages).flat_map(|stage| Work::of(&model).stage(stages, stage)).collect();
            prop_assert_eq!(all, (0..layers).collect::<Vec<_>>());
            prop_assert!(counts(&model, stages).iter().all(|count| *count > 0));
        }
    }
}
