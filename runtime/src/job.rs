//! What the engine and a worker say to each other: JSON lines, jobs on the worker's standard input, events on its
//! standard output.
//!
//! The engine hands over paths of files it has verified and an empty folder to write to; the worker never sees the
//! store. What the worker leaves in that folder is published by the engine, so that hashing and syncing a checkpoint
//! happen beside the next steps, in another process.

use std::collections::BTreeMap;

use aurora_compiler::fields::{EvalFields, OptimizerState, TrainFields};
pub use aurora_compiler::placement::{Placement, Recompute};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

/// Files of a node's output, by their names inside it.
pub type Files = BTreeMap<String, Utf8PathBuf>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Connect with the other workers of the mesh; the first order of a worker that has any. Answered with `Joined`, by
    /// rank 0 with `Store` before.
    Join(Join),
    Train(Box<TrainJob>),
    Eval(Box<EvalJob>),
    /// Train a segment's first steps once more and write what every operation gives. Answered as `Train`.
    Trace(Box<TraceJob>),
    /// Write a checkpoint of the running segment and answer with `Stopped`; skip what is queued. A second one ends the
    /// worker at once. End of input means that the engine is gone: the worker ends.
    Stop,
}

/// The variable that carries what lets a worker in.
pub const TOKEN: &str = "AURORA_JOIN_TOKEN";

/// The first line of a worker that somebody else than the engine has started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub token: String,
    pub rank: u32,
    pub world: u32,
    /// Name of its host.
    pub host: String,
}

/// Who a worker is among all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    pub rank: u32,
    pub placement: Placement,
    /// `host:port` of rank 0's store; rank 0 opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The address by which the others reach this worker.
    pub host: String,
    /// How long a worker waits for another before it takes it for lost, seconds.
    pub timeout: u32,
}

/// Trains one segment. If `start` names the segment that the worker has just finished, the state in memory goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    pub node: String,
    pub key: String,
    pub fields: TrainFields,
    /// Steps of the stage that the start has done already.
    pub first_step: u64,
    /// The optimizer's moments at the first step: taken from the start, or zero.
    pub optimizer_state: OptimizerState,
    pub start: Start,
    pub order: aurora_compiler::fields::OrderFields,
    /// Token files of each component of the order, in its order; a component's files are read as one stream.
    pub tokens: Vec<Vec<TokenPaths>>,
    /// Placement: never changes a result.
    pub placement: Placement,
    /// An empty folder for `weights/*.safetensors`, `optimizer/*.safetensors`, `state.json` and `trail.jsonl`.
    pub out: Utf8PathBuf,
}

/// Repeats steps of a segment from its start, and records them. Into the folder of the job goes `trace-RANK.jsonl` of every
/// rank (one [`crate::trace::Entry`] a line) and the `trail.jsonl` of the recorded steps; no checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceJob {
    pub job: TrainJob,
    /// Recorded are the steps `after + 1 ..= last` of the stage.
    pub after: u64,
    pub last: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Key of the node whose output this is: the initial weights, the segment before, or this very segment (a partial
    /// checkpoint: its `state.json` says at which step it stands, and its `trail.jsonl` is continued).
    pub key: String,
    pub files: Files,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPaths {
    pub bin: Utf8PathBuf,
    pub idx: Utf8PathBuf,
    /// Says which tokens are trained on; all, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Utf8PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalJob {
    pub node: String,
    pub key: String,
    pub fields: EvalFields,
    pub checkpoint: Start,
    /// One entry a set: its files and the UTF-8 bytes of its texts.
    pub sets: Vec<EvalSetPaths>,
    /// Of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskPaths>,
    pub placement: Placement,
    /// An empty folder for `scores.json` and `items.jsonl`.
    pub out: Utf8PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSetPaths {
    pub files: Vec<TokenPaths>,
    /// The documents behind the tokens, file by file in the order of the tokens.
    pub documents: Vec<Utf8PathBuf>,
    pub bytes: u64,
    /// Id that ends every document in the files: not scored; also what a document's first token is conditioned on.
    pub end_of_document: u32,
}

/// What a task reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPaths {
    /// Names and places of the sources' files.
    pub files: Vec<(String, Utf8PathBuf)>,
    pub tokenizer: Utf8PathBuf,
    /// Id that ends a document: it ends an answer, and an empty prompt stands after it.
    pub end_of_document: u32,
}

/// `scores.json` of an eval node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, Score>,
    /// Of a task: by category (all items under the empty name), then by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, BTreeMap<String, Measure>>,
}

/// A line of `items.jsonl` of perplexity: what a document is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentScore {
    pub set: String,
    /// The document's own name, with its place in the set before it.
    pub document: String,
    /// Scored ones.
    pub tokens: u64,
    pub bytes: u64,
    /// Sum of −ln p over the document's tokens, nats; written with all its digits.
    pub negative_log_likelihood: f64,
}

/// A number that a task reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    pub value: f64,
    /// Of a mean over items; a corpus' measure has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    pub items: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    pub documents: u64,
    pub tokens: u64,
    pub bytes: u64,
    /// Sum of −ln p over all tokens, nats.
    pub negative_log_likelihood: f64,
    /// exp(negative_log_likelihood / tokens).
    pub perplexity: f64,
    /// negative_log_likelihood / (ln 2 × bytes).
    pub bits_per_byte: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A worker has started: what its numerics stand on.
    Ready {
        fingerprint: Fingerprint,
    },
    /// Rank 0's store listens on this port.
    Store {
        port: u16,
    },
    /// Connected with all other workers.
    Joined,
    /// Nothing new: the worker lives. Sent twice a second from the first moment on.
    Alive,
    Started {
        node: String,
        step: u64,
    },
    Step(Step),
    EvalProgress {
        node: String,
        set: String,
        tokens: u64,
        of: u64,
    },
    /// Everything of the node stands in its folder, closed. May come after later nodes' steps: writing is off the
    /// critical path.
    Finished {
        node: String,
    },
    /// After `Stop`: a checkpoint at `step` (of the stage) stands in the folder of `node`, which is not finished.
    Stopped {
        node: String,
        step: u64,
    },
    /// After `Stop` with nothing to save.
    Idle,
    Failed {
        node: String,
        cause: String,
        /// The rank that the worker blames, where it waited for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<u32>,
    },
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub node: String,
    /// Steps of the stage that are done, this one included.
    pub step: u64,
    /// Mean over the batch's tokens of −ln p, nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Samples of this step, by component of the order.
    pub samples: Vec<u64>,
    pub seconds: f64,
}

/// What the bits of `invariant` hold for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    pub libtorch: String,
    pub cpu: String,
    pub cpu_capability: String,
    /// BLAKE3 of the results of a fixed set of real kernel calls.
    pub probe: String,
    /// The same of Aurora's own kernels, on which `portable` numerics stand: equal on every processor.
    pub portable: String,
}

impl Fingerprint {
    /// What numerics stand on, in words: two that stand on the same give the same bits.
    pub fn of(&self, portable: bool) -> String {
        if portable {
            let probe: String = self.portable.chars().take(16).collect();
            return format!("portable kernels, probe {probe}");
        }
        self.to_string()
    }
}

/// One line of `trail.jsonl`: what a step did, as bits. No time, no place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailStep {
    pub step: u64,
    /// BLAKE3 of the batch's token ids (u32, little-endian) in sample order.
    pub batch: String,
    /// f64 bits, hexadecimal.
    pub loss: String,
    pub grad_norm: String,
    pub learning_rate: String,
    /// BLAKE3 of the master weights of each layer group, every so many steps of the stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, String>,
}

/// `state.json` of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps of the stage that are done.
    pub step: u64,
    /// Optimizer updates since the moments were last zero.
    pub updates: u64,
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let probe: String = self.probe.chars().take(16).collect();
        write!(
            f,
            "libtorch {}, {}, {}, probe {probe}",
            self.libtorch, self.cpu, self.cpu_capability
        )
    }
}
