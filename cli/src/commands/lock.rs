//! `aurora lock`: pins every source and writes the lock.

use aurora_compiler::compose::remote::is_remote;
use aurora_compiler::graph::lower;
use aurora_compiler::hash::hash;
use aurora_compiler::lock::LockChange;
use aurora_runtime::pin::{Pinning, at_most, from_lock};
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::remote_specs::Fetch;
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::execution::{fresh_lock, publish_source};
use crate::failure::{Exit, Failure};
use crate::libtorch::version_to_lock;
use crate::output;
use crate::project::{Reach, write_lock};
use crate::stdio::{errln, outln};

pub fn run(
    context: &Context,
    argument: &SpecArgument,
    check: bool,
    upgrade: &[String],
    offline: bool,
) -> Result<Exit, Failure> {
    let (addresses, upgrade): (Vec<String>, Vec<String>) = upgrade.iter().cloned().partition(|name| is_remote(name));
    let reach = Reach {
        fetch: Fetch::allowed(offline, check),
        upgrade: &addresses,
        ..context.reach()
    };
    let (project, loaded) = context.open_with(argument, reach)?;
    if let Some(address) = addresses.iter().find(|address| !loaded.imports.contains_key(*address)) {
        return Err(Failure::error(format!("the spec does not import `{address}`"))
            .help("write the address as it is in the lock"));
    }
    let old = project.lock(&loaded.spec)?;
    let have = from_lock(&loaded.spec, old.as_ref());
    // A check fetches and writes nothing.
    let store = if check {
        Store::open_read_only(&project.store)?
    } else {
        Store::open(&project.store)?
    };
    let pinning = Pinning {
        folders: &project.folders,
        store: &store,
        offline: offline || check,
        at_most: &at_most(&loaded.spec),
        note: &|text| errln!("{text}"),
        progress: ProgressReporter::none(),
    };
    let (pins, fetched) = pinning.complete(&loaded.spec, have, &upgrade)?;
    let keyed = hash(lower(&loaded.spec, &pins));
    let mut fresh = fresh_lock(&project, &loaded, &keyed, &pins, &version_to_lock(old.as_ref()));
    if let Some(old) = &old {
        fresh.keep_from(old, &loaded.spec);
    }
    let moved = old
        .as_ref()
        .map_or_else(|| vec![LockChange::Missing], |old| old.changes(&fresh));
    let moved: Vec<String> = moved.iter().map(LockChange::to_string).collect();
    let path = project.lock_path(&loaded.spec);
    if !check {
        for (name, files) in &fetched {
            if let Some(id) = keyed.graph.find(&format!("source/{name}")) {
                publish_source(&store, &loaded.spec.name, &keyed, id, &files.source)?;
            }
        }
        write_lock(&path, &fresh)?;
    }
    if context.json {
        output::json(json!({ "lock": project.relative(&path), "changed": moved, "sources": fresh.source }))?;
    } else if moved.is_empty() {
        outln!(
            "{}: up to date ({} sources)",
            project.relative(&path),
            fresh.source.len()
        )?;
    } else {
        for line in &moved {
            outln!("{line}")?;
        }
        outln!(
            "{}: {}",
            project.relative(&path),
            if check { "would change" } else { "written" }
        )?;
    }
    Ok(if check && !moved.is_empty() {
        Exit::Error
    } else {
        Exit::Done
    })
}
