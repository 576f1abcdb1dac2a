//! `aurora check`: all faults of specs at once, and what they assume.

use aurora_compiler::check::{AssumptionKind, assumptions};
use aurora_lang::diagnostics::to_json;
use camino::Utf8PathBuf;
use serde_json::json;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Chosen, bundle};

pub fn run(context: &Context, specs: &[Utf8PathBuf], chosen: &Chosen) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    let mut exit = Exit::Done;
    for path in specs {
        let bundle = bundle(path, &chosen.set)?;
        let source = bundle.sources().view();
        let mut sound = true;
        let (found, assumed) = match bundle.check(&chosen.choice()) {
            Ok(spec) => (spec.warnings.clone(), assumptions(&spec)),
            Err(found) => {
                exit = Exit::Fault;
                sound = false;
                (found, Vec::new())
            }
        };
        if context.json {
            let faults = to_json(&found, source);
            files.push(json!({ "file": path, "diagnostics": faults, "assumptions": assumed }));
            continue;
        }
        output::diagnostics(&found, source);
        if sound {
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
