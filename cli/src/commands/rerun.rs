//! `aurora rerun`: repeats a locked run in an empty store, and compares every result with the lock.

use std::io;

use aurora_compiler::graph::{NodeId, NodeOrigin, Pins};
use aurora_compiler::hash::Keyed;
use aurora_runtime::compare::{ResultDifference, first_difference};
use aurora_runtime::record::{RunRecord, Status};
use aurora_runtime::remote_specs::Fetch;
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use crate::arguments::{RunArguments, VariantSelection};
use crate::context::Context;
use crate::execution::{Execution, install_signal_handlers, publish_source, refuse_unknown};
use crate::failure::{Exit, Failure};
use crate::libtorch::worker_program;
use crate::output;
use crate::progress_display::{ProgressDisplay, duration};
use crate::project::{Reach, load, locked_graph, read_lock};
use crate::stdio::outln;
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
    let program = worker_program(Some(&lock.libtorch))?;
    install_signal_handlers()?;
    let original = Store::open_read_only(&project.store)?;
    let parent = project.store.join("rerun");
    std::fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("store-").tempdir_in(&parent)?;
    let own = Utf8Path::from_path(scratch.path()).ok_or_else(|| Failure::error("the store's path is not UTF-8"))?;
    let store = Store::open(into.unwrap_or(own))?;
    let pins = lock.pins();
    if !fresh {
        take_sources(&original, &store, &keyed, &loaded.spec.name, &pins)?;
    }
    // A repetition that is kept has a record, as a run does.
    let record = into
        .map(|into| RunRecord::begin(into, &loaded.spec.name, &lock.spec, &project.relative(lock_path)))
        .transpose()?;
    let display = ProgressDisplay::new(options.progress, record);
    let execution = Execution {
        project: &project,
        loaded: &loaded,
        store: &store,
        options,
        program: &program,
        old: Some(&lock),
        display: &display,
        torchrun: torchrun.as_ref(),
        logs: None,
        lock_path: None,
        recorded: Some(&original),
        locked: false,
    };
    let since = std::time::Instant::now();
    let done = execution.run(&keyed, &pins);
    if let Some(mut record) = display.finish() {
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
    let is_locked = |name: &&str| lock.result.contains_key(*name);
    let compared = keyed.graph.names().filter(is_locked).count();
    let first = differing
        .first()
        .map(|id| first_difference(&keyed, *id, &original, &store))
        .transpose()?;
    let comparison = Comparison {
        nodes: keyed.graph.len(),
        compared,
        differing: differing.len(),
        first,
        seconds: since.elapsed().as_secs_f64(),
    };
    comparison.report(context)?;
    Ok(if differing.is_empty() { Exit::Done } else { Exit::Error })
}

/// The results of a repetition, compared with those in the lock.
struct Comparison {
    nodes: usize,
    /// Nodes that have a result in the lock.
    compared: usize,
    differing: usize,
    first: Option<ResultDifference>,
    seconds: f64,
}

impl Comparison {
    fn report(&self, context: &Context) -> io::Result<()> {
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
            }));
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

/// Takes the bytes of sources from the first run's store: the pins verify them.
fn take_sources(from: &Store, to: &Store, keyed: &Keyed, experiment: &str, pins: &Pins) -> Result<(), Failure> {
    for id in keyed.graph.ids() {
        let NodeOrigin::Source { source: name } = &keyed.graph.node(id).origin else {
            continue;
        };
        let Some(record) = from.record(keyed.key(id))? else {
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
