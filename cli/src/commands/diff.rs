//! `aurora diff`: two specs, locks or runs.

mod words;

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_compiler::diff::{Diff, Severity, diff, locks};
use aurora_compiler::lock::{Lock, lock};
use aurora_compiler::spec::Spec;
use aurora_runtime::pin;
use aurora_runtime::record;
use aurora_runtime::store::Store;
use camino::{Utf8Path, Utf8PathBuf};

use super::lock::LIBTORCH;
use super::{Context, pin_failure};
use crate::arguments::DiffFormat;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Chosen, Project, bundle, read_lock};

pub use words::text;

/// One side of a comparison.
pub(super) enum Side {
    /// A checked spec and its place in the working tree.
    Spec(Box<Spec>, Utf8PathBuf),
    Lock(Box<Lock>),
}

pub fn run(context: &Context, [old, new]: [&str; 2], chosen: &Chosen, format: DiffFormat) -> Result<Exit, Failure> {
    let found = match (side(context, old, chosen)?, side(context, new, chosen)?) {
        (Side::Spec(old, old_path), Side::Spec(new, new_path)) => {
            let path = if new_path.exists() { &new_path } else { &old_path };
            between(context, &old, &new, path)?
        }
        (old, new) => {
            let project = context.project(match [&old, &new] {
                [Side::Spec(_, path), _] | [_, Side::Spec(_, path)] => Some(path),
                _ => None,
            })?;
            let store = Store::look(&project.store);
            let made = |key| store.record(key).map(|record| record.preimage);
            let known = match [&old, &new] {
                [Side::Lock(lock), _] | [_, Side::Lock(lock)] => Some(lock.clone()),
                _ => None,
            };
            let of = |side| as_lock(&project, side, known.as_deref());
            locks(&of(old)?, &of(new)?, &made)
        }
    };
    if context.json {
        let mut value = serde_json::to_value(&found).map_err(|error| Failure::fault(error.to_string()))?;
        // Names alone under `nodes`, as every other list of nodes; the reasons stand beside them.
        let names: Vec<&str> = found.nodes.rerun.iter().map(|rerun| rerun.name.as_str()).collect();
        value["reasons"] = value["nodes"]["rerun"].clone();
        value["nodes"]["rerun"] = serde_json::json!(names);
        output::json(value);
    } else {
        match format {
            DiffFormat::Text => print!("{}", text(&found)),
            DiffFormat::Markdown => print!("{}", words::markdown(&found, &format!("`{old}` → `{new}`"))),
        }
    }
    Ok(if found.severity == Severity::None {
        Exit::Done
    } else {
        Exit::Fault
    })
}

/// What differs between two specs of the project that `path` is in.
pub fn between(context: &Context, old: &Spec, new: &Spec, path: &Utf8Path) -> Result<Diff, Failure> {
    let project = context.project(Some(path))?;
    // Both sides see the same lock and the same files, so that only what the specs say differs.
    let lock = project.lock(new).ok().flatten();
    let pins = |spec| {
        let mut pins = pin::from_lock(spec, lock.as_ref());
        match pin::local(spec, &project.root) {
            Ok(local) => pins.extend(local),
            // A file that is gone is simply not pinned.
            Err(pin::PinError::Local { .. }) => {}
            Err(error) => return Err(pin_failure(error)),
        }
        Ok(pins)
    };
    Ok(diff([old, new], [&pins(old)?, &pins(new)?]))
}

/// The lock that a spec would have: with the pins of the lock that it is compared with, and the local files as they are.
fn as_lock(project: &Project, side: Side, other: Option<&Lock>) -> Result<Lock, Failure> {
    match side {
        Side::Lock(lock) => Ok(*lock),
        Side::Spec(spec, path) => {
            let mut pins = pin::from_lock(&spec, other);
            pins.extend(pin::local(&spec, &project.root).map_err(pin_failure)?);
            let keyed = aurora_compiler::hash::hash(aurora_compiler::graph::lower(&spec, &pins));
            let mut fresh = lock(&keyed, &spec, &project.relative(&path), &pins, LIBTORCH);
            fresh.fingerprint = other.and_then(|other| other.fingerprint.clone());
            Ok(fresh)
        }
    }
}

/// Reads and checks one side.
pub(super) fn side(context: &Context, name: &str, chosen: &Chosen) -> Result<Side, Failure> {
    let path = Utf8Path::new(name);
    if path.is_file() && path.extension() == Some("lock") {
        return locked(path);
    }
    let (bundle, path) = if path.is_file() {
        (bundle(path, chosen, context.reach())?.0, path.to_owned())
    } else if let Some((revision, path)) = name.split_once(':') {
        let (text, path) = at_revision(revision, path)?;
        if path.extension() == Some("lock") {
            return Ok(Side::Lock(Box::new(Lock::parse(&text)?)));
        }
        // What it imports is read from the same revision; names of files begin as the spec's does.
        let mut imports = context.reach().imports(&path, chosen)?;
        let mut bundle = Bundle::read(name, &text, &mut |file| {
            if is_remote(file) {
                return imports.text(file);
            }
            let file = file.split_once(':').map_or(file, |(_, file)| file);
            let read = at_revision(revision, file);
            read.map(|(text, _)| text).map_err(|failure| failure.message)
        });
        chosen.set.iter().for_each(|setting| bundle.set(setting));
        (bundle, path)
    } else {
        return of_run(context, name);
    };
    match bundle.check(&chosen.choice()) {
        Ok(spec) => Ok(Side::Spec(Box::new(spec), path)),
        Err(found) => Err(output::refused(&found, bundle.sources().view(), context.json)),
    }
}

fn locked(path: &Utf8Path) -> Result<Side, Failure> {
    let lock = read_lock(path)?.ok_or_else(|| Failure::fault(format!("there is no lock `{path}`")))?;
    Ok(Side::Lock(Box::new(lock)))
}

/// The lock that a run has left, by the beginning of the run's id.
fn of_run(context: &Context, name: &str) -> Result<Side, Failure> {
    let project = context.project(None)?;
    let runs = record::runs(&project.store)?;
    let mut named = runs.iter().filter(|facts| facts.id.starts_with(name));
    match (named.next(), named.next()) {
        (Some(facts), None) => {
            let path = project.store.join("runs").join(&facts.id).join(record::LOCK);
            if !path.exists() {
                return Err(
                    Failure::fault(format!("run {} has left no lock: it is {}", facts.id, facts.standing()))
                        .help("compare runs that have finished; `aurora status` lists them"),
                );
            }
            locked(&path)
        }
        (Some(_), Some(_)) => {
            Err(Failure::fault(format!("several runs begin with `{name}`")).help("`aurora status` lists them"))
        }
        (None, _) => Err(
            Failure::fault(format!("`{name}` is neither a file nor a run of this project"))
                .help("name a spec, a lock, REV:path, or a run that `aurora status` lists"),
        ),
    }
}

fn at_revision(revision: &str, path: &str) -> Result<(String, Utf8PathBuf), Failure> {
    let wrap = |doing: &str, error: git2::Error| Failure::fault(format!("cannot {doing}: {}", error.message()));
    let repository = git2::Repository::discover(".").map_err(|error| wrap("find a git repository here", error))?;
    let object = repository
        .revparse_single(&format!("{revision}:{path}"))
        .map_err(|error| wrap(&format!("find `{path}` in revision `{revision}`"), error))?;
    let blob = object
        .peel_to_blob()
        .map_err(|error| wrap(&format!("read `{path}` as a file"), error))?;
    let text = std::str::from_utf8(blob.content())
        .map_err(|_| Failure::fault(format!("`{path}` in `{revision}` is not UTF-8 text")))?;
    let root = repository
        .workdir()
        .and_then(|root| Utf8Path::from_path(root))
        .unwrap_or(Utf8Path::new("."));
    Ok((text.to_string(), root.join(path)))
}
