//! Deletes results that no node name and no lock of an experiment refers to. Every unfinished checkpoint is kept.
//!
//! Everything is read before anything is deleted: what cannot be read stops the collection. Open stores share the file
//! lock `locks/store`; a collection holds it alone, so that neither starts during the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use aurora_compiler::hash::Key;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::sealed::{Address, RecordKind};
use super::{Record, ResultId, Store, StoreError, entries, failed, files_below, realised_address};

#[derive(Clone, Debug, Default, Serialize)]
pub struct GarbageReport {
    pub objects: u64,
    pub bytes: u64,
    pub records: u64,
    /// Damaged records that are in use. While there are any, no object is deleted: their files are not known.
    pub kept: Vec<KeptRecord>,
    /// Files that are kept because they are younger than the start of a process that may use them.
    pub young: u64,
}

/// A damaged record that is not deleted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptRecord {
    /// Path inside the store.
    pub path: Utf8PathBuf,
    pub cause: String,
}

/// What a collection has found; nothing is deleted yet.
struct Found<'a> {
    store: &'a Store,
    report: GarbageReport,
    /// Files that were changed at this time or later are kept.
    since: Option<SystemTime>,
    /// Keys of results that are in use, of every class.
    reached: BTreeSet<Key>,
    /// Results that are deleted.
    deleted: BTreeSet<ResultId>,
    /// Contents of objects that are in use.
    objects: BTreeSet<String>,
    /// The keys of results in use, by their realised keys.
    realised: BTreeMap<String, Key>,
    /// Records that get another value.
    rewritten: Vec<(Address, Key)>,
    garbage: Vec<Utf8PathBuf>,
}

impl Store {
    /// Deletes results that neither a name of the store nor `keep` (the keys of the locks) refers to, and everything in
    /// `tmp/`. Keeps what has been changed since `since`, in seconds since 1970: the start of the oldest process that
    /// may use the store without its lock. With `dry`, only counts. The store must have been
    /// [opened alone](Self::open_alone).
    ///
    /// # Errors
    /// Something that determines what is in use cannot be read: then nothing is deleted. Or a file cannot be deleted.
    pub fn collect(&self, keep: &BTreeSet<Key>, since: Option<u64>, dry: bool) -> Result<GarbageReport, StoreError> {
        let mut found = Found {
            store: self,
            report: GarbageReport::default(),
            since: since.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            reached: keep.clone(),
            deleted: BTreeSet::new(),
            objects: BTreeSet::new(),
            realised: BTreeMap::new(),
            rewritten: Vec::new(),
            garbage: Vec::new(),
        };
        found.search().map_err(|source| StoreError::NotCollected {
            source: Box::new(source),
        })?;
        // A record that is left after an interruption must not refer to a deleted one.
        let realised = self.root.join(RecordKind::Realised.folder());
        found.garbage.sort_by_key(|path| !path.starts_with(&realised));
        if !dry {
            for (address, key) in &found.rewritten {
                self.write(address, key)?;
            }
            for path in &found.garbage {
                self.remove(path)?;
            }
            self.empty_tmp(found.since)?;
        }
        Ok(found.report)
    }

    /// Deletes the folders in `tmp/` that have no files left.
    fn empty_tmp(&self, since: Option<SystemTime>) -> Result<(), StoreError> {
        for path in entries(&self.root.join("tmp"), 0).map_err(failed("list", &self.root.join("tmp")))? {
            if since.is_none() && path.is_dir() {
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Found<'_> {
    fn search(&mut self) -> Result<(), StoreError> {
        self.names()?;
        let damaged = self.results()?;
        self.checkpoints()?;
        self.realised()?;
        for (path, cause) in damaged {
            self.keep(&path, cause);
        }
        self.objects()?;
        let folder = self.store.root.join("tmp");
        for path in files_below(&folder).map_err(failed("list", &folder))? {
            self.discard(path)?;
        }
        // No process holds one of them: all have the store open.
        for path in self.list("locks", 0)? {
            if path.file_name() != Some("store") {
                self.discard(path)?;
            }
        }
        Ok(())
    }

    fn list(&self, folder: &str, depth: usize) -> Result<Vec<Utf8PathBuf>, StoreError> {
        let path = self.store.root.join(folder);
        entries(&path, depth).map_err(failed("list", &path))
    }

    /// Whether a process that is running may have written the file.
    fn is_young(&self, path: &Utf8Path) -> Result<bool, StoreError> {
        let Some(since) = self.since else { return Ok(false) };
        let status = fs::symlink_metadata(path).map_err(failed("read", path))?;
        Ok(status.modified().map_err(failed("read", path))? >= since)
    }

    fn discard(&mut self, path: Utf8PathBuf) -> Result<bool, StoreError> {
        let young = self.is_young(&path)?;
        if young {
            self.report.young += 1;
        } else {
            self.garbage.push(path);
        }
        Ok(!young)
    }

    fn keep(&mut self, path: &Utf8Path, cause: String) {
        let inside = path.strip_prefix(&self.store.root).unwrap_or(path);
        self.report.kept.push(KeptRecord {
            path: inside.to_owned(),
            cause,
        });
    }

    /// The keys to which names refer. Without a damaged name, results in use would be deleted: it is an error.
    fn names(&mut self) -> Result<(), StoreError> {
        for path in self.list("names", 1)? {
            let address = Address::of(RecordKind::Name, &self.store.root, &path);
            let Some(key) = self.store.read::<Key>(&address)? else {
                continue;
            };
            if self.store.has_result(key)? {
                self.reached.insert(key);
            } else if !self.reached.contains(&key) {
                self.discard(path)?;
            }
        }
        Ok(())
    }

    /// Finds results in use and their objects. Returns the damaged ones among them.
    fn results(&mut self) -> Result<Vec<(Utf8PathBuf, String)>, StoreError> {
        let mut damaged = Vec::new();
        for path in self.store.records_of(RecordKind::Result)? {
            let address = Address::of(RecordKind::Result, &self.store.root, &path);
            let record = checked(self.store.read_record(&address))?;
            let id = ResultId::parse(&address.key);
            if id.is_some_and(|id| self.reached.contains(&id.key)) || self.is_young(&path)? {
                match record {
                    Ok(record) => self.use_record(record),
                    Err(cause) => damaged.push((path, cause)),
                }
                continue;
            }
            let Some(id) = id else {
                self.keep(&path, "its name is not a key".to_owned());
                continue;
            };
            if self.discard(path)? {
                self.report.records += 1;
                self.deleted.insert(id);
                self.garbage.push(self.store.marker(id));
            }
        }
        Ok(damaged)
    }

    fn use_record(&mut self, record: Record) {
        if record.step.is_none() {
            self.reached.insert(record.key);
            self.realised.insert(realised_address(&record).key, record.key);
        }
        self.objects
            .extend(record.outputs.into_values().map(|object| object.content));
    }

    /// Unfinished checkpoints are always in use.
    fn checkpoints(&mut self) -> Result<(), StoreError> {
        for path in self.store.records_of(RecordKind::Partial)? {
            let address = Address::of(RecordKind::Partial, &self.store.root, &path);
            match checked(self.store.read_record(&address))? {
                Ok(record) => self.use_record(record),
                Err(cause) => {
                    let id = ResultId::parse(&address.key);
                    if id.is_some_and(|id| self.reached.contains(&id.key)) {
                        self.keep(&path, cause);
                    } else if self.discard(path)? {
                        self.report.records += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn realised(&mut self) -> Result<(), StoreError> {
        for path in self.store.records_of(RecordKind::Realised)? {
            let address = Address::of(RecordKind::Realised, &self.store.root, &path);
            let user = self.realised.get(&address.key).copied();
            let class = ResultId::parse(&address.key).and_then(|id| id.class);
            let is_deleted = |key| self.deleted.contains(&ResultId { key, class });
            match (checked(self.store.read::<Key>(&address))?, user) {
                (Ok(key), _) if self.reached.contains(&key) && !is_deleted(key) => {}
                // Another result in use has the same inputs.
                (Ok(_), Some(user)) => self.rewritten.push((address, user)),
                (Err(cause), Some(_)) => {
                    self.keep(&path, cause);
                }
                (_, None) => drop(self.discard(path)?),
            }
        }
        Ok(())
    }

    fn objects(&mut self) -> Result<(), StoreError> {
        let root = self.store.root.join("cas");
        let unknown_files = self.report.kept.iter().any(KeptRecord::has_files);
        for path in self.list("cas", 1)? {
            let inside = path.strip_prefix(&root).map(|rest| rest.as_str().replace('/', ""));
            let content = inside.unwrap_or_default();
            if self.objects.contains(&content) || unknown_files {
                continue;
            }
            let status = fs::symlink_metadata(&path).map_err(failed("read", &path))?;
            if self.discard(path)? {
                self.report.objects += 1;
                self.report.bytes += status.len();
            }
        }
        Ok(())
    }
}

impl KeptRecord {
    /// Whether the record has the names of files, not only a key. A file with another name is not a record.
    fn has_files(&self) -> bool {
        let kinds = [RecordKind::Result, RecordKind::Partial];
        let mut inside = kinds
            .iter()
            .filter_map(|kind| self.path.strip_prefix(kind.folder()).ok());
        inside.any(|inside| ResultId::parse(inside.as_str()).is_some())
    }
}

/// Separates damage, which is known to be limited to one record, from other errors.
fn checked<T>(read: Result<Option<T>, StoreError>) -> Result<Result<T, String>, StoreError> {
    match read {
        Ok(Some(value)) => Ok(Ok(value)),
        Ok(None) => Ok(Err("it was removed meanwhile".to_owned())),
        Err(StoreError::Record { cause, .. }) => Ok(Err(cause)),
        Err(error) => Err(error),
    }
}
