//! `aurora run`: builds what is not there, writes the lock, the record and the report.

use std::cell::RefCell;
use std::collections::BTreeMap;

use aurora_compiler::fields::Exact;
use aurora_compiler::graph::{Kind, NodeId, lower, stage_plan};
use aurora_compiler::hash::{Keyed, hash};
use aurora_compiler::lock::{Lock, LockError, LockedOrder, lock};
use aurora_compiler::spec::{Block, BlockId, BlockKind, Spec, Value};
use aurora_runtime::engine::Observer as _;
use aurora_runtime::engine::{Outcome, Run, RunError, Seen, Stop};
use aurora_runtime::import::Fetch;
use aurora_runtime::pin::Pinning;
use aurora_runtime::record::{RunRecord, Status};
use aurora_runtime::store::{Store, StoreError};
use camino::Utf8Path;
use serde_json::json;

use super::lock::{LIBTORCH, runnable, write};
use super::{Context, pin_failure};
use crate::arguments::{RunArguments, SpecArgument};
use crate::failure::{Exit, Failure};
use crate::launching::{Door, door, launching};
use crate::output;
use crate::placement::{Asked, check, placement};
use crate::project::{Loaded, Project, Reach};
use crate::watch::{Watch, duration};

pub static STOP: Stop = Stop::new();

/// Ctrl-C, SIGTERM, and the SIGUSR1 that schedulers send before a time limit: once to save and stop, twice to stop at
/// once.
pub fn hear_signals() -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            STOP.ask();
        }
    });
    Ok(())
}

/// One execution of a spec in a store.
pub struct Execution<'a> {
    pub project: &'a Project,
    pub loaded: &'a Loaded,
    pub store: &'a Store,
    pub how: &'a RunArguments,
    /// The lock to keep to; orders that it commits to are compared before training.
    pub old: Option<&'a Lock>,
    pub watch: &'a Watch,
    /// Where workers come that torchrun has started.
    pub door: Option<&'a Door>,
    /// Folder of the workers' logs.
    pub logs: Option<&'a Utf8Path>,
    /// Where the lock is written as it becomes known; nowhere for a repetition.
    pub lock_path: Option<&'a Utf8Path>,
    /// The store of the run that is repeated.
    pub recorded: Option<&'a Store>,
}

impl Execution<'_> {
    /// Runs the graph and returns what became of it and the lock with all results.
    pub fn run(&self, keyed: &Keyed, pins: &aurora_compiler::graph::Pins) -> Result<(Outcome, Lock), Failure> {
        let spec = &self.loaded.spec;
        let spec_path = self.project.relative(&self.loaded.path);
        let mut fresh = lock(keyed, spec, &spec_path, pins, LIBTORCH);
        fresh.import.clone_from(&self.loaded.imports);
        if let Some(old) = self.old {
            fresh.keep_from(old);
        }
        let fresh = RefCell::new(fresh);
        let before_training = |run: &Run<'_>| -> Result<(), RunError> {
            let orders = orders(run, spec)?;
            let mut fresh = fresh.borrow_mut();
            for (stage, order) in &orders {
                if let Some(locked) = fresh.order.get(stage)
                    && locked.samples == order.samples
                    && locked.commitment != order.commitment
                {
                    return Err(RunError::Node {
                        node: format!("order/{stage}"),
                        cause: format!(
                            "the lock commits to the order {}, the data gives {}",
                            locked.commitment, order.commitment
                        ),
                    });
                }
            }
            fresh.order = orders;
            if let Some(path) = self.lock_path {
                write(path, &fresh).map_err(|failure| RunError::Node {
                    node: "lock".to_string(),
                    cause: failure.message,
                })?;
            }
            Ok(())
        };
        let placement = placement(spec, Asked::by(self.how));
        check(spec, &placement)?;
        let portable = portable(spec);
        let run = Run {
            keyed,
            experiment: &spec.name,
            store: self.store,
            root: &self.project.root,
            pins,
            offline: self.how.offline,
            launching: launching(spec, self.how, &placement, self.door, self.logs.map(Utf8Path::to_owned))?,
            placement,
            portable,
            restarts: self.how.restarts,
            fewer: self.how.fewer,
            observer: self.watch,
            stop: &STOP,
            max_epochs: max_epochs(spec),
            secrets: secrets(spec),
            recorded: self.recorded,
            only: None,
            before_training: &before_training,
        };
        let outcome = run.run()?;
        if let Some(door) = self.door {
            door.dismiss();
        }
        let mut fresh = fresh.borrow().clone();
        let here = outcome.fingerprint.as_ref().map(|found| found.text(portable));
        if let (Some(here), Some(there)) = (&here, &fresh.fingerprint)
            && here != there
        {
            let text =
                format!("note: the lock's results were made on another kind of machine ({there}): they may differ");
            self.watch.see(Seen::Note { text: &text });
            // A run states the results of its own machine; a repetition has them compared all the same.
            if self.lock_path.is_some() {
                fresh.result.clear();
            }
        }
        fresh.fingerprint = here.or(fresh.fingerprint);
        for id in keyed.graph.ids() {
            let digest = run.result(id)?.digest;
            let name = keyed.graph.node(id).name.clone();
            if let (Some(locked), Some(_)) = (fresh.result.get(&name), self.lock_path)
                && *locked != digest
            {
                let cause = format!("result of `{name}`: the lock says {locked}, the store has {digest}");
                return Err(LockError::Edited(cause).into());
            }
            fresh.result.insert(name, digest);
        }
        if let Some(path) = self.lock_path {
            write(path, &fresh)?;
        }
        Ok((outcome, fresh))
    }
}

/// Whether results stand on Aurora's own kernels alone.
pub fn portable(spec: &Spec) -> bool {
    spec.experiment().and_then(|block| block.word("numerics")) == Some("portable")
}

/// The environment variables with the keys of judges' interfaces, by eval.
pub fn secrets(spec: &Spec) -> BTreeMap<String, String> {
    let evals = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Eval);
    let secret = |(id, block): (&BlockId, &Block)| {
        let Value::Call { arguments, .. } = &block.fields.get("judge")?.value else {
            return None;
        };
        match &arguments.get("secret")?.value {
            Value::Text(name) => Some((id.name.clone(), name.clone())),
            _ => None,
        }
    };
    evals.filter_map(secret).collect()
}

/// Which components may repeat how often, by stage.
fn max_epochs(spec: &Spec) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut found: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for (id, block) in spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Stage) {
        let Some(Value::Reference(mixture)) = block.fields.get("mixture").map(|field| &field.value) else {
            continue;
        };
        let components = found.entry(id.name.clone()).or_default();
        for (name, field) in &spec.blocks[mixture].fields {
            let Value::Call { arguments, .. } = &field.value else {
                continue;
            };
            let most = match arguments.get("max_epochs").map(|field| &field.value) {
                Some(Value::Integer(most)) => Exact::new((*most).into()),
                Some(Value::Decimal(most)) => *most,
                _ => continue,
            };
            components.insert(name.clone(), most.to_f64());
        }
    }
    found
}

/// Commits to the order of every stage.
fn orders(run: &Run<'_>, spec: &Spec) -> Result<BTreeMap<String, LockedOrder>, RunError> {
    let mut found = BTreeMap::new();
    for id in run
        .keyed
        .graph
        .ids()
        .filter(|id| run.keyed.graph.node(*id).kind == Kind::Order)
    {
        let stage = run.keyed.graph.node(id).name.trim_start_matches("order/").to_string();
        let block = aurora_compiler::spec::BlockId {
            kind: BlockKind::Stage,
            name: stage.clone(),
        };
        let plan = stage_plan(spec, &block);
        let samples = plan.steps * plan.global_batch;
        let commitment = aurora_runtime::engine::commit_order(run, id, &stage, samples)?;
        found.insert(stage, LockedOrder { samples, commitment });
    }
    Ok(found)
}

/// Pins what is not pinned, and publishes the sources that had to be fetched for it.
pub fn pin(
    execution: &Execution<'_>,
    have: aurora_compiler::graph::Pins,
) -> Result<(Keyed, aurora_compiler::graph::Pins), Failure> {
    let spec = &execution.loaded.spec;
    let pinning = Pinning {
        root: &execution.project.root,
        store: execution.store,
        offline: execution.how.offline,
        note: &|text| execution.watch.see(Seen::Note { text }),
        watch: aurora_runtime::progress::Watch::nobody(),
    };
    let (pins, brought) = pinning.complete(spec, have, &[]).map_err(pin_failure)?;
    let keyed = hash(lower(spec, &pins));
    for (name, source) in &brought {
        let Some(id) = keyed.graph.find(&format!("source/{name}")) else {
            continue;
        };
        publish_source(execution.store, &spec.name, &keyed, id, &source.fetched)?;
    }
    Ok((keyed, pins))
}

/// Puts fetched files into the store as the result of their source.
pub fn publish_source(
    store: &Store,
    experiment: &str,
    keyed: &Keyed,
    id: NodeId,
    fetched: &aurora_runtime::source::Fetched,
) -> Result<(), Failure> {
    let scratch = store.scratch()?;
    aurora_runtime::engine::place_source(fetched, scratch.path())?;
    let publication = aurora_runtime::store::Publication {
        experiment,
        node: &keyed.graph.node(id).name,
        key: keyed.key(id),
        // A source has no inputs: its realised key needs no digest.
        realised: keyed.realised(id, &|input| keyed.key(input)),
        preimage: keyed.preimage(id),
        made_on: None,
    };
    store.publish(publication, scratch.path())?;
    Ok(())
}

pub fn run(context: &Context, argument: &SpecArgument, how: &RunArguments, locked: bool) -> Result<Exit, Failure> {
    let door = door(how)?;
    let reach = Reach {
        fetch: Fetch::allowed(how.offline, locked),
        ..context.reach()
    };
    let (project, loaded) = context.open_with(argument, reach)?;
    runnable(&loaded.spec)?;
    let old = project.lock(&loaded.spec)?;
    let have = aurora_runtime::pin::from_lock(&loaded.spec, old.as_ref());
    if locked {
        refuse_changes(&project, &loaded, old.as_ref(), &have)?;
    }
    hear_signals()?;
    let store = Store::open(&project.store)?;
    let lock_path = project.lock_path(&loaded.spec);
    let (spec, lock) = (project.relative(&argument.spec), project.relative(&lock_path));
    let record = RunRecord::begin(&project.store, &loaded.spec.name, &spec, &lock).map_err(|error| {
        let path = project.store.join("runs");
        Failure::from(StoreError::Io {
            doing: "write",
            path,
            source: error,
        })
    })?;
    let id = record.id().to_string();
    let logs = record.folder().join("logs");
    std::fs::create_dir_all(&logs)?;
    let watch = Watch::new(how.progress, Some(record));
    let execution = Execution {
        project: &project,
        loaded: &loaded,
        store: &store,
        how,
        old: old.as_ref(),
        watch: &watch,
        door: door.as_ref(),
        logs: Some(&logs),
        lock_path: Some(&lock_path),
        recorded: None,
    };
    let since = std::time::Instant::now();
    let done = pin(&execution, have).and_then(|(keyed, pins)| Ok((execution.run(&keyed, &pins)?, keyed)));
    let record = watch.finish();
    let ((outcome, fresh), keyed) = match done {
        Ok(done) => done,
        Err(failure) => {
            let status = if failure.exit == Exit::Resumable {
                Status::Stopped
            } else {
                Status::Failed
            };
            end(record, status, Some(failure.message.clone()));
            return Err(failure);
        }
    };
    let failed: Vec<_> = outcome.gates.iter().filter(|gate| !gate.found.holds).collect();
    let page = place_report(&project, &store, &keyed, &id)?;
    let story = aurora_runtime::report::load(&store, &keyed)?;
    let mut record = record;
    if let Some(record) = &mut record {
        for (eval, point) in story
            .evals
            .iter()
            .flat_map(|eval| eval.points.iter().map(move |point| (eval, point)))
        {
            for (set, score) in &point.sets {
                let tag = format!("eval/{}/{set}/bits_per_byte", eval.name);
                record.score(&tag, score.bits_per_byte, point.tokens)?;
            }
            for (name, measure) in point.measured() {
                record.score(&format!("eval/{}/{name}", eval.name), measure.value, point.tokens)?;
            }
        }
        record.keep_lock(&fresh.to_text())?;
    }
    end(
        record,
        if failed.is_empty() {
            Status::Finished
        } else {
            Status::GateFailed
        },
        None,
    );
    let lock_name = project.relative(&lock_path);
    if context.json {
        output::json(json!({
            "run": id,
            "experiment": loaded.spec.name,
            "nodes": keyed.graph.len(),
            "built": names(&keyed, &outcome.built),
            "reused": names(&keyed, &outcome.reused),
            "gates": outcome.gates,
            "evals": story.evals,
            "noise": story.noise,
            "results": fresh.result,
            "lock": lock_name,
            "report": page,
        }));
    } else {
        print!("{}", output::table(&story.table()));
        for gate in &outcome.gates {
            println!(
                "gate {}: {} ({}; {})",
                gate.name,
                gate.verdict(),
                gate.text,
                gate.figures()
            );
        }
        println!(
            "{} nodes: {} built, {} reused, {} cached, in {}",
            keyed.graph.len(),
            outcome.built.len(),
            outcome.reused.len(),
            keyed.graph.len() - outcome.built.len() - outcome.reused.len(),
            duration(since.elapsed().as_secs_f64())
        );
        println!("report: {page}\nrepeat: aurora rerun {lock_name}");
    }
    Ok(if failed.is_empty() {
        Exit::Done
    } else {
        Exit::GateFailed
    })
}

fn names(keyed: &Keyed, ids: &[NodeId]) -> Vec<String> {
    ids.iter().map(|id| keyed.graph.node(*id).name.clone()).collect()
}

fn end(record: Option<RunRecord>, status: Status, error: Option<String>) {
    if let Some(mut record) = record
        && let Err(cause) = record.end(status, error)
    {
        eprintln!("warning: the run record cannot be ended: {cause}");
    }
}

/// Copies the report to the record of the run, and returns its place.
fn place_report(project: &Project, store: &Store, keyed: &Keyed, run: &str) -> Result<String, Failure> {
    let id = keyed
        .graph
        .find("report")
        .ok_or_else(|| Failure::fault("the graph has no report"))?;
    let record = store
        .record(keyed.key(id))
        .ok_or_else(|| Failure::fault("the report is not in the store"))?;
    let files = store.files(&record)?;
    let page = project.store.join("runs").join(run).join("report.html");
    std::fs::write(&page, std::fs::read(&files["report.html"])?)?;
    Ok(project.relative(&page))
}

fn refuse_changes(
    project: &Project,
    loaded: &Loaded,
    old: Option<&Lock>,
    have: &aurora_compiler::graph::Pins,
) -> Result<(), Failure> {
    let coded = |message: String| Failure {
        code: Some("E0506".to_string()),
        ..Failure::fault(message)
    };
    let Some(old) = old else {
        return Err(coded(format!("there is no lock for `{}`", loaded.spec.name)).help("run `aurora lock SPEC` first"));
    };
    let mut pins = have.clone();
    pins.extend(aurora_runtime::pin::local(&loaded.spec, &project.root).map_err(pin_failure)?);
    let keyed = hash(lower(&loaded.spec, &pins));
    let mut fresh = lock(&keyed, &loaded.spec, &project.relative(&loaded.path), &pins, LIBTORCH);
    fresh.import.clone_from(&loaded.imports);
    let moved = old.stale(&fresh);
    if moved.is_empty() {
        return Ok(());
    }
    Err(coded(format!("the lock would change:\n  {}", moved.join("\n  ")))
        .help("run without `--locked`, or `aurora lock SPEC`"))
}
