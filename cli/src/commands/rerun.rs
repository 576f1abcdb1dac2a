//! `aurora rerun`: repeats a locked run in an empty store, and compares every result with the lock.

use aurora_compiler::graph::{NodeId, NodeOrigin, Pins};
use aurora_compiler::hash::Keyed;
use aurora_compiler::lock::Lock;
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::plan::CachedResult;
use aurora_runtime::compare::{ClassComparison, ResultDifference, first_difference};
use aurora_runtime::engine::workers::WorkerProgram;
use aurora_runtime::errors::FileError;
use aurora_runtime::libtorch::LibtorchError;
use aurora_runtime::record::{RunRecord, Status};
use aurora_runtime::remote_specs::Fetch;
use aurora_runtime::results::Results;
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::store::reruns::{RESUMABLE, RepeatedLock, Repetition};
use aurora_runtime::store::{ResultId, Store, hash_file};
use camino::Utf8Path;
use serde_json::{Value, json};

use crate::arguments::{RunArguments, VariantSelection};
use crate::consent::consent;
use crate::context::Context;
use crate::execution::{Execution, install_signal_handlers, publish_source, refuse_unknown};
use crate::failure::{Exit, Failure};
use crate::libtorch::worker_program;
use crate::output;
use crate::progress_display::{ProgressDisplay, duration};
use crate::project::{Project, Reach, load, locked_graph, own_program, read_lock};
use crate::stdio::{Printed, errln, outln};
use crate::worker_launch::torchrun_listener;

pub fn run(
    context: &Context,
    lock_path: &Utf8Path,
    options: &RunArguments,
    fresh: bool,
    into: Option<&Utf8Path>,
    profile: Option<&str>,
) -> Result<Exit, Failure> {
    let pinned = || Some(read_lock(lock_path).ok()??.libtorch);
    let torchrun = torchrun_listener(options, pinned)?;
    let Some(lock) = read_lock(lock_path)? else {
        return Err(Failure::error(format!("there is no lock `{lock_path}`")).help("`aurora run SPEC` writes one"));
    };
    let project = context.project(Some(lock_path))?;
    let path = project.root.join(&lock.spec);
    // Another profile than the lock's may change the layout only: the keys are compared.
    let mut selection = VariantSelection::of(&lock);
    if let Some(profile) = profile {
        selection.profile = Some(profile.to_owned());
    }
    let reach = Reach {
        fetch: if options.offline { Fetch::Nothing } else { Fetch::Pinned },
        lock: Some(&lock),
        ..context.reach()
    };
    let loaded = load(&path, &selection, context.json, reach)?;
    let keyed = locked_graph(&lock, &loaded)?;
    refuse_unknown(&loaded.spec)?;
    if lock.result.is_empty() {
        return Err(Failure::error(format!("`{lock_path}` has no results to compare with"))
            .help("a lock has results after `aurora run SPEC`"));
    }
    let pins = lock.pins();
    let allowed = consent(&project, &loaded, &keyed.graph, &pins, None, options.trust)?;
    let program = worker_program(Some(&lock.libtorch))?;
    install_signal_handlers()?;
    let original = Store::open_read_only(&project.store)?;
    let place = match into {
        Some(into) => Place::Kept(Store::open(into)?),
        None => Place::own(&project, lock_path, &how(options, fresh, profile, &program)?)?,
    };
    let store = place.store();
    if !fresh {
        take_sources(&original, store, &keyed, &loaded.spec.name, &pins)?;
    }
    // A repetition that is kept has a record, as a run does.
    let begin = |into| {
        RunRecord::begin(into, &loaded.spec.name, &lock.spec, &project.relative(lock_path))
            .map_err(FileError::writing(into))
    };
    let record = into.map(begin).transpose()?;
    let display = ProgressDisplay::new(options.progress, record);
    let execution = Execution {
        project: &project,
        loaded: &loaded,
        store,
        options,
        program: &program,
        old: Some(&lock),
        display: &display,
        torchrun: torchrun.as_ref(),
        logs: None,
        lock_path: None,
        recorded: Some(&original),
        allowed: &allowed,
        locked: false,
    };
    let since = std::time::Instant::now();
    let done = execution.run(&keyed, &pins);
    if let Some(record) = display.finish() {
        end(record, done.as_ref().err())?;
    }
    let (outcome, repeated) = match done {
        Ok(done) => done,
        Err(failure) => return Err(place.after(failure)?),
    };
    let results = |store, class| Results {
        experiment: &loaded.spec.name,
        keyed: &keyed,
        store,
        class,
    };
    let both = [results(&original, lock.class), results(store, outcome.class)];
    let seconds = since.elapsed().as_secs_f64();
    let comparison = match (lock.class, outcome.class) {
        (Some(there), Some(here)) if here != there => {
            Comparison::of_classes([there, here], &lock, &repeated, both, seconds)?
        }
        _ => Comparison::of_bits(&lock, &repeated, both, seconds)?,
    };
    if let Place::Own(own) = place {
        own.delete()?;
    }
    comparison.report(context)?;
    Ok(if comparison.differing == 0 {
        Exit::Done
    } else {
        Exit::Error
    })
}

/// Ends the record of a repetition.
fn end(mut record: RunRecord, failure: Option<&Failure>) -> Result<(), FileError> {
    let ended = match failure {
        None => record.end(Status::Finished, None),
        Some(failure) => record.end(Status::Failed, Some(failure.message.clone())),
    };
    ended.map_err(FileError::writing(record.folder()))
}

/// Where a repetition computes.
enum Place {
    /// In a folder that the user named, which is kept.
    Kept(Store),
    Own(Repetition),
}

impl Place {
    /// In the store of the project.
    fn own(project: &Project, lock_path: &Utf8Path, how: &str) -> Result<Self, Failure> {
        let lock = RepeatedLock {
            path: project.relative(lock_path),
            content: hash_file(lock_path).map_err(FileError::reading(lock_path))?,
        };
        let own = Repetition::open(&project.store, &lock, how)?;
        if own.is_resumed {
            errln!("note: resuming the rerun of this lock that did not end");
        }
        Ok(Self::Own(own))
    }

    fn store(&self) -> &Store {
        match self {
            Self::Kept(store) => store,
            Self::Own(own) => &own.store,
        }
    }

    /// Keeps what was computed before a failure, if the same command can continue from it.
    fn after(self, failure: Failure) -> Result<Failure, Failure> {
        let Self::Own(own) = self else { return Ok(failure) };
        if failure.exit == Exit::Error {
            own.delete()?;
        } else {
            let days = RESUMABLE.as_secs() / (24 * 60 * 60);
            errln!(
                "note: what was computed is in `{}`; the same command resumes from it, and `aurora gc` deletes it after {days} days",
                own.store.root()
            );
        }
        Ok(failure)
    }
}

/// What may change how a repetition computes: results of an interrupted one are used only if all of it is the same.
fn how(
    options: &RunArguments,
    fresh: bool,
    profile: Option<&str>,
    program: &Result<WorkerProgram, LibtorchError>,
) -> Result<String, Failure> {
    let mut programs = vec![own_program()?];
    programs.extend(program.as_ref().ok().map(|program| program.path.clone()));
    let mut contents = Vec::new();
    for path in programs {
        contents.push(hash_file(&path).map_err(FileError::reading(&path))?);
    }
    Ok(format!("{:?} {fresh} {profile:?} {contents:?}", options.layout))
}

/// The results of a repetition, compared with those in the lock.
struct Comparison {
    nodes: usize,
    /// Nodes that have a result in the lock.
    compared: usize,
    differing: usize,
    first: Option<ResultDifference>,
    /// If the results are of two numerics classes.
    classes: Option<TwoClasses>,
    seconds: f64,
}

/// What is particular to a comparison of two numerics classes.
struct TwoClasses {
    /// The lock's class, and that of the repetition.
    classes: [NumericsClass; 2],
    /// The tolerance of losses and scores; 0 if none were compared.
    tolerance: f64,
    /// Nodes whose bits differ, as they do between classes.
    not_compared: Vec<String>,
    /// Nodes with losses or scores that the first run's store does not have.
    missing: usize,
}

impl Comparison {
    /// Compares every result that the lock has bit by bit.
    fn of_bits(lock: &Lock, repeated: &Lock, [original, own]: [Results<'_>; 2], seconds: f64) -> Result<Self, Failure> {
        let differing = differing(&own, lock, repeated);
        let first = differing
            .first()
            .map(|id| first_difference(*id, &original, &own))
            .transpose()?;
        let graph = &own.keyed.graph;
        Ok(Self {
            nodes: graph.len(),
            compared: graph.names().filter(|name| lock.result.contains_key(*name)).count(),
            differing: differing.len(),
            first,
            classes: None,
            seconds,
        })
    }

    /// Compares results that depend on the class by their losses and scores, and the others bit by bit.
    fn of_classes(
        classes: [NumericsClass; 2],
        lock: &Lock,
        repeated: &Lock,
        [original, own]: [Results<'_>; 2],
        seconds: f64,
    ) -> Result<Self, Failure> {
        let keyed = own.keyed;
        let name = |id: &NodeId| keyed.graph.node(*id).name();
        let has_class = |id: &NodeId| keyed.has_class(*id);
        let (rounded, changed): (Vec<NodeId>, Vec<NodeId>) =
            differing(&own, lock, repeated).into_iter().partition(has_class);
        let mut found = ClassComparison::default();
        let locked = keyed.graph.ids().filter(|id| lock.result.contains_key(name(id)));
        let (classed, others): (Vec<NodeId>, Vec<NodeId>) = locked.partition(has_class);
        for id in classed {
            found.add(id, &original, &own)?;
        }
        let first = match changed.first() {
            Some(id) => Some(first_difference(*id, &original, &own)?),
            None => found.first,
        };
        Ok(Self {
            nodes: keyed.graph.len(),
            compared: others.len() + found.compared,
            differing: changed.len() + found.differing,
            first,
            classes: Some(TwoClasses {
                classes,
                tolerance: found.tolerance,
                not_compared: rounded.iter().map(|id| name(id).to_owned()).collect(),
                missing: found.missing,
            }),
            seconds,
        })
    }

    fn report(&self, context: &Context) -> Printed {
        let Self {
            nodes,
            compared,
            differing,
            ..
        } = self;
        if context.json {
            return output::json(json!({
                "identical": *differing == 0 && compared == nodes,
                "nodes": nodes,
                "nodes_compared": compared,
                "nodes_differing": differing,
                "first_difference": self.first,
                "classes": self.classes.as_ref().map(TwoClasses::json),
            }));
        }
        if let Some(two) = &self.classes {
            return self.report_classes(two);
        }
        let took = duration(self.seconds);
        match &self.first {
            None if compared == nodes => outln!("rerun: identical ({nodes} nodes compared, {took})"),
            None => outln!(
                "rerun: {compared} of {nodes} nodes compared, none differs ({took}); the lock has no other results"
            ),
            Some(first) => {
                if compared == nodes {
                    outln!("rerun: DIFFERENT ({differing} of {nodes} nodes)")?;
                } else {
                    outln!("rerun: DIFFERENT ({differing} nodes; {compared} of {nodes} nodes compared)")?;
                }
                outln!("first difference: {first}")
            }
        }
    }
}

impl Comparison {
    fn report_classes(&self, two: &TwoClasses) -> Printed {
        let [there, here] = two.classes;
        if !two.not_compared.is_empty() {
            outln!(
                "another class: not compared bit by bit: {}",
                two.not_compared.join(", ")
            )?;
        }
        if two.missing > 0 {
            outln!(
                "not compared: the losses and scores of {} nodes, of which the store does not have results of class {there}",
                two.missing
            )?;
        }
        let Self {
            compared, differing, ..
        } = self;
        let of = format!(
            "class {here}, the lock's is {there}; {compared} nodes compared, {}",
            duration(self.seconds)
        );
        match &self.first {
            None if two.tolerance > 0.0 => {
                outln!("rerun: agrees within {}% ({of})", two.tolerance * 100.0)
            }
            None => outln!("rerun: no losses or scores compared; the nodes without a class agree ({of})"),
            Some(first) => {
                outln!("rerun: DIFFERENT ({differing} nodes; {of})\nfirst difference: {first}")
            }
        }
    }
}

impl TwoClasses {
    fn json(&self) -> Value {
        json!({
            "lock": self.classes[0],
            "rerun": self.classes[1],
            "tolerance": self.tolerance,
            "not_compared": self.not_compared,
            "missing": self.missing,
        })
    }
}

/// The nodes of which the repetition has other bits than the lock.
fn differing(results: &Results<'_>, lock: &Lock, repeated: &Lock) -> Vec<NodeId> {
    let differs = |id: &NodeId| {
        let name = results.node(*id).name();
        let expected = lock.result.get(name);
        expected.is_some_and(|expected| repeated.result.get(name) != Some(expected))
    };
    results.keyed.graph.ids().filter(differs).collect()
}

/// Takes the bytes of sources from the first run's store: the pins verify them.
fn take_sources(from: &Store, to: &Store, keyed: &Keyed, experiment: &str, pins: &Pins) -> Result<(), Failure> {
    for id in keyed.graph.ids() {
        let NodeOrigin::Source { source: name } = &keyed.graph.node(id).origin else {
            continue;
        };
        let id_in_store = ResultId::without_class(keyed.key(id));
        if to.state(id_in_store)? == CachedResult::Complete {
            continue;
        }
        let Some(record) = from.record(id_in_store)? else {
            continue;
        };
        let Ok(files) = from.files(&record) else { continue };
        let Some(pin) = pins.get(name) else { continue };
        let Ok(reference) = pin.reference.parse() else { continue };
        let fetched = aurora_runtime::source::Fetched {
            reference,
            files: files
                .into_iter()
                .map(|(name, path)| InputFile::new(name, path))
                .collect(),
            bytes: pin.bytes,
            content: pin.content.clone(),
            skipped: 0,
        };
        publish_source(to, experiment, keyed, id, &fetched)?;
    }
    Ok(())
}
