//! Where a node comes from in the spec, and the readable name that follows from it.

use std::fmt;

use crate::fields::Split;

/// The part of the spec that a node comes from. `Display` gives the node's readable name, which is unique in its graph:
/// `cap@20000`, `tokens/bpe/finnish`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeOrigin {
    Source {
        source: String,
    },
    Extract {
        corpus: String,
        source: String,
        /// Position among the corpus' extractions; only where an earlier one reads the same source.
        repeat: Option<usize>,
    },
    Filter {
        corpus: String,
    },
    Tokenizer {
        tokenizer: String,
    },
    Tokens {
        tokenizer: String,
        corpus: String,
        split: Split,
    },
    Order {
        stage: String,
    },
    /// Weights before training, and checkpoints of a stage.
    Checkpoint(CheckpointOrigin),
    /// The scores of an eval at a checkpoint, computed by an eval node or by a judge.
    Eval {
        eval: String,
        at: CheckpointOrigin,
    },
    Answers {
        eval: String,
        at: CheckpointOrigin,
    },
    Expect {
        gate: String,
    },
    Report,
}

/// A checkpoint, as a spec and its users name it: `small` or `cap@20000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckpointOrigin {
    /// The weights of a model before any stage.
    Initial { model: String },
    /// After `step` steps of a stage.
    Trained { stage: String, step: u64 },
}

impl CheckpointOrigin {
    /// The stage and its step; none before training.
    pub fn trained(&self) -> Option<(&str, u64)> {
        match self {
            Self::Initial { .. } => None,
            Self::Trained { stage, step } => Some((stage, *step)),
        }
    }
}

impl NodeOrigin {
    pub fn checkpoint(&self) -> Option<&CheckpointOrigin> {
        match self {
            Self::Checkpoint(checkpoint) => Some(checkpoint),
            _ => None,
        }
    }

    /// The stage and the step of a training segment's last checkpoint.
    pub fn trained(&self) -> Option<(&str, u64)> {
        self.checkpoint()?.trained()
    }

    /// The eval and the checkpoint of a node that holds scores.
    pub fn eval(&self) -> Option<(&str, &CheckpointOrigin)> {
        match self {
            Self::Eval { eval, at } => Some((eval, at)),
            _ => None,
        }
    }
}

impl fmt::Display for CheckpointOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initial { model } => f.write_str(model),
            Self::Trained { stage, step } => write!(f, "{stage}@{step}"),
        }
    }
}

impl fmt::Display for NodeOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { source } => write!(f, "source/{source}"),
            Self::Extract {
                corpus,
                source,
                repeat: None,
            } => write!(f, "extract/{corpus}/{source}"),
            Self::Extract {
                corpus,
                source,
                repeat: Some(index),
            } => write!(f, "extract/{corpus}/{source}.{index}"),
            Self::Filter { corpus } => write!(f, "filter/{corpus}"),
            Self::Tokenizer { tokenizer } => write!(f, "tokenizer/{tokenizer}"),
            Self::Tokens {
                tokenizer,
                corpus,
                split,
            } => {
                let suffix = match split {
                    Split::Train => "",
                    Split::HeldOut => "/held_out",
                    Split::All => "/all",
                };
                write!(f, "tokens/{tokenizer}/{corpus}{suffix}")
            }
            Self::Order { stage } => write!(f, "order/{stage}"),
            Self::Checkpoint(CheckpointOrigin::Initial { model }) => write!(f, "weights/{model}"),
            Self::Checkpoint(trained) => trained.fmt(f),
            Self::Eval { eval, at } => write!(f, "eval/{eval}/{at}"),
            Self::Answers { eval, at } => write!(f, "answers/{eval}/{at}"),
            Self::Expect { gate } => write!(f, "expect/{gate}"),
            Self::Report => f.write_str("report"),
        }
    }
}
