//! Reads every byte of the store, and lists what differs from what was published.

use std::collections::BTreeMap;
use std::fs;

use aurora_compiler::hash::Key;
use camino::Utf8PathBuf;
use serde::Serialize;

use super::classes::{KnownClasses, ResultId};
use super::sealed::{Address, RecordKind};
use super::{Record, Store, StoreError, entries, failed, hash_file, realised_address};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct StoreProblem {
    /// Path inside the store.
    pub path: Utf8PathBuf,
    pub cause: String,
    /// Nodes whose results are affected.
    pub nodes: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreReport {
    pub objects: u64,
    pub bytes: u64,
    pub records: u64,
    pub problems: Vec<StoreProblem>,
}

impl StoreReport {
    /// Adds what is wrong with a file, by its path inside the store.
    pub fn add(&mut self, path: Utf8PathBuf, cause: String, mut nodes: Vec<String>) {
        nodes.sort();
        nodes.dedup();
        self.problems.push(StoreProblem { path, cause, nodes });
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
    }
}

struct Verification<'a> {
    store: &'a Store,
    report: StoreReport,
    /// The nodes that use an object.
    users: BTreeMap<String, Vec<String>>,
}

impl Store {
    /// Reads all objects and records.
    ///
    /// # Errors
    /// A folder cannot be listed, or a record has another format; a file that cannot be read is a problem of the store
    /// instead.
    pub fn verify(&self) -> Result<StoreReport, StoreError> {
        let mut verification = Verification {
            store: self,
            report: StoreReport::default(),
            users: BTreeMap::new(),
        };
        verification.records(RecordKind::Result)?;
        verification.records(RecordKind::Partial)?;
        verification.references(RecordKind::Realised, self.records_of(RecordKind::Realised)?)?;
        let names = verification.list(RecordKind::Name.folder(), 1)?;
        verification.references(RecordKind::Name, names)?;
        verification.classes()?;
        verification.objects()?;
        Ok(verification.report)
    }
}

impl Verification<'_> {
    fn list(&self, folder: &str, depth: usize) -> Result<Vec<Utf8PathBuf>, StoreError> {
        let path = self.store.root.join(folder);
        entries(&path, depth).map_err(failed("list", &path))
    }

    fn problem(&mut self, path: &Utf8PathBuf, cause: String, nodes: Vec<String>) {
        let inside = path.strip_prefix(&self.store.root).unwrap_or(path);
        self.report.add(inside.to_owned(), cause, nodes);
    }

    fn records(&mut self, kind: RecordKind) -> Result<(), StoreError> {
        for path in self.store.records_of(kind)? {
            self.report.records += 1;
            let address = Address::of(kind, &self.store.root, &path);
            match readable(self.store.read_record(&address))? {
                Ok(Some(record)) => {
                    if kind == RecordKind::Result {
                        self.referred(&record)?;
                    }
                    for object in record.outputs.into_values() {
                        self.users.entry(object.content).or_default().push(record.node.clone());
                    }
                }
                // Removed while the store is verified.
                Ok(None) => {}
                Err(cause) => self.problem(&path, cause, Vec::new()),
            }
        }
        Ok(())
    }

    /// Finds the records that refer to a result. They are written after its own record.
    fn referred(&mut self, record: &Record) -> Result<(), StoreError> {
        let root = &self.store.root;
        let realised = realised_address(record);
        let name = Store::name_of(&record.experiment, &record.node);
        for address in [realised, name] {
            let marker = self.store.marker(record.id());
            let missing = !self.store.exists(&address)?;
            // The marker is removed after all records are written.
            if missing && fs::symlink_metadata(&marker).is_err() && !self.store.exists(&address)? {
                let path = address.path(root);
                self.problem(&path, "it is missing".to_owned(), vec![record.node.clone()]);
            }
        }
        Ok(())
    }

    /// Verifies the records that refer to results.
    fn references(&mut self, kind: RecordKind, paths: Vec<Utf8PathBuf>) -> Result<(), StoreError> {
        for path in paths {
            self.report.records += 1;
            let address = Address::of(kind, &self.store.root, &path);
            match readable(self.store.read::<Key>(&address))? {
                Ok(Some(key)) => {
                    // The result of a realised key is of the same class; a name does not have a class.
                    let class = ResultId::parse(&address.key).and_then(|id| id.class);
                    let result = Address::new(RecordKind::Result, ResultId { key, class });
                    let is_there = match kind {
                        RecordKind::Name => self.store.has_result(key)?,
                        _ => self.store.exists(&result)?,
                    };
                    if !is_there {
                        let cause = format!("it is missing; `{}/{}` refers to it", kind.folder(), address.key);
                        self.problem(&result.path(&self.store.root), cause, Vec::new());
                    }
                }
                Ok(None) => {}
                Err(cause) => self.problem(&path, cause, Vec::new()),
            }
        }
        Ok(())
    }

    /// Verifies the records of the machines' classes.
    fn classes(&mut self) -> Result<(), StoreError> {
        for path in self.list(RecordKind::Class.folder(), 0)? {
            self.report.records += 1;
            let address = Address::of(RecordKind::Class, &self.store.root, &path);
            if let Err(cause) = readable(self.store.read::<KnownClasses>(&address))? {
                self.problem(&path, cause, Vec::new());
            }
        }
        Ok(())
    }

    fn objects(&mut self) -> Result<(), StoreError> {
        let root = self.store.root.join("cas");
        for path in self.list("cas", 1)? {
            self.report.objects += 1;
            self.report.bytes += fs::symlink_metadata(&path).map_or(0, |status| status.len());
            let inside = path.strip_prefix(&root).map(|rest| rest.as_str().replace('/', ""));
            let named = inside.unwrap_or_default();
            let nodes = self.users.remove(&named).unwrap_or_default();
            match hash_file(&path) {
                Ok(actual) if actual == named => {}
                Ok(actual) => self.problem(&path, format!("its bytes hash to {actual}"), nodes),
                Err(error) => self.problem(&path, error.to_string(), nodes),
            }
        }
        for (content, nodes) in std::mem::take(&mut self.users) {
            let path = self.store.object_path(&content);
            if fs::symlink_metadata(&path).is_err() {
                self.problem(&path, "it is missing".to_string(), nodes);
            }
        }
        Ok(())
    }
}

/// Separates what is wrong with one record from an error of the store.
fn readable<T>(read: Result<Option<T>, StoreError>) -> Result<Result<Option<T>, String>, StoreError> {
    match read {
        Err(StoreError::Record { cause, .. }) => Ok(Err(cause)),
        Err(StoreError::Io { source, .. }) => Ok(Err(source.to_string())),
        Err(error) => Err(error),
        Ok(record) => Ok(Ok(record)),
    }
}
