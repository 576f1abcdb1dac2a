//! Messages between the engine and a worker: JSON lines. Commands go to the worker's standard input, events come from
//! its standard output; a worker that a launcher started uses one TCP connection for both.
//!
//! The engine passes paths of verified files and an empty output folder; the worker never accesses the store. The
//! engine publishes what the worker writes to that folder, so another process hashes and syncs a checkpoint while the
//! next steps run.

use std::collections::BTreeMap;

use aurora_compiler::fields::{EvalFields, OptimizerState, TrainFields};
pub use aurora_compiler::layout::{Layout, Recompute};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::numerics::Fingerprint;

/// Files of a node's output, by their names inside it.
pub type Files = BTreeMap<String, Utf8PathBuf>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkerCommand {
    /// Prepare the device; the first command. Answered with `Ready`.
    Start(Start),
    /// Connect to the other workers of the mesh; the second command if there are any. Answered with `Joined`; rank 0
    /// sends `RendezvousReady` before.
    Join(Join),
    Train(Box<TrainJob>),
    Eval(Box<EvalJob>),
    /// Repeat the first steps of a segment and write a digest of every operation's result. Answered as `Train`.
    Trace(Box<TraceJob>),
    /// Write a checkpoint of the running segment, answer with `Stopped`, and drop queued commands. A second `Stop` ends
    /// the worker at once, as does the end of the input.
    Stop,
}

/// Environment variable with the secret that a worker on another host presents when it connects to the engine.
pub const TOKEN: &str = "AURORA_TOKEN";

/// First line that a worker sends if a launcher, not the engine, started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Empty if the workers are on the engine's host and need none.
    pub token: String,
    pub rank: u32,
    pub world: u32,
    /// Host name.
    pub host: String,
}

/// Where a worker computes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub device: WorkerDevice,
    /// The rank among the workers of its machine, which is the index of its device; none if a launcher's variables state it.
    pub local_rank: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerDevice {
    #[default]
    Cpu,
    /// A device of CUDA or ROCm, which no other worker uses.
    Gpu,
    /// A device of CUDA or ROCm that other workers may use too.
    SharedGpu,
    /// The code for devices, on the processor: for tests of this code. Host access to tensors is an error.
    Simulated,
}

/// A worker's rank and how it reaches the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    pub rank: u32,
    pub layout: Layout,
    /// `host:port` of rank 0's rendezvous store; none for rank 0, which serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Address at which the other workers reach this one.
    pub host: String,
    /// Seconds that a transfer waits for a peer before that peer counts as lost.
    pub transfer_timeout: u32,
}

/// Trains one segment. If `start` is the segment that this worker has just finished, training continues from the state
/// in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    pub node: String,
    pub key: String,
    pub fields: TrainFields,
    /// Steps of the training stage that are complete in `start`.
    pub first_step: u64,
    /// Whether the optimizer's moments at the first step come from `start` or are zero.
    pub optimizer_state: OptimizerState,
    pub start: NodeFiles,
    pub order: aurora_compiler::fields::OrderFields,
    /// Token files of each component of the data order; the files of a component are read as one stream.
    pub tokens: Vec<Vec<TokenPaths>>,
    /// Never changes a result.
    pub layout: Layout,
    /// Empty folder for `weights/*.safetensors`, `optimizer/*.safetensors`, `state.json` and `trail.jsonl`.
    pub out: Utf8PathBuf,
}

/// Repeats steps of a segment from its start and records them. Every rank writes `trace-RANK.jsonl` (one
/// [`crate::trace::TraceEntry`] per line) to the job's folder, and rank 0 the step log of the recorded steps; there is
/// no checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceJob {
    pub job: TrainJob,
    /// Steps `after + 1 ..= last` of the training stage are recorded.
    pub after: u64,
    pub last: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFiles {
    /// Key of the node that produced the files: initial weights, the previous segment, or the segment itself (a partial
    /// checkpoint, whose `state.json` gives the step to resume from and whose `trail.jsonl` is continued).
    pub key: String,
    pub files: Files,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPaths {
    pub bin: Utf8PathBuf,
    pub idx: Utf8PathBuf,
    /// Marks the tokens that are trained on; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Utf8PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalJob {
    pub node: String,
    pub key: String,
    pub fields: EvalFields,
    pub checkpoint: NodeFiles,
    /// By evaluation set: its files and the UTF-8 bytes of its texts.
    pub sets: Vec<EvalSetPaths>,
    /// Files of the task, if the eval has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskPaths>,
    pub layout: Layout,
    /// Empty folder for `scores.json` and `items.jsonl`.
    pub out: Utf8PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSetPaths {
    pub files: Vec<TokenPaths>,
    /// Documents of the token files, in the same order.
    pub documents: Vec<Utf8PathBuf>,
    pub bytes: u64,
    /// Id at the end of every document: not scored, and the context of a document's first token.
    pub end_of_document: u32,
}

/// Input files of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPaths {
    pub files: Vec<ItemFile>,
    pub tokenizer: Utf8PathBuf,
    /// End-of-document id: ends an answer, and precedes an empty prompt.
    pub end_of_document: u32,
}

/// A file of an eval's items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemFile {
    /// What the names of its items begin with, where an eval has several sources or archives: `NUMBER/` of the
    /// source, `ARCHIVE/`, or both.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Its name in the source.
    pub name: String,
    pub path: Utf8PathBuf,
}

/// `scores.json` of an eval node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, PerplexityScore>,
    /// Measures of a task: by category (the empty name covers all items), then by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, BTreeMap<String, Measure>>,
}

/// A line of `items.jsonl` of a perplexity eval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentScore {
    pub set: String,
    /// Position in the set, then the document's own id.
    pub document: String,
    /// Scored tokens.
    pub tokens: u64,
    pub bytes: u64,
    /// Sum of −ln p over the document's tokens, in nats; written with all digits.
    pub negative_log_likelihood: f64,
}

/// A number that a task reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    pub value: f64,
    /// For a mean over items; corpus-level measures have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    pub items: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerplexityScore {
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
    /// The worker has started.
    Ready {
        fingerprint: Fingerprint,
    },
    /// Rank 0's rendezvous store listens on this port.
    RendezvousReady {
        port: u16,
    },
    /// Connected to all other workers.
    Joined,
    /// Sent twice a second from the start.
    Heartbeat,
    Started {
        node: String,
        step: u64,
    },
    Step(StepMetrics),
    EvalProgress {
        node: String,
        set: String,
        done: u64,
        total: u64,
    },
    /// All files of the node are in its folder and closed. May arrive after events of later nodes: a checkpoint is
    /// written while the next segment trains.
    Finished {
        node: String,
    },
    /// After `Stop`: the folder of `node` contains a partial checkpoint at `step` of the training stage.
    Stopped {
        node: String,
        step: u64,
    },
    /// After `Stop` with nothing to save.
    Idle,
    Failed(JobFailure),
}

/// Why a job, or the reading of a command, failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFailure {
    /// Empty if the error belongs to no job.
    pub node: String,
    /// The error with its causes, as text.
    pub cause: String,
    /// The operating system's code behind the error, such as that of a full disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_error: Option<i32>,
    /// The rank that did not answer, if a transfer failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMetrics {
    pub node: String,
    /// Completed steps of the training stage, including this one.
    pub step: u64,
    /// Mean over the batch's tokens of −ln p, nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Samples of this step by component of the data order.
    pub samples: Vec<u64>,
    pub seconds: f64,
}

/// One line of a checkpoint's step log (`trail.jsonl`): the results of a step as bits. Contains no time and nothing
/// about the layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLogLine {
    pub step: u64,
    /// BLAKE3 of the batch's token ids (u32, little-endian) in sample order.
    pub batch: String,
    /// f64 bits, hexadecimal.
    pub loss: String,
    pub grad_norm: String,
    pub learning_rate: String,
    /// BLAKE3 of the master weights by layer group, every tenth step of the training stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, String>,
}

/// `state.json` of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Completed steps of the training stage.
    pub step: u64,
    /// Optimizer updates since the moments were last zero.
    pub updates: u64,
}
