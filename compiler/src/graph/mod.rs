//! The execution graph: one node per step of work.
//!
//! In: a checked [`Spec`](crate::spec::Spec) and the pins of its sources. Out: a [`Graph`] whose nodes come after their
//! inputs. Lowering cannot fail: `check` finds every error of a spec.
//! Not here: keys (`hash`), what is already done (`plan`), files (this crate reads none).

mod changed;
mod facts;
mod gates;
mod lower;
mod nodes;
mod origin;
mod role;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};

pub use changed::changed_nodes;
pub use facts::{model_fields, stage_plan};
pub use lower::{is_archive, lower, lower_eval};
pub(crate) use nodes::millionths;
pub use origin::{CheckpointOrigin, NodeOrigin};
pub use role::Role;
pub use work::{NodeKind, Work};

/// A node of one graph; inputs have smaller ids than their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NodeIndex);

impl NodeId {
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// A unit of work.
#[derive(Clone, Debug)]
pub struct Node {
    pub origin: NodeOrigin,
    pub work: Work,
    /// Version of the work's semantics, part of the key.
    pub version: u32,
    /// Paths of the spec's `unknown` values that this node needs; `work` holds a placeholder for each.
    pub unknown: Vec<String>,
    /// The values of the spec that the fields came from, by spec path, as text. Not part of the key.
    pub spec_values: Arc<BTreeMap<String, String>>,
    /// The origin as text, for searches by name.
    name: String,
}

impl Node {
    /// The readable name, unique in its graph. Never parse it: use `origin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> NodeKind {
        self.work.kind()
    }
}

/// An edge, seen from the node that uses it.
#[derive(Clone, Debug)]
pub struct Input {
    pub role: Role,
    pub node: NodeId,
}

/// An acyclic graph of nodes; its order puts inputs before users.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: DiGraph<Node, Edge>,
    by_name: BTreeMap<String, NodeId>,
}

#[derive(Clone, Debug)]
struct Edge {
    role: Role,
    position: usize,
}

impl Graph {
    fn add(&mut self, node: Node, inputs: Vec<Input>) -> NodeId {
        let name = node.name().to_owned();
        let id = NodeId(self.nodes.add_node(node));
        for (position, input) in inputs.into_iter().enumerate() {
            self.nodes.add_edge(
                input.node.0,
                id.0,
                Edge {
                    role: input.role,
                    position,
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
        })
    }

    /// The first input of a role.
    pub fn input(&self, id: NodeId, role: &Role) -> Option<NodeId> {
        self.inputs(id)
            .find(|input| input.role == *role)
            .map(|input| input.node)
    }

    /// The nodes that use this one, including inputs that are not part of a key.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + use<'_> {
        self.nodes.neighbors_directed(id.0, Direction::Outgoing).map(NodeId)
    }
}

/// What a source is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The reference in the spec.
    pub from: String,
    /// The reference with its exact version.
    pub reference: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3 of the manifest of the files.
    pub content: String,
    /// Names of the files, relative to the source's root.
    pub files: Vec<String>,
}

/// Pins by the name of the source block.
pub type Pins = BTreeMap<String, Pin>;
