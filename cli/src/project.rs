//! Projects: a spec belongs to the folder that has its `lockfiles/` and `.aurora/`.
//!
//! In: a path that the user named. Out: the project's folder, lock and store; the loaded and compiled spec. For a spec, the
//! folder in which a command is started does not matter.

use std::collections::{BTreeMap, BTreeSet};

use aurora_compiler::compose::remote::is_remote;
use aurora_compiler::compose::{Bundle, slug};
use aurora_compiler::graph::{Pins, lower};
use aurora_compiler::hash::{Keyed, hash};
use aurora_compiler::lock::{Lock, LockError, LockedImport};
use aurora_compiler::spec::Spec;
use aurora_lang::diagnostics::Code;
use aurora_runtime::errors::FileError;
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::record::checks::problems;
use aurora_runtime::remote_specs::{Fetch, Imports};
use aurora_runtime::source::Folders;
use aurora_runtime::{make_below, regular};
use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::VariantSelection;
use crate::failure::Failure;
use crate::output;

pub struct Project {
    pub root: Utf8PathBuf,
    pub store: Utf8PathBuf,
    /// The folders that its sources are in.
    pub folders: Folders,
}

impl Project {
    /// Finds the project that a file or folder belongs to: the nearest folder above it with `lockfiles/` or `.aurora/`,
    /// else the folder above `specs/`, else the file's own folder.
    pub fn of(path: &Utf8Path, store: Option<&Utf8Path>) -> Result<Self, Failure> {
        let full = absolute(path)?;
        let own = if full.is_dir() {
            full.as_path()
        } else {
            full.parent().unwrap_or(&full)
        };
        let marked = own
            .ancestors()
            .find(|at| at.join("lockfiles").is_dir() || at.join(".aurora").is_dir());
        let root = match (marked, own.file_name(), own.parent()) {
            (Some(root), _, _) => root,
            (None, Some("specs"), Some(parent)) => parent,
            _ => own,
        };
        let store = match store {
            Some(store) => absolute(store)?,
            None => root.join(".aurora"),
        };
        Ok(Self {
            root: root.to_owned(),
            store,
            folders: Folders::of(root, BTreeMap::new()),
        })
    }

    /// The path of a file relative to the project, as locks contain it.
    pub fn relative(&self, path: &Utf8Path) -> String {
        let full = camino::absolute_utf8(path).unwrap_or_else(|_| path.to_owned());
        full.strip_prefix(&self.root)
            .map_or_else(|_| full.to_string(), ToString::to_string)
    }

    pub fn lock_path(&self, spec: &Spec) -> Utf8PathBuf {
        let profile = spec
            .profile
            .as_ref()
            .map(|profile| format!(".{profile}"))
            .unwrap_or_default();
        // Settings of the command line make another experiment with the same name.
        let mut settings: Vec<String> = spec.settings.iter().map(|setting| slug(setting)).collect();
        settings.sort();
        let settings: String = settings.iter().map(|setting| format!(".{setting}")).collect();
        let name = format!("{}{profile}{settings}.lock", spec.name);
        self.root.join("lockfiles").join(name)
    }

    /// The pins of imports in the locks of a spec. The lock of this selection takes precedence; an address on which the other
    /// locks disagree is not pinned.
    fn import_pins(&self, spec: &Utf8Path, selection: &VariantSelection) -> ImportPins {
        let name = self.relative(spec);
        let entries = self
            .root
            .join("lockfiles")
            .read_dir_utf8()
            .into_iter()
            .flatten()
            .flatten();
        let locks = entries.map(camino::Utf8DirEntry::into_path);
        // A lock that cannot be read is reported where it is needed.
        let locks = locks.filter_map(|path| read_lock(&path).ok().flatten());
        let (own, others): (Vec<Lock>, Vec<Lock>) = locks.filter(|lock| lock.spec == name).partition(|lock| {
            lock.profile == selection.profile && lock.point == selection.point && lock.set == selection.set
        });
        let mut pins = ImportPins::new();
        let mut disputed = BTreeSet::new();
        for (address, pin) in others.iter().flat_map(|lock| &lock.import) {
            if pins
                .insert(address.clone(), pin.clone())
                .is_some_and(|other| other != *pin)
            {
                disputed.insert(address.clone());
            }
        }
        pins.retain(|address, _| !disputed.contains(address));
        pins.extend(own.into_iter().flat_map(|lock| lock.import));
        pins
    }

    /// The failure of a command that needs a node's result.
    pub fn not_built(&self, node: &str, loaded: &Loaded) -> Failure {
        let failure = Failure::error(format!(
            "`{node}` of `{}` has not been built from the current spec",
            loaded.spec.name
        ));
        failure.help(format!("aurora run {}", self.relative(&loaded.path)))
    }

    /// Fails if another spec has the lock of this one: both have the same experiment.
    pub fn refuse_claimed_lock(&self, loaded: &Loaded) -> Result<(), Failure> {
        let (spec, path) = (&loaded.spec, self.lock_path(&loaded.spec));
        // A lock that cannot be read is reported where it is needed.
        let Some(owner) = std::fs::File::open(&path).ok().and_then(spec_of_lock) else {
            return Ok(());
        };
        let other = self.root.join(&owner);
        let is_same = match (other.canonicalize_utf8(), loaded.path.canonicalize_utf8()) {
            (Ok(other), Ok(own)) => other == own,
            // The spec was moved, and the lock goes with it.
            _ => true,
        };
        if is_same || !declares(&other, &spec.name) {
            return Ok(());
        }
        let failure = Failure::error(format!(
            "`{}` and `{owner}` are both experiment `{}`, so both claim the lock `{}`",
            self.relative(&loaded.path),
            spec.name,
            self.relative(&path)
        ));
        Err(Failure {
            code: Some(Code::LOCK_CLAIMED_TWICE),
            ..failure.help("rename the experiment of one of them")
        })
    }

    /// Reads the lock of a spec, if there is one.
    pub fn lock(&self, spec: &Spec) -> Result<Option<Lock>, Failure> {
        let path = self.lock_path(spec);
        let Some(lock) = read_lock(&path)? else { return Ok(None) };
        if lock.experiment != spec.name {
            let other = aurora_compiler::lock::LockError::OtherSpec {
                found: lock.experiment.clone(),
                expected: spec.name.clone(),
            };
            return Err(with_path(other, &path));
        }
        lock.check_against(spec).map_err(|error| with_path(error, &path))?;
        Ok(Some(lock))
    }
}

/// A path from the root.
pub fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    camino::absolute_utf8(path).map_err(|error| Failure::error(format!("`{path}`: {error}")))
}

/// The path of this program.
pub fn own_program() -> Result<Utf8PathBuf, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::error(format!("the path of this program cannot be found: {error}")))?;
    Utf8PathBuf::try_from(path).map_err(|error| Failure::from_error(&error))
}

fn with_path(error: aurora_compiler::lock::LockError, path: &Utf8Path) -> Failure {
    let failure = Failure::from(error);
    Failure {
        message: format!("{path}: {}", failure.message),
        ..failure
    }
}

/// Bytes of the largest spec that is read. The parser has its own, smaller limit with a diagnostic.
pub const LARGEST_SPEC: u64 = 64 << 20;

/// Bytes at the beginning of a lock that have its header.
const HEADER: u64 = 64 << 10;

/// Bytes of the largest lock that is read; one of 100,000 nodes has about 30 MB.
const LARGEST_LOCK: u64 = 1 << 30;

/// Reads a lock file; `None` if there is none.
pub fn read_lock(path: &Utf8Path) -> Result<Option<Lock>, Failure> {
    match regular::read_text(path, LARGEST_LOCK) {
        Ok(text) => Lock::parse(&text).map(Some).map_err(|error| with_path(error, path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::error(format!("cannot read `{path}`: {error}"))),
    }
}

/// The path of the spec in the header of a lock.
fn spec_of_lock(file: std::fs::File) -> Option<String> {
    use std::io::BufRead;
    let lines = std::io::BufReader::new(std::io::Read::take(file, HEADER)).lines();
    let mut header = lines.map_while(Result::ok).take_while(|line| !line.starts_with('['));
    let line = header.find(|line| line.starts_with("spec = "))?;
    let table: BTreeMap<String, String> = toml::from_str(&line).ok()?;
    table.into_values().next()
}

/// Whether a spec declares an experiment of this name.
fn declares(path: &Utf8Path, experiment: &str) -> bool {
    let Ok(text) = regular::read_text(path, LARGEST_SPEC) else {
        return false;
    };
    let items = aurora_lang::parse(&text, None).file.items;
    items
        .iter()
        .any(|item| item.keyword.text == "experiment" && item.name.text == experiment)
}

/// Writes a lock if its text changes.
pub fn write_lock(path: &Utf8Path, lock: &Lock) -> Result<(), FileError> {
    let text = lock.to_text();
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        make_below(folder.parent().unwrap_or(folder), folder).map_err(FileError::writing(path))?;
    }
    aurora_runtime::write_atomically(path, text.as_bytes()).map_err(FileError::writing(path))
}

/// Writes a file in one step, so that a full disk leaves the old one; makes its folder if there is none.
pub fn write_file(path: &Utf8Path, text: &str) -> Result<(), FileError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(FileError::writing(path))?;
    }
    aurora_runtime::write_atomically(path, text.as_bytes()).map_err(FileError::writing(path))
}

/// Writes a spec that the user has named. The file that a symbolic link leads to is replaced, not the link.
pub fn write_spec(path: &Utf8Path, text: &str) -> Result<(), FileError> {
    write_file(path.canonicalize_utf8().as_deref().unwrap_or(path), text)
}

/// Fails if a file in the record of a run is damaged.
pub fn refuse_damaged_run(store: &Utf8Path, run: &str) -> Result<(), Failure> {
    match problems(store, run).into_iter().next() {
        None => Ok(()),
        Some((name, cause)) => {
            let path = store.join("runs").join(run).join(name);
            Err(Failure::error(format!("`{path}` is damaged: {cause}"))
                .help("name another run; `aurora status` lists them"))
        }
    }
}

/// A spec that has been checked.
pub struct Loaded {
    pub path: Utf8PathBuf,
    pub spec: Spec,
    pub imports: ImportPins,
}

pub fn read_text(path: &Utf8Path) -> Result<String, Failure> {
    regular::read_text(path, LARGEST_SPEC).map_err(|error| {
        Failure::error(format!("cannot read `{path}`: {error}")).help("name a spec, such as specs/demo.aur")
    })
}

/// The pins of a spec's imports from the web and from packages.
pub type ImportPins = BTreeMap<String, LockedImport>;

/// Where the texts of remote imports may come from.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    /// The store, if it is not the project's.
    pub store: Option<&'a Utf8Path>,
    pub fetch: Fetch,
    /// The lock whose pins are used; if `None`, the pins of all of the spec's locks.
    pub lock: Option<&'a Lock>,
    /// Addresses whose pins are ignored.
    pub upgrade: &'a [String],
}

impl<'a> Reach<'a> {
    /// Only texts that a lock pins and the store has.
    pub fn store(store: Option<&'a Utf8Path>) -> Self {
        Self {
            store,
            fetch: Fetch::Nothing,
            lock: None,
            upgrade: &[],
        }
    }

    /// The imports of a spec.
    pub fn imports(&self, path: &Utf8Path, selection: &VariantSelection) -> Result<Imports, Failure> {
        let project = Project::of(path, self.store)?;
        let mut pinned = match self.lock {
            Some(lock) => lock.import.clone(),
            None => project.import_pins(path, selection),
        };
        pinned.retain(|address, _| !self.upgrade.contains(address));
        Ok(Imports {
            store: project.store,
            pinned,
            fetch: self.fetch,
            taken: BTreeMap::new(),
        })
    }
}

/// Reads a spec with the files that it imports, and applies the selection's settings.
pub fn bundle(
    path: &Utf8Path,
    selection: &VariantSelection,
    reach: Reach<'_>,
) -> Result<(Bundle, ImportPins), Failure> {
    let (mut bundle, imports) = bundle_of(path, &read_text(path)?, selection, reach)?;
    for setting in &selection.set {
        bundle.set(setting);
    }
    Ok((bundle, imports))
}

/// As [`bundle`], with this text for the spec, and without settings.
pub fn bundle_of(
    path: &Utf8Path,
    text: &str,
    selection: &VariantSelection,
    reach: Reach<'_>,
) -> Result<(Bundle, ImportPins), Failure> {
    let root = Project::of(path, None)?.root;
    // Locks are read only if there are remote imports.
    let mut imports: Option<Imports> = None;
    let bundle = Bundle::read(path.as_str(), text, &mut |name| {
        if is_remote(name) {
            if imports.is_none() {
                imports = Some(reach.imports(path, selection).map_err(|failure| failure.message)?);
            }
            let imports = imports.as_mut().ok_or("its lock cannot be read")?;
            return imports.text(name);
        }
        let full = camino::absolute_utf8(name).map_err(|error| error.to_string())?;
        if !is_inside(&full, &root) {
            return Err(format!("it is outside the project `{root}`"));
        }
        regular::read_text(&full, LARGEST_SPEC).map_err(|error| error.to_string())
    });
    Ok((bundle, imports.map(|imports| imports.taken).unwrap_or_default()))
}

/// Whether a path is in a folder, also after symbolic links are followed: nothing of another file must be printed.
pub fn is_inside(path: &Utf8Path, folder: &Utf8Path) -> bool {
    let resolved = [path.canonicalize_utf8(), folder.canonicalize_utf8()];
    let leads_out = matches!(&resolved, [Ok(path), Ok(folder)] if !path.starts_with(folder));
    !leads_out && without_parents(path).starts_with(without_parents(folder))
}

/// The path with every `..` resolved, so that two paths can be compared.
fn without_parents(path: &Utf8Path) -> Utf8PathBuf {
    let mut taken = Utf8PathBuf::new();
    for part in path.components() {
        if part.as_str() == ".." {
            taken.pop();
        } else {
            taken.push(part);
        }
    }
    taken
}

/// Reads and checks a spec, and prints its warnings.
pub fn load(path: &Utf8Path, selection: &VariantSelection, json: bool, reach: Reach<'_>) -> Result<Loaded, Failure> {
    let (bundle, imports) = bundle(path, selection, reach)?;
    match bundle.check(&selection.choice()) {
        Ok(spec) => {
            if !json {
                output::diagnostics(&spec.warnings, bundle.sources().view());
            }
            Ok(Loaded {
                path: path.to_owned(),
                spec,
                imports,
            })
        }
        Err(found) => Err(output::refused(&found, bundle.sources().view(), json)),
    }
}

/// Compiles a checked spec with the pins of its lock and the current contents of its local files.
pub fn compile(project: &Project, spec: &Spec) -> Result<(Keyed, Pins, Option<Lock>), Failure> {
    let lock = project.lock(spec)?;
    let mut pins = aurora_runtime::pin::from_lock(spec, lock.as_ref());
    pins.extend(aurora_runtime::pin::local(
        spec,
        &project.folders,
        ProgressReporter::none(),
    )?);
    Ok((hash(lower(spec, &pins)), pins, lock))
}

/// The graph with the lock's pins; fails if the spec no longer gives the lock's keys.
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
        return Err(Failure::error(format!(
            "`{}` has changed since the lock was written (first at `{name}`)",
            loaded.path
        ))
        .help("repeat it at the revision that the lock belongs to, or run the spec again"));
    }
    Ok(keyed)
}
