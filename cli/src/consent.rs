//! The user's consent to what a spec does outside of Aurora: programs that judge, and servers that receive answers and keys.
//!
//! In: a spec and its graph. Out: the digests of what the user has allowed. Not here: what needs consent and where it is
//! kept (`aurora_runtime::trust`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use aurora_compiler::graph::{Graph, Pins};
use aurora_compiler::spec::{Block, BlockId, BlockKind, Spec, Value};
use aurora_runtime::pin::local_among;
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::trust::{Grants, JudgeOptions, Request, TrustError, program_sources, requests};

use crate::arguments::VariantSelection;
use crate::failure::Failure;
use crate::project::{Loaded, Project};
use crate::stdio::errln;

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        Self {
            help: error.help().map(str::to_owned),
            ..Self::from_error(&error)
        }
    }
}

/// What the spec says about judges, by eval.
pub fn judges(spec: &Spec) -> BTreeMap<String, JudgeOptions> {
    let evals = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Eval);
    let options = |(id, block): (&BlockId, &Block)| {
        let judge = block.fields.get("judge")?;
        let secret = match judge.argument("secret").map(|secret| &secret.value) {
            Some(Value::Text(name)) => Some(name.clone()),
            _ => None,
        };
        let timeout = match judge.argument("timeout").map(|timeout| &timeout.value) {
            Some(Value::Quantity(seconds, _)) => Duration::from_secs(*seconds),
            _ => Duration::MAX,
        };
        Some((id.name.clone(), JudgeOptions { secret, timeout }))
    };
    evals.filter_map(options).collect()
}

/// What the judges of a graph do outside of Aurora. `pins` has the pins of a lock; local programs are read.
pub fn wanted(project: &Project, spec: &Spec, graph: &Graph, pins: &Pins) -> Result<Vec<Request>, Failure> {
    let programs = program_sources(graph);
    let mut pins = pins.clone();
    let is_program = |name: &str| programs.iter().any(|program| program == name);
    pins.extend(local_among(
        spec,
        &project.folders,
        is_program,
        ProgressReporter::none(),
    )?);
    Ok(requests(graph, &pins, &judges(spec))?)
}

/// The digests of what the judges of a graph do, or of one eval, all of which the user has allowed: before, by `trust`, or by an
/// answer on the terminal. Called before any work.
pub fn consent(
    project: &Project,
    loaded: &Loaded,
    graph: &Graph,
    pins: &Pins,
    eval: Option<&str>,
    trust: bool,
) -> Result<BTreeSet<String>, Failure> {
    let mut wanted = wanted(project, &loaded.spec, graph, pins)?;
    wanted.retain(|request| eval.is_none_or(|eval| request.evals.iter().any(|name| name == eval)));
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let grants = Grants::of_user()?;
    let new: Vec<&Request> = wanted.iter().filter(|request| !grants.has(&request.action)).collect();
    if !new.is_empty() && !trust && !ask(&new) {
        let lines: Vec<String> = new.iter().map(|request| format!("  {request}")).collect();
        let failure = Failure::error(format!(
            "you have not allowed what `{}` does outside of Aurora:\n{}",
            loaded.spec.name,
            lines.join("\n")
        ));
        let mut words = vec!["aurora".to_owned(), "trust".to_owned(), project.relative(&loaded.path)];
        words.extend(VariantSelection::of_spec(&loaded.spec).words());
        let command = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "));
        return Err(failure.help(format!(
            "if you trust it, run `{command}`, or this command with `--trust`"
        )));
    }
    for request in new {
        grants.grant(&request.action)?;
    }
    Ok(wanted.into_iter().map(|request| request.digest).collect())
}

/// Asks on the terminal; no without one.
fn ask(new: &[&Request]) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    errln!("This spec does the following outside of Aurora:");
    for request in new {
        errln!("  {request}");
    }
    errln!("Allow it, now and in later runs? [y/N]");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
