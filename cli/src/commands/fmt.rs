//! `aurora fmt`: the canonical style.

use aurora_lang::diagnostics::Source;
use camino::Utf8PathBuf;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{read_text, write_spec};
use crate::stdio::outln;

pub fn run(context: &Context, specs: &[Utf8PathBuf], check: bool) -> Result<Exit, Failure> {
    let mut changed = Vec::new();
    let mut has_errors = false;
    for path in specs {
        let text = read_text(path)?;
        match aurora_lang::format::format(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => {
                if !check {
                    write_spec(path, &formatted)?;
                }
                changed.push(path.clone());
            }
            Err(found) => {
                output::diagnostics(&found, Source::new(path.as_str(), &text));
                has_errors = true;
            }
        }
    }
    if context.json {
        output::json(json!({ "changed": changed }))?;
    } else {
        for path in &changed {
            outln!("{} {path}", if check { "would change" } else { "changed" })?;
        }
    }
    Ok(if has_errors || (check && !changed.is_empty()) {
        Exit::Error
    } else {
        Exit::Done
    })
}
