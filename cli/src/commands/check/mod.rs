//! `aurora check`: all faults of specs at once, and what they assume.

mod annotations;
mod fixes;

use aurora_compiler::check::{Assumption, AssumptionKind, assumptions};
use aurora_compiler::compose::Bundle;
use aurora_compiler::documents::{CheckedFile, Diagnostics};
use aurora_lang::diagnostics::{Diagnostic, to_json};
use camino::Utf8PathBuf;
use serde_json::json;

use crate::arguments::{Format, Selection};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::bundle;

/// Rounds of edits: one edit may bring out the next fault.
const MOST_ROUNDS: usize = 20;

/// Which of the suggested edits are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    None,
    Safe,
    Unsafe,
}

/// A spec and what was found in it.
struct Checked {
    path: Utf8PathBuf,
    bundle: Bundle,
    found: Vec<Diagnostic>,
    assumed: Vec<Assumption>,
    sound: bool,
}

pub fn run(
    context: &Context,
    specs: &[Utf8PathBuf],
    selection: &Selection,
    fix: Fix,
    format: Format,
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
                    eprintln!("{line}");
                }
                checked = check(context, path, selection)?;
            }
            if fix == Fix::Safe {
                for line in fixes::left(&checked.bundle, &checked.found) {
                    eprintln!("{line}  (may mean something else: left; `--unsafe-fixes` makes it)");
                }
            }
        }
        if !context.json && format == Format::Text {
            print(&checked);
        }
        all.push(checked);
    }
    let faults = || {
        all.iter()
            .flat_map(|checked| to_json(&checked.found, checked.bundle.sources().view()))
    };
    match format {
        Format::Text => {}
        Format::Github => faults().for_each(|fault| println!("{}", annotations::github(&fault))),
        Format::Sarif => println!("{}", annotations::sarif(faults())),
    }
    if context.json {
        let files = all.iter().map(|checked| CheckedFile {
            file: checked.path.to_string(),
            diagnostics: to_json(&checked.found, checked.bundle.sources().view()),
            assumptions: checked.assumed.clone(),
        });
        output::json(json!(Diagnostics { files: files.collect() }));
    }
    Ok(if all.iter().all(|checked| checked.sound) {
        Exit::Done
    } else {
        Exit::Error
    })
}

fn check(context: &Context, path: &Utf8PathBuf, selection: &Selection) -> Result<Checked, Failure> {
    let (bundle, _) = bundle(path, selection, context.reach())?;
    let (found, assumed, sound) = match bundle.check(&selection.choice()) {
        Ok(spec) => (spec.warnings.clone(), assumptions(&spec), true),
        Err(found) => (found, Vec::new(), false),
    };
    Ok(Checked {
        path: path.clone(),
        bundle,
        found,
        assumed,
        sound,
    })
}

fn print(checked: &Checked) {
    output::diagnostics(&checked.found, checked.bundle.sources().view());
    if checked.sound {
        let count = |kind: AssumptionKind| checked.assumed.iter().filter(|a| a.kind == kind).count();
        println!(
            "{}: sound ({} published, {} inferred, {} assumed, {} unknown)",
            checked.path,
            count(AssumptionKind::Published),
            count(AssumptionKind::Inferred),
            count(AssumptionKind::Assumed),
            count(AssumptionKind::Unknown)
        );
    }
}
