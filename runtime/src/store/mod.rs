//! The store: content-addressed objects, results by key, names, unfinished work.
//!
//! In: folders that a node has filled, and keys. Out: verified files. Does not interpret the bytes.
//!
//! ```text
//! cas/ab/cdef…       objects by the BLAKE3 of their bytes; read-only
//! actions/ID         record of a result: names and contents of its files, and the pre-image of its key
//! realised/ID        key of a result by its realised key, which has the contents of the inputs instead of their keys
//! partial/ID         record of an unfinished checkpoint
//! names/EXP/NODE     key under which a node of this name was last built
//! classes/MACHINE    numerics class of a machine with this description, as a worker has reported it
//! publishing/        files that exist while the records of a result are written
//! locks/             locks: one per result, held while it is built; open stores share `store`, gc holds it alone
//! settings           how the locks work, if a user has set it
//! tmp/               partial files; nothing here is ever read
//! rerun/             stores of repetitions (`reruns`)
//! verified           objects that were found undamaged, with the status of their files at that time
//! ```
//!
//! ID is `KEY`, or `CLASS/KEY` for a result that depends on the numerics class of the machine: results of two classes are
//! kept side by side, and neither is used for the other.
//!
//! Publishing: write under `tmp/`, sync, rename into `cas/`, and the records last. Records contain the version of the
//! format, their own kind and key, and their BLAKE3. A node is looked up in `actions` first, then in `realised` (early
//! cut-off: inputs that were computed in another way, with the same contents), then in `partial`, from which training
//! resumes. `names` is only for explanations and for gc. A damaged record counts as missing: the next run writes it
//! again. A record that cannot be read, or that has another format, is an error.

mod classes;
mod gc;
pub mod lock;
pub mod reruns;
pub(crate) mod sealed;
mod verified;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::sync::Mutex;

use aurora_compiler::graph::NodeKind;
use aurora_compiler::hash::{Key, Preimage, digest_of, source_content};
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::plan::CachedResult;
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use classes::ResultId;
pub use gc::{GarbageReport, KeptRecord};
use lock::{Attempt, Held, Holder, Locks, Sharing};
use sealed::{Address, RecordKind, Unusable};
pub use verify::{StoreProblem, StoreReport};

use crate::job::Files;
use crate::{make_below, regular};

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
    #[error("object {content} is damaged: {cause}")]
    Damaged { content: String, cause: String },
    #[error("object {content} is missing")]
    Missing { content: String },
    #[error("another process is using the store `{root}`{}", named(holders))]
    Busy { root: Utf8PathBuf, holders: Vec<Holder> },
    #[error("the file system of `{path}` does not support locks of files (flock)")]
    NoFlock { path: Utf8PathBuf, source: io::Error },
    #[error(
        "`{claim}` is the claim of a process that uses another kind of locks for this store; `store_lock = {own}` for this process"
    )]
    OtherLocks { claim: Utf8PathBuf, own: String },
    #[error("`{path}`: `{line}` is not a setting of a store")]
    Setting { path: Utf8PathBuf, line: String },
    #[error(
        "`{path}` has version {found} of the store's format; this Aurora reads version {}",
        sealed::FORMAT
    )]
    Format { path: Utf8PathBuf, found: String },
    #[error("`{node}` changed while it was copied: its key pins content {pinned}, the copy has {copied}")]
    SourceChanged {
        node: String,
        pinned: String,
        copied: String,
    },
    #[error("cannot determine what is in use, nothing was deleted")]
    NotCollected {
        #[source]
        source: Box<StoreError>,
    },
}

impl StoreError {
    /// What to do about it, if anything.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } => help_with(source),
            Self::Damaged { .. } | Self::Missing { .. } | Self::Record { .. } => {
                Some("`aurora verify` lists what is damaged; `aurora run` builds it again")
            }
            Self::Busy { .. } => Some("wait for the other process to end"),
            Self::SourceChanged { .. } => {
                Some("run again when nothing writes to it any more; local files are pinned again")
            }
            Self::NoFlock { .. } => Some(
                "write the line `store_lock = file` to the file `settings` in the folder of the store: then all processes use \
                 lock files; or name a store on another file system with `--store DIR`",
            ),
            Self::OtherLocks { .. } => Some(
                "wait for that process to end, then run the command again; if you know that it was killed on another host, \
                 delete that file",
            ),
            Self::Setting { .. } => Some("write `store_lock = flock` or `store_lock = file`"),
            Self::Format { .. } => Some("use the Aurora that wrote it, or another store: `--store DIR`"),
            Self::NotCollected { source } => source.help(),
        }
    }
}

/// What to do if the system refuses.
pub(crate) fn help_with(error: &io::Error) -> Option<&'static str> {
    if matches!(os_code(error), Some(libc::EMFILE | libc::ENFILE)) {
        return Some("raise the limit of open files (`ulimit -n`) and run again: published results are complete");
    }
    match error.kind() {
        io::ErrorKind::StorageFull => {
            Some("free space on that disk (`aurora gc` helps) and run again: published results are complete")
        }
        io::ErrorKind::FileTooLarge => {
            Some("raise the limit on the size of files (`ulimit -f`), or use another `--store`")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some("make the store writable for this user, or name another one with `--store DIR`")
        }
        _ => None,
    }
}

/// The code of the system behind an error. That of a temporary file wraps the system's error and keeps only its text.
fn os_code(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let text = error.to_string();
        let (code, _) = text.split_once("(os error ")?.1.split_once(')')?;
        code.parse().ok()
    })
}

/// The holders of a lock, after what they hold.
fn named(holders: &[Holder]) -> String {
    let holders: Vec<String> = holders.iter().map(Holder::to_string).collect();
    if holders.is_empty() {
        return String::new();
    }
    format!(": {}", holders.join(", "))
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
    /// The experiment that built it first.
    pub experiment: String,
    pub node: String,
    pub key: Key,
    /// The numerics class that it was computed in; none if it does not depend on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<NumericsClass>,
    /// The key by the contents of its inputs.
    pub realised: Key,
    /// Digest of all outputs.
    pub digest: Key,
    pub outputs: BTreeMap<String, Object>,
    pub preimage: Preimage,
    /// For an unfinished checkpoint: its last completed step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Describes the machine or the program that computed it, for people; none if it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_on: Option<String>,
}

/// A node whose result is published.
pub struct Publication<'a> {
    pub experiment: &'a str,
    pub node: &'a str,
    pub id: ResultId,
    pub realised: Key,
    pub preimage: Preimage,
    pub made_on: Option<String>,
}

impl Record {
    fn new(of: &Publication<'_>, outputs: BTreeMap<String, Object>, step: Option<u64>) -> Self {
        Self {
            experiment: of.experiment.to_string(),
            node: of.node.to_string(),
            key: of.id.key,
            class: of.id.class,
            realised: of.realised,
            digest: digest_of_outputs(&outputs),
            outputs,
            preimage: of.preimage.clone(),
            step,
            made_on: of.made_on.clone(),
        }
    }

    /// What its numerics depend on, as text; none if they depend on nothing.
    pub fn numerics(&self) -> Option<String> {
        let class = self.class?;
        let machine = self.made_on.iter().map(|machine| format!(" ({machine})"));
        Some(format!("class {class}{}", machine.collect::<String>()))
    }

    pub fn id(&self) -> ResultId {
        ResultId {
            key: self.key,
            class: self.class,
        }
    }

    /// What is wrong with a record that is at this address.
    fn problem(&self, address: &Address) -> Option<&'static str> {
        let is_digest = |object: &Object| Key::from_hex(&object.content).is_some();
        if self.id().to_string() != address.key {
            Some("it has the result of another key")
        } else if self.step.is_some() != (address.kind == RecordKind::Partial) {
            Some("a result and an unfinished checkpoint were exchanged")
        } else if !self.outputs.values().all(is_digest) || self.digest != digest_of_outputs(&self.outputs) {
            Some("its digest is not that of its files")
        } else if pinned_content(&self.preimage).is_some_and(|pinned| pinned != content_of_source(&self.outputs)) {
            Some("its files are not those that its key pins")
        } else {
            None
        }
    }
}

/// The content that the key of a source pins; `None` for other nodes, and for sources of an earlier version.
fn pinned_content(preimage: &Preimage) -> Option<&str> {
    // Version 1 pinned a single file by its bytes alone.
    let is_source = preimage.kind == NodeKind::Source.name() && preimage.version == NodeKind::Source.version();
    preimage.fields.get("content").filter(|_| is_source).map(String::as_str)
}

fn content_of_source(outputs: &BTreeMap<String, Object>) -> String {
    let hash = |object: &Object| blake3::Hash::from_hex(&object.content).map_or([0; 32], |hash| *hash.as_bytes());
    let files = outputs
        .iter()
        .map(|(name, object)| (name.as_str(), object.bytes, hash(object)));
    source_content(files).to_hex()
}

fn digest_of_outputs(outputs: &BTreeMap<String, Object>) -> Key {
    let contents = outputs.iter();
    digest_of(contents.map(|(name, object)| (name.as_str(), object.bytes, object.content.as_str())))
}

pub struct Store {
    root: Utf8PathBuf,
    verified: Mutex<verified::VerifiedFiles>,
    classes: Mutex<Option<BTreeSet<NumericsClass>>>,
    locks: Locks,
    /// The lock of the whole store; none if it was opened read-only.
    in_use: Option<Held>,
}

/// The names of folders for partial files begin with this, and the nonce of the process's claim.
const WORK: &str = "work-";

const FOLDERS: [&str; 9] = [
    "cas",
    "actions",
    "realised",
    "partial",
    "names",
    "classes",
    "publishing",
    "locks",
    "tmp",
];

impl Store {
    /// Opens the store, and creates missing folders. While it is open, nothing is collected.
    ///
    /// # Errors
    /// A folder cannot be created or written to, a garbage collection is running, or the store has another format.
    pub fn open(root: &Utf8Path) -> Result<Self, StoreError> {
        Self::open_with(root, Sharing::Shared)
    }

    /// Opens the store for garbage collection: no other process has it open.
    ///
    /// # Errors
    /// As [`open`](Self::open), or another process has the store open.
    pub fn open_alone(root: &Utf8Path) -> Result<Self, StoreError> {
        Self::open_with(root, Sharing::Exclusive)
    }

    fn open_with(root: &Utf8Path, sharing: Sharing) -> Result<Self, StoreError> {
        for folder in FOLDERS {
            let path = root.join(folder);
            if !path.is_dir() {
                fs::create_dir_all(&path).map_err(failed("make", &path))?;
            }
        }
        let locks = Locks::of(root)?;
        let held = match locks.try_lock("store", sharing)? {
            Attempt::Locked(held) => held,
            Attempt::HeldBy(holders) => {
                let root = root.to_owned();
                return Err(StoreError::Busy { root, holders });
            }
        };
        let mut store = Self::open_read_only(root)?;
        (store.locks, store.in_use) = (locks, Some(held));
        store.remove_left_work();
        Ok(store)
    }

    /// Opens the store read-only: a store that does not exist is empty.
    ///
    /// # Errors
    /// The store has another format.
    pub fn open_read_only(root: &Utf8Path) -> Result<Self, StoreError> {
        // Every result has a record; one that is undamaged gives the format of the others.
        let folder = root.join(RecordKind::Result.folder());
        let records = match folder.read_dir_utf8() {
            Ok(records) => Some(records),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("list", &folder)(error)),
        };
        for entry in records.into_iter().flatten() {
            let entry = entry.map_err(failed("list", &folder))?;
            let Some(found) = sealed::format_of(entry.path()) else {
                continue;
            };
            if found != sealed::FORMAT {
                let path = entry.into_path();
                return Err(StoreError::Format { path, found });
            }
            break;
        }
        Ok(Self {
            root: root.to_owned(),
            verified: Mutex::new(verified::VerifiedFiles::load(&root.join("verified"))),
            classes: Mutex::new(None),
            locks: Locks::of(root)?,
            in_use: None,
        })
    }

    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// The path of an object, which may not exist.
    pub fn object_path(&self, content: &str) -> Utf8PathBuf {
        let (folder, rest) = content.split_at_checked(2).unwrap_or((content, ""));
        self.root.join("cas").join(folder).join(rest)
    }

    fn name_of(experiment: &str, node: &str) -> Address {
        Address::new(RecordKind::Name, format!("{experiment}/{}", node.replace('/', "~")))
    }

    /// Reads a record; `None` if there is none.
    fn read<T: DeserializeOwned>(&self, address: &Address) -> Result<Option<T>, StoreError> {
        let path = address.path(&self.root);
        sealed::read(&self.root, address).map_err(|unusable| match unusable {
            Unusable::Damaged(cause) => StoreError::Record { path, cause },
            Unusable::Format(found) => StoreError::Format { path, found },
            Unusable::Unreadable(source) => failed("read", &path)(source),
        })
    }

    /// Reads the record of a result or of an unfinished checkpoint.
    fn read_record(&self, address: &Address) -> Result<Option<Record>, StoreError> {
        let Some(record) = self.read::<Record>(address)? else {
            return Ok(None);
        };
        match record.problem(address) {
            None => Ok(Some(record)),
            Some(problem) => Err(StoreError::Record {
                path: address.path(&self.root),
                cause: problem.to_owned(),
            }),
        }
    }

    /// Whether there is anything at an address.
    fn exists(&self, address: &Address) -> Result<bool, StoreError> {
        let path = address.path(&self.root);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Returns the record of a result, if there is one that is undamaged.
    ///
    /// # Errors
    /// It cannot be read, or has another format.
    pub fn record(&self, id: ResultId) -> Result<Option<Record>, StoreError> {
        undamaged(self.read_record(&Address::new(RecordKind::Result, id)))
    }

    /// Returns the record of an unfinished checkpoint whose objects are all undamaged.
    ///
    /// # Errors
    /// The record or an object cannot be read.
    pub fn partial(&self, id: ResultId) -> Result<Option<Record>, StoreError> {
        let record = undamaged(self.read_record(&Address::new(RecordKind::Partial, id)))?;
        self.complete(record)
    }

    /// Returns the undamaged result of this realised key and class, if there is one: it was made from inputs with the same
    /// contents.
    ///
    /// # Errors
    /// A record or an object cannot be read.
    pub fn realised(&self, realised: ResultId) -> Result<Option<Record>, StoreError> {
        let address = Address::new(RecordKind::Realised, realised);
        let Some(key) = undamaged(self.read::<Key>(&address))? else {
            return Ok(None);
        };
        let class = realised.class;
        let record = self.record(ResultId { key, class })?;
        let record = record.filter(|record| record.realised == realised.key);
        self.complete(record)
    }

    /// The record, if all its objects are undamaged.
    fn complete(&self, record: Option<Record>) -> Result<Option<Record>, StoreError> {
        let Some(record) = record else { return Ok(None) };
        let state = self.state_of(&record)?;
        Ok((state == CachedResult::Complete).then_some(record))
    }

    /// Checks whether every object of a record has the bytes it was published with. An object whose file has not changed
    /// since its last check is not read again.
    ///
    /// # Errors
    /// An object cannot be read.
    pub fn state_of(&self, record: &Record) -> Result<CachedResult, StoreError> {
        for object in record.outputs.values() {
            match self.check(object) {
                Ok(()) => {}
                Err(StoreError::Damaged { content, .. }) => {
                    let part = format!("object {content}");
                    return Ok(CachedResult::Damaged { part });
                }
                Err(StoreError::Missing { .. }) => return Ok(CachedResult::Missing),
                Err(error) => return Err(error),
            }
        }
        Ok(CachedResult::Complete)
    }

    /// The state of a result.
    ///
    /// # Errors
    /// Its record or an object cannot be read, or has another format.
    pub fn state(&self, id: ResultId) -> Result<CachedResult, StoreError> {
        match self.read_record(&Address::new(RecordKind::Result, id)) {
            Ok(Some(record)) => self.state_of(&record),
            Ok(None) => Ok(CachedResult::Missing),
            Err(StoreError::Record { path, .. }) => {
                let path = path.strip_prefix(&self.root).unwrap_or(&path);
                let part = format!("record {path}");
                Ok(CachedResult::Damaged { part })
            }
            Err(error) => Err(error),
        }
    }

    fn check(&self, object: &Object) -> Result<(), StoreError> {
        let content = &object.content;
        let path = self.object_path(content);
        let damaged = |cause: String| StoreError::Damaged {
            content: content.clone(),
            cause,
        };
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing {
                    content: content.clone(),
                });
            }
            Err(error) if regular::is_not_a_file(&error) => return Err(damaged(error.to_string())),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let status = file.metadata().map_err(failed("read", &path))?;
        let mut verified = self.verified.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if verified.knows(content, &status) {
            return Ok(());
        }
        let actual = hash_open(&file).map_err(failed("read", &path))?;
        if actual != *content {
            return Err(damaged(format!("its bytes hash to {actual}")));
        }
        verified.note(content, &status);
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
        let claim = self.in_use.as_ref().map(Held::nonce).unwrap_or_default();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{WORK}{claim}-"))
            .tempdir_in(&tmp)
            .map_err(failed("create a folder in", &tmp))?;
        Ok(Scratch(folder))
    }

    /// Deletes the folders for partial files of processes that do not have the store open any more: they were killed.
    fn remove_left_work(&self) {
        let tmp = self.root.join("tmp");
        let folders = entries(&tmp, 0).unwrap_or_default().into_iter();
        let mut left: Vec<_> = folders
            .filter(|path| path.file_name().is_some_and(|name| name.starts_with(WORK)))
            .collect();
        if left.is_empty() {
            return;
        }
        // A process makes its claim before its folders.
        let Ok(open) = self.locks.nonces("store") else { return };
        left.retain(|path| !open.iter().any(|nonce| path.as_str().contains(nonce.as_str())));
        for path in left {
            // What cannot be deleted, because it is of another user, disturbs nobody.
            drop(fs::remove_dir_all(path));
        }
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
    /// The record cannot be written, or the files of a source are not those that its key pins.
    pub fn adopt(&self, of: Publication<'_>, outputs: BTreeMap<String, Object>) -> Result<Record, StoreError> {
        if let Some(pinned) = pinned_content(&of.preimage)
            && let copied = content_of_source(&outputs)
            && copied != pinned
        {
            return Err(StoreError::SourceChanged {
                node: of.node.to_owned(),
                pinned: pinned.to_owned(),
                copied,
            });
        }
        let record = Record::new(&of, outputs, None);
        let marker = self.marker(of.id);
        File::create(&marker).map_err(failed("make", &marker))?;
        self.write(&Address::new(RecordKind::Result, of.id), &record)?;
        self.note_class(of.id.class);
        self.write(&realised_address(&record), &of.id.key)?;
        self.name(of.experiment, of.node, of.id.key)?;
        self.remove(&Address::new(RecordKind::Partial, of.id).path(&self.root))?;
        self.remove(&marker)?;
        Ok(record)
    }

    /// Publishes the files of a folder as an unfinished checkpoint of a node.
    ///
    /// # Errors
    /// A file cannot be read, synced or moved.
    pub fn publish_partial(&self, of: Publication<'_>, step: u64, folder: &Utf8Path) -> Result<(), StoreError> {
        let outputs = self.take_in(folder)?;
        let record = Record::new(&of, outputs, Some(step));
        self.write(&Address::new(RecordKind::Partial, of.id), &record)
    }

    /// Writes the records that refer to a result again if they are missing or damaged, or refer to a result that is not
    /// in the store. `experiment` and `node` are the names by which it is used.
    ///
    /// # Errors
    /// A record cannot be read or written.
    pub fn restore(&self, record: &Record, experiment: &str, node: &str) -> Result<(), StoreError> {
        let (key, class) = (record.key, record.class);
        let own = Self::name_of(&record.experiment, &record.node);
        let used = Self::name_of(experiment, node);
        for address in [realised_address(record), own, used] {
            let known = match undamaged(self.read::<Key>(&address))? {
                Some(other) if other == key => true,
                Some(key) if address.kind == RecordKind::Realised => self.record(ResultId { key, class })?.is_some(),
                Some(other) => self.record_of_any_class(other)?.is_some(),
                None => false,
            };
            if !known {
                self.write(&address, &key)?;
            }
        }
        self.remove(&self.marker(record.id()))
    }

    /// The file that exists while the records of a result are written.
    fn marker(&self, id: ResultId) -> Utf8PathBuf {
        self.root.join("publishing").join(id.file_name())
    }

    /// The pre-image of the key under which a node of this name was last built, if its result is in the store.
    ///
    /// # Errors
    /// A record cannot be read, or has another format.
    pub fn last_built(&self, experiment: &str, node: &str) -> Result<Option<Preimage>, StoreError> {
        let Some(key) = undamaged(self.read::<Key>(&Self::name_of(experiment, node)))? else {
            return Ok(None);
        };
        Ok(self.record_of_any_class(key)?.map(|record| record.preimage))
    }

    /// Records the key under which a node of this name was last built.
    fn name(&self, experiment: &str, node: &str, key: Key) -> Result<(), StoreError> {
        let address = Self::name_of(experiment, node);
        if undamaged(self.read::<Key>(&address))? == Some(key) {
            return Ok(());
        }
        self.write(&address, &key)
    }

    fn write<T: Serialize>(&self, address: &Address, value: &T) -> Result<(), StoreError> {
        let path = address.path(&self.root);
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            make_below(&self.root, folder).map_err(failed("make", folder))?;
        }
        sealed::write(&self.root, address, value).map_err(failed("write", &path))
    }

    /// Removes a file, if it is there; a folder in its place is moved to `tmp/`.
    fn remove(&self, path: &Utf8Path) -> Result<(), StoreError> {
        // Without this, a read-only disk would refuse to remove what is not there.
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        sealed::move_folder_away(&self.root.join("tmp"), path).map_err(failed("remove", path))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        }
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
            make_below(&self.root, parent).map_err(failed("make", parent))?;
            let mut permissions = file.metadata().map_err(failed("read", &path))?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions).map_err(failed("protect", &path))?;
            sealed::move_folder_away(&self.root.join("tmp"), &target).map_err(failed("replace", &target))?;
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

    /// Locks a result, if no other process builds it.
    ///
    /// # Errors
    /// As [`Locks::try_lock`].
    pub fn try_hold(&self, id: ResultId) -> Result<Attempt, StoreError> {
        self.locks.try_lock(&id.file_name(), Sharing::Exclusive)
    }
}

/// The address of the record that refers to a result by its realised key.
fn realised_address(record: &Record) -> Address {
    let id = ResultId {
        key: record.realised,
        class: record.class,
    };
    Address::new(RecordKind::Realised, id)
}

/// Treats a damaged record as a missing one.
fn undamaged<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Record { .. }) => Ok(None),
        read => read,
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

/// BLAKE3 of a file's bytes, on all cores for a large file.
///
/// # Errors
/// The file cannot be read, or there is something else in its place.
pub fn hash_file(path: &Utf8Path) -> io::Result<String> {
    hash_open(&regular::open(path)?)
}

fn hash_open(file: &File) -> io::Result<String> {
    let (_, hash) = regular::hash(file, || Ok(()))?;
    Ok(hash.to_hex().to_string())
}

fn files_below(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(below) = folders.pop() {
        let listed = match below.read_dir_utf8() {
            // A process may delete its folders meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && below != folder => continue,
            listed => listed?,
        };
        for entry in listed {
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

/// The entries of the folders that are `depth` levels below `folder`, and everything above them that is not a folder.
pub(crate) fn entries(folder: &Utf8Path, depth: usize) -> io::Result<Vec<Utf8PathBuf>> {
    let listed = match folder.read_dir_utf8() {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        if depth > 0 && entry.file_type()?.is_dir() {
            found.extend(entries(entry.path(), depth - 1)?);
        } else {
            found.push(entry.into_path());
        }
    }
    found.sort();
    Ok(found)
}

fn sync_folder(folder: &Utf8Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
