//! Judges outside of Aurora: a program that is fed lines, or a model behind an interface.

use std::process::Command;

use aurora_compiler::fields::Judge;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{Inputs, endpoint};
use crate::data::template::TemplateError;
use crate::progress::{Cancelled, Unit};
use crate::source::client::{self, ClientError};
use crate::task::{ItemResult, Verdict};

#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("cannot put the judge's files into a folder: {0}")]
    Folder(std::io::Error),
    #[error("the judge `{program}` has failed: {cause}")]
    Failed { program: String, cause: String },
    #[error("the judge `{program}` has written {found} lines for {expected} answers")]
    Lines {
        program: String,
        found: usize,
        expected: usize,
    },
    #[error("line {line} of the judge `{program}` is no verdict: {cause}")]
    NoVerdict {
        program: String,
        line: usize,
        cause: String,
    },
    #[error("the question to the judge: {0}")]
    Question(#[from] TemplateError),
    #[error("the judge at `{url}` cannot be asked: {cause}")]
    Endpoint { url: String, cause: String },
}

/// What a judge is told of an answer.
#[derive(Serialize)]
struct Told<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attack: Option<&'a str>,
    sets: &'a [String],
    prompt: &'a str,
    response: &'a str,
}

/// What a judge says; whatever else stands in its line is left alone.
#[derive(Deserialize)]
struct Said {
    score: f64,
    #[serde(default)]
    words: String,
}

/// The verdicts of an outside judge on all answers, in their order.
///
/// # Errors
/// The judge cannot be asked, or does not say a finite number for every answer.
pub(super) fn ask(judge: &Judge, results: &[ItemResult], inputs: &Inputs<'_>) -> Result<Vec<Verdict>, OutsideError> {
    match judge {
        Judge::Program { run } => program(run, results, inputs),
        Judge::Endpoint {
            url,
            model,
            question,
            yes,
        } => endpoint::ask(
            &endpoint::Endpoint {
                url,
                model,
                question,
                yes,
            },
            results,
            inputs,
        ),
        Judge::Rules { .. } => Ok(Vec::new()),
    }
}

fn program(run: &[String], results: &[ItemResult], inputs: &Inputs<'_>) -> Result<Vec<Verdict>, OutsideError> {
    let program = run.join(" ");
    let folder = tempfile::tempdir().map_err(OutsideError::Folder)?;
    let place = Utf8Path::from_path(folder.path())
        .ok_or_else(|| OutsideError::Folder(std::io::Error::other("the folder for temporary files is not UTF-8")))?;
    for file in inputs.program {
        put(&file.path, &place.join(&file.name)).map_err(OutsideError::Folder)?;
    }
    let mut lines = String::new();
    let mut expected = 0;
    for result in results {
        for response in &result.answers {
            let told = Told {
                item: &result.item,
                attack: result.attack.as_deref(),
                sets: &result.sets,
                prompt: &result.prompt,
                response,
            };
            lines.push_str(&serde_json::to_string(&told).expect("texts are JSON"));
            lines.push('\n');
            expected += 1;
        }
    }
    let Some((name, arguments)) = run.split_first() else {
        return Ok(Vec::new());
    };
    let mut command = Command::new(name);
    command.args(arguments).current_dir(place);
    let remedy = "the spec names it as the judge's program";
    let output = client::run_fed(&mut command, &lines, remedy, inputs.watch)?;
    if !output.status.success() {
        let cause = output.cause();
        return Err(OutsideError::Failed { program, cause });
    }
    let said: Vec<&str> = output.out.lines().filter(|line| !line.trim().is_empty()).collect();
    if said.len() != expected {
        return Err(OutsideError::Lines {
            program,
            found: said.len(),
            expected,
        });
    }
    let verdict = |(line, text): (usize, &str)| {
        let no_verdict = |cause: String| OutsideError::NoVerdict {
            program: program.clone(),
            line,
            cause,
        };
        let Said { score, words } = serde_json::from_str(text).map_err(|error| no_verdict(error.to_string()))?;
        if !score.is_finite() {
            return Err(no_verdict("the score is not a number".to_owned()));
        }
        Ok(Verdict { score, words })
    };
    let verdicts = (1..).zip(said).map(verdict).collect::<Result<Vec<_>, _>>()?;
    inputs
        .watch
        .report(expected as u64, Some(expected as u64), Unit::Answers);
    Ok(verdicts)
}

fn put(from: &Utf8PathBuf, to: &Utf8Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to).map(drop)
}
