//! `aurora check`: all faults of specs at once, and what they assume.

use aurora_compiler::check::{AssumptionKind, assumptions, check};
use aurora_lang::diagnostics::{Source, to_json};
use camino::Utf8PathBuf;
use serde_json::json;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::read_text;

pub fn run(context: &Context, specs: &[Utf8PathBuf], profile: Option<&str>) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    let mut exit = Exit::Done;
    for path in specs {
        let text = read_text(path)?;
        let source = Source::new(path.as_str(), &text);
        let (found, assumed) = match check(path.as_str(), &text, profile) {
            Ok(spec) => (spec.warnings.clone(), assumptions(&spec)),
            Err(found) => {
                exit = Exit::Fault;
                (found, Vec::new())
            }
        };
        if context.json {
            let faults = to_json(&found, source);
            files.push(json!({ "file": path, "diagnostics": faults, "assumptions": assumed }));
            continue;
        }
        output::diagnostics(&found, source);
        if exit == Exit::Done {
            let count = |kind: AssumptionKind| assumed.iter().filter(|assumption| assumption.kind == kind).count();
            println!(
                "{path}: sound ({} published, {} inferred, {} assumed, {} unknown)",
                count(AssumptionKind::Published),
                count(AssumptionKind::Inferred),
                count(AssumptionKind::Assumed),
                count(AssumptionKind::Unknown)
            );
        }
    }
    if context.json {
        output::json(json!({ "files": files }));
    }
    Ok(exit)
}
