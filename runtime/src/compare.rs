//! Where two results of one node part: the first step of their trails, the first tensor, the first file.

use std::collections::BTreeMap;
use std::fmt;

use aurora_compiler::graph::{Kind, NodeId};
use aurora_compiler::hash::Keyed;
use camino::Utf8Path;
use serde::Serialize;

use crate::job::TrailStep;
use crate::store::{Record, Store};

/// The first thing that differs between two results of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    pub node: String,
    /// First file whose bytes differ.
    pub file: Option<String>,
    /// First step whose trail differs, and what of it.
    pub step: Option<u64>,
    pub of_step: Option<String>,
    /// First tensor (by name) whose bytes differ.
    pub tensor: Option<String>,
    /// Why there is no finer answer.
    pub note: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}`", self.node)?;
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        if let Some(what) = &self.of_step {
            write!(f, " ({what})")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, ", tensor `{tensor}`")?;
        }
        if let Some(file) = &self.file {
            write!(f, ", file `{file}`")?;
        }
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        Ok(())
    }
}

/// Looks for the first difference of a node between the store of the first run and that of its repetition.
pub fn first_difference(keyed: &Keyed, id: NodeId, first: &Store, second: &Store) -> Difference {
    let node = keyed.graph.node(id);
    let mut found = Difference {
        node: node.name().to_owned(),
        ..Difference::default()
    };
    let (Some(old), Some(new)) = (first.record(keyed.key(id)), second.record(keyed.key(id))) else {
        found.note = Some("the first run's result is not in the store, only its digest in the lock".to_string());
        return found;
    };
    found.file = old
        .outputs
        .keys()
        .chain(new.outputs.keys())
        .find(|name| old.outputs.get(*name) != new.outputs.get(*name))
        .cloned();
    if found.file.is_none() {
        found.note = Some("the store agrees with the repetition: the lock's digest is another".to_string());
        return found;
    }
    if node.kind() == Kind::Train {
        let path =
            |store: &Store, record: &Record, name: &str| Some(store.object_path(&record.outputs.get(name)?.content));
        if let (Some(old_trail), Some(new_trail)) =
            (path(first, &old, "trail.jsonl"), path(second, &new, "trail.jsonl"))
            && let Some((step, what)) = first_step(&old_trail, &new_trail)
        {
            (found.step, found.of_step) = (Some(step), Some(what));
        }
        let differing = old.outputs.keys().filter(|name| name.ends_with(".safetensors"));
        for name in differing.filter(|name| old.outputs.get(*name) != new.outputs.get(*name)) {
            if let (Some(a), Some(b)) = (path(first, &old, name), path(second, &new, name)) {
                found.tensor = first_tensor(&a, &b);
                break;
            }
        }
    }
    found
}

fn first_step(old: &Utf8Path, new: &Utf8Path) -> Option<(u64, String)> {
    first_step_of(&trail(old).ok()?, &trail(new).ok()?)
}

/// The steps of a trail, up to the first line that is none.
///
/// # Errors
/// The file cannot be read.
pub fn trail(path: &Utf8Path) -> std::io::Result<Vec<TrailStep>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// The first step that both trails have and in which they differ, and in what.
pub fn first_step_of(old: &[TrailStep], new: &[TrailStep]) -> Option<(u64, String)> {
    let new: BTreeMap<u64, &TrailStep> = new.iter().map(|step| (step.step, step)).collect();
    old.iter().find_map(|before| {
        let after = new.get(&before.step)?;
        let what = if before.batch != after.batch {
            "batch".to_string()
        } else if before.learning_rate != after.learning_rate {
            "learning rate".to_string()
        } else if before.loss != after.loss {
            "loss".to_string()
        } else if before.grad_norm != after.grad_norm {
            "gradient norm".to_string()
        } else {
            let group = before
                .groups
                .iter()
                .find(|(name, digest)| after.groups.get(*name) != Some(digest))?
                .0;
            format!("weights of {group}")
        };
        Some((before.step, what))
    })
}

fn first_tensor(old: &Utf8Path, new: &Utf8Path) -> Option<String> {
    let (old, new) = (std::fs::read(old).ok()?, std::fs::read(new).ok()?);
    let old = safetensors::SafeTensors::deserialize(&old).ok()?;
    let new = safetensors::SafeTensors::deserialize(&new).ok()?;
    let mut names = old.names();
    names.sort();
    names
        .into_iter()
        .find(|name| {
            old.tensor(name).ok().map(|t| t.data().to_vec()) != new.tensor(name).ok().map(|t| t.data().to_vec())
        })
        .map(String::from)
}
