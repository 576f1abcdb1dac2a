//! External judges: what can go wrong with them, and judging by a program that reads answers and writes verdicts.
//!
//! Not here: programs that a model has completed (`programs`), judging by a model behind an API (`endpoint`).

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::Inputs;
use crate::data::template::TemplateError;
use crate::progress::{Cancelled, ProgressUnit};
use crate::source::client::{self, ClientError};
use crate::task::{ItemResult, JudgeVerdict};

#[derive(Debug, thiserror::Error)]
pub enum ExternalJudgeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("cannot copy the judge's files into a folder")]
    Folder(#[source] std::io::Error),
    #[error("the judge `{program}` failed: {cause}")]
    Failed { program: String, cause: String },
    #[error("the judge `{program}` wrote {found} lines for {expected} answers")]
    Lines {
        program: String,
        found: usize,
        expected: usize,
    },
    #[error("line {line} of the judge `{program}` is not a valid verdict: {cause}")]
    InvalidVerdict {
        program: String,
        line: usize,
        cause: String,
    },
    #[error("the question to the judge cannot be filled in")]
    Question(#[from] TemplateError),
    #[error("the judge at `{url}` gives no verdict: {cause}")]
    Endpoint { url: String, cause: String },
}

/// An answer, as a line for the judge.
#[derive(Serialize)]
struct AnswerLine<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attack: Option<&'a str>,
    sets: &'a [String],
    prompt: &'a str,
    response: &'a str,
}

/// A verdict, as a line of the judge; other members are ignored.
#[derive(Deserialize)]
struct VerdictLine {
    score: f64,
    #[serde(default)]
    words: String,
}

/// The verdicts of a program on all answers, in their order.
///
/// # Errors
/// The program cannot be run, or does not give a finite number for every answer.
pub(super) fn program(
    run: &[String],
    results: &[ItemResult],
    inputs: &Inputs<'_>,
) -> Result<Vec<JudgeVerdict>, ExternalJudgeError> {
    let program = run.join(" ");
    let folder = tempfile::tempdir().map_err(ExternalJudgeError::Folder)?;
    let place = Utf8Path::from_path(folder.path()).ok_or_else(|| {
        ExternalJudgeError::Folder(std::io::Error::other("the folder for temporary files is not UTF-8"))
    })?;
    for file in inputs.program {
        copy(&file.path, &place.join(&file.name)).map_err(ExternalJudgeError::Folder)?;
    }
    let mut lines = String::new();
    let mut expected = 0;
    for result in results {
        for response in &result.answers {
            let answer = AnswerLine {
                item: &result.item,
                attack: result.attack.as_deref(),
                sets: &result.sets,
                prompt: &result.prompt,
                response,
            };
            lines.push_str(&serde_json::to_string(&answer).expect("texts are JSON"));
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
    let output = client::run_fed(&mut command, &lines, remedy, inputs.progress)?;
    if !output.status.success() {
        let cause = output.cause();
        return Err(ExternalJudgeError::Failed { program, cause });
    }
    let lines: Vec<&str> = output.out.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() != expected {
        return Err(ExternalJudgeError::Lines {
            program,
            found: lines.len(),
            expected,
        });
    }
    let verdict = |(line, text): (usize, &str)| {
        let invalid = |cause: String| ExternalJudgeError::InvalidVerdict {
            program: program.clone(),
            line,
            cause,
        };
        let VerdictLine { score, words } = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if !score.is_finite() {
            return Err(invalid("the score is not a number".to_owned()));
        }
        Ok(JudgeVerdict { score, words })
    };
    let verdicts = (1..).zip(lines).map(verdict).collect::<Result<Vec<_>, _>>()?;
    inputs
        .progress
        .report(expected as u64, Some(expected as u64), ProgressUnit::Answers);
    Ok(verdicts)
}

fn copy(from: &Utf8PathBuf, to: &Utf8Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to).map(drop)
}
