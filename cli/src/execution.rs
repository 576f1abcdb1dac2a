//! Executes a spec in a store: what `run`, `rerun`, `eval`, `bisect` and `lock` share.
//!
//! In: a loaded spec, a store, the options of a run. Out: results in the store and the lock with their digests. Not here:
//! arguments (`arguments`), what a run prints (`commands`, `progress_display`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aurora_compiler::check::AssumptionKind;
use aurora_compiler::exact::Exact;
use aurora_compiler::graph::{NodeId, NodeOrigin, Pins, lower, stage_plan};
use aurora_compiler::hash::{Keyed, hash};
use aurora_compiler::lock::{Lock, LockChange, LockEdit, LockError, LockedOrder, lock};
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::spec::{Block, BlockId, BlockKind, Spec, Value};
use aurora_lang::diagnostics::Code;
use aurora_runtime::engine::workers::WorkerProgram;
use aurora_runtime::engine::{
    ExternalInputs, Observer, Outcome, Run, RunError, RunEvent, Stop, WorkerOptions, commit_order, place_source,
};
use aurora_runtime::libtorch::LibtorchError;
use aurora_runtime::pin::{Pinning, at_most, changed, from_lock, local};
use aurora_runtime::results::Results;
use aurora_runtime::source::Fetched;
use aurora_runtime::store::{Publication, ResultId, Store};
use camino::Utf8Path;

use crate::arguments::RunArguments;
use crate::consent::judges;
use crate::failure::{Exit, Failure};
use crate::layout::{LayoutRequest, check, layout, portable};
use crate::libtorch::pinned;
use crate::progress_display::ProgressDisplay;
use crate::project::{Loaded, Project, write_lock};
use crate::stdio::errln;
use crate::worker_launch::{TorchrunListener, worker_launch};
use crate::worker_memory::refuse_too_large;

/// Set by the signals that stop a run.
pub static STOP: Stop = Stop::new();

/// How long work may take to end after a request to stop at once.
const END_BY_ITSELF: Duration = Duration::from_secs(2);

/// Handles Ctrl-C, SIGTERM, and the SIGUSR1 that schedulers send before a time limit: the first one saves a checkpoint and
/// stops, the second one stops at once.
pub fn install_signal_handlers() -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(|error| Failure::error(format!("signals cannot be handled: {error}")))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            STOP.request();
            if STOP.is_at_once() {
                // What polls the request ends by itself. Results are published whole, locks end with the process, and workers
                // end when their connection to it does.
                std::thread::sleep(END_BY_ITSELF);
                errln!("{}", RunError::Killed);
                std::process::exit(Exit::Interrupted as i32);
            }
        }
    });
    Ok(())
}

/// One execution of a spec in a store.
pub struct Execution<'a> {
    pub project: &'a Project,
    pub loaded: &'a Loaded,
    pub store: &'a Store,
    pub options: &'a RunArguments,
    /// The workers' program; without one only an execution that needs workers fails.
    pub program: &'a Result<WorkerProgram, LibtorchError>,
    /// The lock to keep to; its data orders are compared before training.
    pub old: Option<&'a Lock>,
    pub display: &'a ProgressDisplay,
    /// Where workers that torchrun started connect.
    pub torchrun: Option<&'a TorchrunListener>,
    /// Folder of the workers' logs.
    pub logs: Option<&'a Utf8Path>,
    /// Where the lock is written as it becomes known; `None` for a repetition.
    pub lock_path: Option<&'a Utf8Path>,
    /// The store of the run that is repeated.
    pub recorded: Option<&'a Store>,
    /// Digests of what judges may do outside of Aurora.
    pub allowed: &'a BTreeSet<String>,
    /// Only add to the lock: no entry that it has may change.
    pub locked: bool,
}

impl Execution<'_> {
    /// Runs the graph and returns its outcome and the lock with all results.
    pub fn run(&self, keyed: &Keyed, pins: &Pins) -> Result<(Outcome, Lock), Failure> {
        let spec = &self.loaded.spec;
        refuse_too_large(
            spec,
            keyed,
            self.options,
            &layout(spec, LayoutRequest::by(self.options)),
        )?;
        let mut fresh = fresh_lock(self.project, self.loaded, keyed, pins, self.libtorch());
        if let Some(old) = self.old {
            fresh.keep_from(old, spec);
        }
        let observer = LockingObserver {
            execution: self,
            lock: Mutex::new(fresh),
        };
        let (judges, at_most) = (judges(spec), at_most(spec));
        let results = Results {
            experiment: &spec.name,
            keyed,
            store: self.store,
            class: None,
        };
        let run = Run {
            results,
            inputs: ExternalInputs {
                folders: &self.project.folders,
                pins,
                offline: self.options.offline,
                judges: &judges,
                allowed: self.allowed,
                at_most: &at_most,
                recorded: self.recorded,
            },
            workers: worker_options(spec, self.options, self.program, self.torchrun, self.logs)?,
            observer: &observer,
            stop: &STOP,
        };
        let outcome = run.run()?;
        if let Some(torchrun) = self.torchrun {
            torchrun.dismiss();
        }
        let fresh = observer.lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        let results = Results {
            class: outcome.class,
            ..results
        };
        let fresh = self.with_results(fresh, &results, &outcome)?;
        Ok((outcome, fresh))
    }

    /// The version of libtorch that computes missing results.
    fn libtorch(&self) -> &str {
        match self.program {
            Ok(program) => &program.libtorch,
            Err(_) => pinned(self.old),
        }
    }

    /// Adds the digests of all results to the lock, and writes it.
    fn with_results(&self, mut fresh: Lock, results: &Results<'_>, outcome: &Outcome) -> Result<Lock, Failure> {
        let foreign = match (results.class, fresh.class) {
            (Some(here), Some(there)) => (here != there).then_some((there, here)),
            _ => None,
        };
        if let Some((there, here)) = foreign {
            // With workers, the note was printed when they were ready.
            if outcome.fingerprint.is_none() {
                self.display.notice(&of_another_class(there, here));
            }
            // A run records the results of its own class; a rerun still compares with the results in the lock.
            if self.lock_path.is_some() && !self.locked {
                fresh.result.clear();
            }
        }
        if outcome.fingerprint.is_none() {
            // Nothing was computed: the version is still the one that computed the results.
            pinned(self.old).clone_into(&mut fresh.libtorch);
        }
        if !(foreign.is_some() && self.locked) && results.class.is_some() {
            // Another machine of the same class has computed nothing new: the lock keeps its text.
            if foreign.is_some() || fresh.fingerprint.is_none() {
                fresh.fingerprint = self.description(results, outcome)?;
            }
            fresh.class = results.class;
        }
        for id in results.keyed.graph.ids() {
            let digest = results.record(id)?.digest;
            let name = results.node(id).name().to_owned();
            let locked = fresh.result.insert(name.clone(), digest);
            if foreign.is_some() && self.locked && locked != Some(digest) {
                let what = format!("result of `{name}`, which is of another numerics class");
                return Err(would_change(&[what]));
            }
            if let (Some(locked), Some(_)) = (locked, self.lock_path)
                && locked != digest
            {
                return Err(LockError::Edited(LockEdit::Digest {
                    name,
                    locked,
                    stored: digest,
                })
                .into());
            }
        }
        fresh.count_results();
        if let Some(path) = self.lock_path {
            write_lock(path, &fresh)?;
        }
        Ok(fresh)
    }

    /// Describes the machine of this run's workers or, if it needed none, of those that made the results.
    fn description(&self, results: &Results<'_>, outcome: &Outcome) -> Result<Option<String>, Failure> {
        if let Some(fingerprint) = &outcome.fingerprint {
            return Ok(Some(fingerprint.description(portable(&self.loaded.spec))));
        }
        for id in results.keyed.graph.ids() {
            if results.node(id).kind().runs_on_workers()
                && let Some(made_on) = results.record(id)?.made_on
            {
                return Ok(Some(made_on));
            }
        }
        Ok(None)
    }
}

/// The note about a lock whose results are of another numerics class.
fn of_another_class(there: NumericsClass, here: NumericsClass) -> String {
    format!(
        "note: the lock's results are of numerics class {there}, and this machine is of class {here}: they may differ"
    )
}

/// Shows the events of an execution, and completes its lock before training.
struct LockingObserver<'a> {
    execution: &'a Execution<'a>,
    lock: Mutex<Lock>,
}

impl Observer for LockingObserver<'_> {
    fn on_event(&self, event: RunEvent<'_>) {
        if let RunEvent::WorkersReady { fingerprint, .. } = &event
            && let Some(there) = self.execution.old.and_then(|old| old.class)
            && let Some(here) = fingerprint.class(portable(&self.execution.loaded.spec))
            && here != there
        {
            self.execution.display.notice(&of_another_class(there, here));
        }
        self.execution.display.on_event(event);
    }

    /// Compares the data orders with the lock, and writes the lock.
    fn before_training(&self, results: &Results<'_>) -> Result<(), RunError> {
        let orders = orders(results, &self.execution.loaded.spec)?;
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        for (stage, order) in &orders {
            if let Some(locked) = lock.order.get(stage)
                && locked != order
            {
                let text = format!(
                    "the data order differs from the lock (locked {} samples, {}; computed {} samples, {})",
                    locked.samples, locked.commitment, order.samples, order.commitment
                );
                return Err(RunError::Node {
                    node: format!("order/{stage}"),
                    source: text.into(),
                });
            }
        }
        lock.order = orders;
        if let Some(path) = self.execution.lock_path {
            write_lock(path, &lock).map_err(|error| RunError::Node {
                node: "lock".to_string(),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}

/// The workers of a run, by the spec's layout and the command line.
pub fn worker_options(
    spec: &Spec,
    options: &RunArguments,
    program: &Result<WorkerProgram, LibtorchError>,
    torchrun: Option<&TorchrunListener>,
    logs: Option<&Utf8Path>,
) -> Result<WorkerOptions, Failure> {
    let logs = logs.map(Utf8Path::to_owned);
    let layout = layout(spec, LayoutRequest::by(options));
    check(spec, &layout)?;
    Ok(WorkerOptions {
        launch: worker_launch(spec, options, &layout, program.clone(), torchrun, logs)?,
        layout,
        portable: portable(spec),
        restarts: options.restarts,
        fewer: options.fewer,
    })
}

/// How often each component of a stage's mixture may be repeated, for those that the spec limits.
fn max_epochs(spec: &Spec, stage: &Block) -> BTreeMap<String, f64> {
    let Some(Value::Reference(mixture)) = stage.fields.get("mixture").map(|field| &field.value) else {
        return BTreeMap::new();
    };
    let mut limits = BTreeMap::new();
    for (name, field) in &spec.blocks[mixture].fields {
        let Value::Call { arguments, .. } = &field.value else {
            continue;
        };
        let most = match arguments.get("max_epochs").map(|field| &field.value) {
            Some(Value::Integer(most)) => Exact::new((*most).into()),
            Some(Value::Decimal(most)) => *most,
            _ => continue,
        };
        limits.insert(name.clone(), most.to_f64());
    }
    limits
}

/// Commits to the data order of every stage.
fn orders(results: &Results<'_>, spec: &Spec) -> Result<BTreeMap<String, LockedOrder>, RunError> {
    let graph = &results.keyed.graph;
    let mut orders = BTreeMap::new();
    for id in graph.ids() {
        let NodeOrigin::Order { stage } = &graph.node(id).origin else {
            continue;
        };
        let block = BlockId {
            kind: BlockKind::Stage,
            name: stage.clone(),
        };
        let plan = stage_plan(spec, &block);
        let samples = plan.samples();
        let limits = max_epochs(spec, &spec.blocks[&block]);
        let commitment = commit_order(results, id, stage, samples, &limits)?;
        orders.insert(stage.clone(), LockedOrder { samples, commitment });
    }
    Ok(orders)
}

/// Pins what is not pinned, and publishes the sources that had to be fetched for it.
pub fn pin(execution: &Execution<'_>, have: Pins) -> Result<(Keyed, Pins), Failure> {
    let spec = &execution.loaded.spec;
    let pinning = Pinning {
        folders: &execution.project.folders,
        store: execution.store,
        offline: execution.options.offline,
        at_most: &at_most(spec),
        note: &|text| execution.display.line(text),
        progress: STOP.progress(),
    };
    let completed = pinning.complete(spec, have, &[]);
    // Cancelled work returns an error; the run reports the stop instead.
    STOP.check()?;
    let (pins, fetched) = completed?;
    if let Some(old) = execution.old {
        changed(&old.pins(), &pins)
            .iter()
            .for_each(|line| execution.display.notice(line));
    }
    let keyed = hash(lower(spec, &pins));
    for (name, files) in &fetched {
        if let Some(id) = keyed.graph.find(&format!("source/{name}")) {
            publish_source(execution.store, &spec.name, &keyed, id, &files.source)?;
        }
    }
    Ok((keyed, pins))
}

/// Publishes fetched files in the store as the result of their source.
pub fn publish_source(
    store: &Store,
    experiment: &str,
    keyed: &Keyed,
    id: NodeId,
    source: &Fetched,
) -> Result<(), Failure> {
    let scratch = store.scratch()?;
    place_source(source, scratch.path())?;
    let publication = Publication {
        experiment,
        node: keyed.graph.node(id).name(),
        id: ResultId::without_class(keyed.key(id)),
        // A source has no inputs: its realised key needs no digest.
        realised: keyed.realised(id, &|input| keyed.key(input)),
        preimage: keyed.preimage(id),
        made_on: None,
    };
    store.publish(publication, scratch.path())?;
    Ok(())
}

/// The lock that follows from a spec, its pins and a version of libtorch, without results.
pub fn fresh_lock(project: &Project, loaded: &Loaded, keyed: &Keyed, pins: &Pins, libtorch: &str) -> Lock {
    let mut fresh = lock(keyed, &loaded.spec, &project.relative(&loaded.path), pins, libtorch);
    fresh.import.clone_from(&loaded.imports);
    fresh
}

/// Fails if the lock would change: for `--locked`. `program` has the version of libtorch that would compute.
pub fn refuse_changes(
    project: &Project,
    loaded: &Loaded,
    old: Option<&Lock>,
    program: &Result<WorkerProgram, LibtorchError>,
) -> Result<(), Failure> {
    let Some(old) = old else {
        let failure = Failure::error(format!("there is no lock for `{}`", loaded.spec.name));
        return Err(Failure {
            code: Some(Code::LOCK_WOULD_CHANGE),
            ..failure.help("run `aurora lock SPEC` first")
        });
    };
    let mut pins = from_lock(&loaded.spec, Some(old));
    pins.extend(local(&loaded.spec, &project.folders, STOP.progress())?);
    let keyed = hash(lower(&loaded.spec, &pins));
    let libtorch = program.as_ref().map_or(&old.libtorch, |program| &program.libtorch);
    let changes = old.changes(&fresh_lock(project, loaded, &keyed, &pins, libtorch));
    let changes: Vec<String> = changes.iter().map(LockChange::to_string).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let failure = would_change(&changes);
    if *libtorch == old.libtorch {
        return Err(failure);
    }
    Err(failure.help(format!(
        "provide libtorch {} (`aurora doctor` lists what was found), or run without `--locked`",
        old.libtorch
    )))
}

/// The failure of `--locked`.
fn would_change(changes: &[String]) -> Failure {
    let failure = Failure::error(format!("the lock would change:\n{}", changes.join("\n")));
    Failure {
        code: Some(Code::LOCK_WOULD_CHANGE),
        ..failure.help("run without `--locked`, or `aurora lock SPEC`")
    }
}

/// Fails if the spec has values that are not known: such a spec cannot run.
pub fn refuse_unknown(spec: &Spec) -> Result<(), Failure> {
    let assumptions = aurora_compiler::check::assumptions(spec);
    let unknown: Vec<String> = assumptions
        .iter()
        .filter(|assumption| assumption.kind == AssumptionKind::Unknown)
        .map(|a| format!("{} ({}:{}:{})", a.path, a.file, a.line, a.column))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::error(format!(
        "`{}` has unknown values and cannot run:\n{}",
        spec.name,
        unknown.join("\n")
    ))
    .help("give each a value of your own and mark it `@assumed(\"why\")`"))
}
