//! The execution graph: one node per step of work.
//!
//! In: a checked [`Spec`](crate::spec::Spec) and the pins of its sources. Out: a [`Graph`] whose nodes stand after their
//! inputs. Cannot fail: everything that can be wrong with a spec has been found by `check`.
//! Not here: keys (`hash`), what is already done (`plan`), files (nowhere in this crate).

mod changed;
mod facts;
mod gates;
mod lower;
mod nodes;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use changed::changed_nodes;
pub use facts::{StagePlan, model_fields, set_names, stage_plan};
pub use lower::{hub_source, lower, lower_eval};
pub(crate) use nodes::shares;

/// A node of one graph; inputs have smaller ids than their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NodeIndex);

impl NodeId {
    pub fn index(self) -> usize {
        self.0.index()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Source,
    Extract,
    Filter,
    Tokenizer,
    Tokens,
    Order,
    Weights,
    Train,
    Eval,
    Answers,
    Judge,
    Expect,
    Report,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Extract => "extract",
            Self::Filter => "filter",
            Self::Tokenizer => "tokenizer",
            Self::Tokens => "tokens",
            Self::Order => "order",
            Self::Weights => "weights",
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Answers => "answers",
            Self::Judge => "judge",
            Self::Expect => "expect",
            Self::Report => "report",
        }
    }

    /// Version of what the kind does: raised when the same fields and inputs give another result than before, so that
    /// results of the older meaning are not taken for the newer.
    pub fn version(self) -> u32 {
        match self {
            // 2: gradients of replicated parts are kept by row blocks through a lane, and joined once a step.
            Self::Train => 2,
            // 2: perplexity says what each document is worth; gates and the report say what is within the noise.
            Self::Expect | Self::Report => 2,
            // 3: a document's last window reads tokens before it again. 4: choices of an item share the reading of its prompt.
            Self::Eval => 4,
            // 2: a step's products are those of a few rows.
            Self::Answers => 2,
            _ => 1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    /// For people, unique in its graph: `cap@20000`, `tokens/bpe/finnish`.
    pub name: String,
    pub kind: Kind,
    /// What `fields` (the module) says of the kind, as JSON.
    pub fields: serde_json::Value,
    /// Paths of the spec's `unknown` values that this node needs; a placeholder stands in `fields`.
    pub unknown: Vec<String>,
    /// Values of the spec that the fields came from, by spec path, as text. Not identity.
    pub spec_values: Arc<BTreeMap<String, String>>,
}

/// An edge, seen from the node that uses it.
#[derive(Clone, Debug)]
pub struct Input {
    pub role: String,
    pub node: NodeId,
    /// False for an input that only saves work (the checkpoint that a longer run goes on from): it is not in the key.
    pub identity: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: DiGraph<Node, Edge>,
    by_name: BTreeMap<String, NodeId>,
}

#[derive(Clone, Debug)]
struct Edge {
    role: String,
    position: usize,
    identity: bool,
}

impl Graph {
    fn add(&mut self, node: Node, inputs: Vec<Input>) -> NodeId {
        let name = node.name.clone();
        let id = NodeId(self.nodes.add_node(node));
        for (position, input) in inputs.into_iter().enumerate() {
            self.nodes.add_edge(
                input.node.0,
                id.0,
                Edge {
                    role: input.role,
                    position,
                    identity: input.identity,
                },
            );
        }
        let before = self.by_name.insert(name, id);
        assert!(before.is_none(), "lowering names every node once");
        id
    }

    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every node, inputs before users.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.node_count()).map(|index| NodeId(NodeIndex::new(index)))
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The inputs of a node in their declared order.
    pub fn inputs(&self, id: NodeId) -> impl Iterator<Item = Input> + use<'_> {
        let mut edges: Vec<_> = self.nodes.edges_directed(id.0, Direction::Incoming).collect();
        edges.sort_by_key(|edge| edge.weight().position);
        edges.into_iter().map(|edge| Input {
            role: edge.weight().role.clone(),
            node: NodeId(edge.source()),
            identity: edge.weight().identity,
        })
    }

    /// The nodes that use this one, identity or not.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + use<'_> {
        self.nodes.neighbors_directed(id.0, Direction::Outgoing).map(NodeId)
    }
}

/// What a source is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The reference as the spec has it.
    pub from: String,
    /// The reference with its exact version.
    pub reference: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3 of the file, or of the manifest of several.
    pub content: String,
    /// Names of the files.
    pub files: Vec<String>,
}

/// Pins by the name of the source block.
pub type Pins = BTreeMap<String, Pin>;
