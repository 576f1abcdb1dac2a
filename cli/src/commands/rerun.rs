//! `aurora rerun`: repeats a locked run in an empty store, and compares every result with the lock.

use aurora_compiler::graph::{NodeId, NodeOrigin, Pins, lower};
use aurora_compiler::hash::{Keyed, hash};
use aurora_compiler::lock::{Lock, LockError};
use aurora_runtime::compare::{Difference, first_difference};
use aurora_runtime::import::Fetch;
use aurora_runtime::record::{RunRecord, Status};
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use super::Context;
use super::lock::runnable;
use super::run::{Execution, hear_signals, publish_source};
use crate::arguments::RunArguments;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Chosen, Loaded, Reach, load, read_lock};
use crate::watch::{Watch, duration};

pub fn run(
    context: &Context,
    lock_path: &Utf8Path,
    how: &RunArguments,
    fresh: bool,
    into: Option<&Utf8Path>,
    profile: Option<&str>,
) -> Result<Exit, Failure> {
    let door = crate::launching::door(how)?;
    let Some(lock) = read_lock(lock_path)? else {
        return Err(Failure::fault(format!("there is no lock `{lock_path}`")).help("`aurora run SPEC` writes one"));
    };
    let project = context.project(Some(lock_path))?;
    let path = project.root.join(&lock.spec);
    // Another profile than the lock's may say where the run is repeated, and nothing else: the keys are compared.
    let mut chosen = Chosen::of(&lock);
    if let Some(profile) = profile {
        chosen.profile = Some(profile.to_owned());
    }
    let reach = Reach {
        fetch: if how.offline { Fetch::Nothing } else { Fetch::Pinned },
        lock: Some(&lock),
        ..context.reach()
    };
    let loaded = load(&path, &chosen, context.json, reach)?;
    let keyed = locked_graph(&lock, &loaded)?;
    runnable(&loaded.spec)?;
    if lock.result.is_empty() {
        return Err(Failure::fault(format!("`{lock_path}` has no results to compare with"))
            .help("a lock has results after `aurora run SPEC`"));
    }
    hear_signals()?;
    let original = Store::look(&project.store);
    let parent = project.store.join("rerun");
    std::fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("store-").tempdir_in(&parent)?;
    let own = Utf8Path::from_path(scratch.path()).ok_or_else(|| Failure::fault("the store's path is not UTF-8"))?;
    let store = Store::open(into.unwrap_or(own))?;
    let pins = lock.pins();
    if !fresh {
        take_sources(&original, &store, &keyed, &loaded.spec.name, &pins)?;
    }
    // A repetition that is kept says how it was made, as a run does.
    let record = into
        .map(|into| RunRecord::begin(into, &loaded.spec.name, &lock.spec, &project.relative(lock_path)))
        .transpose()?;
    let watch = Watch::new(how.progress, record);
    let execution = Execution {
        project: &project,
        loaded: &loaded,
        store: &store,
        how,
        old: Some(&lock),
        watch: &watch,
        door: door.as_ref(),
        logs: None,
        lock_path: None,
        recorded: Some(&original),
    };
    let since = std::time::Instant::now();
    let done = execution.run(&keyed, &pins);
    if let Some(mut record) = watch.finish() {
        match &done {
            Ok(_) => record.end(Status::Finished, None)?,
            Err(failure) => record.end(Status::Failed, Some(failure.message.clone()))?,
        }
    }
    let (_, repeated) = done?;
    let differing: Vec<NodeId> = keyed
        .graph
        .ids()
        .filter(|id| {
            let name = keyed.graph.node(*id).name();
            lock.result
                .get(name)
                .is_some_and(|expected| repeated.result.get(name) != Some(expected))
        })
        .collect();
    let compared = keyed
        .graph
        .names()
        .filter(|name| lock.result.contains_key(*name))
        .count();
    let first = differing
        .first()
        .map(|id| first_difference(&keyed, *id, &original, &store));
    report(
        context,
        compared,
        differing.len(),
        first.as_ref(),
        since.elapsed().as_secs_f64(),
    );
    Ok(if differing.is_empty() { Exit::Done } else { Exit::Fault })
}

fn report(context: &Context, compared: usize, differing: usize, first: Option<&Difference>, seconds: f64) {
    if context.json {
        output::json(json!({
            "identical": differing == 0,
            "nodes_compared": compared,
            "nodes_differing": differing,
            "first_difference": first,
        }));
        return;
    }
    match first {
        None => println!("rerun: identical ({compared} nodes compared, {})", duration(seconds)),
        Some(first) => {
            println!("rerun: DIFFERENT ({differing} of {compared} nodes)");
            println!("first difference: {first}");
        }
    }
}

/// The graph of the lock's own pins; refused if the spec no longer gives the lock's keys.
pub fn locked_graph(lock: &Lock, loaded: &Loaded) -> Result<Keyed, Failure> {
    if lock.experiment != loaded.spec.name {
        let (found, expected) = (lock.experiment.clone(), loaded.spec.name.clone());
        return Err(LockError::OtherSpec { found, expected }.into());
    }
    lock.check_against(&loaded.spec)?;
    let keyed = hash(lower(&loaded.spec, &lock.pins()));
    let moved = keyed.graph.ids().find(|id| {
        let name = keyed.graph.node(*id).name();
        lock.node.get(name).is_none_or(|locked| locked.key != keyed.key(*id))
    });
    if let Some(id) = moved {
        let name = keyed.graph.node(id).name();
        return Err(Failure::fault(format!(
            "`{}` has changed since the lock was written (first at `{name}`)",
            loaded.path
        ))
        .help("repeat it from the revision that the lock belongs to, or run the spec again"));
    }
    Ok(keyed)
}

/// Takes the pinned bytes of sources from the first run's store: what they are is proved by the pins.
fn take_sources(from: &Store, to: &Store, keyed: &Keyed, experiment: &str, pins: &Pins) -> Result<(), Failure> {
    for id in keyed.graph.ids() {
        let NodeOrigin::Source { source: name } = &keyed.graph.node(id).origin else {
            continue;
        };
        let Some(record) = from.record(keyed.key(id)) else {
            continue;
        };
        let Ok(files) = from.files(&record) else { continue };
        let Some(pin) = pins.get(name) else { continue };
        let Ok(reference) = pin.reference.parse() else { continue };
        let fetched = aurora_runtime::source::Fetched {
            reference,
            files: files.into_iter().map(|(name, path)| InputFile { name, path }).collect(),
            bytes: pin.bytes,
            content: pin.content.clone(),
        };
        publish_source(to, experiment, keyed, id, &fetched)?;
    }
    Ok(())
}
