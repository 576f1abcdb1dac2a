//! `aurora gc`: deletes store objects that no node name, no lock and no unfinished checkpoint refers to.

use std::collections::BTreeSet;

use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::project::read_lock;
use crate::stdio::outln;

pub fn run(context: &Context, of: Option<&Utf8Path>, dry_run: bool) -> Result<Exit, Failure> {
    let project = context.project(of)?;
    let mut keep = BTreeSet::new();
    let mut imports = Vec::new();
    if let Ok(entries) = project.root.join("lockfiles").read_dir_utf8() {
        for entry in entries {
            let path = entry?.into_path();
            if path.extension() == Some("lock")
                && let Some(lock) = read_lock(&path)?
            {
                keep.extend(lock.node.values().map(|node| node.key));
                imports.extend(lock.import.into_values());
            }
        }
    }
    let deleted = Store::open(&project.store)?.collect(&keep, dry_run)?;
    let texts = aurora_runtime::remote_specs::collect(&project.store, &imports, dry_run)?;
    if context.json {
        output::json(json!({
            "dry_run": dry_run, "objects": deleted.objects, "bytes": deleted.bytes + texts, "records": deleted.records,
        }))?;
    } else {
        outln!(
            "{} {} objects ({} bytes) and {} records that no node name and no lock refers to",
            if dry_run { "would delete" } else { "deleted" },
            grouped(deleted.objects),
            grouped(deleted.bytes + texts),
            grouped(deleted.records)
        )?;
    }
    Ok(Exit::Done)
}
