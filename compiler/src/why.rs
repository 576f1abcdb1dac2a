//! Why the key of a node has changed.
//!
//! In: the old and the new pre-image of the key. Out: the changes, causes first. Not here: where the old pre-image is kept
//! (the store).

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::hash::Preimage;

/// Changes as one line of text.
pub fn list_changes(changes: &[KeyChange]) -> String {
    let texts: Vec<String> = changes.iter().map(KeyChange::to_string).collect();
    texts.join("; ")
}

/// One difference between two pre-images of a node.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum KeyChange {
    /// A value of the spec, by its path.
    Spec {
        path: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// A field of the node that does not come from a value of the spec, such as the content of a source.
    Field {
        path: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// An input has another key than before.
    Input { role: String, name: String },
    /// Inputs were added or removed.
    Inputs { old: Vec<String>, new: Vec<String> },
    /// Aurora has changed the meaning of this kind of node.
    Meaning { kind: String, old: u32, new: u32 },
}

fn arrow(f: &mut fmt::Formatter<'_>, path: &str, old: &Option<String>, new: &Option<String>) -> fmt::Result {
    let show = |value: &Option<String>| value.clone().map_or("(not set)".to_string(), |value| shorten(&value));
    write!(f, "{path}: {} → {}", show(old), show(new))
}

fn shorten(value: &str) -> String {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        value[..12].to_string()
    } else {
        value.to_string()
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec { path, old, new } | Self::Field { path, old, new } => arrow(f, path, old, new),
            Self::Input { role, name } => write!(f, "{role} `{name}` changed"),
            Self::Inputs { old, new } => write!(f, "inputs: {} → {}", old.join(", "), new.join(", ")),
            Self::Meaning { kind, old, new } => write!(f, "version of `{kind}` nodes: {old} → {new}"),
        }
    }
}

fn differences<'a>(
    old: &'a std::collections::BTreeMap<String, String>,
    new: &'a std::collections::BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a String, Option<&'a String>, Option<&'a String>)> {
    let paths: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    paths
        .into_iter()
        .map(|path| (path, old.get(path), new.get(path)))
        .filter(|(_, old, new)| old != new)
}

/// Returns the differences in this order: the kind's version, the node's own fields, its inputs.
pub fn changes(old: &Preimage, new: &Preimage) -> Vec<KeyChange> {
    let mut found = Vec::new();
    if (&old.kind, old.version) != (&new.kind, new.version) {
        found.push(KeyChange::Meaning {
            kind: new.kind.clone(),
            old: old.version,
            new: new.version,
        });
    }
    if old.fields != new.fields || old.unknown != new.unknown {
        let spec: Vec<KeyChange> = differences(&old.spec, &new.spec)
            // A call or a list is shown by its changed arguments or elements, which have paths of their own.
            .filter(|(path, _, _)| {
                let below = format!("{path}.");
                !differences(&old.spec, &new.spec).any(|(other, _, _)| other.starts_with(&below))
            })
            .map(|(path, old, new)| KeyChange::Spec {
                path: path.clone(),
                old: old.cloned(),
                new: new.cloned(),
            })
            .collect();
        let fields = || {
            differences(&old.fields, &new.fields).map(|(path, old, new)| KeyChange::Field {
                path: path.clone(),
                old: old.cloned(),
                new: new.cloned(),
            })
        };
        if spec.is_empty() {
            found.extend(fields())
        } else {
            found.extend(spec)
        }
    }
    let names = |preimage: &Preimage| -> Vec<String> {
        preimage
            .inputs
            .iter()
            .map(|input| format!("{} {}", input.role, input.name))
            .collect()
    };
    if names(old) == names(new) {
        let changed = old
            .inputs
            .iter()
            .zip(&new.inputs)
            .filter(|(old, new)| old.key != new.key);
        found.extend(changed.map(|(_, new)| KeyChange::Input {
            role: new.role.clone(),
            name: new.name.clone(),
        }));
    } else {
        let only = |here: &Preimage, there: &Preimage| -> Vec<String> {
            let there = names(there);
            names(here).into_iter().filter(|name| !there.contains(name)).collect()
        };
        found.push(KeyChange::Inputs {
            old: only(old, new),
            new: only(new, old),
        });
        let changed = new.inputs.iter().filter(|input| {
            old.inputs
                .iter()
                .any(|before| (&before.role, &before.name) == (&input.role, &input.name) && before.key != input.key)
        });
        found.extend(changed.map(|input| KeyChange::Input {
            role: input.role.clone(),
            name: input.name.clone(),
        }));
    }
    found
}
