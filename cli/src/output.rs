//! Printing: JSON documents, tables, diagnostics.

pub use aurora_compiler::text::grouped;
use std::io::IsTerminal;

use aurora_lang::diagnostics::{Diagnostic, Source, render_text, to_json};
use aurora_lang::printable::printable;

use crate::failure::Failure;
use crate::stdio::{Printed, err_rendered, out_json};

/// Whether text for people is coloured: on a terminal, unless `NO_COLOR` is set.
pub fn coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints one JSON document, with the version of the format first.
pub fn json(value: serde_json::Value) -> Printed {
    let body = value.to_string();
    let rest = body.strip_prefix('{').unwrap_or(&body);
    let comma = if rest == "}" { "" } else { "," };
    out_json(&format!("{{\"format_version\":\"1.0\"{comma}{rest}"))
}

/// Prints the diagnostics of a text.
pub fn diagnostics(found: &[Diagnostic], source: Source<'_>) {
    if !found.is_empty() {
        err_rendered(&render_text(found, source, coloured()));
    }
}

/// Prints diagnostics as text or JSON, and returns the failure of the command.
pub fn refused(found: &[Diagnostic], source: Source<'_>, as_json: bool) -> Failure {
    if as_json {
        let printed = json(serde_json::json!({ "diagnostics": to_json(found, source) }));
        if let Err(error) = printed {
            return error.into();
        }
    } else {
        diagnostics(found, source);
    }
    Failure::reported()
}

/// Lays out rows in columns; the caller aligns numbers.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    // A value of a spec must not begin another row.
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.push_str(&" ".repeat(pad + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
