//! `aurora check`: all errors of specs at once, and what the specs assume.

mod annotations;
mod fixes;

use aurora_compiler::check::{Assumption, AssumptionKind, assumptions};
use aurora_compiler::compose::Bundle;
use aurora_compiler::json_output::{CheckedFile, Diagnostics};
use aurora_lang::diagnostics::{Diagnostic, to_json};
use camino::Utf8PathBuf;
use serde_json::json;

use crate::arguments::{DiagnosticFormat, VariantSelection};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::bundle;
use crate::stdio::{Printed, errln, out_json, outln};

/// Rounds of edits: an edit may reveal the next error.
const MOST_ROUNDS: usize = 20;

/// Which of the suggested edits are applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    None,
    Safe,
    Unsafe,
}

/// A checked spec and its diagnostics.
struct Checked {
    path: Utf8PathBuf,
    bundle: Bundle,
    found: Vec<Diagnostic>,
    assumed: Vec<Assumption>,
    ok: bool,
}

pub fn run(
    context: &Context,
    specs: &[Utf8PathBuf],
    selection: &VariantSelection,
    fix: Fix,
    format: DiagnosticFormat,
) -> Result<Exit, Failure> {
    let mut all = Vec::new();
    for path in specs {
        let mut checked = check(context, path, selection)?;
        if fix != Fix::None {
            for _ in 0..MOST_ROUNDS {
                let edited = fixes::apply(&checked.bundle, &checked.found, fix == Fix::Unsafe)?;
                if edited.is_empty() {
                    break;
                }
                for line in edited {
                    errln!("{line}");
                }
                checked = check(context, path, selection)?;
            }
            if fix == Fix::Safe {
                for line in fixes::unsafe_edits(&checked.bundle, &checked.found) {
                    errln!("{line}  (not applied: may change the meaning; `--unsafe-fixes` applies it)");
                }
            }
        }
        if !context.json && format == DiagnosticFormat::Text {
            print(&checked)?;
        }
        all.push(checked);
    }
    let diagnostics = || {
        all.iter()
            .flat_map(|checked| to_json(&checked.found, checked.bundle.sources().view()))
    };
    match format {
        DiagnosticFormat::Text => {}
        DiagnosticFormat::Github => {
            for diagnostic in diagnostics() {
                outln!("{}", annotations::github(&diagnostic))?;
            }
        }
        DiagnosticFormat::Sarif => out_json(&annotations::sarif(diagnostics()).to_string())?,
    }
    if context.json {
        let files = all.iter().map(|checked| CheckedFile {
            file: checked.path.to_string(),
            diagnostics: to_json(&checked.found, checked.bundle.sources().view()),
            assumptions: checked.assumed.clone(),
        });
        output::json(json!(Diagnostics { files: files.collect() }))?;
    }
    Ok(if all.iter().all(|checked| checked.ok) {
        Exit::Done
    } else {
        Exit::Error
    })
}

fn check(context: &Context, path: &Utf8PathBuf, selection: &VariantSelection) -> Result<Checked, Failure> {
    let (bundle, _) = bundle(path, selection, context.reach())?;
    let (found, assumed, ok) = match bundle.check(&selection.choice()) {
        Ok(spec) => (spec.warnings.clone(), assumptions(&spec), true),
        Err(found) => (found, Vec::new(), false),
    };
    Ok(Checked {
        path: path.clone(),
        bundle,
        found,
        assumed,
        ok,
    })
}

fn print(checked: &Checked) -> Printed {
    output::diagnostics(&checked.found, checked.bundle.sources().view());
    if checked.ok {
        let count = |kind: AssumptionKind| checked.assumed.iter().filter(|a| a.kind == kind).count();
        outln!(
            "{}: ok ({} published, {} inferred, {} assumed, {} unknown)",
            checked.path,
            count(AssumptionKind::Published),
            count(AssumptionKind::Inferred),
            count(AssumptionKind::Assumed),
            count(AssumptionKind::Unknown)
        )?;
    }
    Ok(())
}
