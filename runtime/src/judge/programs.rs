//! Runs programs that a model has completed; a program passes if it runs to its end.
//!
//! Not here: a program of the user that judges answers (`external`), the sandbox (`aurora-sandbox`).

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aurora_compiler::fields::JudgeFields;
use aurora_sandbox::python::{self, Python};
use aurora_sandbox::{Limits, ProgramEnd, SandboxError, Unprotected, protection};
use rayon::prelude::*;
use regex::Regex;
use serde_json::Value;

use super::Inputs;
use crate::data::template::{Template, TemplateError};
use crate::progress::{Cancelled, ProgressUnit};
use crate::task::{ItemResult, JudgeVerdict, TaskError, pass_at_k, read};

#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    #[error(transparent)]
    Items(#[from] TaskError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("cannot fill in the program of {item}")]
    Program { item: String, source: TemplateError },
    #[error("{item} is not one of the items")]
    NoItem { item: String },
    #[error("programs of a model are not run here: {why}; {}, or set `unprotected = true` in the eval to accept the risk", .why.help())]
    Unprotected { why: Unprotected },
    #[error("no Python runs in the sandbox: it must be /usr/bin/python3 or /usr/local/bin/python3")]
    NoPython,
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// An address in memory, as Python prints it with an object. Not every machine gives a program the same ones in every run.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| Regex::new("0x[0-9a-f]{8,16}").expect("a valid pattern"));

/// Bytes of a program's output; a program with more is killed.
const OUTPUT: u64 = 1 << 20;

/// Runs the programs of all answers, each once, and scores the items. Returns what the scores depend on: the interpreter
/// and its sandbox.
pub(super) fn run(
    fields: &JudgeFields,
    results: &mut [ItemResult],
    inputs: &Inputs<'_>,
) -> Result<String, ProgramsError> {
    let JudgeFields::Programs {
        files,
        program,
        k,
        seconds,
        memory,
        unprotected,
    } = fields
    else {
        return Ok(String::new());
    };
    let protection = match protection(inputs.hidden) {
        Ok(protection) => protection,
        Err(why) if *unprotected => why.anyway(),
        Err(why) => return Err(ProgramsError::Unprotected { why }),
    };
    let time = Duration::from_secs(u64::from(*seconds));
    // CPU time decides. Wall-clock time ends programs that wait for something; it does not count what they wait for a processor,
    // because a verdict must not depend on the load of the machine.
    // The same limits on a machine without namespaces: one process, and no file besides its own.
    let limits = Limits {
        wall: 4 * time,
        cpu: time,
        memory: *memory,
        processes: 1,
        output: OUTPUT,
        files: 0,
        network: false,
    };
    let python = Python::find(&protection)?.ok_or(ProgramsError::NoPython)?;
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
        inputs.progress.check()?;
        let verdict = python.check(&protection, text, &limits, &|| inputs.progress.check().is_err());
        inputs.progress.check()?;
        let verdict = words(&verdict?);
        inputs.progress.report(
            done.fetch_add(1, Ordering::Relaxed) + 1,
            Some(total),
            ProgressUnit::Programs,
        );
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
    Ok(format!("Python {}, {protection}", python.version))
}

/// The verdict of a program as text: for a failed one, the last line of its output.
fn words(verdict: &python::PythonVerdict) -> JudgeVerdict {
    let output = String::from_utf8_lossy(&verdict.outcome.output);
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let words = match verdict.outcome.ended {
        _ if verdict.passed => "passed".to_owned(),
        ProgramEnd::Exit(0) => "left before its end".to_owned(),
        ProgramEnd::Exit(_) => format!("failed: {}", ADDRESS.replace_all(last, "0x…")),
        ProgramEnd::Signal(signal) => format!("ended by signal {signal}"),
        ProgramEnd::OutOfTime => "out of time".to_owned(),
        ProgramEnd::TooMuchOutput => "too much output".to_owned(),
    };
    JudgeVerdict {
        score: f64::from(u8::from(verdict.passed)),
        words,
    }
}
