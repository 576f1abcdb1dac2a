//! Types of the documents that commands print with `--json`; their JSON schemas are generated from these.
//!
//! Every document starts with `format_version`, which the printer adds. Not here: a lock and the record of a run, whose
//! types are elsewhere ([`Lock`](crate::lock::Lock)).

use aurora_lang::diagnostics::DiagnosticJson;
use schemars::JsonSchema;
use serde::Serialize;

use crate::check::Assumption;
use crate::diff::Cost;
use crate::graph::NodeKind;
use crate::hash::Key;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::plan::NodeState;
use crate::why::KeyChange;

/// `aurora build --json`: the graph of a spec.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Graph")]
pub struct GraphDocument {
    pub experiment: String,
    pub models: Vec<Model>,
    pub stages: Vec<Stage>,
    /// In the graph's order: inputs before users.
    pub nodes: Vec<NodeDocument>,
    /// What the spec assumes, infers, takes from publications, or does not know.
    pub assumptions: Vec<Assumption>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Model {
    pub name: String,
    pub parameters: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Stage {
    pub name: String,
    pub steps: u64,
    /// Tokens of all steps.
    pub tokens: u64,
    pub tokens_per_step: u64,
    /// Number of checkpoints that are kept.
    pub checkpoints: usize,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Node")]
pub struct NodeDocument {
    /// Unique in its graph.
    pub name: String,
    pub kind: NodeKind,
    pub key: Key,
    /// Names of the nodes whose results are part of the key.
    pub inputs: Vec<String>,
    pub state: NodeState,
    /// Why it would run, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same as data: what has changed since it was last built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<KeyChange>>,
}

/// `aurora plan --json`: what a run would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Plan")]
pub struct PlanDocument {
    pub experiment: String,
    pub nodes: Vec<NodeDocument>,
    /// Of the nodes that have no result yet.
    pub cost: Cost,
    /// None if the spec has no layout or does not train.
    pub memory: Option<WorkerMemory>,
    /// Paths of the unknown values that keep the spec from running.
    pub unknown: Vec<String>,
}

/// The memory that each worker needs under the spec's layout, at the node that needs most.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WorkerMemory {
    pub node: String,
    pub layout: Layout,
    /// The spec does not state the micro-batch: the memory is for one sequence, the minimum.
    pub micro_batch_unknown: bool,
    /// Memory of one device of the layout's machine; none on CPUs.
    pub device_memory: Option<u64>,
    pub ranks: Vec<RankMemory>,
}

impl WorkerMemory {
    /// Bytes of the rank that needs most.
    pub fn most(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.total).max().unwrap_or(0)
    }
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankMemory {
    pub pp_rank: u32,
    pub bytes: Memory,
    pub total: u64,
}

/// `aurora check --json`: the diagnostics of each spec.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Diagnostics {
    pub files: Vec<CheckedFile>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckedFile {
    pub file: String,
    pub diagnostics: Vec<DiagnosticJson>,
    /// Empty if the spec has errors.
    pub assumptions: Vec<Assumption>,
}
