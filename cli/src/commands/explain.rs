//! `aurora explain`: the long form of a diagnostic code.

use aurora_lang::diagnostics::explain;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::out_text;

pub fn run(context: &Context, code: &str) -> Result<Exit, Failure> {
    let wanted = code.to_uppercase();
    let Some(found) = explain(&wanted) else {
        return Err(Failure::error(format!("there is no diagnostic code `{code}`"))
            .help("codes look like E0203; the book lists them all"));
    };
    if context.json {
        output::json(json!({
            "code": found.code,
            "title": found.title,
            "text": found.text,
            "wrong": found.wrong,
            "right": found.right,
        }))?;
    } else {
        out_text(&format!("{}: {}\n\n{}\n", found.code, found.title, found.text.trim()))?;
        if !found.wrong.is_empty() {
            out_text(&format!(
                "\nWrong:\n\n{}\n\nRight:\n\n{}\n",
                indented(found.wrong),
                indented(found.right)
            ))?;
        }
    }
    Ok(Exit::Done)
}

fn indented(text: &str) -> String {
    text.trim()
        .lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
