//! Compares two specs, locks or runs.
//!
//! In: what a command names. Out: its spec or lock, and the difference between two of them. Not here: the printed text
//! (`text`), how specs and locks differ (`aurora_compiler::diff`).

mod text;

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_compiler::diff::{Diff, diff, locks};
use aurora_compiler::lock::{Lock, lock};
use aurora_compiler::spec::Spec;
use aurora_runtime::errors::FileError;
use aurora_runtime::pin;
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::record;
use aurora_runtime::store::Store;
use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::VariantSelection;
use crate::context::Context;
use crate::failure::Failure;
use crate::libtorch::pinned;
use crate::output;
use crate::project::{Project, bundle, read_lock, refuse_damaged_run};

pub use text::{markdown, text};

/// One side of a comparison.
pub enum DiffSide {
    /// A checked spec and its path in the working tree.
    Spec(Box<Spec>, Utf8PathBuf),
    Lock(Box<Lock>),
}

/// The difference of two sides, each by the name that the user gave it.
pub fn difference(context: &Context, [old, new]: [&str; 2], selection: &VariantSelection) -> Result<Diff, Failure> {
    let [old_name, new_name] = [old, new];
    match (side(context, old, selection)?, side(context, new, selection)?) {
        (DiffSide::Spec(old, old_path), DiffSide::Spec(new, new_path)) => {
            let path = if new_path.exists() { &new_path } else { &old_path };
            let project = context.project(Some(path))?;
            let sides = [(old_name, &*old), (new_name, &*new)];
            let locks = sides.map(|(name, spec)| lock_at_revision(&project, name, spec));
            between_locked(&project, [&old, &new], locks)
        }
        (old, new) => {
            let project = context.project(match [&old, &new] {
                [DiffSide::Spec(_, path), _] | [_, DiffSide::Spec(_, path)] => Some(path),
                _ => None,
            })?;
            let store = Store::open_read_only(&project.store)?;
            let preimage_of = |key| Ok::<_, Failure>(store.record_of_any_class(key)?.map(|record| record.preimage));
            let known = match [&old, &new] {
                [DiffSide::Lock(lock), _] | [_, DiffSide::Lock(lock)] => Some(lock.clone()),
                _ => None,
            };
            let of = |side| as_lock(&project, side, known.as_deref());
            locks(&of(old)?, &of(new)?, &preimage_of)
        }
    }
}

/// What differs between two specs of the project that `path` is in.
pub fn between(context: &Context, old: &Spec, new: &Spec, path: &Utf8Path) -> Result<Diff, Failure> {
    between_locked(&context.project(Some(path))?, [old, new], [None, None])
}

/// As [`between`], with the locks that the specs have in a revision. A spec of the working tree, or one that has no lock in
/// its revision, uses the current lock and the current files, so that only what differs is reported.
fn between_locked(project: &Project, [old, new]: [&Spec; 2], locks: [Option<Lock>; 2]) -> Result<Diff, Failure> {
    let current = project.lock(new).ok().flatten();
    let pins = |spec: &Spec, at_revision: Option<&Lock>| {
        let mut pins = pin::from_lock(spec, at_revision.or(current.as_ref()));
        if let Some(lock) = at_revision {
            let sources = pin::sources(spec);
            let own = lock.pins().into_iter();
            pins.extend(
                own.filter(|(name, pin)| sources.iter().any(|(known, from)| known == name && *from == pin.from)),
            );
            return Ok(pins);
        }
        match pin::local(spec, &project.folders, ProgressReporter::none()) {
            Ok(local) => pins.extend(local),
            // A missing file is not pinned.
            Err(pin::PinError::Local { .. }) => {}
            Err(error) => return Err(Failure::from(error)),
        }
        Ok(pins)
    };
    let [old_lock, new_lock] = &locks;
    Ok(diff(
        [old, new],
        [&pins(old, old_lock.as_ref())?, &pins(new, new_lock.as_ref())?],
    ))
}

/// The lock of a spec that is named as REV:path, in that revision.
fn lock_at_revision(project: &Project, name: &str, spec: &Spec) -> Option<Lock> {
    if Utf8Path::new(name).is_file() {
        return None;
    }
    let (revision, _) = name.split_once(':')?;
    let full = project.lock_path(spec);
    let repository = git2::Repository::discover(&project.root).ok()?;
    let folder = Utf8Path::from_path(repository.workdir()?)?.canonicalize_utf8().ok()?;
    let root = project.root.canonicalize_utf8().ok()?;
    let path = root.join(full.strip_prefix(&project.root).ok()?);
    let (text, _) = at_revision(revision, path.strip_prefix(&folder).ok()?.as_str()).ok()?;
    // One that cannot be read any more is like none: the diff is then of the specs alone.
    Lock::parse(&text).ok()
}

/// The lock that a spec would have, with the pins of the lock that it is compared with and its current local files.
fn as_lock(project: &Project, side: DiffSide, other: Option<&Lock>) -> Result<Lock, Failure> {
    match side {
        DiffSide::Lock(lock) => Ok(*lock),
        DiffSide::Spec(spec, path) => {
            let mut pins = pin::from_lock(&spec, other);
            pins.extend(pin::local(&spec, &project.folders, ProgressReporter::none())?);
            let keyed = aurora_compiler::hash::hash(aurora_compiler::graph::lower(&spec, &pins));
            let mut fresh = lock(&keyed, &spec, &project.relative(&path), &pins, pinned(other));
            fresh.class = other.and_then(|other| other.class);
            fresh.fingerprint = other.and_then(|other| other.fingerprint.clone());
            Ok(fresh)
        }
    }
}

/// Reads and checks one side.
pub fn side(context: &Context, name: &str, selection: &VariantSelection) -> Result<DiffSide, Failure> {
    let path = Utf8Path::new(name);
    if path.is_file() && path.extension() == Some("lock") {
        return locked(path);
    }
    let (bundle, path) = if path.is_file() {
        (bundle(path, selection, context.reach())?.0, path.to_owned())
    } else if let Some((revision, path)) = name.split_once(':') {
        let (text, path) = at_revision(revision, path)?;
        if path.extension() == Some("lock") {
            return Ok(DiffSide::Lock(Box::new(Lock::parse(&text)?)));
        }
        // Its imports are read from the same revision; their names begin with the revision, as the spec's does.
        let mut imports = context.reach().imports(&path, selection)?;
        let mut bundle = Bundle::read(name, &text, &mut |file| {
            if is_remote(file) {
                return imports.text(file);
            }
            let file = file.split_once(':').map_or(file, |(_, file)| file);
            let read = at_revision(revision, file);
            read.map(|(text, _)| text).map_err(|failure| failure.message)
        });
        selection.set.iter().for_each(|setting| bundle.set(setting));
        (bundle, path)
    } else {
        return of_run(context, name);
    };
    match bundle.check(&selection.choice()) {
        Ok(spec) => Ok(DiffSide::Spec(Box::new(spec), path)),
        Err(found) => Err(output::refused(&found, bundle.sources().view(), context.json)),
    }
}

fn locked(path: &Utf8Path) -> Result<DiffSide, Failure> {
    let lock = read_lock(path)?.ok_or_else(|| Failure::error(format!("there is no lock `{path}`")))?;
    Ok(DiffSide::Lock(Box::new(lock)))
}

/// The lock of a run, by the beginning of the run's id.
fn of_run(context: &Context, name: &str) -> Result<DiffSide, Failure> {
    let project = context.project(None)?;
    let runs = record::runs(&project.store).map_err(FileError::reading(&project.store))?;
    let mut named = runs.iter().filter(|facts| facts.id.starts_with(name));
    match (named.next(), named.next()) {
        (Some(facts), None) => {
            refuse_damaged_run(&project.store, &facts.id)?;
            let path = project.store.join("runs").join(&facts.id).join(record::LOCK);
            if !path.exists() {
                return Err(Failure::error(format!(
                    "run {} does not have a lock; its state: {}",
                    facts.id,
                    facts.state()
                ))
                .help("compare finished runs; `aurora status` lists them"));
            }
            locked(&path)
        }
        (Some(_), Some(_)) => {
            Err(Failure::error(format!("several runs begin with `{name}`")).help("`aurora status` lists them"))
        }
        (None, _) => Err(
            Failure::error(format!("`{name}` is neither a file nor a run of this project"))
                .help("name a spec, a lock, REV:path, or a run that `aurora status` lists"),
        ),
    }
}

fn at_revision(revision: &str, path: &str) -> Result<(String, Utf8PathBuf), Failure> {
    let wrap = |doing: &str, error: git2::Error| Failure::error(format!("cannot {doing}: {}", error.message()));
    let repository = git2::Repository::discover(".").map_err(|error| wrap("find a git repository here", error))?;
    let object = repository
        .revparse_single(&format!("{revision}:{path}"))
        .map_err(|error| wrap(&format!("find `{path}` in revision `{revision}`"), error))?;
    let blob = object
        .peel_to_blob()
        .map_err(|error| wrap(&format!("read `{path}` as a file"), error))?;
    let text = std::str::from_utf8(blob.content())
        .map_err(|_| Failure::error(format!("`{path}` in `{revision}` is not UTF-8 text")))?;
    let root = repository
        .workdir()
        .and_then(|root| Utf8Path::from_path(root))
        .unwrap_or(Utf8Path::new("."));
    Ok((text.to_string(), root.join(path)))
}
