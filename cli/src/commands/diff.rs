//! `aurora diff`: compares two specs, locks or runs. The printed text is written in `diff/text.rs`.

use aurora_compiler::diff::DiffEffect;

use crate::arguments::{DiffFormat, VariantSelection};
use crate::context::Context;
use crate::diff::{difference, markdown, text};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::out_text;

pub fn run(
    context: &Context,
    [old, new]: [&str; 2],
    selection: &VariantSelection,
    format: DiffFormat,
) -> Result<Exit, Failure> {
    let found = difference(context, [old, new], selection)?;
    if context.json {
        let mut value = serde_json::to_value(&found).map_err(|error| Failure::from_error(&error))?;
        // `nodes` only has names, like every other list of nodes; the reasons are in a separate list.
        let names: Vec<&str> = found.nodes.rerun.iter().map(|rerun| rerun.name.as_str()).collect();
        value["reasons"] = value["nodes"]["rerun"].clone();
        value["nodes"]["rerun"] = serde_json::json!(names);
        output::json(value)?;
    } else {
        match format {
            DiffFormat::Text => out_text(&text(&found))?,
            DiffFormat::Markdown => out_text(&markdown(&found, &format!("`{old}` → `{new}`")))?,
        }
    }
    Ok(if found.severity == DiffEffect::None {
        Exit::Done
    } else {
        Exit::Error
    })
}
