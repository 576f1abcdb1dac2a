//! The lock: the exact content behind a spec's names, as text for review and merging.
//!
//! In: a keyed graph with pins, and after a run the digests of its results. Out: TOML with sorted tables, one entry per
//! line, without times, hosts, users or absolute paths. Reading is strict: text that this version would not write is an
//! error with its line.

mod merge;

use std::collections::BTreeMap;
use std::fmt;

use aurora_lang::diagnostics::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::SourceFields;
use crate::file_source;
use crate::graph::{NodeKind, NodeOrigin, Pin, Pins, Work, lower, stage_plan};
use crate::hash::{Key, Keyed, digest_of, hash, source_content};
use crate::numerics_class::NumericsClass;
use crate::spec::{BlockId, BlockKind};
pub use merge::{LockConflict, merge};

/// Version of the format that this build reads and writes.
///
/// 2: the numerics class has an entry of its own. 3: the content of a single file is that of its manifest, as of several.
/// [`Lock::parse`] also reads the earlier versions.
pub const VERSION: u32 = 3;

/// The version whose `fingerprint` ends with the class.
const CLASS_IN_FINGERPRINT: u32 = 1;

/// The last version that pins a single file by its bytes alone.
const FILE_WITHOUT_MANIFEST: u32 = 2;

/// The description of the machine under `portable` numerics, which are the same on every processor.
pub const PORTABLE_MACHINE: &str = "portable kernels";

/// A parsed lock file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Refused if unknown.
    pub version: u32,
    /// Always 0. An entry that older versions do not know raises `version`, because a lock has no unknown entries.
    pub revision: u32,
    pub experiment: String,
    /// Path of the spec, relative to the folder that holds `lockfiles/`.
    pub spec: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The point of a sweep of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The values of `--set`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Version of the library whose kernels compute the results.
    pub libtorch: String,
    /// The numerics class of the machine that computed the results. All results that depend on a class are of this one. A
    /// machine of another class may round differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<NumericsClass>,
    /// Describes a machine of this class, for people: the library, and the processor or device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Digest of the spec's graph without the content of sources. It distinguishes a changed spec from a changed lock.
    pub intent: Key,
    /// Whether `result` has every node, so that a lost line is found.
    pub results: Completeness,
    /// Files that the spec imports from the web and from packages, by their addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub import: BTreeMap<String, LockedImport>,
    #[serde(default)]
    pub source: BTreeMap<String, LockedSource>,
    #[serde(default)]
    pub order: BTreeMap<String, LockedOrder>,
    #[serde(default)]
    pub node: BTreeMap<String, LockedNode>,
    /// After a run: the digest of each node's result, one line per node.
    #[serde(default)]
    pub result: BTreeMap<String, Key>,
}

/// Whether a lock has a result for every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Every node has one.
    Complete,
    /// The spec has not been run completely since its keys changed.
    Partial,
}

/// The pin of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    pub confidence: Resolution,
    /// The reference in the spec.
    pub from: String,
    /// The reference with its exact version.
    pub reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// The text that was read from an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedImport {
    pub bytes: u64,
    /// BLAKE3 of the text.
    pub content: String,
}

impl LockedSource {
    /// Pins the single file of a lock of an earlier version by its manifest: nothing has to be fetched again. The name of a
    /// file of the project was its complete path.
    fn pin_by_manifest(&mut self) {
        let (Some(bytes), Some(content), [name]) = (self.bytes, &mut self.content, self.files.as_mut_slice()) else {
            return;
        };
        if let Some(own) = file_source::own_name(&self.from, name) {
            *name = own;
        }
        if let Ok(hash) = blake3::Hash::from_hex(content.as_str()) {
            *content = source_content([(name.as_str(), bytes, *hash.as_bytes())]).to_hex();
        }
    }

    /// Its version and a prefix of its content's digest, for messages.
    pub fn brief(&self) -> String {
        match &self.content {
            Some(content) => format!("{} ({})", self.reference, content.get(..12).unwrap_or(content)),
            None => self.reference.clone(),
        }
    }
}

/// The data order of a stage, fixed before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedOrder {
    /// Samples of the stage, all steps together.
    pub samples: u64,
    /// BLAKE3 tree over the (component, sample) pairs of all of them.
    pub commitment: String,
}

/// A node of the graph with its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedNode {
    pub kind: NodeKind,
    pub confidence: Resolution,
    pub key: Key,
}

impl LockedNode {
    /// The stage and the step of a checkpoint, which a lock stores only in its name `STAGE@STEP`.
    pub fn trained<'a>(&self, name: &'a str) -> Option<(&'a str, u64)> {
        let (stage, step) = name.split_once('@').filter(|_| self.kind == NodeKind::Train)?;
        Some((stage, step.parse().ok()?))
    }
}

/// How exactly the content behind a node is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Pinned by content.
    Exact,
    /// Named by the spec, not pinned yet.
    Declared,
    /// Depends on a value that the spec calls unknown.
    Unresolved,
}

impl Resolution {
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Declared => "declared",
            Self::Unresolved => "unresolved",
        }
    }
}

/// Why a text is not a usable lock.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LockError {
    #[error("the lock has merge conflicts (line {line})")]
    Conflict { line: usize },
    #[error("the lock has version {found}, this Aurora knows version {VERSION}")]
    TooNew { found: i64 },
    #[error("the lock cannot be read")]
    Malformed(#[source] toml::de::Error),
    #[error("the lock cannot be read: it does not begin with `version = {VERSION}`")]
    NoVersion,
    #[error("the lock is for experiment `{found}`, the spec is `{expected}`")]
    OtherSpec { found: String, expected: String },
    #[error("the lock does not agree with itself: {0}")]
    Edited(LockEdit),
}

impl LockError {
    /// How to fix it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "take either side completely, then run `aurora lock` to bring it up to date",
            Self::TooNew { .. } => "use the Aurora that wrote it, or delete the lock and run `aurora lock`",
            Self::Malformed(_) | Self::NoVersion => {
                "restore it from version control, or delete it and run `aurora lock`"
            }
            Self::OtherSpec { .. } => "name the lock of this spec, or the spec of this lock",
            Self::Edited(_) => "restore the lock from version control, or delete it: `aurora run SPEC` writes it again",
        }
    }

    /// The diagnostic code that `aurora explain` knows.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) | Self::NoVersion => Code::LOCK_MALFORMED,
            Self::Conflict { .. } => Code::LOCK_CONFLICT,
            Self::TooNew { .. } => Code::LOCK_TOO_NEW,
            Self::OtherSpec { .. } => Code::LOCK_OF_ANOTHER_SPEC,
            Self::Edited(_) => Code::LOCK_ENTRY_DISAGREES,
        }
    }
}

/// An entry that does not follow from the rest of the lock, because the text was edited.
#[derive(Clone, Debug, PartialEq)]
pub enum LockEdit {
    /// The confidence of a source and the entries of its pin disagree.
    Pin { source: String, confidence: Resolution },
    /// A result whose name is not a node of the lock.
    Result { name: String },
    /// A complete lock without the results of this node and of others.
    NoResult { name: String, more: usize },
    /// A partial lock with the results of all nodes.
    NotPartial,
    /// Results of workers without this entry, which describes the machine that computed them.
    NoMachine { entry: &'static str },
    /// A data order that does not follow from the rest of the lock or from the spec.
    Order { stage: String, cause: String },
    /// The intent is not that of the spec, but the keys are.
    Intent { locked: Key, spec: Key },
    /// Entries that do not follow from the spec and the pins: the first one, and the number of others.
    Entries { first: LockChange, more: usize },
    /// The result in the lock, and the one in the store.
    Digest { name: String, locked: Key, stored: Key },
}

impl fmt::Display for LockEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin { source, confidence } => {
                let pin = match confidence {
                    Resolution::Exact => "incomplete",
                    Resolution::Declared | Resolution::Unresolved => "complete",
                };
                write!(
                    f,
                    "source `{source}` is marked `{}` but its pin is {pin}",
                    confidence.name()
                )
            }
            Self::Result { name } => write!(f, "there is a result of `{name}`, which is not a node"),
            Self::NoResult { name, more } => {
                write!(f, "`results` is `complete` but `{name}`")?;
                if *more > 0 {
                    write!(f, " (and {more} more)")?;
                }
                f.write_str(" does not have a result")
            }
            Self::NotPartial => f.write_str("`results` is `partial` but every node has a result"),
            Self::NoMachine { entry } => write!(f, "it has the results of workers but no `{entry}`"),
            Self::Order { stage, cause } => write!(f, "order `{stage}`: {cause}"),
            Self::Intent { locked, spec } => write!(
                f,
                "intent: the lock has {locked}, the spec with the same keys has {spec}"
            ),
            Self::Entries { first, more: 0 } => first.fmt(f),
            Self::Entries { first, more } => write!(f, "{first} (and {more} more)"),
            Self::Digest { name, locked, stored } => {
                write!(f, "result of `{name}`: the lock has {locked}, the store has {stored}")
            }
        }
    }
}

/// A difference between a lock and the lock that its spec and pins give.
#[derive(Clone, Debug, PartialEq)]
pub enum LockChange {
    /// There is no lock yet.
    Missing,
    /// A value of the header.
    Header {
        field: &'static str,
        old: String,
        new: String,
    },
    NotInSpec {
        table: Table,
        name: String,
    },
    NotInLock {
        table: Table,
        name: String,
    },
    Differs {
        table: Table,
        name: String,
    },
}

/// A table of a lock that follows from the spec and the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Import,
    Source,
    Node,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Import => "import",
            Self::Source => "source",
            Self::Node => "node",
        })
    }
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no lock yet"),
            Self::Header { field, old, new } => write!(f, "{field}: `{old}` → `{new}`"),
            Self::NotInSpec { table, name } => write!(f, "{table} `{name}` is not in the spec"),
            Self::NotInLock { table, name } => write!(f, "{table} `{name}` is not in the lock"),
            Self::Differs { table, name } => write!(f, "{table} `{name}` differs"),
        }
    }
}

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// Conflict markers, a newer version, or anything that this version does not write.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        for (index, line) in text.lines().enumerate() {
            if ["<<<<<<<", "=======", ">>>>>>>", "|||||||"]
                .iter()
                .any(|mark| line.starts_with(mark))
            {
                return Err(LockError::Conflict { line: index + 1 });
            }
        }
        let table: toml::Table = toml::from_str(text).map_err(LockError::Malformed)?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(version) if (i64::from(CLASS_IN_FINGERPRINT)..=i64::from(VERSION)).contains(&version) => {}
            Some(found) if found > i64::from(VERSION) => return Err(LockError::TooNew { found }),
            _ => return Err(LockError::NoVersion),
        }
        let mut lock: Self = toml::from_str(text).map_err(LockError::Malformed)?;
        if lock.version == CLASS_IN_FINGERPRINT {
            lock.split_fingerprint();
        }
        if lock.version <= FILE_WITHOUT_MANIFEST {
            lock.source.values_mut().for_each(LockedSource::pin_by_manifest);
        }
        lock.agrees_with_itself()?;
        Ok(lock)
    }

    /// Takes the class out of the fingerprint of a lock of the earlier version.
    fn split_fingerprint(&mut self) {
        let Some((machine, probe)) = self.fingerprint.as_ref().and_then(|text| text.rsplit_once(", probe ")) else {
            return;
        };
        self.class = NumericsClass::of_probe(probe, machine == PORTABLE_MACHINE);
        self.fingerprint = Some(machine.to_owned());
    }

    fn agrees_with_itself(&self) -> Result<(), LockError> {
        for (name, source) in &self.source {
            let pinned = source.content.is_some() && source.bytes.is_some() && !source.files.is_empty();
            if pinned != (source.confidence == Resolution::Exact) {
                return Err(LockError::Edited(LockEdit::Pin {
                    source: name.clone(),
                    confidence: source.confidence,
                }));
            }
        }
        if let Some(name) = self.result.keys().find(|name| !self.node.contains_key(*name)) {
            return Err(LockError::Edited(LockEdit::Result { name: name.clone() }));
        }
        self.results_agree().map_err(LockError::Edited)?;
        self.orders_agree().map_err(LockError::Edited)
    }

    fn results_agree(&self) -> Result<(), LockEdit> {
        let mut missing = self.node.keys().filter(|name| !self.result.contains_key(*name));
        match (self.results, missing.next()) {
            (Completeness::Complete, Some(name)) => Err(LockEdit::NoResult {
                name: name.clone(),
                more: missing.count(),
            }),
            (Completeness::Partial, None) => Err(LockEdit::NotPartial),
            _ if !self.has_results_of_workers() => Ok(()),
            _ if self.class.is_none() => Err(LockEdit::NoMachine { entry: "class" }),
            _ if self.fingerprint.is_none() => Err(LockEdit::NoMachine { entry: "fingerprint" }),
            _ => Ok(()),
        }
    }

    /// Whether a result depends on the machine's kernels.
    fn has_results_of_workers(&self) -> bool {
        let mut nodes = self.result.keys().filter_map(|name| self.node.get(name));
        nodes.any(|node| node.kind.runs_on_workers())
    }

    /// An order is written before the result of its node.
    fn orders_agree(&self) -> Result<(), LockEdit> {
        let edit = |stage: &str, cause: &str| LockEdit::Order {
            stage: stage.to_owned(),
            cause: cause.to_owned(),
        };
        if let Some(stage) = self
            .order
            .keys()
            .find(|stage| !self.node.contains_key(&order_node(stage)))
        {
            return Err(edit(stage, "it is not the order of a node"));
        }
        let is_order = |name: &&String| self.node.get(*name).is_some_and(|node| node.kind == NodeKind::Order);
        let results = self.result.keys().filter(is_order);
        for stage in results.filter_map(|name| name.strip_prefix("order/")) {
            if !self.order.contains_key(stage) {
                return Err(edit(stage, "it is missing, but its node has a result"));
            }
        }
        Ok(())
    }

    /// Sets `results` by the results that the lock has. To be called after each change of `result` or `node`.
    pub fn count_results(&mut self) {
        let complete = self.node.keys().all(|name| self.result.contains_key(name));
        self.results = if complete {
            Completeness::Complete
        } else {
            Completeness::Partial
        };
    }

    /// Writes the lock; the same lock is the same text on every machine.
    pub fn to_text(&self) -> String {
        let body = toml::to_string(self).unwrap_or_else(|_| unreachable!("a lock is plain data"));
        format!("# Written by `aurora lock` and `aurora run`; not edited by hand.\n{body}")
    }

    /// The pins of the sources that have one.
    pub fn pins(&self) -> Pins {
        let pin = |source: &LockedSource| {
            Some(Pin {
                from: source.from.clone(),
                reference: source.reference.clone(),
                bytes: source.bytes?,
                content: source.content.clone()?,
                files: source.files.clone(),
            })
        };
        self.source
            .iter()
            .filter_map(|(name, source)| Some((name.clone(), pin(source)?)))
            .collect()
    }

    /// Rejects a lock whose entries do not follow from its own pins, if it was written for exactly this spec.
    ///
    /// # Errors
    /// The first entry that was edited, and the number of others.
    pub fn check_against(&self, spec: &crate::spec::Spec) -> Result<(), LockError> {
        let of_spec = intent(spec);
        if self.intent != of_spec {
            if self.has_keys_of(spec) {
                let locked = self.intent;
                return Err(LockError::Edited(LockEdit::Intent { locked, spec: of_spec }));
            }
            return Ok(());
        }
        self.check_samples(spec)?;
        let pins = self.pins();
        let mut fresh = lock(&hash(lower(spec, &pins)), spec, &self.spec, &pins, &self.libtorch);
        fresh.import.clone_from(&self.import);
        // A lock of the earlier version is out of date, not edited.
        fresh.version = self.version;
        let mut changes = self.changes(&fresh).into_iter();
        match changes.next() {
            None => Ok(()),
            Some(first) => Err(LockError::Edited(LockEdit::Entries {
                first,
                more: changes.len(),
            })),
        }
    }

    /// Whether the spec gives the keys of this lock. Then it also gives its intent.
    fn has_keys_of(&self, spec: &crate::spec::Spec) -> bool {
        let unpinned = lower(spec, &Pins::new());
        let references = unpinned.ids().filter_map(|id| {
            let node = unpinned.node(id);
            match (&node.origin, &node.work) {
                (NodeOrigin::Source { source }, Work::Source(SourceFields::Declared(reference))) => {
                    Some((source.as_str(), reference.as_str()))
                }
                _ => None,
            }
        });
        let references: BTreeMap<&str, &str> = references.collect();
        let mut pins = self.pins();
        // The key of a pinned source does not depend on its reference.
        pins.retain(|name, pin| references.get(name.as_str()) == Some(&pin.from.as_str()));
        lock(&hash(lower(spec, &pins)), spec, &self.spec, &pins, &self.libtorch).node == self.node
    }

    /// The number of samples of an order follows from the spec; its commitment depends on the data.
    fn check_samples(&self, spec: &crate::spec::Spec) -> Result<(), LockError> {
        for (stage, order) in &self.order {
            if let Some(samples) = samples_of(spec, stage)
                && samples != order.samples
            {
                return Err(LockError::Edited(LockEdit::Order {
                    stage: stage.clone(),
                    cause: format!("the lock has {} samples, the spec has {samples}", order.samples),
                }));
            }
        }
        Ok(())
    }

    /// Finds the differences from the lock that the spec and this lock's own pins give: it is stale, or was edited.
    pub fn changes(&self, fresh: &Lock) -> Vec<LockChange> {
        let mut found = Vec::new();
        let header = [
            ("version", self.version.to_string(), fresh.version.to_string()),
            ("spec", self.spec.clone(), fresh.spec.clone()),
            ("libtorch", self.libtorch.clone(), fresh.libtorch.clone()),
        ];
        for (field, old, new) in header {
            if old != new {
                found.push(LockChange::Header { field, old, new });
            }
        }
        compare(Table::Import, &self.import, &fresh.import, &mut found);
        compare(Table::Source, &self.source, &fresh.source, &mut found);
        compare(Table::Node, &self.node, &fresh.node, &mut found);
        found
    }

    /// Takes over what is still valid from an older lock: results and data orders of nodes with equal keys. The number of
    /// samples is not part of an order's key, so an order with another number than the spec's is not valid.
    pub fn keep_from(&mut self, old: &Lock, spec: &crate::spec::Spec) {
        let same = |name: &str| matches!((self.node.get(name), old.node.get(name)), (Some(new), Some(old)) if new.key == old.key);
        let results: Vec<_> = old
            .result
            .iter()
            .filter(|(name, _)| same(name))
            .map(|(n, d)| (n.clone(), *d))
            .collect();
        let orders: Vec<_> = old
            .order
            .iter()
            .filter(|(stage, order)| same(&order_node(stage)) && samples_of(spec, stage) == Some(order.samples))
            .map(|(stage, order)| (stage.clone(), order.clone()))
            .collect();
        self.class = old.class;
        self.fingerprint.clone_from(&old.fingerprint);
        self.result.extend(results);
        self.order.extend(orders);
        let order = &self.order;
        let has_order = |name: &str| {
            name.strip_prefix("order/")
                .is_none_or(|stage| order.contains_key(stage))
        };
        self.result.retain(|name, _| has_order(name));
        self.count_results();
    }
}

/// The samples of a stage of the spec, all steps together.
fn samples_of(spec: &crate::spec::Spec, stage: &str) -> Option<u64> {
    let block = BlockId {
        kind: BlockKind::Stage,
        name: stage.to_owned(),
    };
    spec.blocks
        .contains_key(&block)
        .then(|| stage_plan(spec, &block).samples())
}

/// The node of a stage's data order.
fn order_node(stage: &str) -> String {
    let stage = stage.to_owned();
    NodeOrigin::Order { stage }.to_string()
}

fn compare<T: PartialEq + std::fmt::Debug>(
    table: Table,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    found: &mut Vec<LockChange>,
) {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        let name = name.clone();
        match (old, new) {
            (Some(_), None) => found.push(LockChange::NotInSpec { table, name }),
            (None, Some(_)) => found.push(LockChange::NotInLock { table, name }),
            (Some(old), Some(new)) if old != new => found.push(LockChange::Differs { table, name }),
            _ => {}
        }
    }
}

/// Returns the digest of the spec's graph, in which sources are only names.
pub fn intent(spec: &crate::spec::Spec) -> Key {
    let keyed = hash(lower(spec, &Pins::new()));
    let named: Vec<_> = keyed
        .graph
        .ids()
        .map(|id| (keyed.graph.node(id).name(), keyed.key(id).to_hex()))
        .collect();
    digest_of(named.iter().map(|(name, key)| (*name, 0, key.as_str())))
}

/// Returns the lock of a graph, without results.
pub fn lock(keyed: &Keyed, spec: &crate::spec::Spec, spec_path: &str, pins: &Pins, libtorch: &str) -> Lock {
    let mut confidence: Vec<Resolution> = Vec::new();
    let mut node = BTreeMap::new();
    let mut source = BTreeMap::new();
    for id in keyed.graph.ids() {
        let this = keyed.graph.node(id);
        let name = match &this.origin {
            NodeOrigin::Source { source } => Some(source.as_str()),
            _ => None,
        };
        let own = match name {
            _ if !this.unknown.is_empty() => Resolution::Unresolved,
            Some(name) if !pins.contains_key(name) => Resolution::Declared,
            _ => Resolution::Exact,
        };
        let worst = keyed
            .graph
            .inputs(id)
            .map(|input| confidence[input.node.index()])
            .fold(own, Ord::max);
        confidence.push(worst);
        node.insert(
            this.name().to_owned(),
            LockedNode {
                kind: this.kind(),
                confidence: worst,
                key: keyed.key(id),
            },
        );
        if let Some(name) = name {
            let pin = pins.get(name);
            let declared = this.spec_values.get(&format!("source.{name}.from")).cloned();
            let declared = declared.or_else(|| match &this.work {
                Work::Source(SourceFields::Declared(reference)) => Some(reference.clone()),
                _ => None,
            });
            let declared = declared.unwrap_or_default();
            source.insert(
                name.to_string(),
                LockedSource {
                    confidence: own,
                    from: pin.map_or_else(|| declared.clone(), |pin| pin.from.clone()),
                    reference: pin.map_or(declared, |pin| pin.reference.clone()),
                    bytes: pin.map(|pin| pin.bytes),
                    content: pin.map(|pin| pin.content.clone()),
                    files: pin.map(|pin| pin.files.clone()).unwrap_or_default(),
                },
            );
        }
    }
    Lock {
        version: VERSION,
        revision: 0,
        experiment: spec.name.clone(),
        spec: spec_path.to_string(),
        profile: spec.profile.clone(),
        point: spec.point.clone(),
        set: spec.settings.clone(),
        libtorch: libtorch.to_string(),
        class: None,
        fingerprint: None,
        intent: intent(spec),
        results: Completeness::Partial,
        import: BTreeMap::new(),
        source,
        order: BTreeMap::new(),
        node,
        result: BTreeMap::new(),
    }
}
