//! Which steps to look at when two executions of one locked experiment differ.
//!
//! In: the keyed graph and the stores of both. Out: nothing, the first node that differs, or the steps of a train node
//! among which the first difference lies. Not here: executing them again (`engine`), what they compute (`trace`).

use aurora_compiler::graph::{NodeId, Role};
use aurora_compiler::hash::Keyed;
use camino::Utf8PathBuf;

use crate::checkpoint::TRAIL;
use crate::compare::{Difference, first_difference, first_step_of, trail};
use crate::job::TrailStep;
use crate::store::{Record, Store};

#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    #[error("`{store}` has no result of `{node}`")]
    Missing { node: String, store: Utf8PathBuf },
    #[error("the trail of `{node}` in `{store}` cannot be read")]
    Trail {
        node: String,
        store: Utf8PathBuf,
        source: std::io::Error,
    },
}

/// Where the results of two executions part.
#[derive(Debug, PartialEq)]
pub enum Fork {
    /// All results of so many nodes are the same.
    Nowhere {
        nodes: usize,
    },
    /// In a node that computes no steps.
    Node(Difference),
    Steps(Stretch),
}

/// Steps of a train node that start from the same state in both executions and do not end in the same.
#[derive(Debug, PartialEq)]
pub struct Stretch {
    pub node: NodeId,
    /// The last step of the stage up to which everything is known to agree.
    pub after: u64,
    /// The first that is known to differ.
    pub last: u64,
    /// What the trails say of it; nothing if the checkpoint alone differs.
    pub seen: Option<String>,
}

/// Finds the first node, in the graph's order, whose results differ.
///
/// # Errors
/// [`BisectError`] if one of the stores has not got what the other has.
pub fn locate(keyed: &Keyed, a: &Store, b: &Store) -> Result<Fork, BisectError> {
    let mut nodes = 0;
    for id in keyed.graph.ids() {
        let node = keyed.graph.node(id);
        let (old, new) = (record(keyed, id, a)?, record(keyed, id, b)?);
        nodes += 1;
        if old.digest == new.digest {
            continue;
        }
        let Some((_, last)) = node.origin.trained() else {
            return Ok(Fork::Node(first_difference(keyed, id, a, b)));
        };
        let trails = (steps(a, &old)?, steps(b, &new)?);
        let before = keyed.graph.input(id, &Role::ResumesFrom);
        let first = before
            .and_then(|before| keyed.graph.node(before).origin.trained())
            .map_or(0, |(_, step)| step);
        return Ok(Fork::Steps(stretch(id, first..last, &trails.0, &trails.1)));
    }
    Ok(Fork::Nowhere { nodes })
}

/// A segment's steps that are to be looked at: the trails say where they differ first, and where the weights were last
/// the same.
fn stretch(node: NodeId, segment: std::ops::Range<u64>, a: &[TrailStep], b: &[TrailStep]) -> Stretch {
    let parted = first_step_of(a, b).filter(|(step, _)| segment.contains(&(step - 1)));
    let last = parted.as_ref().map_or(segment.end, |(step, _)| *step);
    let digested = |step: &&TrailStep| !step.groups.is_empty() && step.step < last;
    let same = a.iter().rfind(digested).map_or(0, |step| step.step);
    Stretch {
        node,
        after: same.max(segment.start),
        last,
        seen: parted.map(|(_, what)| what),
    }
}

fn record(keyed: &Keyed, id: NodeId, store: &Store) -> Result<Record, BisectError> {
    store.record(keyed.key(id)).ok_or_else(|| BisectError::Missing {
        node: keyed.graph.node(id).name().to_owned(),
        store: store.root().to_owned(),
    })
}

fn steps(store: &Store, record: &Record) -> Result<Vec<TrailStep>, BisectError> {
    let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let read = || trail(&store.object_path(&record.outputs.get(TRAIL).ok_or_else(none)?.content));
    read().map_err(|source| BisectError::Trail {
        node: record.node.clone(),
        store: store.root().to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aurora_compiler::graph::Pins;

    use super::*;

    fn trail(steps: u64, differing: Option<u64>) -> Vec<TrailStep> {
        let step = |step: u64| {
            let differs = differing.is_some_and(|from| step >= from);
            let digest = if differs { "b" } else { "a" };
            let groups = if step.is_multiple_of(10) {
                BTreeMap::from([("h.0".to_owned(), digest.to_owned())])
            } else {
                BTreeMap::new()
            };
            TrailStep {
                step,
                batch: String::new(),
                loss: digest.to_owned(),
                grad_norm: String::new(),
                learning_rate: String::new(),
                groups,
            }
        };
        (1..=steps).map(step).collect()
    }

    #[test]
    fn the_steps_after_the_last_equal_weights_are_looked_at() {
        let spec = aurora_compiler::check::check("t.aur", include_str!("../../specs/tiny.aur"), None).unwrap();
        let graph = aurora_compiler::graph::lower(&spec, &Pins::new());
        let node = graph.ids().next().unwrap();
        let of = |segment, differing| {
            let found = stretch(node, segment, &trail(30, None), &trail(30, differing));
            (found.after, found.last, found.seen)
        };
        let loss = Some("loss".to_owned());
        assert_eq!(of(0..30, Some(17)), (10, 17, loss.clone()));
        assert_eq!(of(0..30, Some(20)), (10, 20, loss.clone()));
        assert_eq!(of(0..30, Some(7)), (0, 7, loss.clone()));
        // The segment starts from a checkpoint that is the same in both.
        assert_eq!(of(16..24, Some(18)), (16, 18, loss));
        // Nothing in the trail: the weights differ at the end alone.
        assert_eq!(of(16..30, None), (20, 30, None));
    }
}
