//! What changes between two specs: values, and the nodes that follow from them.
//!
//! In: two checked specs with their pins, or two locks. Out: changed values with old and new, and which nodes rerun, are
//! reused or removed. Not here: git (`cli`), stores (a diff compares keys, not cached results).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::check::{Assumption, AssumptionKind, assumptions};
use crate::graph::{NodeId, NodeKind, Pin, Pins, Role, Work, lower};
use crate::hash::{Key, Keyed, Preimage, hash};
use crate::lock::{Lock, LockedSource};
use crate::spec::Spec;
use crate::why::{changes, list_changes};

/// The differences between two specs or two locks.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub changed: Vec<ChangedValue>,
    pub assumptions: Vec<ChangedAssumption>,
    pub nodes: ChangedNodes,
    pub cost: Cost,
    pub severity: DiffEffect,
}

/// A value of a spec or a lock that differs, by its path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedValue {
    pub path: String,
    pub old: Option<String>,
    pub new: Option<String>,
    /// Where the new value is written, or the old one if there is no new one.
    pub origin: String,
}

/// A value that is assumed or unknown in only one of the specs, or for another reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedAssumption {
    pub path: String,
    /// `assumed: the fork's scripts`, or `unknown`.
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Nodes by name: which rerun, which are reused, which no longer exist.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChangedNodes {
    pub rerun: Vec<Rerun>,
    pub reused: Vec<String>,
    pub removed: Vec<String>,
    /// Stages that rerun from some step on, with the last step that both have in common.
    pub shared: BTreeMap<String, u64>,
}

impl ChangedNodes {
    /// Finds the stages whose first steps are reused; `trained` gives the stage and step of a checkpoint by its name.
    fn find_shared<'a>(&mut self, trained: impl Fn(&str) -> Option<(&'a str, u64)>) {
        let reruns = self.rerun.iter().filter_map(|rerun| trained(&rerun.name));
        let stages: BTreeSet<&str> = reruns.map(|(stage, _)| stage).collect();
        for (stage, step) in self.reused.iter().filter_map(|name| trained(name)) {
            if stages.contains(stage) {
                let last = self.shared.entry(stage.to_owned()).or_default();
                *last = step.max(*last);
            }
        }
    }
}

/// A node that reruns, and the reason as text.
#[derive(Clone, Debug, Serialize)]
pub struct Rerun {
    pub name: String,
    pub reason: String,
}

/// Cost of the training nodes that rerun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cost {
    pub tokens: u64,
    /// 6 × parameters × tokens.
    pub flops: f64,
    /// Size of the new checkpoints: weights and two moments in f32.
    pub checkpoint_bytes: u64,
}

/// The strongest effect of a difference, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffEffect {
    /// Nothing differs.
    None,
    /// Names, comments or the parallel layout: results stay bitwise identical.
    Same,
    /// Evals, gates or reports change.
    Measured,
    /// Data, tokens or training change.
    Trained,
}

/// Compares two specs, each with the pins of its own sources.
pub fn diff([old, new]: [&Spec; 2], [old_pins, new_pins]: [&Pins; 2]) -> Diff {
    let mut changed = changed_values(old, new);
    changed.extend(changed_data(old_pins, new_pins));
    let assumptions = changed_assumptions(old, new);
    let rename = Rename::new(old, new);
    let old = hash(lower(old, old_pins));
    let new = hash(lower(new, new_pins));
    let had: BTreeSet<Key> = old.graph.ids().map(|id| old.key(id)).collect();
    let mut nodes = ChangedNodes::default();
    let mut severity = if changed.is_empty() {
        DiffEffect::None
    } else {
        DiffEffect::Same
    };
    let mut cost = Cost::default();
    for id in new.graph.ids() {
        let node = new.graph.node(id);
        if had.contains(&new.key(id)) {
            nodes.reused.push(node.name().to_owned());
            continue;
        }
        severity = severity.max(DiffEffect::of(node.kind()));
        if node.kind() == NodeKind::Train {
            cost = cost.plus(segment_cost(&new, id));
        }
        nodes.rerun.push(Rerun {
            name: node.name().to_owned(),
            reason: reason(&old, &new, id, &rename),
        });
    }
    let kept: BTreeSet<&str> = new.graph.names().collect();
    nodes.removed = old
        .graph
        .names()
        .filter(|name| !kept.contains(name))
        .map(String::from)
        .collect();
    nodes.find_shared(|name| new.graph.node(new.graph.find(name)?).origin.trained());
    Diff {
        changed,
        assumptions,
        nodes,
        cost,
        severity,
    }
}

/// Sources with one reference and other content.
fn changed_data(old: &Pins, new: &Pins) -> Vec<ChangedValue> {
    let brief = |pin: &Pin| format!("{} ({})", pin.reference, pin.content.get(..12).unwrap_or(&pin.content));
    let changed = new.iter().filter_map(|(name, new)| {
        let old = old
            .get(name)
            .filter(|old| old.from == new.from && old.content != new.content)?;
        Some(ChangedValue {
            path: format!("source.{name}"),
            old: Some(brief(old)),
            new: Some(brief(new)),
            origin: "data".to_owned(),
        })
    });
    changed.collect()
}

impl DiffEffect {
    /// The severity of rerunning a node of this kind.
    fn of(kind: NodeKind) -> Self {
        match kind {
            NodeKind::Eval | NodeKind::Answers | NodeKind::Judge | NodeKind::Expect | NodeKind::Report => {
                Self::Measured
            }
            _ => Self::Trained,
        }
    }
}

/// Compares two locks: pins, keys, and results of equal keys. `preimage_of` returns the pre-image of a key, if it is
/// known.
///
/// # Errors
/// Those of `preimage_of`.
pub fn locks<E>(old: &Lock, new: &Lock, preimage_of: &dyn Fn(Key) -> Result<Option<Preimage>, E>) -> Result<Diff, E> {
    let mut changed = Vec::new();
    let mut differ = |path: String, old: Option<String>, new: Option<String>| {
        if old != new {
            let origin = "lock".to_string();
            changed.push(ChangedValue { path, old, new, origin });
        }
    };
    let both =
        |old: Vec<&String>, new: Vec<&String>| -> BTreeSet<String> { old.into_iter().chain(new).cloned().collect() };
    differ(
        "libtorch".to_string(),
        Some(old.libtorch.clone()),
        Some(new.libtorch.clone()),
    );
    let class = |lock: &Lock| lock.class.map(|class| class.to_string());
    differ("class".to_string(), class(old), class(new));
    differ(
        "fingerprint".to_string(),
        old.fingerprint.clone(),
        new.fingerprint.clone(),
    );
    for name in both(old.source.keys().collect(), new.source.keys().collect()) {
        let [before, after] = [old, new].map(|lock| lock.source.get(&name).map(LockedSource::brief));
        differ(format!("source.{name}"), before, after);
    }
    let mut nodes = ChangedNodes::default();
    let mut severity = DiffEffect::None;
    for (name, node) in &new.node {
        let before = old.node.get(name);
        if before.is_some_and(|before| before.key == node.key) {
            let result = |lock: &Lock| lock.result.get(name).map(|digest| digest.to_hex());
            if let (Some(old), Some(new)) = (result(old), result(new))
                && old != new
            {
                severity = severity.max(DiffEffect::of(node.kind));
                differ(format!("result.{name}"), Some(old), Some(new));
            }
            nodes.reused.push(name.clone());
            continue;
        }
        severity = severity.max(DiffEffect::of(node.kind));
        let reason = match before {
            None => "new".to_string(),
            Some(before) => match (preimage_of(before.key)?, preimage_of(node.key)?) {
                (Some(old), Some(new)) => list_changes(&changes(&old, &new)),
                _ => "its key differs".to_string(),
            },
        };
        nodes.rerun.push(Rerun {
            name: name.clone(),
            reason,
        });
    }
    nodes.removed = old
        .node
        .keys()
        .filter(|name| !new.node.contains_key(*name))
        .cloned()
        .collect();
    nodes.find_shared(|name| {
        let (name, node) = new.node.get_key_value(name)?;
        node.trained(name)
    });
    if !changed.is_empty() || !nodes.removed.is_empty() {
        severity = severity.max(DiffEffect::Same);
    }
    Ok(Diff {
        changed,
        assumptions: Vec::new(),
        nodes,
        // A lock does not contain the size of its models.
        cost: Cost::default(),
        severity,
    })
}

/// Assumed and unknown values that differ between two specs.
fn changed_assumptions(old: &Spec, new: &Spec) -> Vec<ChangedAssumption> {
    let open = |spec: &Spec| -> BTreeMap<String, String> {
        let weak = |found: &Assumption| matches!(found.kind, AssumptionKind::Assumed | AssumptionKind::Unknown);
        let described = |found: Assumption| {
            let text = match found.kind {
                AssumptionKind::Unknown => found.kind.to_string(),
                _ => format!("{}: {}", found.kind, found.text),
            };
            (found.path, text)
        };
        assumptions(spec).into_iter().filter(weak).map(described).collect()
    };
    let (old, new) = (open(old), open(new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |path: &String| {
        let [old, new] = [&old, &new].map(|side| side.get(path).cloned());
        let path = path.clone();
        (old != new).then_some(ChangedAssumption { path, old, new })
    };
    paths.into_iter().filter_map(change).collect()
}

/// Maps paths of the old experiment to the new one's name, so that a rename alone changes no value.
struct Rename {
    old: String,
    new: String,
}

impl Rename {
    fn new(old: &Spec, new: &Spec) -> Self {
        let prefix = |spec: &Spec| format!("experiment.{}.", spec.name);
        Self {
            old: prefix(old),
            new: prefix(new),
        }
    }

    /// The old values under their new paths.
    fn paths<T>(&self, values: BTreeMap<String, T>) -> BTreeMap<String, T> {
        let renamed = |path: String| match path.strip_prefix(&self.old) {
            Some(rest) => format!("{}{rest}", self.new),
            None => path,
        };
        values.into_iter().map(|(path, value)| (renamed(path), value)).collect()
    }
}

fn reason(old: &Keyed, new: &Keyed, id: NodeId, rename: &Rename) -> String {
    let Some(before) = old.graph.find(new.graph.node(id).name()) else {
        return "new".to_string();
    };
    let mut before = old.preimage(before);
    before.spec = rename.paths(before.spec);
    list_changes(&changes(&before, &new.preimage(id)))
}

impl Cost {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            flops: self.flops + other.flops,
            checkpoint_bytes: self.checkpoint_bytes + other.checkpoint_bytes,
        }
    }
}

/// Returns the cost of one training segment, from the checkpoint before it to its own.
pub fn segment_cost(keyed: &Keyed, id: NodeId) -> Cost {
    let graph = &keyed.graph;
    let Work::Train(fields) = &graph.node(id).work else {
        return Cost::default();
    };
    let before = graph.input(id, &Role::ResumesFrom);
    let from = before
        .and_then(|before| graph.node(before).origin.trained())
        .map_or(0, |(_, step)| step);
    let steps = fields.last_step.saturating_sub(from);
    let tokens = steps * u64::from(fields.global_batch) * u64::from(fields.sequence);
    Cost {
        tokens,
        flops: 6.0 * fields.model.parameters() as f64 * tokens as f64,
        checkpoint_bytes: 12 * fields.model.parameters(),
    }
}

fn changed_values(old: &Spec, new: &Spec) -> Vec<ChangedValue> {
    let (old_values, new_values) = (Rename::new(old, new).paths(old.resolved()), new.resolved());
    let paths: BTreeSet<&String> = old_values.keys().chain(new_values.keys()).collect();
    let differs = |path: &str| {
        let [old, new] = [old_values.get(path), new_values.get(path)];
        old.map(|(text, field)| (text, &field.evidence)) != new.map(|(text, field)| (text, &field.evidence))
    };
    let differing: Vec<&String> = paths.into_iter().filter(|path| differs(path)).collect();
    let mut changed = Vec::new();
    if old.name != new.name {
        changed.push(ChangedValue {
            path: "experiment".to_string(),
            old: Some(old.name.clone()),
            new: Some(new.name.clone()),
            origin: new.file.clone(),
        });
    }
    for path in &differing {
        // A call or list is shown by its arguments or elements that differ.
        let below = format!("{path}.");
        if differing.iter().any(|other| other.starts_with(&below)) {
            continue;
        }
        let [before, after] = [old_values.get(*path), new_values.get(*path)];
        let with_evidence = |(text, field): &(String, &crate::spec::Field)| match &field.evidence {
            Some(evidence) if before.map(|(text, _)| text) == after.map(|(text, _)| text) => {
                format!("{text} {}", evidence.mark())
            }
            _ => text.clone(),
        };
        let origin = match (after, before) {
            (Some((_, field)), _) => new.place(&field.origin),
            (None, Some((_, field))) => old.place(&field.origin),
            (None, None) => None,
        };
        let origin = origin.unwrap_or_else(|| "default".to_string());
        changed.push(ChangedValue {
            path: (*path).clone(),
            old: before.map(with_evidence),
            new: after.map(with_evidence),
            origin,
        });
    }
    changed
}
