//! The lock: what a spec's names stood for, as text for review and merging.
//!
//! In: a keyed graph with pins, and after a run the digests of its results. Out: TOML with sorted tables, one entry a
//! line, no times, hosts, users or absolute paths. Reading is strict: whatever this version would not have written is
//! an error with its place.

mod merge;

use std::collections::BTreeMap;

use aurora_lang::diagnostics::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::SourceFields;
use crate::graph::{Kind, NodeOrigin, Pin, Pins, Work, lower};
use crate::hash::{Key, Keyed, digest_of, hash};
pub use merge::{Conflict, merge};

/// Version of the format that this build reads and writes.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Refused if unknown.
    pub version: u32,
    /// Raised when the format only grows.
    pub revision: u32,
    pub experiment: String,
    /// Path of the spec, relative to the folder that holds `lockfiles/`.
    pub spec: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The point of a sweep of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// What `--set` said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Version of the library whose kernels the numerics stand on.
    pub libtorch: String,
    /// What the results stand on: the kind of CPU and the digest of a probe of its kernels. Another kind may round
    /// otherwise, so its results are compared with none but its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What the spec asks for, whatever its sources contain: tells a changed spec from a changed lock.
    pub intent: Key,
    /// Files that the spec imports from the web and from packages, by their addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub import: BTreeMap<String, LockedImport>,
    #[serde(default)]
    pub source: BTreeMap<String, LockedSource>,
    #[serde(default)]
    pub order: BTreeMap<String, LockedOrder>,
    #[serde(default)]
    pub node: BTreeMap<String, LockedNode>,
    /// After a run: the digest of each node's result, a line a node.
    #[serde(default)]
    pub result: BTreeMap<String, Key>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    pub confidence: Confidence,
    /// As the spec has it.
    pub from: String,
    /// With its exact version.
    pub reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// The text that an address stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedImport {
    pub bytes: u64,
    /// BLAKE3 of the text.
    pub content: String,
}

impl LockedSource {
    /// Its version and the beginning of its content's digest, for messages.
    pub fn brief(&self) -> String {
        match &self.content {
            Some(content) => format!("{} ({})", self.reference, content.get(..12).unwrap_or(content)),
            None => self.reference.clone(),
        }
    }
}

/// Which sample every step of a stage sees: fixed before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedOrder {
    /// Samples that the stage sees, all steps together.
    pub samples: u64,
    /// BLAKE3 tree over the (component, sample) pairs of all of them.
    pub commitment: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedNode {
    pub kind: Kind,
    pub confidence: Confidence,
    pub key: Key,
}

impl LockedNode {
    /// The stage and the step of a checkpoint, which in a lock is known by its name `STAGE@STEP` alone.
    pub fn trained<'a>(&self, name: &'a str) -> Option<(&'a str, u64)> {
        let (stage, step) = name.split_once('@').filter(|_| self.kind == Kind::Train)?;
        Some((stage, step.parse().ok()?))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Pinned by content.
    Exact,
    /// Named by the spec, not pinned yet.
    Declared,
    /// Stands on a value that the spec calls unknown.
    Unresolved,
}

/// Why a text is not a lock that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the lock has merge conflicts (line {line})")]
    Conflict { line: usize },
    #[error("the lock has version {found}, this Aurora knows version {VERSION}")]
    TooNew { found: i64 },
    #[error("the lock cannot be read: {0}")]
    Malformed(String),
    #[error("the lock is for experiment `{found}`, the spec is `{expected}`")]
    OtherSpec { found: String, expected: String },
    #[error("the lock does not agree with itself: {0}")]
    Edited(String),
}

impl LockError {
    /// Something to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "take either side whole, then run `aurora lock` to bring it up to date",
            Self::TooNew { .. } => "use the Aurora that wrote it, or delete the lock and run `aurora lock`",
            Self::Malformed(_) => "restore it from version control, or delete it and run `aurora lock`",
            Self::OtherSpec { .. } => "name the lock of this spec, or the spec of this lock",
            Self::Edited(_) => "a lock is not edited by hand: restore it, or run `aurora lock --upgrade NAME`",
        }
    }

    /// The diagnostic code.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::LOCK_MALFORMED,
            Self::Conflict { .. } => Code::LOCK_CONFLICT,
            Self::TooNew { .. } => Code::LOCK_TOO_NEW,
            Self::OtherSpec { .. } => Code::LOCK_OF_ANOTHER_SPEC,
            Self::Edited(_) => Code::LOCK_ENTRY_DISAGREES,
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
        let malformed = |error: toml::de::Error| LockError::Malformed(error.to_string().trim_end().to_string());
        let table: toml::Table = toml::from_str(text).map_err(malformed)?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(version) if version == i64::from(VERSION) => {}
            Some(found) if found > i64::from(VERSION) => return Err(LockError::TooNew { found }),
            _ => {
                return Err(LockError::Malformed(format!(
                    "it does not begin with `version = {VERSION}`"
                )));
            }
        }
        let lock: Self = toml::from_str(text).map_err(malformed)?;
        lock.agrees_with_itself()?;
        Ok(lock)
    }

    fn agrees_with_itself(&self) -> Result<(), LockError> {
        for (name, source) in &self.source {
            let pinned = source.content.is_some() && source.bytes.is_some() && !source.files.is_empty();
            if pinned != (source.confidence == Confidence::Exact) {
                return Err(LockError::Edited(format!(
                    "source `{name}` says `{}` but its pin is {}",
                    serde_name(&source.confidence),
                    if pinned { "complete" } else { "incomplete" }
                )));
            }
        }
        if let Some(name) = self.result.keys().find(|name| !self.node.contains_key(*name)) {
            return Err(LockError::Edited(format!(
                "there is a result of `{name}`, which is not a node"
            )));
        }
        Ok(())
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

    /// Refuses a lock whose entries do not follow from its own pins, if it was written for this very spec.
    ///
    /// # Errors
    /// Names the first entries that somebody has changed.
    pub fn check_against(&self, spec: &crate::spec::Spec) -> Result<(), LockError> {
        if self.intent != intent(spec) {
            return Ok(());
        }
        let pins = self.pins();
        let mut fresh = lock(&hash(lower(spec, &pins)), spec, &self.spec, &pins, &self.libtorch);
        fresh.import.clone_from(&self.import);
        let differing = self.stale(&fresh);
        match differing.first() {
            None => Ok(()),
            Some(first) if differing.len() == 1 => Err(LockError::Edited(first.clone())),
            Some(first) => Err(LockError::Edited(format!("{first} (and {} more)", differing.len() - 1))),
        }
    }

    /// Finds what in this lock is not what the spec and the lock's own pins give: a stale lock, or one edited by hand.
    pub fn stale(&self, fresh: &Lock) -> Vec<String> {
        let mut found = Vec::new();
        let header = [
            ("spec", &self.spec, &fresh.spec),
            ("libtorch", &self.libtorch, &fresh.libtorch),
        ];
        for (name, old, new) in header {
            if old != new {
                found.push(format!("{name}: `{old}` → `{new}`"));
            }
        }
        compare("import", &self.import, &fresh.import, &mut found);
        compare("source", &self.source, &fresh.source, &mut found);
        compare("node", &self.node, &fresh.node, &mut found);
        found
    }

    /// Takes over from an older lock what still holds: results and order commitments of nodes whose keys are the same.
    pub fn keep_from(&mut self, old: &Lock) {
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
            .filter(|(stage, _)| {
                same(
                    &NodeOrigin::Order {
                        stage: (*stage).clone(),
                    }
                    .to_string(),
                )
            })
            .map(|(stage, order)| (stage.clone(), order.clone()))
            .collect();
        self.fingerprint.clone_from(&old.fingerprint);
        self.result.extend(results);
        self.order.extend(orders);
    }
}

fn compare<T: PartialEq + std::fmt::Debug>(
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    found: &mut Vec<String>,
) {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(_), None) => found.push(format!("{what} `{name}` is not in the spec")),
            (None, Some(_)) => found.push(format!("{what} `{name}` is not in the lock")),
            (Some(old), Some(new)) if old != new => found.push(format!("{what} `{name}` differs")),
            _ => {}
        }
    }
}

fn serde_name(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(String::from))
        .unwrap_or_default()
}

/// Returns the digest of what a spec asks for, its sources being only names.
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
    let mut confidence: Vec<Confidence> = Vec::new();
    let mut node = BTreeMap::new();
    let mut source = BTreeMap::new();
    for id in keyed.graph.ids() {
        let this = keyed.graph.node(id);
        let name = match &this.origin {
            NodeOrigin::Source { source } => Some(source.as_str()),
            _ => None,
        };
        let own = match name {
            _ if !this.unknown.is_empty() => Confidence::Unresolved,
            Some(name) if !pins.contains_key(name) => Confidence::Declared,
            _ => Confidence::Exact,
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
        fingerprint: None,
        intent: intent(spec),
        import: BTreeMap::new(),
        source,
        order: BTreeMap::new(),
        node,
        result: BTreeMap::new(),
    }
}
