//! What changes between two specs: values, and the work that follows.
//!
//! In: two checked specs with the same pins. Out: changed values with old and new, and which nodes rerun, are reused or
//! fall away. Not here: git (`cli`), stores (a diff speaks of keys, not of what happens to be cached).

use std::collections::BTreeSet;

use serde::Serialize;

use crate::fields::TrainFields;
use crate::graph::{Kind, Pins, lower};
use crate::hash::{Key, Keyed, hash};
use crate::spec::Spec;
use crate::why::{Change, changes};

#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub changed: Vec<ChangedValue>,
    pub nodes: ChangedNodes,
    pub cost: Cost,
    pub severity: Severity,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedValue {
    pub path: String,
    pub old: Option<String>,
    pub new: Option<String>,
    /// Where the new value (the old one, if there is no new one) stands.
    pub origin: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct ChangedNodes {
    pub rerun: Vec<Rerun>,
    pub reused: Vec<String>,
    pub removed: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Rerun {
    pub name: String,
    pub reason: String,
}

/// What the nodes that rerun train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub tokens: u64,
    /// 6 × parameters × tokens.
    pub flops: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing differs.
    None,
    /// Words, layout or placement: no bit of a result.
    Same,
    /// Evals, gates or reports.
    Measured,
    /// Data, tokens or training.
    Trained,
}

/// Compares two specs whose sources are pinned alike.
pub fn diff(old: &Spec, new: &Spec, pins: &Pins) -> Diff {
    let changed = changed_values(old, new);
    let old = hash(lower(old, pins));
    let new = hash(lower(new, pins));
    let had: BTreeSet<Key> = old.graph.ids().map(|id| old.key(id)).collect();
    let mut nodes = ChangedNodes::default();
    let mut severity = if changed.is_empty() {
        Severity::None
    } else {
        Severity::Same
    };
    let mut cost = Cost::default();
    for id in new.graph.ids() {
        let node = new.graph.node(id);
        if had.contains(&new.key(id)) {
            nodes.reused.push(node.name.clone());
            continue;
        }
        severity = severity.max(match node.kind {
            Kind::Eval | Kind::Expect | Kind::Report => Severity::Measured,
            _ => Severity::Trained,
        });
        if node.kind == Kind::Train {
            cost = cost.plus(segment_cost(&new, id));
        }
        nodes.rerun.push(Rerun {
            name: node.name.clone(),
            reason: reason(&old, &new, id),
        });
    }
    let kept: BTreeSet<&str> = new.graph.names().collect();
    nodes.removed = old
        .graph
        .names()
        .filter(|name| !kept.contains(name))
        .map(String::from)
        .collect();
    Diff {
        changed,
        nodes,
        cost,
        severity,
    }
}

fn reason(old: &Keyed, new: &Keyed, id: crate::graph::NodeId) -> String {
    let Some(before) = old.graph.find(&new.graph.node(id).name) else {
        return "new".to_string();
    };
    let why = changes(&old.preimage(before), &new.preimage(id));
    why.iter().map(Change::to_string).collect::<Vec<_>>().join("; ")
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            flops: self.flops + other.flops,
        }
    }
}

/// Returns what one segment trains, from the checkpoint before it to its own.
pub fn segment_cost(keyed: &Keyed, id: crate::graph::NodeId) -> Cost {
    let node = keyed.graph.node(id);
    let Ok(fields) = serde_json::from_value::<TrainFields>(node.fields.clone()) else {
        return Cost::default();
    };
    let before = keyed.graph.inputs(id).find(|input| !input.identity);
    let from = before
        .and_then(|input| keyed.graph.node(input.node).name.split_once('@')?.1.parse().ok())
        .unwrap_or(0);
    let steps = fields.last_step.saturating_sub(from);
    let tokens = steps * u64::from(fields.global_batch) * u64::from(fields.sequence);
    Cost {
        tokens,
        flops: 6.0 * fields.model.parameters() as f64 * tokens as f64,
    }
}

fn changed_values(old: &Spec, new: &Spec) -> Vec<ChangedValue> {
    let (old_values, new_values) = (old.resolved(), new.resolved());
    let paths: BTreeSet<&String> = old_values.keys().chain(new_values.keys()).collect();
    let differs = |path: &str| {
        let [old, new] = [old_values.get(path), new_values.get(path)];
        old.map(|(text, field)| (text, &field.evidence)) != new.map(|(text, field)| (text, &field.evidence))
    };
    let differing: Vec<&String> = paths.into_iter().filter(|path| differs(path)).collect();
    let mut changed = Vec::new();
    for path in &differing {
        // A call or list is shown by those of its parts that differ.
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
