//! Deletes results that no node name and no lock of an experiment refers to. Every unfinished checkpoint is kept.
//!
//! Runs share the file lock `locks/store`; a collection holds it exclusively, so that neither starts during the other.

use std::collections::BTreeSet;
use std::fs::{self, File};

use aurora_compiler::hash::Key;
use serde::Serialize;

use super::{Record, Store, StoreError, failed, files_below, sealed};

#[derive(Clone, Debug, Default, Serialize)]
pub struct GarbageReport {
    pub objects: u64,
    pub bytes: u64,
    pub records: u64,
}

impl Store {
    /// Deletes results that neither a name of the store nor `keep` (the keys in the locks of experiments) refers to,
    /// the file locks of nodes, and everything in `tmp/`. Every unfinished checkpoint is kept, with or without a name.
    /// With `dry`, only counts.
    ///
    /// # Errors
    /// A run is using the store (it holds the store's file lock), or a file cannot be listed or deleted.
    pub fn collect(&self, keep: &BTreeSet<Key>, dry: bool) -> Result<GarbageReport, StoreError> {
        let path = self.root.join("locks").join("store");
        let alone = File::create(&path).map_err(failed("lock", &path))?;
        if alone.try_lock().is_err() {
            return Err(StoreError::Busy {
                root: self.root.clone(),
            });
        }
        let list = |folder: &str| files_below(&self.root.join(folder)).map_err(failed("list", &self.root.join(folder)));
        let mut reached = keep.clone();
        for path in list("names")? {
            reached.extend(sealed::read::<Key>(&path).ok().flatten());
        }
        let mut gone = Vec::new();
        let mut objects = BTreeSet::new();
        for path in list("actions")?.into_iter().chain(list("partial")?) {
            match sealed::read::<Record>(&path) {
                Ok(Some(record)) if record.step.is_some() || reached.contains(&record.key) => {
                    objects.extend(record.outputs.into_values().map(|object| object.content));
                }
                _ => gone.push(path),
            }
        }
        let mut collected = GarbageReport {
            records: gone.len() as u64,
            ..GarbageReport::default()
        };
        for path in list("realised")? {
            let key = sealed::read::<Key>(&path).ok().flatten();
            if key.is_none_or(|key| !reached.contains(&key)) {
                gone.push(path);
            }
        }
        for path in list("cas")? {
            let content = path
                .strip_prefix(self.root.join("cas"))
                .map(|rest| rest.as_str().replace('/', ""));
            if !objects.contains(&content.unwrap_or_default()) {
                collected.objects += 1;
                collected.bytes += fs::metadata(&path).map_or(0, |status| status.len());
                gone.push(path);
            }
        }
        gone.extend(list("tmp")?);
        gone.extend(
            list("locks")?
                .into_iter()
                .filter(|path| path.file_name() != Some("store")),
        );
        if !dry {
            for path in gone {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(collected)
    }
}
