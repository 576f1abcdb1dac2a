//! The store: content-addressed objects, results by key, names, unfinished work.
//!
//! In: folders that a node has filled, and keys. Out: verified files. Does not interpret the bytes.
//!
//! ```text
//! cas/ab/cdef…       objects by the BLAKE3 of their bytes; read-only
//! actions/KEY        record of the node with this key: names and contents of its result's files, and its pre-image
//! realised/KEY       key of a result by its realised key, which has the contents of the inputs instead of their keys
//! partial/KEY        record of an unfinished checkpoint of the node with this key
//! names/EXP/NODE     key under which a node of this name was last built
//! locks/             file locks: one per node, held while it is built; runs share `store`, gc holds it exclusively
//! tmp/               partial files; nothing here is ever read
//! verified           objects that were found undamaged, with the status of their files at that time
//! ```
//!
//! Publishing: write under `tmp/`, sync, rename into `cas/`, and the record last. Records contain their own BLAKE3. A
//! node is looked up in `actions` first, then in `realised` (early cut-off: inputs that were computed in another way,
//! with the same contents), then in `partial`, from which training resumes. `names` is only for explanations and for
//! gc.

mod gc;
mod sealed;
mod verified;
mod verify;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::Mutex;

use aurora_compiler::hash::{Key, Preimage, digest_of};
use aurora_compiler::plan::{CachedResult, ResultCache};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

pub use gc::GarbageReport;
pub use verify::{StoreProblem, StoreReport};

use crate::job::Files;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} `{path}` in the store")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        source: io::Error,
    },
    #[error("record `{path}` is damaged: {cause}")]
    Record { path: Utf8PathBuf, cause: String },
    #[error("object {content} is damaged: its bytes hash to {actual}")]
    Damaged { content: String, actual: String },
    #[error("object {content} is missing")]
    Missing { content: String },
    #[error("another process is using the store `{root}`")]
    Busy { root: Utf8PathBuf },
}

impl StoreError {
    /// What to do about it, if anything.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } => help_with(source.kind()),
            Self::Damaged { .. } | Self::Missing { .. } | Self::Record { .. } => {
                Some("`aurora verify` lists what is damaged; `aurora run` builds it again")
            }
            Self::Busy { .. } => Some("wait for the other process to end"),
        }
    }
}

/// What to do if a disk refuses.
pub(crate) fn help_with(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull => {
            Some("free space on that disk (`aurora gc` helps) and run again: published results are complete")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some("make the store writable for this user, or name another one with `--store DIR`")
        }
        _ => None,
    }
}

fn failed(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// A file of a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// BLAKE3, hexadecimal.
    pub content: String,
    pub bytes: u64,
}

/// The record of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub format_version: String,
    pub node: String,
    pub key: Key,
    /// Digest of all outputs.
    pub digest: Key,
    pub outputs: BTreeMap<String, Object>,
    pub preimage: Preimage,
    /// For an unfinished checkpoint: its last completed step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// What the numerics depended on that it was computed with; none if it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_on: Option<String>,
}

/// A node whose result is published.
pub struct Publication<'a> {
    pub experiment: &'a str,
    pub node: &'a str,
    pub key: Key,
    pub realised: Key,
    pub preimage: Preimage,
    pub made_on: Option<String>,
}

impl Record {
    fn new(of: &Publication<'_>, outputs: BTreeMap<String, Object>, step: Option<u64>) -> Self {
        let contents = outputs
            .iter()
            .map(|(name, object)| (name.as_str(), object.bytes, object.content.as_str()));
        Self {
            format_version: "1.0".to_string(),
            node: of.node.to_string(),
            key: of.key,
            digest: digest_of(contents),
            outputs,
            preimage: of.preimage.clone(),
            step,
            made_on: of.made_on.clone(),
        }
    }
}

pub struct Store {
    root: Utf8PathBuf,
    verified: Mutex<verified::VerifiedFiles>,
}

/// A file lock; dropping it releases it.
#[must_use]
pub struct Held(#[expect(dead_code, reason = "dropping the file releases the lock")] File);

const FOLDERS: [&str; 7] = ["cas", "actions", "realised", "partial", "names", "locks", "tmp"];

impl Store {
    /// Opens the store, and creates missing folders.
    ///
    /// # Errors
    /// The folder cannot be created or written to.
    pub fn open(root: &Utf8Path) -> Result<Self, StoreError> {
        for folder in FOLDERS {
            let path = root.join(folder);
            if !path.is_dir() {
                fs::create_dir_all(&path).map_err(failed("make", &path))?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            verified: Mutex::new(verified::VerifiedFiles::load(&root.join("verified"))),
        })
    }

    /// Opens the store read-only: a store that does not exist is empty.
    pub fn open_read_only(root: &Utf8Path) -> Self {
        Self {
            root: root.to_owned(),
            verified: Mutex::new(verified::VerifiedFiles::load(&root.join("verified"))),
        }
    }

    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// The path of an object, which may not exist.
    pub fn object_path(&self, content: &str) -> Utf8PathBuf {
        let (folder, rest) = content.split_at(2.min(content.len()));
        self.root.join("cas").join(folder).join(rest)
    }

    fn action_path(&self, key: Key) -> Utf8PathBuf {
        self.root.join("actions").join(key.to_hex())
    }

    fn name_path(&self, experiment: &str, node: &str) -> Utf8PathBuf {
        self.root.join("names").join(experiment).join(node.replace('/', "~"))
    }

    /// Returns the record of a result, if there is one that can be read.
    pub fn record(&self, key: Key) -> Option<Record> {
        sealed::read(&self.action_path(key)).ok().flatten()
    }

    /// Returns the record of an unfinished checkpoint whose objects are all undamaged.
    pub fn partial(&self, key: Key) -> Option<Record> {
        let record: Record = sealed::read(&self.root.join("partial").join(key.to_hex()))
            .ok()
            .flatten()?;
        (self.state_of(&record) == CachedResult::Complete).then_some(record)
    }

    /// Returns the undamaged result that was made from inputs with the same contents, if there is one.
    pub fn realised(&self, realised: Key) -> Option<Record> {
        let key: Key = sealed::read(&self.root.join("realised").join(realised.to_hex()))
            .ok()
            .flatten()?;
        let record = self.record(key)?;
        (self.state_of(&record) == CachedResult::Complete).then_some(record)
    }

    /// Checks whether every object of a record has the bytes it was published with. An object whose file has not changed
    /// since its last check is not read again.
    pub fn state_of(&self, record: &Record) -> CachedResult {
        for object in record.outputs.values() {
            match self.check(object) {
                Ok(()) => {}
                Err(StoreError::Damaged { content, .. }) => return CachedResult::Damaged { object: content },
                Err(_) => return CachedResult::Missing,
            }
        }
        CachedResult::Complete
    }

    fn check(&self, object: &Object) -> Result<(), StoreError> {
        let path = self.object_path(&object.content);
        let status = fs::metadata(&path).map_err(|_| StoreError::Missing {
            content: object.content.clone(),
        })?;
        let mut verified = self.verified.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if verified.knows(&object.content, &status) {
            return Ok(());
        }
        let actual = hash_file(&path).map_err(failed("read", &path))?;
        if actual != object.content {
            return Err(StoreError::Damaged {
                content: object.content.clone(),
                actual,
            });
        }
        verified.note(&object.content, &status);
        Ok(())
    }

    /// Returns the paths of a result's files, each verified.
    ///
    /// # Errors
    /// An object is damaged or missing.
    pub fn files(&self, record: &Record) -> Result<Files, StoreError> {
        let mut files = Files::new();
        for (name, object) in &record.outputs {
            self.check(object)?;
            files.insert(name.clone(), self.object_path(&object.content));
        }
        Ok(files)
    }

    /// Creates an empty folder for partial files, which is deleted with the value.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let tmp = self.root.join("tmp");
        let folder = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&tmp)
            .map_err(failed("create a folder in", &tmp))?;
        Ok(Scratch(folder))
    }

    /// Publishes the files of a folder as the result of a node.
    ///
    /// # Errors
    /// A file cannot be read, synced or moved; nothing is published then.
    pub fn publish(&self, of: Publication<'_>, folder: &Utf8Path) -> Result<Record, StoreError> {
        let outputs = self.take_in(folder)?;
        let record = self.adopt(of, outputs)?;
        Ok(record)
    }

    /// Makes existing objects the result of a node.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn adopt(&self, of: Publication<'_>, outputs: BTreeMap<String, Object>) -> Result<Record, StoreError> {
        let record = Record::new(&of, outputs, None);
        self.write(&self.action_path(of.key), &record)?;
        self.write(&self.root.join("realised").join(of.realised.to_hex()), &of.key)?;
        self.name(of.experiment, of.node, of.key)?;
        let partial = self.root.join("partial").join(of.key.to_hex());
        if partial.exists() {
            fs::remove_file(&partial).map_err(failed("remove", &partial))?;
        }
        Ok(record)
    }

    /// Publishes the files of a folder as an unfinished checkpoint of a node.
    ///
    /// # Errors
    /// A file cannot be read, synced or moved.
    pub fn publish_partial(&self, of: Publication<'_>, step: u64, folder: &Utf8Path) -> Result<(), StoreError> {
        let outputs = self.take_in(folder)?;
        let record = Record::new(&of, outputs, Some(step));
        self.write(&self.root.join("partial").join(of.key.to_hex()), &record)
    }

    /// Records the key under which a node of this name was last built.
    ///
    /// # Errors
    /// The name cannot be written.
    pub fn name(&self, experiment: &str, node: &str, key: Key) -> Result<(), StoreError> {
        let path = self.name_path(experiment, node);
        if sealed::read::<Key>(&path).ok().flatten() == Some(key) {
            return Ok(());
        }
        let folder = self.root.join("names").join(experiment);
        fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        self.write(&path, &key)
    }

    fn write<T: Serialize>(&self, path: &Utf8Path, value: &T) -> Result<(), StoreError> {
        sealed::write(&self.root.join("tmp"), path, value).map_err(failed("write", path))
    }

    /// Moves the files of a folder into `cas/`.
    fn take_in(&self, folder: &Utf8Path) -> Result<BTreeMap<String, Object>, StoreError> {
        let mut outputs = BTreeMap::new();
        for path in files_below(folder).map_err(failed("list", folder))? {
            let file = File::open(&path).map_err(failed("read", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
            let bytes = file.metadata().map_err(failed("read", &path))?.len();
            let content = hash_file(&path).map_err(failed("read", &path))?;
            let target = self.object_path(&content);
            let parent = target.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
            let mut permissions = file.metadata().map_err(failed("read", &path))?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions).map_err(failed("protect", &path))?;
            fs::rename(&path, &target).map_err(failed("move into", &target))?;
            sync_folder(parent).map_err(failed("sync", parent))?;
            let status = fs::metadata(&target).map_err(failed("read", &target))?;
            self.verified
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .note(&content, &status);
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string();
            outputs.insert(name, Object { content, bytes });
        }
        Ok(outputs)
    }

    /// Waits until no other process builds this node, and locks it.
    ///
    /// # Errors
    /// The lock file cannot be created.
    pub fn hold(&self, key: Key) -> Result<Held, StoreError> {
        let path = self.root.join("locks").join(key.to_hex());
        let file = File::create(&path).map_err(failed("lock", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Held(file))
    }

    /// Prevents garbage collection during a run.
    ///
    /// # Errors
    /// The lock file cannot be created, or a garbage collection is running.
    pub fn share(&self) -> Result<Held, StoreError> {
        let path = self.root.join("locks").join("store");
        let file = File::create(&path).map_err(failed("lock", &path))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Held(file)),
            Err(_) => Err(StoreError::Busy {
                root: self.root.clone(),
            }),
        }
    }
}

/// A temporary folder of the store.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn path(&self) -> &Utf8Path {
        Utf8Path::from_path(self.0.path())
            .unwrap_or_else(|| unreachable!("the store's path is UTF-8, so is its folder"))
    }
}

/// The results of one experiment in a store.
pub struct ExperimentResults<'a> {
    pub store: &'a Store,
    pub experiment: &'a str,
}

impl ResultCache for ExperimentResults<'_> {
    fn result(&self, key: Key) -> CachedResult {
        self.store
            .record(key)
            .map_or(CachedResult::Missing, |record| self.store.state_of(&record))
    }

    fn last(&self, name: &str) -> Option<Preimage> {
        let key: Key = sealed::read(&self.store.name_path(self.experiment, name))
            .ok()
            .flatten()?;
        self.store.record(key).map(|record| record.preimage)
    }

    fn partial(&self, key: Key) -> Option<u64> {
        self.store.partial(key).and_then(|record| record.step)
    }
}

/// BLAKE3 of a file's bytes, on all cores for a large file.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Utf8Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn files_below(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir_utf8()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.into_path());
            } else {
                found.push(entry.into_path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sync_folder(folder: &Utf8Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
