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
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::plan::{CachedResult, ResultCache, joined};
use camino::Utf8Path;

use crate::errors::{BoxedError, io_errors};
use crate::job::{Layout, StepMetrics};
use crate::libtorch::LibtorchError;
use crate::limits::is_unpacked_limit;
use crate::numerics::Fingerprint;
use crate::progress::ProgressReporter;
use crate::results::{ResultError, Results};
use crate::source::Folders;
use crate::statistics::GateResult;
use crate::store::lock::{Attempt, Held, Holder};
use crate::store::{Publication, ResultId, Store, StoreError};
use crate::trust::JudgeOptions;
use workers::WorkerLaunch;

pub use data_nodes::{commit_order, place_source, token_document_names};
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
    /// Other processes build the result: those that are known, which may be none.
    Waiting {
        node: &'a str,
        holders: &'a [Holder],
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

    /// # Errors
    /// A stop is requested.
    pub fn check(&self) -> Result<(), RunError> {
        match (self.is_at_once(), self.is_requested()) {
            (true, _) => Err(RunError::Killed),
            (false, true) => Err(RunError::Stopped { at: None }),
            (false, false) => Ok(()),
        }
    }

    /// For work outside of a run, which ends as soon as it is requested.
    pub fn progress(&self) -> ProgressReporter<'_> {
        ProgressReporter::new(&|_| {}, self.flag())
    }

    /// The flag that work in this process polls.
    pub fn flag(&self) -> &AtomicBool {
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
    #[error("the store has no result of `{node}` of this machine's numerics class, {here}")]
    OtherClass { node: String, here: NumericsClass },
    #[error("{text}")]
    Launch { text: String, help: String },
    /// Workers that other hosts should start have not connected.
    #[error("{text}")]
    NotStarted { text: String },
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
            Self::OtherClass { .. } => Some(
                "evaluate it on a machine of the class that trained it, train it here with `aurora run`, or write \
                 `numerics = portable(…)`"
                    .to_string(),
            ),
            Self::Launch { help, .. } => Some(help.clone()),
            Self::NotStarted { .. } => Some("see the workers' logs in the folder of the run".to_owned()),
            Self::Node { source, .. } if is_unpacked_limit(source.as_ref()) => Some(
                "if the archive is the right one, write what it unpacks to in its source, such as `at_most = 20 GiB`"
                    .to_string(),
            ),
            Self::Node { source, .. } => disk_help(source.as_ref()).map(String::from),
            Self::Worker { .. } => None,
        }
    }
}

/// What to do if the system refused the work, wherever in the chain of causes that is.
fn disk_help(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let reported = crate::errors::causes(error)
        .find_map(|error| error.downcast_ref::<WorkerFailure>()?.os_error)
        .map(io::Error::from_raw_os_error);
    // A refused permission may be that of a source's file: the advice about the store would mislead.
    let is_of_store = |error: &&io::Error| error.kind() != io::ErrorKind::PermissionDenied;
    let mut all = io_errors(error).chain(&reported).filter(is_of_store);
    all.find_map(crate::store::help_with)
}

/// What a run needs from outside the graph.
#[derive(Clone, Copy)]
pub struct ExternalInputs<'a> {
    /// The folders that the spec's file references are relative to.
    pub folders: &'a Folders,
    pub pins: &'a Pins,
    /// Fetch nothing.
    pub offline: bool,
    /// What the spec says about judges, by eval.
    pub judges: &'a BTreeMap<String, JudgeOptions>,
    /// Digests of what judges may do outside of Aurora: the user's consent.
    pub allowed: &'a BTreeSet<String>,
    /// The most bytes that sources may have, for those whose blocks state them.
    pub at_most: &'a BTreeMap<String, u64>,
    /// The most rows of a source that may be malformed, in millionths.
    pub malformed: &'a BTreeMap<String, u32>,
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
    /// What the workers of this run have reported, if it needed any.
    pub fingerprint: Option<Fingerprint>,
    /// The numerics class of the results that depend on one.
    pub class: Option<NumericsClass>,
}

/// The nodes to build, which may depend on the results that a run has.
type Selection<'s, 'a> = &'s dyn Fn(&Run<'a>) -> Result<Vec<NodeId>, RunError>;

impl<'a> Run<'a> {
    /// Builds every node whose result is missing.
    ///
    /// # Errors
    /// The first node that fails; a signal; a store that cannot be used. Finished nodes stay finished.
    pub fn run(&self) -> Result<Outcome, RunError> {
        self.build(&|run| Ok(run.results.keyed.graph.ids().collect()))
    }

    /// Builds an eval of a checkpoint that is in the store, and the missing results that it needs.
    ///
    /// # Errors
    /// As [`run`](Self::run), or the checkpoint is not of the workers' numerics class.
    pub fn evaluate(&self, checkpoint: NodeId, eval: NodeId) -> Result<Outcome, RunError> {
        self.build(&|run| match run.results.class {
            Some(here) if !run.results.is_built(checkpoint)? => Err(RunError::OtherClass {
                node: run.results.node(checkpoint).name().to_owned(),
                here,
            }),
            _ => run.needed_for(eval),
        })
    }

    /// The same run with the results of another class.
    fn in_class(&self, class: Option<NumericsClass>) -> Self {
        Self {
            results: Results { class, ..self.results },
            inputs: self.inputs,
            workers: self.workers.clone(),
            observer: self.observer,
            stop: self.stop,
        }
    }

    /// The class of this machine's workers, if one of them has reported it to this store. Without a libtorch there are no
    /// workers that could have another class than the results in the store.
    fn known_class(&self) -> Result<Option<NumericsClass>, RunError> {
        let Results { keyed, store, .. } = self.results;
        Ok(match self.workers.launch.machine() {
            Some(machine) => store.known_class(&machine, self.workers.portable)?,
            None => store.class_to_read(keyed, None)?,
        })
    }

    /// Whether the store has results of some class for this graph.
    fn has_classed_results(&self) -> Result<bool, RunError> {
        let Results { keyed, store, .. } = self.results;
        for id in keyed.graph.ids().filter(|id| keyed.has_class(*id)) {
            if !store.classes_of(keyed.key(id))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Builds those nodes that `select` chooses and whose result is missing. Inputs come first.
    ///
    /// What is missing depends on the numerics class of the workers. It is known from the store; if it is not, and the store
    /// has results of some class, workers are started first. If the workers then report another class, the choice is made
    /// again.
    fn build(&self, select: Selection<'_, 'a>) -> Result<Outcome, RunError> {
        let mut outcome = Outcome::default();
        let mut run = self.in_class(self.known_class()?);
        let mut started = None;
        if run.results.class.is_none() && run.has_classed_results()? {
            let pool = run.start_workers(&self.workers.layout)?;
            run = run.in_class(Some(pool.class));
            let text = format!("class    {} (numerics of this machine, from a worker)", pool.class);
            self.observer.on_event(RunEvent::Note { text: &text });
            started = Some(pool);
        }
        let mut nodes = select(&run)?;
        let mut missing = run.missing(&nodes)?;
        run.prepare(&missing, &mut outcome)?;
        self.observer.before_training(&run.results)?;
        let on_workers = |id: &NodeId| run.results.node(*id).kind().runs_on_workers();
        if missing.iter().any(on_workers) {
            let pool = match started {
                Some(pool) => pool,
                None => run.start_workers(&self.workers.layout)?,
            };
            if run.results.class != Some(pool.class) {
                run = run.in_class(Some(pool.class));
                nodes = select(&run)?;
                missing = run.missing(&nodes)?;
                run.prepare(&missing, &mut outcome)?;
            }
            let training = run.of_kinds(&missing, &[NodeKind::Train]);
            let evals = run.of_kinds(&missing, &[NodeKind::Eval, NodeKind::Answers]);
            if !training.is_empty() || !evals.is_empty() {
                run.worker_nodes(pool, &training, &evals, &mut outcome)?;
            }
        }
        for id in run.of_kinds(&missing, &[NodeKind::Judge, NodeKind::Expect, NodeKind::Report]) {
            run.data_node(id, &mut outcome)?;
        }
        for id in run.of_kinds(&nodes, &[NodeKind::Expect]) {
            outcome.gates.push(run.results.json(id, expect::GATE_FILE)?);
        }
        outcome.class = run.results.class;
        Ok(outcome)
    }

    /// The nodes whose result is not in the store; repairs the records of the others.
    fn missing(&self, nodes: &[NodeId]) -> Result<Vec<NodeId>, RunError> {
        let mut missing = Vec::new();
        let (mut unused, mut classes) = (0, BTreeSet::new());
        for &id in nodes {
            match self.results.result(id)? {
                CachedResult::Complete => {
                    self.results.restore(id)?;
                    continue;
                }
                CachedResult::Damaged { part } => self.observer.on_event(RunEvent::Damaged {
                    node: self.results.node(id).name(),
                    part: &part,
                }),
                CachedResult::OtherClasses(others) => {
                    unused += 1;
                    classes.extend(others);
                }
                CachedResult::Missing => {}
            }
            missing.push(id);
        }
        if let (Some(here), false) = (self.results.class, classes.is_empty()) {
            let others: Vec<NumericsClass> = classes.into_iter().collect();
            let text = format!(
                "note: the results of {unused} nodes in the store are not used: they are of numerics class {}, and this machine \
                 is of class {here}",
                joined(&others)
            );
            self.observer.on_event(RunEvent::Note { text: &text });
        }
        Ok(missing)
    }

    fn of_kinds(&self, nodes: &[NodeId], kinds: &[NodeKind]) -> Vec<NodeId> {
        let is_of = |id: &NodeId| kinds.contains(&self.results.node(*id).kind());
        nodes.iter().copied().filter(is_of).collect()
    }

    /// Builds what training and evaluation need and this process computes.
    fn prepare(&self, missing: &[NodeId], outcome: &mut Outcome) -> Result<(), RunError> {
        let data = [
            NodeKind::Source,
            NodeKind::Extract,
            NodeKind::Filter,
            NodeKind::Tokenizer,
            NodeKind::Tokens,
            NodeKind::Order,
        ];
        for id in self.of_kinds(missing, &data) {
            self.data_node(id, outcome)?;
        }
        for id in self.of_kinds(missing, &[NodeKind::Weights]) {
            self.data_node(id, outcome)?;
        }
        Ok(())
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
            id: self.results.known_id(id)?,
            realised: self.results.realised(id)?,
            preimage: self.results.keyed.preimage(id),
            made_on: made_on.map(str::to_owned),
        })
    }

    /// Takes over a result made from the same inputs under another key.
    fn reuse(&self, id: NodeId, outcome: &mut Outcome) -> Result<bool, RunError> {
        let realised = ResultId {
            key: self.results.realised(id)?,
            class: self.results.known_id(id)?.class,
        };
        let Some(record) = self.results.store.realised(realised)? else {
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
        self.stop.check()
    }

    /// Locks a result. While another process builds it, calls `meanwhile` again and again. The run must not have locked
    /// another result: two runs that wait for each other would wait for ever.
    fn hold(&self, id: NodeId, mut meanwhile: impl FnMut() -> Result<(), RunError>) -> Result<Held, RunError> {
        let known = self.results.known_id(id)?;
        let mut told = false;
        loop {
            let holders = match self.results.store.try_hold(known)? {
                Attempt::Locked(held) => return Ok(held),
                Attempt::HeldBy(holders) => holders,
            };
            self.check_stop()?;
            if !told {
                let node = self.results.node(id).name();
                self.observer.on_event(RunEvent::Waiting {
                    node,
                    holders: &holders,
                });
                told = true;
            }
            meanwhile()?;
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
