//! What a run would do: every node with its state and, where it has to run, the reason.
//!
//! In: a keyed graph and a [`ResultCache`], which the store implements. Out: a [`Plan`].

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::graph::{NodeId, NodeKind};
use crate::hash::{Keyed, Preimage};
use crate::numerics_class::NumericsClass;
use crate::why::{KeyChange, list_changes};

/// Earlier results.
pub trait ResultCache {
    /// Why results cannot be looked up.
    type Error;

    /// The state of a node's result.
    ///
    /// # Errors
    /// The result cannot be looked up.
    fn result(&self, id: NodeId) -> Result<CachedResult, Self::Error>;

    /// The pre-image of the key that the node of this name had when it was last built.
    ///
    /// # Errors
    /// It cannot be looked up.
    fn last(&self, name: &str) -> Result<Option<Preimage>, Self::Error>;

    /// The step of a partial checkpoint of this training node.
    ///
    /// # Errors
    /// It cannot be looked up.
    fn partial(&self, id: NodeId) -> Result<Option<u64>, Self::Error>;
}

/// The state of a result in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachedResult {
    Complete,
    Missing,
    /// The record or an object of the result no longer has the bytes it was published with.
    Damaged {
        /// `record actions/…` or `object …`.
        part: String,
    },
    /// There are results of the node, but only of numerics classes that are not this machine's.
    OtherClasses(Vec<NumericsClass>),
}

/// What a run would do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// The result is in the store.
    Cached,
    /// Never built, or its result was removed.
    Run,
    /// Built before from other inputs, or damaged since.
    Changed,
}

/// Why a node has to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    NotBuilt,
    /// It was built from the same inputs before.
    Removed,
    Changed(Vec<KeyChange>),
    Damaged {
        /// `record actions/…` or `object …`.
        part: String,
    },
    /// Its results are of numerics classes that are not this machine's.
    OtherClasses(Vec<NumericsClass>),
}

/// A node, and why it would run.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    pub id: NodeId,
    /// None if the result is in the store.
    pub reason: Option<Reason>,
    /// The step of the partial checkpoint from which it resumes.
    pub resumes_from: Option<u64>,
}

impl PlannedNode {
    pub fn state(&self) -> NodeState {
        match self.reason {
            None => NodeState::Cached,
            Some(Reason::NotBuilt | Reason::Removed | Reason::OtherClasses(_)) => NodeState::Run,
            Some(Reason::Changed(_) | Reason::Damaged { .. }) => NodeState::Changed,
        }
    }

    /// The differences from the node that was last built under this name.
    pub fn changes(&self) -> &[KeyChange] {
        match &self.reason {
            Some(Reason::Changed(changes)) => changes,
            _ => &[],
        }
    }

    /// The reason, and the step from which it resumes, as text.
    pub fn explanation(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        Some(match self.resumes_from {
            Some(step) => format!("{reason}; resumes from step {step}"),
            None => reason.to_string(),
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str("not built yet"),
            Self::Removed => f.write_str("its result is no longer in the store"),
            Self::Changed(changes) => f.write_str(&list_changes(changes)),
            Self::Damaged { part } => write!(f, "{part} of its result is damaged"),
            Self::OtherClasses(classes) => write!(f, "its result is of numerics class {}", joined(classes)),
        }
    }
}

/// Classes as text, with commas.
pub fn joined(classes: &[NumericsClass]) -> String {
    let texts: Vec<String> = classes.iter().map(NumericsClass::to_string).collect();
    texts.join(", ")
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// In the graph's order: inputs before users.
    pub nodes: Vec<PlannedNode>,
}

impl Plan {
    pub fn count(&self, state: NodeState) -> usize {
        self.nodes.iter().filter(|node| node.state() == state).count()
    }

    pub fn is_done(&self) -> bool {
        self.nodes.iter().all(|node| node.reason.is_none())
    }
}

/// Compares a graph with earlier results.
///
/// # Errors
/// An earlier result cannot be looked up.
pub fn plan<C: ResultCache>(keyed: &Keyed, cache: &C) -> Result<Plan, C::Error> {
    let nodes = keyed.graph.ids().map(|id| plan_node(keyed, cache, id));
    Ok(Plan {
        nodes: nodes.collect::<Result<_, _>>()?,
    })
}

fn plan_node<C: ResultCache>(keyed: &Keyed, cache: &C, id: NodeId) -> Result<PlannedNode, C::Error> {
    let node = keyed.graph.node(id);
    let reason = match cache.result(id)? {
        CachedResult::Complete => None,
        CachedResult::Damaged { part } => Some(Reason::Damaged { part }),
        CachedResult::OtherClasses(classes) => Some(Reason::OtherClasses(classes)),
        CachedResult::Missing => Some(match cache.last(node.name())? {
            None => Reason::NotBuilt,
            Some(old) => match crate::why::changes(&old, &keyed.preimage(id)) {
                changes if changes.is_empty() => Reason::Removed,
                changes => Reason::Changed(changes),
            },
        }),
    };
    let can_resume = reason.is_some() && node.kind() == NodeKind::Train;
    Ok(PlannedNode {
        id,
        reason,
        resumes_from: if can_resume { cache.partial(id)? } else { None },
    })
}
