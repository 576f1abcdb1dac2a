//! Finds the steps to execute again when two executions of one locked experiment differ.
//!
//! In: the keyed graph and the stores of both. Out: nothing, the first node that differs, or the steps of a train node
//! that contain the first difference. Not here: executing them again (`engine`), what they compute (`trace`).

use aurora_compiler::graph::{NodeId, Role};
use camino::Utf8PathBuf;

use crate::checkpoint::STEP_LOG;
use crate::compare::{ResultDifference, first_difference, first_step_of, read_step_log};
use crate::job::StepLogLine;
use crate::results::Results;
use crate::store::{Record, Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    #[error("`{store}` does not have a result of `{node}`")]
    Missing { node: String, store: Utf8PathBuf },
    #[error("cannot read the step log of `{node}` in `{store}`")]
    StepLog {
        node: String,
        store: Utf8PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the results of two executions diverge.
#[derive(Debug, PartialEq)]
pub enum Fork {
    /// All results are the same.
    Nowhere {
        nodes: usize,
    },
    /// In a node without training steps.
    Node(ResultDifference),
    Steps(Stretch),
}

/// Steps of a train node that start from the same state in both executions and do not end in the same.
#[derive(Debug, PartialEq)]
pub struct Stretch {
    pub node: NodeId,
    /// The last step of the stage up to which both are known to agree.
    pub after: u64,
    /// The first that is known to differ.
    pub last: u64,
    /// The difference in the step logs; `None` if only the checkpoints differ.
    pub seen: Option<String>,
}

/// Finds the first node, in the graph's order, whose results differ.
///
/// # Errors
/// [`BisectError`] if one of the stores does not have a result.
pub fn locate(a: &Results<'_>, b: &Results<'_>) -> Result<Fork, BisectError> {
    let keyed = a.keyed;
    let mut nodes = 0;
    for id in keyed.graph.ids() {
        let node = keyed.graph.node(id);
        let (old, new) = (record(id, a)?, record(id, b)?);
        nodes += 1;
        if old.digest == new.digest {
            continue;
        }
        let Some((_, last)) = node.origin.trained() else {
            return Ok(Fork::Node(first_difference(id, a, b)?));
        };
        let logs = (steps(a.store, &old)?, steps(b.store, &new)?);
        let before = keyed.graph.input(id, &Role::ResumesFrom);
        let first = before
            .and_then(|before| keyed.graph.node(before).origin.trained())
            .map_or(0, |(_, step)| step);
        return Ok(Fork::Steps(stretch(id, first..last, &logs.0, &logs.1)));
    }
    Ok(Fork::Nowhere { nodes })
}

/// The steps of a segment to execute again: from the last step with the same weights to the first one that differs, by the
/// step logs.
fn stretch(node: NodeId, segment: std::ops::Range<u64>, a: &[StepLogLine], b: &[StepLogLine]) -> Stretch {
    let parted = first_step_of(a, b).filter(|(step, _)| segment.contains(&(step - 1)));
    let last = parted.as_ref().map_or(segment.end, |(step, _)| *step);
    let digested = |step: &&StepLogLine| !step.groups.is_empty() && step.step < last;
    let same = a.iter().rfind(digested).map_or(0, |step| step.step);
    Stretch {
        node,
        after: same.max(segment.start),
        last,
        seen: parted.map(|(_, what)| what),
    }
}

fn record(id: NodeId, results: &Results<'_>) -> Result<Record, BisectError> {
    results.find(id)?.ok_or_else(|| BisectError::Missing {
        node: results.node(id).name().to_owned(),
        store: results.store.root().to_owned(),
    })
}

fn steps(store: &Store, record: &Record) -> Result<Vec<StepLogLine>, BisectError> {
    let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let read = || read_step_log(&store.object_path(&record.outputs.get(STEP_LOG).ok_or_else(none)?.content));
    read().map_err(|source| BisectError::StepLog {
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

    fn log(steps: u64, differing: Option<u64>) -> Vec<StepLogLine> {
        let step = |step: u64| {
            let differs = differing.is_some_and(|from| step >= from);
            let digest = if differs { "b" } else { "a" };
            let groups = if step.is_multiple_of(10) {
                BTreeMap::from([("h.0".to_owned(), digest.to_owned())])
            } else {
                BTreeMap::new()
            };
            StepLogLine {
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
    fn the_steps_after_the_last_equal_weights_are_found() {
        let spec = aurora_compiler::check::check("t.aur", include_str!("../../specs/tiny.aur"), None).unwrap();
        let graph = aurora_compiler::graph::lower(&spec, &Pins::new());
        let node = graph.ids().next().unwrap();
        let of = |segment, differing| {
            let found = stretch(node, segment, &log(30, None), &log(30, differing));
            (found.after, found.last, found.seen)
        };
        let loss = Some("loss".to_owned());
        assert_eq!(of(0..30, Some(17)), (10, 17, loss.clone()));
        assert_eq!(of(0..30, Some(20)), (10, 20, loss.clone()));
        assert_eq!(of(0..30, Some(7)), (0, 7, loss.clone()));
        // The segment starts from a checkpoint that is the same in both.
        assert_eq!(of(16..24, Some(18)), (16, 18, loss));
        // The logs agree: only the weights at the end differ.
        assert_eq!(of(16..30, None), (20, 30, None));
    }
}
