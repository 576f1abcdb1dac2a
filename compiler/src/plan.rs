//! What a run would do: every node with its state and, where it has to run, the reason.
//!
//! In: a keyed graph and what a store has. Out: a [`Plan`]. Not here: the store itself, which answers through [`Have`].

use schemars::JsonSchema;
use serde::Serialize;

use crate::graph::{Kind, NodeId};
use crate::hash::{Key, Keyed, Preimage};
use crate::why::{Change, changes};

/// What is known of results made before.
pub trait Have {
    fn result(&self, key: Key) -> Found;
    /// What the node of this name was made of when it was last built.
    fn last(&self, name: &str) -> Option<Preimage>;
    /// The step after which an unfinished checkpoint of this training node stands.
    fn partial(&self, key: Key) -> Option<u64>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole,
    Missing,
    /// An object of the result no longer has the bytes it was published with.
    Damaged {
        object: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The result is there.
    Cached,
    /// Never built.
    Run,
    /// Built before from something else, or damaged since.
    Changed,
}

#[derive(Clone, Debug)]
pub struct Planned {
    pub id: NodeId,
    pub state: State,
    pub why: Vec<Change>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// In the graph's order: inputs before users.
    pub nodes: Vec<Planned>,
}

impl Plan {
    pub fn count(&self, state: State) -> usize {
        self.nodes.iter().filter(|node| node.state == state).count()
    }

    pub fn is_done(&self) -> bool {
        self.count(State::Cached) == self.nodes.len()
    }
}

/// Compares a graph with what is there.
pub fn plan(keyed: &Keyed, have: &dyn Have) -> Plan {
    let nodes = keyed.graph.ids().map(|id| planned(keyed, have, id)).collect();
    Plan { nodes }
}

fn planned(keyed: &Keyed, have: &dyn Have, id: NodeId) -> Planned {
    let key = keyed.key(id);
    let damaged = match have.result(key) {
        Found::Whole => {
            return Planned {
                id,
                state: State::Cached,
                why: Vec::new(),
                reason: None,
            };
        }
        Found::Damaged { object } => Some(object),
        Found::Missing => None,
    };
    let node = keyed.graph.node(id);
    let why = have.last(node.name()).map(|old| changes(&old, &keyed.preimage(id)));
    let resumes = (node.kind() == Kind::Train).then(|| have.partial(key)).flatten();
    let resumes = resumes.map(|step| format!("; goes on from step {step}"));
    let (state, reason) = match (damaged, &why) {
        (Some(object), _) => (State::Changed, format!("object {object} of its result is damaged")),
        (None, None) => (State::Run, "not built yet".to_string()),
        (None, Some(why)) if why.is_empty() => (State::Run, "its result is no longer in the store".to_string()),
        (None, Some(why)) => (
            State::Changed,
            why.iter().map(Change::to_string).collect::<Vec<_>>().join("; "),
        ),
    };
    let reason = Some(reason + resumes.as_deref().unwrap_or_default());
    Planned {
        id,
        state,
        why: why.unwrap_or_default(),
        reason,
    }
}
