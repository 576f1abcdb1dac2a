//! Runs a keyed graph: what is not in the store is built, published and named.
//!
//! In: a keyed graph whose sources are pinned, and a store. Out: every node's result in the store. Data nodes run in
//! this process; training and evaluation in a worker process. Not here: what a node does (`data`, `aurora-train`),
//! pinning (`pin`), printing (`cli`, through [`Observer`]).

pub mod crew;
mod data_nodes;
mod expect;
mod trace;
mod worker_nodes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::graph::{Kind, Node, NodeId, Pins};
use aurora_compiler::hash::{Key, Keyed, digest_of};
use aurora_compiler::plan::Found;
use camino::{Utf8Path, Utf8PathBuf};

use crate::job::{Files, Fingerprint, Placement, StepMetrics};
use crate::store::{Publication, Record, Store, StoreError};

pub use data_nodes::{commit_order, place_source};
pub use expect::Gate;
pub use trace::Traced;

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Seen<'a> {
    /// The result was there.
    Cached {
        node: &'a str,
    },
    /// The same inputs had been worked on under another key.
    Reused {
        node: &'a str,
    },
    Started {
        node: &'a str,
        kind: Kind,
    },
    Progress {
        node: &'a str,
        done: u64,
        total: u64,
        unit: &'a str,
    },
    Built {
        node: &'a str,
        kind: Kind,
        seconds: f64,
    },
    /// The workers are ready.
    Worker {
        fingerprint: &'a Fingerprint,
        placement: &'a Placement,
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
    /// A worker was lost, and new ones go on: nobody should miss it.
    Restart {
        text: &'a str,
    },
}

pub trait Observer: Sync {
    fn see(&self, seen: Seen<'_>);
}

/// Asks a run to stop: once to save and stop, twice to stop at once.
#[derive(Default)]
pub struct Stop {
    asked: AtomicBool,
    at_once: AtomicBool,
}

impl Stop {
    pub const fn new() -> Self {
        Self {
            asked: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
        }
    }

    pub fn ask(&self) {
        if self.asked.swap(true, Ordering::SeqCst) {
            self.at_once.store(true, Ordering::SeqCst);
        }
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn at_once(&self) -> bool {
        self.at_once.load(Ordering::SeqCst)
    }

    /// The flag that data work looks at.
    fn flag(&self) -> &AtomicBool {
        &self.asked
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("`{node}` failed: {cause}")]
    Node { node: String, cause: String },
    #[error("stopped; what is finished is kept")]
    Stopped { at: Option<(String, u64)> },
    #[error("stopped at once; what was finished is kept")]
    Killed,
    #[error("there is no worker program `{path}`")]
    NoWorker { path: Utf8PathBuf },
    #[error("the worker ended {how}")]
    Worker { how: String },
    #[error("rank {rank} on {host} {how}{}", after.as_ref().map(|after| format!(", after {after}")).unwrap_or_default())]
    Lost {
        rank: usize,
        host: String,
        how: String,
        /// The last step that was done.
        after: Option<String>,
    },
    #[error("`{node}` was computed with other numerics: {there}; here are {here}")]
    Numerics { node: String, there: String, here: String },
    #[error("{cause}")]
    Launch { cause: String, help: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.help().map(String::from),
            Self::NoWorker { .. } => Some(
                "this `aurora` was built without training: build it with the feature `train`, or put `aurora-worker` \
                 beside it"
                    .to_string(),
            ),
            Self::Stopped { .. } | Self::Killed => Some("the same command goes on from there".to_string()),
            Self::Lost { .. } => Some("the same command goes on from the last checkpoint".to_string()),
            Self::Numerics { .. } => Some(
                "going on from it would give other bits: go on where it was made, start anew in another `--store`, or \
                 write `numerics = portable(…)`"
                    .to_string(),
            ),
            Self::Launch { help, .. } => Some(help.clone()),
            Self::Node { cause, .. } | Self::Worker { how: cause } => disk_help(cause).map(String::from),
        }
    }
}

pub struct Run<'a> {
    pub keyed: &'a Keyed,
    pub experiment: &'a str,
    pub store: &'a Store,
    /// Folder that the spec's file references are relative to.
    pub root: &'a Utf8Path,
    pub pins: &'a Pins,
    /// Fetch nothing.
    pub offline: bool,
    pub placement: Placement,
    /// The numerics are `portable`: results stand on Aurora's own kernels alone.
    pub portable: bool,
    /// How workers are started.
    pub launching: crew::Launching,
    /// How often a run goes on with new workers after it has lost one.
    pub restarts: u32,
    /// A restart makes do with half of the workers.
    pub fewer: bool,
    pub observer: &'a dyn Observer,
    pub stop: &'a Stop,
    /// The most epochs that a component of a stage's order may take: by stage, then component.
    pub max_epochs: BTreeMap<String, BTreeMap<String, f64>>,
    /// The environment variables with the keys of judges' interfaces, by eval.
    pub secrets: BTreeMap<String, String>,
    /// The store of the run that is repeated: it has the answers of outside judges.
    pub recorded: Option<&'a Store>,
    /// Only this node and what it needs is built, if one is named.
    pub only: Option<NodeId>,
    /// Called when all orders are known, before the first step of training.
    pub before_training: &'a dyn Fn(&Run<'_>) -> Result<(), RunError>,
}

/// What became of each node.
#[derive(Debug, Default)]
pub struct Outcome {
    pub built: Vec<NodeId>,
    pub reused: Vec<NodeId>,
    pub gates: Vec<Gate>,
    /// What the numerics of this run stand on, if a worker was needed.
    pub fingerprint: Option<Fingerprint>,
}

impl<'a> Run<'a> {
    /// Builds everything that is not there.
    ///
    /// # Errors
    /// The first node that fails; a signal; a store that cannot be used. Finished nodes stay finished.
    pub fn run(&self) -> Result<Outcome, RunError> {
        let _in_use = self.store.share()?;
        let mut outcome = Outcome::default();
        let wanted = self.wanted();
        let todo: Vec<NodeId> = wanted.iter().copied().filter(|id| !self.is_whole(*id)).collect();
        let of_kind = |kinds: &[Kind]| -> Vec<NodeId> {
            todo.iter()
                .copied()
                .filter(|id| kinds.contains(&self.node(*id).kind))
                .collect()
        };
        for id in of_kind(&[
            Kind::Source,
            Kind::Extract,
            Kind::Filter,
            Kind::Tokenizer,
            Kind::Tokens,
            Kind::Order,
        ]) {
            self.data_node(id, &mut outcome)?;
        }
        for id in of_kind(&[Kind::Weights]) {
            self.data_node(id, &mut outcome)?;
        }
        let training = of_kind(&[Kind::Train]);
        let evals = of_kind(&[Kind::Eval, Kind::Answers]);
        (self.before_training)(self)?;
        if !training.is_empty() || !evals.is_empty() {
            self.worker_nodes(&training, &evals, &mut outcome)?;
        }
        for id in of_kind(&[Kind::Judge, Kind::Expect, Kind::Report]) {
            self.data_node(id, &mut outcome)?;
        }
        for id in wanted.into_iter().filter(|id| self.node(*id).kind == Kind::Expect) {
            outcome.gates.push(expect::read(self, id)?);
        }
        Ok(outcome)
    }

    /// The nodes that are to be there at the end, inputs first.
    fn wanted(&self) -> Vec<NodeId> {
        let graph = &self.keyed.graph;
        let Some(only) = self.only else {
            return graph.ids().collect();
        };
        let (mut found, mut open) = (std::collections::BTreeSet::new(), vec![only]);
        while let Some(id) = open.pop() {
            // What stands in the store needs nothing any more.
            if found.insert(id) && !self.is_whole(id) {
                open.extend(graph.inputs(id).map(|input| input.node));
            }
        }
        found.into_iter().collect()
    }

    fn node(&self, id: NodeId) -> &Node {
        self.keyed.graph.node(id)
    }

    /// Whether the node's result is there, every byte of it.
    fn is_whole(&self, id: NodeId) -> bool {
        let record = self.store.record(self.keyed.key(id));
        record.is_some_and(|record| self.store.whole(&record) == Found::Whole)
    }

    /// The result of a node that has been built.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn result(&self, id: NodeId) -> Result<Record, RunError> {
        let node = &self.node(id).name;
        self.store.record(self.keyed.key(id)).ok_or_else(|| RunError::Node {
            node: node.clone(),
            cause: "its result has gone from the store while it was needed".to_string(),
        })
    }

    /// The verified files of a node that has been built.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn files(&self, id: NodeId) -> Result<Files, RunError> {
        Ok(self.store.files(&self.result(id)?)?)
    }

    /// The inputs of a role, in order.
    fn inputs(&self, id: NodeId, role: &str) -> Vec<NodeId> {
        self.keyed
            .graph
            .inputs(id)
            .filter(|input| input.role == role)
            .map(|input| input.node)
            .collect()
    }

    /// The node's key by the contents of its inputs. What an input reports about itself (counts of what it dropped)
    /// is read by the report alone, so that another count does not make the same documents new ones.
    fn realised(&self, id: NodeId) -> Result<Key, RunError> {
        let reads_reports = self.node(id).kind == Kind::Report;
        let mut digests = BTreeMap::new();
        for input in self.keyed.graph.inputs(id).filter(|input| input.identity) {
            let outputs = self.result(input.node)?.outputs;
            let read = outputs
                .iter()
                .filter(|(name, _)| reads_reports || *name != "report.json");
            let digest = digest_of(read.map(|(name, object)| (name.as_str(), object.bytes, object.content.as_str())));
            digests.insert(input.node, digest);
        }
        Ok(self.keyed.realised(id, &|input| digests[&input]))
    }

    fn publication(&self, id: NodeId, made_on: Option<&str>) -> Result<Publication<'_>, RunError> {
        Ok(Publication {
            experiment: self.experiment,
            node: &self.node(id).name,
            key: self.keyed.key(id),
            realised: self.realised(id)?,
            preimage: self.keyed.preimage(id),
            made_on: made_on.map(str::to_owned),
        })
    }

    /// Takes over a result made from the same inputs under another key.
    fn reuse(&self, id: NodeId, outcome: &mut Outcome) -> Result<bool, RunError> {
        let Some(record) = self.store.realised(self.realised(id)?) else {
            return Ok(false);
        };
        self.store
            .adopt(self.publication(id, record.made_on.as_deref())?, record.outputs)?;
        self.observer.see(Seen::Reused {
            node: &self.node(id).name,
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
    ) -> Result<Record, RunError> {
        let record = self.store.publish(self.publication(id, made_on)?, folder)?;
        let node = self.node(id);
        self.observer.see(Seen::Built {
            node: &node.name,
            kind: node.kind,
            seconds,
        });
        outcome.built.push(id);
        Ok(record)
    }

    fn check_stop(&self) -> Result<(), RunError> {
        match (self.stop.at_once(), self.stop.asked()) {
            (true, _) => Err(RunError::Killed),
            (false, true) => Err(RunError::Stopped { at: None }),
            (false, false) => Ok(()),
        }
    }

    fn fail(&self, id: NodeId, cause: impl std::fmt::Display) -> RunError {
        RunError::Node {
            node: self.node(id).name.clone(),
            cause: cause.to_string(),
        }
    }

    /// Reads a node's fields as what the runtime does.
    fn fields<T: serde::de::DeserializeOwned>(&self, id: NodeId) -> Result<T, RunError> {
        serde_json::from_value(self.node(id).fields.clone()).map_err(|error| self.fail(id, error))
    }
}

/// What to do about a disk that refused, said where the work that met it knows nothing of stores.
fn disk_help(cause: &str) -> Option<&'static str> {
    let refused = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::ReadOnlyFilesystem];
    let met = refused.into_iter().find(|kind| {
        let code = if *kind == std::io::ErrorKind::StorageFull {
            28
        } else {
            30
        };
        cause.contains(&std::io::Error::from_raw_os_error(code).to_string())
    })?;
    crate::store::help_with(met)
}

/// Words an error and all that lies behind it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
