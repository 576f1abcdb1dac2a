//! `aurora lock`: pins every source and writes the lock.

use aurora_compiler::check::AssumptionKind;
use aurora_compiler::compose::remote::is_remote;
use aurora_compiler::graph::lower;
use aurora_compiler::hash::hash;
use aurora_compiler::lock::{Lock, LockChange, lock};
use aurora_compiler::spec::Spec;
use aurora_runtime::import::Fetch;
use aurora_runtime::pin::{Pinning, from_lock};
use aurora_runtime::progress::Watch;
use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use super::run::publish_source;
use super::{Context, pin_failure};
use crate::arguments::SpecArgument;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::Reach;

/// The libtorch that this Aurora is built for.
pub const LIBTORCH: &str = "2.13.0";

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
        return Err(Failure::fault(format!("the spec does not import `{address}`"))
            .help("write the address as the lock has it"));
    }
    let old = project.lock(&loaded.spec)?;
    let have = from_lock(&loaded.spec, old.as_ref());
    let store = Store::open(&project.store)?;
    let _in_use = store.share()?;
    let pinning = Pinning {
        root: &project.root,
        store: &store,
        offline: offline || check,
        note: &|text| eprintln!("{text}"),
        watch: Watch::nobody(),
    };
    let (pins, brought) = pinning.complete(&loaded.spec, have, &upgrade).map_err(pin_failure)?;
    let keyed = hash(lower(&loaded.spec, &pins));
    let mut fresh = lock(&keyed, &loaded.spec, &project.relative(&argument.spec), &pins, LIBTORCH);
    fresh.import.clone_from(&loaded.imports);
    if let Some(old) = &old {
        fresh.keep_from(old);
    }
    let moved = old
        .as_ref()
        .map_or_else(|| vec![LockChange::Missing], |old| old.changes(&fresh));
    let path = project.lock_path(&loaded.spec);
    if !check {
        for (name, source) in &brought {
            if let Some(id) = keyed.graph.find(&format!("source/{name}")) {
                publish_source(&store, &loaded.spec.name, &keyed, id, &source.fetched)?;
            }
        }
        write(&path, &fresh)?;
    }
    if context.json {
        output::json(
            json!({ "lock": project.relative(&path), "changed": moved.iter().map(LockChange::to_string).collect::<Vec<_>>(), "sources": fresh.source }),
        );
    } else if moved.is_empty() {
        println!(
            "{}: up to date ({} sources)",
            project.relative(&path),
            fresh.source.len()
        );
    } else {
        for line in &moved {
            println!("{line}");
        }
        println!(
            "{}: {}",
            project.relative(&path),
            if check { "would change" } else { "written" }
        );
    }
    Ok(if check && !moved.is_empty() {
        Exit::Fault
    } else {
        Exit::Done
    })
}

/// Writes the lock if its text changes.
pub fn write(path: &Utf8Path, lock: &Lock) -> Result<(), Failure> {
    let text = lock.to_text();
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let wrap = |error| Failure::fault(format!("cannot write `{path}`: {error}"));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(wrap)?;
    }
    aurora_runtime::write_whole(path, text.as_bytes()).map_err(wrap)
}

/// Refuses what cannot run: values that nobody knows.
pub fn runnable(spec: &Spec) -> Result<(), Failure> {
    let assumptions = aurora_compiler::check::assumptions(spec);
    let unknown: Vec<String> = assumptions
        .iter()
        .filter(|assumption| assumption.kind == AssumptionKind::Unknown)
        .map(|a| format!("  {} ({}:{}:{})", a.path, a.file, a.line, a.column))
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::fault(format!(
            "`{}` has unknown values and cannot run:\n{}",
            spec.name,
            unknown.join("\n")
        ))
        .help("give each a value of your own and mark it `@assumed(\"why\")`"));
    }
    Ok(())
}
