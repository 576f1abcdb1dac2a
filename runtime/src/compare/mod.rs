//! Compares two executions of one graph.
//!
//! In: their results. Out: the first difference of two results of one node (the first step of their step logs, the first
//! tensor, the first file); for two numerics classes whether losses and scores agree within a tolerance.

mod across_classes;

use std::collections::BTreeMap;
use std::fmt;

use aurora_compiler::graph::{NodeId, NodeKind};
use camino::Utf8Path;
use serde::Serialize;

pub use across_classes::{ClassComparison, tolerance};

use crate::checkpoint::STEP_LOG;
use crate::job::StepLogLine;
use crate::results::Results;
use crate::store::{Record, StoreError};

/// The first thing that differs between two results of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ResultDifference {
    pub node: String,
    /// First file whose bytes differ.
    pub file: Option<String>,
    /// First step whose log entry differs, and in what.
    pub step: Option<u64>,
    pub of_step: Option<String>,
    /// First tensor (by name) whose bytes differ.
    pub tensor: Option<String>,
    /// Why the difference is not known more precisely.
    pub note: Option<String>,
}

impl fmt::Display for ResultDifference {
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

/// Finds the first difference of a node between the store of the first run and that of its repetition.
///
/// # Errors
/// A record of the node cannot be read.
pub fn first_difference(id: NodeId, first: &Results<'_>, second: &Results<'_>) -> Result<ResultDifference, StoreError> {
    let node = first.node(id);
    let mut found = ResultDifference {
        node: node.name().to_owned(),
        ..ResultDifference::default()
    };
    let (Some(old), Some(new)) = (first.find(id)?, second.find(id)?) else {
        found.note = Some("the first run's result is not in the store, only its digest in the lock".to_string());
        return Ok(found);
    };
    found.file = old
        .outputs
        .keys()
        .chain(new.outputs.keys())
        .find(|name| old.outputs.get(*name) != new.outputs.get(*name))
        .cloned();
    if found.file.is_none() {
        found.note = Some("the store agrees with the repetition, but the digest in the lock differs".to_string());
        return Ok(found);
    }
    if node.kind() == NodeKind::Train {
        let path = |of: &Results<'_>, record: &Record, name: &str| {
            Some(of.store.object_path(&record.outputs.get(name)?.content))
        };
        if let (Some(old_log), Some(new_log)) = (path(first, &old, STEP_LOG), path(second, &new, STEP_LOG))
            && let Some((step, what)) = first_step(&old_log, &new_log)
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
    Ok(found)
}

fn first_step(old: &Utf8Path, new: &Utf8Path) -> Option<(u64, String)> {
    first_step_of(&read_step_log(old).ok()?, &read_step_log(new).ok()?)
}

/// The entries of a step log, up to the first invalid line.
///
/// # Errors
/// The file cannot be read.
pub fn read_step_log(path: &Utf8Path) -> std::io::Result<Vec<StepLogLine>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// The first step that both logs have and in which they differ, and in what.
pub fn first_step_of(old: &[StepLogLine], new: &[StepLogLine]) -> Option<(u64, String)> {
    let new: BTreeMap<u64, &StepLogLine> = new.iter().map(|step| (step.step, step)).collect();
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
