//! Results of several numerics classes side by side, and what is known about the classes of machines.
//!
//! The class of a machine is known once a worker has reported it: a command that needs it before it starts workers looks up
//! the record of a machine with the same description.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::PoisonError;

use aurora_compiler::hash::{Key, Keyed, digest_of};
use aurora_compiler::numerics_class::NumericsClass;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::sealed::{Address, RecordKind};
use super::{Record, Store, StoreError, entries, failed, undamaged};
use crate::numerics::{Fingerprint, MachineDescription};

/// Identifies a result: the key of its node and, if the result depends on it, the numerics class that it was computed in.
///
/// The text `CLASS/KEY` or `KEY` is the place of its record in a folder of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResultId {
    pub key: Key,
    pub class: Option<NumericsClass>,
}

impl ResultId {
    /// The result of a node that does not depend on the machine.
    pub fn without_class(key: Key) -> Self {
        Self { key, class: None }
    }

    /// Reads the place of a record.
    pub fn parse(text: &str) -> Option<Self> {
        let (class, key) = match text.split_once('/') {
            Some((class, key)) => (Some(NumericsClass::parse(class)?), key),
            None => (None, text),
        };
        let key = Key::from_hex(key)?;
        Some(Self { key, class })
    }

    /// The name of a file that belongs to this result, such as its lock.
    pub(super) fn file_name(self) -> String {
        match self.class {
            Some(class) => format!("{}.{class}", self.key),
            None => self.key.to_hex(),
        }
    }
}

impl fmt::Display for ResultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "{class}/{}", self.key),
            None => self.key.fmt(f),
        }
    }
}

/// The classes that a worker has reported for a kind of machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownClasses {
    machine: MachineDescription,
    native: NumericsClass,
    portable: NumericsClass,
}

impl Store {
    /// Records the classes that a worker of this machine has reported, in place of an earlier report.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn learn_classes(&self, machine: &MachineDescription, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        let (Some(native), Some(portable)) = (fingerprint.class(false), fingerprint.class(true)) else {
            return Ok(());
        };
        let address = address_of(machine);
        let known = KnownClasses {
            machine: machine.clone(),
            native,
            portable,
        };
        if undamaged(self.read::<KnownClasses>(&address))?.as_ref() == Some(&known) {
            return Ok(());
        }
        self.write(&address, &known)
    }

    /// The class of a machine with this description, if a worker has reported it.
    ///
    /// # Errors
    /// The record cannot be read, or has another format.
    pub fn known_class(
        &self,
        machine: &MachineDescription,
        portable: bool,
    ) -> Result<Option<NumericsClass>, StoreError> {
        let known = undamaged(self.read::<KnownClasses>(&address_of(machine)))?;
        let known = known.filter(|known| known.machine == *machine);
        Ok(known.map(|known| if portable { known.portable } else { known.native }))
    }

    /// The classes that the store has results of, in order: those that it had when they were first asked for, and those in
    /// which this process has published since.
    ///
    /// # Errors
    /// The folder of results cannot be listed.
    pub fn classes(&self) -> Result<BTreeSet<NumericsClass>, StoreError> {
        let mut known = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = &*known {
            return Ok(classes.clone());
        }
        let folder = self.root.join(RecordKind::Result.folder());
        let paths = entries(&folder, 0).map_err(failed("list", &folder))?;
        let classes = paths
            .iter()
            .filter(|path| path.is_dir())
            .filter_map(|path| path.file_name());
        let classes: BTreeSet<NumericsClass> = classes.filter_map(NumericsClass::parse).collect();
        *known = Some(classes.clone());
        Ok(classes)
    }

    /// Adds the class of a result that is published.
    pub(super) fn note_class(&self, class: Option<NumericsClass>) {
        let mut known = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(classes), Some(class)) = (&mut *known, class) {
            classes.insert(class);
        }
    }

    /// The classes in which a node with this key has a result.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn classes_of(&self, key: Key) -> Result<Vec<NumericsClass>, StoreError> {
        let mut found = Vec::new();
        for class in self.classes()? {
            let id = ResultId {
                key,
                class: Some(class),
            };
            if self.exists(&Address::new(RecordKind::Result, id))? {
                found.push(class);
            }
        }
        Ok(found)
    }

    /// Whether there is a result with this key, without a class or of any class.
    pub(super) fn has_result(&self, key: Key) -> Result<bool, StoreError> {
        let without = Address::new(RecordKind::Result, ResultId::without_class(key));
        Ok(self.exists(&without)? || !self.classes_of(key)?.is_empty())
    }

    /// The record of a result with this key: without a class, else of the first class that has one. Its pre-image is the same
    /// in every class.
    ///
    /// # Errors
    /// A record cannot be read, or has another format.
    pub fn record_of_any_class(&self, key: Key) -> Result<Option<Record>, StoreError> {
        self.first_of_any_class(key, |id| self.record(id))
    }

    /// The undamaged result that was made from inputs with the same contents, of any class. Only for results that follow from
    /// the contents of their inputs on every machine.
    ///
    /// # Errors
    /// A record or an object cannot be read.
    pub fn realised_in_any_class(&self, realised: Key) -> Result<Option<Record>, StoreError> {
        self.first_of_any_class(realised, |id| self.realised(id))
    }

    fn first_of_any_class(
        &self,
        key: Key,
        read: impl Fn(ResultId) -> Result<Option<Record>, StoreError>,
    ) -> Result<Option<Record>, StoreError> {
        if let Some(record) = read(ResultId::without_class(key))? {
            return Ok(Some(record));
        }
        for class in self.classes()? {
            let class = Some(class);
            if let Some(record) = read(ResultId { key, class })? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The class whose results of a graph are shown: the preferred one if it has any, else the one that has most.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn class_to_read(
        &self,
        keyed: &Keyed,
        preferred: Option<NumericsClass>,
    ) -> Result<Option<NumericsClass>, StoreError> {
        let mut best = (0, None);
        for class in self.classes()? {
            let mut count = 0;
            for id in keyed.graph.ids().filter(|id| keyed.has_class(*id)) {
                let id = ResultId {
                    key: keyed.key(id),
                    class: Some(class),
                };
                count += u64::from(self.exists(&Address::new(RecordKind::Result, id))?);
            }
            if count > 0 && preferred == Some(class) {
                return Ok(preferred);
            }
            if count > best.0 {
                best = (count, Some(class));
            }
        }
        Ok(best.1.or(preferred))
    }

    /// The files in the folder of a kind of record, those of all classes, and what is in their place.
    pub(super) fn records_of(&self, kind: RecordKind) -> Result<Vec<Utf8PathBuf>, StoreError> {
        let folder = self.root.join(kind.folder());
        let mut found = Vec::new();
        for path in entries(&folder, 0).map_err(failed("list", &folder))? {
            let is_class = path.file_name().and_then(NumericsClass::parse).is_some();
            if is_class && path.is_dir() {
                found.extend(entries(&path, 0).map_err(failed("list", &path))?);
            } else {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// The record of a machine with this description.
fn address_of(machine: &MachineDescription) -> Address {
    Address::new(RecordKind::Class, digest_of([(machine.to_string().as_str(), 0, "")]))
}
