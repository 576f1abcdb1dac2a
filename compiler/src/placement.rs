//! How training is spread over workers. No part of a node's identity: it never changes a result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
