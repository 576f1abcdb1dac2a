//! `aurora gc`: deletes store objects that no node name, no lock and no unfinished checkpoint refers to.

use std::collections::BTreeSet;
use std::io;

use aurora_compiler::hash::Key;
use aurora_compiler::lock::LockedImport;
use aurora_runtime::errors::FileError;
use aurora_runtime::record::checks::oldest_running;
use aurora_runtime::store::reruns::{LeftRepetition, RepeatedLock, collect_repetitions};
use aurora_runtime::store::{Store, hash_file};
use camino::{Utf8DirEntry, Utf8Path};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::project::{Project, read_lock};
use crate::stdio::outln;

pub fn run(context: &Context, of: Option<&Utf8Path>, dry_run: bool) -> Result<Exit, Failure> {
    let project = context.project(of)?;
    // Before the locks are read: a run that ends meanwhile writes one.
    let store = Store::open_alone(&project.store)?;
    let running = oldest_running(&project.store).map_err(|error| {
        Failure::from_error(&error)
            .help("what that run uses is not known: repair the file, or delete the folder of the run")
            .exit(Exit::NodeFailed)
    })?;
    let since = running.as_ref().map(|run| run.started);
    let (keep, imports) = in_locks(&project)?;
    let deleted = store.collect(&keep, since, dry_run)?;
    let texts = aurora_runtime::remote_specs::collect(&project.store, &imports, since, dry_run)
        .map_err(FileError::reading(&project.store))?;
    let is_current = |of: &RepeatedLock| hash_file(&project.root.join(&of.path)).is_ok_and(|own| own == of.content);
    let reruns = collect_repetitions(&project.store, &is_current, dry_run)?;
    let (kept_reruns, reruns): (Vec<LeftRepetition>, _) = reruns.into_iter().partition(|rerun| rerun.kept.is_some());
    let bytes = deleted.bytes + texts + reruns.iter().map(|rerun| rerun.bytes).sum::<u64>();
    let young = running.filter(|_| deleted.young > 0);
    if context.json {
        output::json(json!({
            "dry_run": dry_run, "objects": deleted.objects, "bytes": bytes, "records": deleted.records,
            "kept": deleted.kept, "young": deleted.young, "oldest_run": young.map(|run| run.id),
            "reruns": reruns, "kept_reruns": kept_reruns,
        }))?;
        return Ok(Exit::Done);
    }
    for kept in &deleted.kept {
        outln!("kept: {}: {}", kept.path, kept.cause)?;
    }
    if !deleted.kept.is_empty() {
        outln!(
            "damaged records that are in use are kept, and every file that they may need; `aurora run` repairs them"
        )?;
    }
    for LeftRepetition { path, bytes, kept } in &kept_reruns {
        let why = kept.as_deref().unwrap_or_default();
        outln!("kept: {path} ({} bytes): {why}", grouped(*bytes))?;
    }
    if let Some(run) = young {
        outln!(
            "{} files are kept: they are younger than run {}, which is {}",
            grouped(deleted.young),
            run.id,
            run.state()
        )?;
    }
    outln!(
        "{} {} objects and {} records that no node name and no lock refers to, and {} stores of reruns: {} bytes",
        if dry_run { "would delete" } else { "deleted" },
        grouped(deleted.objects),
        grouped(deleted.records),
        grouped(reruns.len() as u64),
        grouped(bytes)
    )?;
    Ok(Exit::Done)
}

/// The keys and the imports in the locks of a project.
fn in_locks(project: &Project) -> Result<(BTreeSet<Key>, Vec<LockedImport>), Failure> {
    let (mut keys, mut imports) = (BTreeSet::new(), Vec::new());
    let folder = project.root.join("lockfiles");
    let reading = FileError::reading(&folder);
    let entries = match folder.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((keys, imports)),
        Err(error) => return Err(reading(error).into()),
    };
    for entry in entries {
        let path = entry.map(Utf8DirEntry::into_path).map_err(reading)?;
        if path.extension() == Some("lock")
            && let Some(lock) = read_lock(&path)?
        {
            keys.extend(lock.node.values().map(|node| node.key));
            imports.extend(lock.import.into_values());
        }
    }
    Ok((keys, imports))
}
