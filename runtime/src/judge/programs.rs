//! Programs that a model has completed: each is run, and has passed if it comes to its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_compiler::fields::JudgeFields;
use rayon::prelude::*;
use serde_json::Value;

use super::Inputs;
use crate::progress::{Cancelled, Unit};
use crate::task::{ItemResult, TaskError, Template, TemplateError, Verdict, pass_at_k, read};

#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    #[error(transparent)]
    Items(#[from] TaskError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("the program of {item}: {source}")]
    Program { item: String, source: TemplateError },
    #[error("{item} is none of the items")]
    NoItem { item: String },
    #[error("{0}")]
    Sandbox(String),
}

/// Runs the programs of all answers, each once, and scores the items. Returns what the scores stand on: the interpreter
/// and what shuts it in.
pub(super) fn run(
    fields: &JudgeFields,
    results: &mut [ItemResult],
    inputs: &Inputs<'_>,
) -> Result<String, ProgramsError> {
    let JudgeFields::Programs { files, program, k, .. } = fields else {
        return Ok(String::new());
    };
    let items: BTreeMap<String, Value> = read(inputs.items, files)?.into_iter().collect();
    let template = |source| ProgramsError::Program {
        item: "the eval".to_owned(),
        source,
    };
    let program = Template::new(program).map_err(template)?;
    let mut programs = Vec::new();
    for (number, result) in results.iter().enumerate() {
        let item = items.get(&result.item).ok_or_else(|| ProgramsError::NoItem {
            item: result.item.clone(),
        })?;
        for completion in &result.answers {
            let mut members = item.clone();
            if let Value::Object(members) = &mut members {
                members.insert("completion".to_owned(), Value::String(completion.clone()));
            }
            let text = program.fill(&members).map_err(|source| ProgramsError::Program {
                item: result.item.clone(),
                source,
            })?;
            programs.push((number, text));
        }
    }
    let done = AtomicU64::new(0);
    let total = programs.len() as u64;
    let verdicts = programs.par_iter().map(|(number, text)| {
        inputs.watch.check()?;
        let verdict = one(text)?;
        inputs.watch.report(done.fetch_add(1, Ordering::Relaxed) + 1, Some(total), Unit::Programs);
        Ok((*number, verdict))
    });
    for (number, verdict) in verdicts.collect::<Result<Vec<_>, ProgramsError>>()? {
        results[number].verdicts.push(verdict);
    }
    for result in results {
        let samples = result.verdicts.len() as u64;
        let passed = result.verdicts.iter().filter(|verdict| verdict.score == 1.0).count() as u64;
        for k in k {
            let score = pass_at_k(samples, passed, u64::from(*k));
            result.scores.insert(format!("pass@{k}"), score);
        }
    }
    Ok(String::new())
}

fn one(_program: &str) -> Result<Verdict, ProgramsError> {
    Err(ProgramsError::Sandbox("no sandbox yet".to_owned()))
}
