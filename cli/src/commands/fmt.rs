//! `aurora fmt`: the canonical layout.

use aurora_lang::diagnostics::Source;
use camino::Utf8PathBuf;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::read_text;

pub fn run(context: &Context, specs: &[Utf8PathBuf], check: bool) -> Result<Exit, Failure> {
    let mut changed = Vec::new();
    let mut broken = false;
    for path in specs {
        let text = read_text(path)?;
        match aurora_lang::format::format(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => {
                if !check {
                    replace(path, &formatted)?;
                }
                changed.push(path.clone());
            }
            Err(found) => {
                output::diagnostics(&found, Source::new(path.as_str(), &text));
                broken = true;
            }
        }
    }
    if context.json {
        output::json(json!({ "changed": changed }));
    } else {
        for path in &changed {
            println!("{} {path}", if check { "would change" } else { "changed" });
        }
    }
    Ok(if broken || (check && !changed.is_empty()) {
        Exit::Error
    } else {
        Exit::Done
    })
}

/// Puts the new text in the file's place in one step, so that a full disk leaves the old one whole.
fn replace(path: &camino::Utf8Path, text: &str) -> Result<(), Failure> {
    aurora_runtime::write_whole(path, text.as_bytes())
        .map_err(|error| Failure::error(format!("cannot write `{path}`: {error}")))
}
