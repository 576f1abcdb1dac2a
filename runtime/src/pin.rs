//! Pins: which bytes each source of a spec has.
//!
//! In: a spec, the pins of its lock, the current local files. Out: a pin for every source, and the files of
//! those that had to be fetched. Not here: how a reference is fetched (`source`), the lock's text (`compiler::lock`).

use std::collections::BTreeMap;
use std::sync::Mutex;

use aurora_compiler::graph::{Pin, Pins};
use aurora_compiler::lock::Lock;
use aurora_compiler::spec::{BlockKind, Spec, Value};
use aurora_compiler::views::hub_source;

use crate::progress::ProgressReporter;
use crate::source::{self, FetchError, Fetched, Folders, SourceAddress, SourceContext};
use crate::store::{Scratch, Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("cannot read source `{name}`")]
    Local { name: String, source: Box<FetchError> },
    #[error("cannot fetch source `{name}`")]
    Fetch { name: String, source: Box<FetchError> },
    #[error("sources are not pinned: {}", names.join(", "))]
    NotPinned { names: Vec<String> },
    #[error("there is no source `{name}`")]
    NoSource { name: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PinError {
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Local { .. } | Self::Fetch { .. } => None,
            Self::NotPinned { .. } => Some("run `aurora lock SPEC` first".to_string()),
            Self::NoSource { .. } => Some("`aurora show SPEC source` lists the sources".to_string()),
            Self::Store(error) => error.help().map(String::from),
        }
    }
}

/// The sources of a spec: name and reference. Weights that a model takes from the hub are a source of their own.
pub fn sources(spec: &Spec) -> Vec<(String, String)> {
    let blocks = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Source);
    let from = blocks.filter_map(|(id, block)| match &block.fields.get("from")?.value {
        Value::Text(from) => Some((id.name.clone(), from.clone())),
        _ => None,
    });
    let models = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Model);
    let weights = models.filter_map(|(id, block)| {
        let argument = |name: &str| match &block.fields.get("weights")?.argument(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        };
        let (repository, revision) = (argument("repository")?, argument("revision")?);
        Some((hub_source(id), format!("hf:{repository}@{revision}")))
    });
    from.chain(weights).collect()
}

/// The most bytes that sources may have, for those whose blocks state them.
pub fn at_most(spec: &Spec) -> BTreeMap<String, u64> {
    let blocks = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Source);
    let stated = blocks.filter_map(|(id, block)| {
        let (bytes, _) = block.fields.get("at_most")?.quantity()?;
        Some((id.name.clone(), bytes))
    });
    stated.collect()
}

/// The most rows that may be malformed, in millionths, by source.
pub fn malformed(spec: &Spec) -> BTreeMap<String, u32> {
    let blocks = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Source);
    let stated = blocks.filter_map(|(id, block)| match &block.fields.get("malformed")?.value {
        Value::Percent(percent) => {
            let ppm = percent.decimal().checked_mul(10_000.into())?.trunc().mantissa();
            Some((id.name.clone(), u32::try_from(ppm).ok()?))
        }
        _ => None,
    });
    stated.collect()
}

fn is_local(from: &str) -> bool {
    from.starts_with("file:")
}

/// Takes the pins of packages from a lock, where the spec still refers to the same.
pub fn from_lock(spec: &Spec, lock: Option<&Lock>) -> Pins {
    let mut pins = lock.map(Lock::pins).unwrap_or_default();
    let wanted: BTreeMap<String, String> = sources(spec).into_iter().filter(|(_, from)| !is_local(from)).collect();
    pins.retain(|name, pin| wanted.get(name).is_some_and(|from| *from == pin.from));
    pins
}

fn pin_of(from: &str, fetched: &Fetched) -> Pin {
    Pin {
        from: from.to_string(),
        reference: fetched.reference.to_string(),
        bytes: fetched.bytes,
        content: fetched.content.clone(),
        files: fetched.files.iter().map(|file| file.name.clone()).collect(),
    }
}

/// Pins the local files of a spec to their current content.
///
/// # Errors
/// A file is missing or cannot be read.
pub fn local(spec: &Spec, folders: &Folders, progress: ProgressReporter<'_>) -> Result<Pins, PinError> {
    local_among(spec, folders, |_| true, progress)
}

/// As [`local`], for the sources whose name `wanted` accepts.
///
/// # Errors
/// As [`local`].
pub fn local_among(
    spec: &Spec,
    folders: &Folders,
    wanted: impl Fn(&str) -> bool,
    progress: ProgressReporter<'_>,
) -> Result<Pins, PinError> {
    local_noting(spec, folders, wanted, &|_| {}, progress)
}

/// As [`local_among`]; `note` receives a line for each source of which something is left out.
fn local_noting(
    spec: &Spec,
    folders: &Folders,
    wanted: impl Fn(&str) -> bool,
    note: &dyn Fn(&str),
    progress: ProgressReporter<'_>,
) -> Result<Pins, PinError> {
    let own = sources(spec).into_iter();
    let own = own.filter(|(name, from)| is_local(from) && wanted(name));
    own.map(|(name, from)| {
        let wrap = |source| PinError::Local {
            name: name.clone(),
            source: Box::new(source),
        };
        // A local file is read in place: nothing is written to the folders that a fetch would use.
        let context = SourceContext {
            name: &name,
            folders,
            scratch: &folders.project,
            cache: &folders.project,
            offline: true,
            at_most: None,
            limits: None,
        };
        let reference = parse(&from).map_err(wrap)?;
        let fetched = source::fetch(&reference, None, context, progress).map_err(wrap)?;
        note_skipped(&name, &fetched, note);
        let pin = pin_of(&from, &fetched);
        Ok((name, pin))
    })
    .collect()
}

/// Notes that a part of a source is left out.
fn note_skipped(name: &str, fetched: &Fetched, note: &dyn Fn(&str)) {
    let (skipped, read) = (fetched.skipped, fetched.files.len());
    if skipped > 0 {
        note(&format!(
            "note: source `{name}` ({}): {read} files; {skipped} left out (hidden, temporary, a link to a folder, or not data)",
            fetched.reference
        ));
    }
}

/// A line for each source whose content differs from what a lock pins: old → new.
pub fn changed(old: &Pins, new: &Pins) -> Vec<String> {
    let changed = new.iter().filter_map(|(name, new)| {
        let old = old.get(name).filter(|old| old.content != new.content)?;
        Some(format!(
            "source `{name}` has changed since the lock: {} → {}",
            brief(old),
            brief(new)
        ))
    });
    changed.collect()
}

/// A pin in a line, with the beginning of its content's digest.
fn brief(pin: &Pin) -> String {
    let files = match pin.files.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let content = pin.content.get(..12).unwrap_or(&pin.content);
    format!("{files}, {} bytes ({content})", pin.bytes)
}

fn parse(reference: &str) -> Result<SourceAddress, FetchError> {
    reference.parse().map_err(FetchError::from)
}

/// A fetched source, and the temporary folder that its files are in.
pub struct FetchedFiles {
    pub source: Fetched,
    _scratch: Scratch,
}

/// How sources are pinned.
pub struct Pinning<'a> {
    pub folders: &'a Folders,
    pub store: &'a Store,
    pub offline: bool,
    /// As [`at_most`] returns it.
    pub at_most: &'a BTreeMap<String, u64>,
    /// Receives a line for each source that is fetched.
    pub note: &'a (dyn Fn(&str) + Sync),
    pub progress: ProgressReporter<'a>,
}

/// Sources fetched at a time; the network is the bottleneck.
const AT_ONCE: usize = 4;

impl Pinning<'_> {
    /// Pins every source that has no pin yet, and those in `upgrade` again.
    ///
    /// # Errors
    /// The first source (by name) that cannot be pinned.
    pub fn complete(
        &self,
        spec: &Spec,
        have: Pins,
        upgrade: &[String],
    ) -> Result<(Pins, BTreeMap<String, FetchedFiles>), PinError> {
        let all = sources(spec);
        if let Some(name) = upgrade.iter().find(|name| !all.iter().any(|(known, _)| known == *name)) {
            return Err(PinError::NoSource { name: name.clone() });
        }
        let mut pins = have;
        pins.retain(|name, _| !upgrade.contains(name));
        let note = |text: &str| (self.note)(text);
        pins.extend(local_noting(spec, self.folders, |_| true, &note, self.progress)?);
        let missing: Vec<(String, String)> = all.into_iter().filter(|(name, _)| !pins.contains_key(name)).collect();
        if self.offline && !missing.is_empty() {
            return Err(PinError::NotPinned {
                names: missing.into_iter().map(|(name, _)| name).collect(),
            });
        }
        let queue = Mutex::new(missing.iter());
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(missing.len()) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                        let Some((name, from)) = next else { break };
                        let files = self.fetch(name, from, None, upgrade.contains(name));
                        let failed = files.is_err();
                        done.lock()
                            .unwrap_or_else(|poisoned| poisoned.into_inner())
                            .insert(name.clone(), files);
                        if failed {
                            break;
                        }
                    }
                });
            }
        });
        let mut fetched = BTreeMap::new();
        for (name, from) in &missing {
            let files = done
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .remove(name);
            let Some(files) = files else { continue };
            let files = files?;
            pins.insert(name.clone(), pin_of(from, &files.source));
            fetched.insert(name.clone(), files);
        }
        Ok((pins, fetched))
    }

    /// Fetches one source; with a pin, any other content is an error.
    ///
    /// # Errors
    /// It cannot be fetched, or has another content.
    pub fn fetch(&self, name: &str, from: &str, pin: Option<&Pin>, newest: bool) -> Result<FetchedFiles, PinError> {
        let scratch = self.store.scratch()?;
        let wrap = |source| PinError::Fetch {
            name: name.to_string(),
            source: Box::new(source),
        };
        let mut reference = parse(from).map_err(wrap)?;
        if newest && let SourceAddress::Package(package) = &mut reference {
            package.version = None;
        }
        if !is_local(from) {
            (self.note)(&format!("fetching {name} ({reference})"));
        }
        let context = SourceContext {
            name,
            folders: self.folders,
            scratch: scratch.path(),
            cache: &crate::cache_folder(),
            offline: self.offline,
            at_most: self.at_most.get(name).copied(),
            limits: None,
        };
        let source = source::fetch(&reference, pin, context, self.progress).map_err(wrap)?;
        if pin.is_none() {
            note_skipped(name, &source, &|text| (self.note)(text));
        }
        Ok(FetchedFiles {
            source,
            _scratch: scratch,
        })
    }
}
