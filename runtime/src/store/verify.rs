//! Reads every byte of the store, and lists what differs from what was published.

use std::fs;

use camino::Utf8PathBuf;
use serde::Serialize;

use super::{Record, Store, StoreError, failed, files_below, hash_file, sealed};
use aurora_compiler::hash::Key;

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

impl Store {
    /// Reads all objects and records.
    ///
    /// # Errors
    /// A folder cannot be listed; a file that cannot be read is a problem of the store instead.
    pub fn verify(&self) -> Result<StoreReport, StoreError> {
        let mut report = StoreReport::default();
        let mut users: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        let listed = |folder: &str| {
            let path = self.root.join(folder);
            if path.is_dir() {
                files_below(&path).map_err(failed("list", &path))
            } else {
                Ok(Vec::new())
            }
        };
        for folder in ["actions", "partial"] {
            for path in listed(folder)? {
                report.records += 1;
                match sealed::read::<Record>(&path) {
                    Ok(Some(record)) => {
                        for object in record.outputs.values() {
                            users
                                .entry(object.content.clone())
                                .or_default()
                                .push(record.node.clone());
                        }
                    }
                    Ok(None) => {}
                    Err(cause) => self.problem(&mut report, path, cause, Vec::new()),
                }
            }
        }
        for folder in ["realised", "names"] {
            for path in listed(folder)? {
                report.records += 1;
                if let Err(cause) = sealed::read::<Key>(&path) {
                    self.problem(&mut report, path, cause, Vec::new());
                }
            }
        }
        for path in listed("cas")? {
            report.objects += 1;
            report.bytes += fs::metadata(&path).map_or(0, |status| status.len());
            let named = path
                .strip_prefix(self.root.join("cas"))
                .map(|rest| rest.as_str().replace('/', ""));
            let named = named.unwrap_or_default();
            let nodes = users.remove(&named).unwrap_or_default();
            match hash_file(&path) {
                Ok(actual) if actual == named => {}
                Ok(actual) => {
                    self.problem(&mut report, path, format!("its bytes hash to {actual}"), nodes);
                }
                Err(error) => self.problem(&mut report, path, error.to_string(), nodes),
            }
        }
        for (content, nodes) in users {
            let path = self.object_path(&content);
            self.problem(&mut report, path, "it is missing".to_string(), nodes);
        }
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }

    fn problem(&self, report: &mut StoreReport, path: Utf8PathBuf, cause: String, mut nodes: Vec<String>) {
        let path = path.strip_prefix(&self.root).map(ToOwned::to_owned).unwrap_or(path);
        nodes.sort();
        nodes.dedup();
        report.problems.push(StoreProblem { path, cause, nodes });
    }
}
