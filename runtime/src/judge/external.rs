//! External judges: what can go wrong with them, and judging by a program that reads answers and writes verdicts.
//!
//! Not here: programs that a model has completed (`programs`), judging by a model behind an API (`endpoint`).

use std::path::Path;

use aurora_compiler::fields::Need;
use aurora_sandbox::{Limits, Program, ProgramEnd, SandboxError, Unprotected, protection};
use serde::{Deserialize, Serialize};

use super::Inputs;
use crate::data::template::TemplateError;
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressUnit};
use crate::source::archive::InputFile;
use crate::source::client::{ClientError, last_lines};
use crate::task::{ItemResult, JudgeVerdict};
use crate::trust::Action;

/// Folders of the programs that the sandbox shows.
const PROGRAMS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Processes and threads of a judge, and the address space of each, in bytes.
const PROCESSES: u32 = 16;
const MEMORY: u64 = 8 << 30;

/// Bytes that a judge may write: to its folder, and as its output.
const FILES: u64 = 256 << 20;
const OUTPUT: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ExternalJudgeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("you have not allowed this judge, which {action}; run `aurora trust SPEC` after looking at it")]
    NotAllowed { action: Action },
    #[error("a judge's program is not run here: {why}; {}", .why.help())]
    Unprotected { why: Unprotected },
    #[error("the judge's program `{name}` is not in {}: the sandbox shows no other programs", PROGRAMS.join(", "))]
    NoProgram { name: String },
    #[error("the judge `{program}` cannot be run")]
    Sandbox { program: String, source: SandboxError },
    #[error(
        "the judge `{program}` has not ended in {seconds} s: give it more time with `timeout` in `command(…)`, or fewer answers \
         with `limit` in the eval"
    )]
    OutOfTime { program: String, seconds: u64 },
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

/// The files of a judge's program, in memory.
///
/// # Errors
/// One cannot be read.
pub(super) fn read(files: &[InputFile]) -> Result<Vec<(String, Vec<u8>)>, FileError> {
    let read = |file: &InputFile| {
        let bytes = std::fs::read(&file.path).map_err(FileError::reading(&file.path))?;
        Ok((file.name.clone(), bytes))
    };
    files.iter().map(read).collect()
}

/// The command with the path of its program, which has no variables to search for it.
fn command(run: &[String]) -> Result<Vec<String>, ExternalJudgeError> {
    let mut command = run.to_vec();
    if let Some(name) = command.first_mut()
        && !name.contains('/')
    {
        let mut paths = PROGRAMS.iter().map(|folder| format!("{folder}/{name}"));
        let found = paths.find(|path| Path::new(path).is_file());
        *name = found.ok_or_else(|| ExternalJudgeError::NoProgram { name: name.clone() })?;
    }
    Ok(command)
}

/// The verdicts of a program on all answers, in their order. It runs in the sandbox, with copies of its files.
///
/// # Errors
/// The program cannot be run, takes too long, or does not give a finite number for every answer.
pub(super) fn program(
    run: &[String],
    needs: &[Need],
    files: Vec<(String, Vec<u8>)>,
    results: &[ItemResult],
    inputs: &Inputs<'_>,
) -> Result<Vec<JudgeVerdict>, ExternalJudgeError> {
    let program = run.join(" ");
    let command = command(run)?;
    let protection = protection(inputs.hidden).map_err(|why| ExternalJudgeError::Unprotected { why })?;
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
    let limits = protection.fit(Limits {
        wall: inputs.timeout,
        // Only its time from start to end is limited.
        cpu: inputs.timeout.saturating_mul(PROCESSES),
        memory: MEMORY * u64::from(PROCESSES),
        processes: PROCESSES,
        output: OUTPUT,
        files: FILES,
        network: needs.contains(&Need::Network),
    });
    let confined = Program {
        command,
        files,
        stdin: lines.into_bytes(),
        errors_apart: true,
    };
    let outcome = protection.run(&confined, &limits, &|| inputs.progress.check().is_err());
    inputs.progress.check()?;
    let outcome = outcome.map_err(|source| ExternalJudgeError::Sandbox {
        program: program.clone(),
        source,
    })?;
    let output = String::from_utf8_lossy(&outcome.output);
    let failed = |how: String| {
        let cause = last_lines(&String::from_utf8_lossy(&outcome.errors), &output);
        ExternalJudgeError::Failed {
            program: program.clone(),
            cause: format!("{how}\n{cause}").trim_end().to_owned(),
        }
    };
    match outcome.ended {
        ProgramEnd::Exit(0) => {}
        ProgramEnd::Exit(status) => return Err(failed(format!("it ended with status {status}"))),
        ProgramEnd::Signal(signal) => return Err(failed(format!("it was ended by signal {signal}"))),
        ProgramEnd::TooMuchOutput => return Err(failed(format!("it wrote more than {OUTPUT} bytes"))),
        ProgramEnd::OutOfTime => {
            let seconds = inputs.timeout.as_secs();
            return Err(ExternalJudgeError::OutOfTime { program, seconds });
        }
    }
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
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
