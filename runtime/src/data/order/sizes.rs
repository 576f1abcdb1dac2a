//! `order.json`: the data behind an order, from which every position follows.
//!
//! In: the sizes of the token files. Out: the file, which people and other tools can read without the spec. Not here: the
//! weights (fields of the order node), the commitment to the samples (the lock).

use serde::{Deserialize, Serialize};

/// `order.json` of an order node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderSizes {
    /// Tokens of one sample; each reads one token more, its last target, with which the next sample begins.
    pub sequence: u32,
    /// In the order of the mixture.
    pub components: Vec<ComponentSize>,
}

/// The data of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentSize {
    pub name: String,
    pub documents: u64,
    pub tokens: u64,
    /// Samples of one epoch.
    pub samples: u64,
    /// Tokens after the last sample, which no epoch reads.
    pub unread_tokens: u64,
}

impl OrderSizes {
    /// Samples of one epoch of each component.
    pub fn samples(&self) -> Vec<u64> {
        self.components.iter().map(|component| component.samples).collect()
    }
}

impl ComponentSize {
    /// The size of a component whose files have `documents` with `tokens` in all.
    pub fn new(name: &str, documents: u64, tokens: u64, samples: u64, sequence: u32) -> Self {
        // The last sample reads one token more.
        let read = if samples == 0 {
            0
        } else {
            samples * u64::from(sequence) + 1
        };
        Self {
            name: name.to_owned(),
            documents,
            tokens,
            samples,
            unread_tokens: tokens.saturating_sub(read),
        }
    }
}
