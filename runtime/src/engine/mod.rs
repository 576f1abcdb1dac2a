//! Builds the nodes of a keyed graph that are missing from the store, and publishes their results.
//!
//! In: a keyed graph whose sources are pinned, and a store. Out: every node's result in the store. Data nodes run in
//! this process, training and evaluation in worker processes. Not here: what a node does (`data`, `aurora-train`),
//! pinning (`pin`), printing (`cli`, through [`Observer`]).

mod data_nodes;
mod expect;
mod trace;
mod worker_nodes;
pub mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::graph::{NodeId, NodeKind, Pins};
use aurora_compiler::plan::CachedResult;
use camino::Utf8Path;

use crate::errors::{BoxedError, io_kinds};
use crate::job::{Fingerprint, Layout, StepMetrics};
use crate::libtorch::LibtorchError;
use crate::results::{ResultError, Results};
use crate::statistics::GateResult;
use crate::store::{Publication, Store, StoreError};
use workers::WorkerLaunch;

pub use data_nodes::{commit_order, place_source};
pub use trace::Traced;
pub use workers::WorkerFailure;

/// Progress events that a run reports to its [`Observer`].
#[derive(Clone, Debug)]
pub enum RunEvent<'a> {
    /// The result was in the store.
    Cached {
        node: &'a str,
    },
    /// The store has the result of another key with the same inputs.
    Reused {
        node: &'a str,
    },
    Started {
        node: &'a str,
        kind: NodeKind,
    },
    Progress {
        node: &'a str,
        done: u64,
        total: u64,
        unit: &'a str,
    },
    Built {
        node: &'a str,
        kind: NodeKind,
        seconds: f64,
    },
    /// A result that is built again.
    Damaged {
        node: &'a str,
        part: &'a str,
    },
    WorkersReady {
        fingerprint: &'a Fingerprint,
        layout: &'a Layout,
    },
    Resumed {
        node: &'a str,
        step: u64,
    },
    Step {
        step: &'a StepMetrics,
        stage: &'a str,
        of: u64,
        tokens_per_step: u64,
    },
    Evaluating {
        node: &'a str,
        set: &'a str,
        done: u64,
        of: u64,
    },
    Note {
        text: &'a str,
    },
    /// A worker was lost and the run continues with new ones. Shown even with `--progress none`.
    Restart {
        text: &'a str,
    },
}

/// Observes a run.
pub trait Observer: Sync {
    fn on_event(&self, event: RunEvent<'_>);

    /// Called when the data order of every stage is built, before the first worker starts.
    ///
    /// # Errors
    /// The run must not train; it ends with this error.
    fn before_training(&self, results: &Results<'_>) -> Result<(), RunError> {
        let _ = results;
        Ok(())
    }
}

/// A request to stop a run. The first one saves a checkpoint and stops, the second one stops at once.
#[derive(Default)]
pub struct Stop {
    requested: AtomicBool,
    at_once: AtomicBool,
}

impl Stop {
    pub const fn new() -> Self {
        Self {
            requested: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
        }
    }

    pub fn request(&self) {
        if self.requested.swap(true, Ordering::SeqCst) {
            self.at_once.store(true, Ordering::SeqCst);
        }
    }

    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    pub fn is_at_once(&self) -> bool {
        self.at_once.load(Ordering::SeqCst)
    }

    /// The flag that work in this process polls.
    fn flag(&self) -> &AtomicBool {
        &self.requested
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("`{node}` failed")]
    Node {
        node: String,
        #[source]
        source: BoxedError,
    },
    #[error("stopped; finished results are kept")]
    Stopped { at: Option<(String, u64)> },
    #[error("stopped at once; finished results are kept")]
    Killed,
    #[error(transparent)]
    NoWorker(#[from] LibtorchError),
    #[error("the worker ended {how}")]
    Worker { how: String },
    #[error("rank {rank} on {host} {how}{}", after.as_ref().map(|after| format!(", after {after}")).unwrap_or_default())]
    Lost {
        rank: usize,
        host: String,
        how: String,
        /// The last completed step.
        after: Option<String>,
    },
    #[error("`{node}` was computed with other numerics: {there}; here are {here}")]
    Numerics { node: String, there: String, here: String },
    #[error("{text}")]
    Launch { text: String, help: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ResultError> for RunError {
    fn from(error: ResultError) -> Self {
        match error {
            ResultError::Node { node, source } => Self::Node { node, source },
            ResultError::Store(error) => Self::Store(error),
        }
    }
}

impl RunError {
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.help().map(String::from),
            Self::NoWorker(error) => Some(error.help()),
            Self::Stopped { .. } | Self::Killed => Some("run the same command to resume".to_string()),
            Self::Lost { .. } => Some("run the same command to resume from the last checkpoint".to_string()),
            Self::Numerics { .. } => Some(
                "resuming from it would give other bits: resume on a machine of the kind that made it, start again in \
                 another `--store`, or write `numerics = portable(…)`"
                    .to_string(),
            ),
            Self::Launch { help, .. } => Some(help.clone()),
            Self::Node { source, .. } => disk_help(source.as_ref()).map(String::from),
            Self::Worker { .. } => None,
        }
    }
}

/// What to do if a disk refused the work, wherever in the chain of causes that is.
fn disk_help(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let reported = crate::errors::causes(error)
        .find_map(|error| error.downcast_ref::<WorkerFailure>()?.os_error)
        .map(|code| io::Error::from_raw_os_error(code).kind());
    // A refused permission may be that of a source's file: the advice about the store would mislead.
    let refused = |kind: &io::ErrorKind| {
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::ReadOnlyFilesystem
        )
    };
    let mut kinds = io_kinds(error).chain(reported).filter(refused);
    kinds.find_map(crate::store::help_with)
}

/// What a run needs from outside the graph.
#[derive(Clone, Copy)]
pub struct ExternalInputs<'a> {
    /// Folder that the spec's file references are relative to.
    pub root: &'a Utf8Path,
    pub pins: &'a Pins,
    /// Fetch nothing.
    pub offline: bool,
    /// The environment variables with the keys of judges' interfaces, by eval.
    pub secrets: &'a BTreeMap<String, String>,
    /// The store of the run that is repeated: it has the answers of external judges.
    pub recorded: Option<&'a Store>,
}

/// The workers of a run.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub launch: WorkerLaunch,
    pub layout: Layout,
    /// The numerics are `portable`: results use only Aurora's own kernels.
    pub portable: bool,
    /// How often the run continues with new workers after it lost one.
    pub restarts: u32,
    /// Halve the number of workers at each restart.
    pub fewer: bool,
}

/// One run: the graph and its store, its external inputs, its workers, and who observes and stops it.
pub struct Run<'a> {
    pub results: Results<'a>,
    pub inputs: ExternalInputs<'a>,
    pub workers: WorkerOptions,
    pub observer: &'a dyn Observer,
    pub stop: &'a Stop,
}

/// What a run did with each node.
#[derive(Debug, Default)]
pub struct Outcome {
    pub built: Vec<NodeId>,
    pub reused: Vec<NodeId>,
    pub gates: Vec<GateResult>,
    /// What the numerics of this run depend on, if a worker was needed.
    pub fingerprint: Option<Fingerprint>,
}

impl<'a> Run<'a> {
    /// Builds every node whose result is missing.
    ///
    /// # Errors
    /// The first node that fails; a signal; a store that cannot be used. Finished nodes stay finished.
    pub fn run(&self) -> Result<Outcome, RunError> {
        self.build(self.results.keyed.graph.ids().collect())
    }

    /// Builds one node and the missing results that it needs.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_node(&self, id: NodeId) -> Result<Outcome, RunError> {
        self.build(self.needed_for(id)?)
    }

    /// Builds those of these nodes whose result is missing. Inputs come first.
    fn build(&self, nodes: Vec<NodeId>) -> Result<Outcome, RunError> {
        let mut outcome = Outcome::default();
        let mut missing = Vec::new();
        for &id in &nodes {
            match self.results.store.state(self.results.keyed.key(id))? {
                CachedResult::Complete => {
                    self.results.restore(id)?;
                    continue;
                }
                CachedResult::Damaged { part } => self.observer.on_event(RunEvent::Damaged {
                    node: self.results.node(id).name(),
                    part: &part,
                }),
                CachedResult::Missing => {}
            }
            missing.push(id);
        }
        let of_kind = |kinds: &[NodeKind]| -> Vec<NodeId> {
            missing
                .iter()
                .copied()
                .filter(|id| kinds.contains(&self.results.node(*id).kind()))
                .collect()
        };
        for id in of_kind(&[
            NodeKind::Source,
            NodeKind::Extract,
            NodeKind::Filter,
            NodeKind::Tokenizer,
            NodeKind::Tokens,
            NodeKind::Order,
        ]) {
            self.data_node(id, &mut outcome)?;
        }
        for id in of_kind(&[NodeKind::Weights]) {
            self.data_node(id, &mut outcome)?;
        }
        let training = of_kind(&[NodeKind::Train]);
        let evals = of_kind(&[NodeKind::Eval, NodeKind::Answers]);
        self.observer.before_training(&self.results)?;
        if !training.is_empty() || !evals.is_empty() {
            self.worker_nodes(&training, &evals, &mut outcome)?;
        }
        for id in of_kind(&[NodeKind::Judge, NodeKind::Expect, NodeKind::Report]) {
            self.data_node(id, &mut outcome)?;
        }
        for id in nodes
            .into_iter()
            .filter(|id| self.results.node(*id).kind() == NodeKind::Expect)
        {
            outcome.gates.push(self.results.json(id, expect::GATE_FILE)?);
        }
        Ok(outcome)
    }

    /// A node and the inputs that it needs, inputs first.
    fn needed_for(&self, id: NodeId) -> Result<Vec<NodeId>, RunError> {
        let (mut needed, mut open) = (BTreeSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            // A result that is in the store needs no inputs.
            if needed.insert(id) && !self.results.is_built(id)? {
                open.extend(self.results.keyed.graph.inputs(id).map(|input| input.node));
            }
        }
        Ok(needed.into_iter().collect())
    }

    fn publication(&self, id: NodeId, made_on: Option<&str>) -> Result<Publication<'_>, RunError> {
        Ok(Publication {
            experiment: self.results.experiment,
            node: self.results.node(id).name(),
            key: self.results.keyed.key(id),
            realised: self.results.realised(id)?,
            preimage: self.results.keyed.preimage(id),
            made_on: made_on.map(str::to_owned),
        })
    }

    /// Takes over a result made from the same inputs under another key.
    fn reuse(&self, id: NodeId, outcome: &mut Outcome) -> Result<bool, RunError> {
        let Some(record) = self.results.store.realised(self.results.realised(id)?)? else {
            return Ok(false);
        };
        self.results
            .store
            .adopt(self.publication(id, record.made_on.as_deref())?, record.outputs)?;
        self.observer.on_event(RunEvent::Reused {
            node: self.results.node(id).name(),
        });
        outcome.reused.push(id);
        Ok(true)
    }

    fn publish(
        &self,
        id: NodeId,
        folder: &Utf8Path,
        made_on: Option<&str>,
        seconds: f64,
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        self.results.store.publish(self.publication(id, made_on)?, folder)?;
        let node = self.results.node(id);
        self.observer.on_event(RunEvent::Built {
            node: node.name(),
            kind: node.kind(),
            seconds,
        });
        outcome.built.push(id);
        Ok(())
    }

    fn check_stop(&self) -> Result<(), RunError> {
        match (self.stop.is_at_once(), self.stop.is_requested()) {
            (true, _) => Err(RunError::Killed),
            (false, true) => Err(RunError::Stopped { at: None }),
            (false, false) => Ok(()),
        }
    }

    fn fail(&self, id: NodeId, cause: impl Into<BoxedError>) -> RunError {
        self.results.fail(id, cause).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_refuses_a_worker_has_advice() {
        let help = |os_error| {
            let text = "cannot write the checkpoint".to_owned();
            let error = RunError::Node {
                node: "cap@8".to_owned(),
                source: WorkerFailure { text, os_error }.into(),
            };
            error.help()
        };
        // ENOSPC and EROFS.
        assert!(help(Some(28)).is_some_and(|text| text.contains("free space")));
        assert!(help(Some(30)).is_some_and(|text| text.contains("writable")));
        // EACCES, and no code.
        assert_eq!(help(Some(13)), None);
        assert_eq!(help(None), None);
    }
}
