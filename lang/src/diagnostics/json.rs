//! Diagnostics as JSON: every place also as line and column.

use serde::Serialize;

use super::{Diagnostic, Severity, Source};
use crate::ast::Span;

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiagnosticJson {
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub file: String,
    /// The first one is where the fault is.
    pub labels: Vec<LabelJson>,
    pub notes: Vec<String>,
    pub helps: Vec<HelpJson>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelJson {
    pub text: String,
    /// Bytes.
    pub span: Span,
    pub start: Position,
    pub end: Position,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HelpJson {
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<EditJson>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EditJson {
    pub span: Span,
    pub replacement: String,
}

/// The diagnostics as plain data, all of them, in the order given.
pub fn to_json(diagnostics: &[Diagnostic], source: Source<'_>) -> Vec<DiagnosticJson> {
    diagnostics
        .iter()
        .map(|diagnostic| DiagnosticJson {
            code: diagnostic.code.as_str(),
            severity: diagnostic.severity,
            message: diagnostic.message.clone(),
            file: source.name.to_owned(),
            labels: diagnostic
                .labels
                .iter()
                .map(|label| LabelJson {
                    text: label.text.clone(),
                    span: label.span,
                    start: source.position(label.span.start),
                    end: source.position(label.span.end),
                })
                .collect(),
            notes: diagnostic.notes.clone(),
            helps: diagnostic
                .helps
                .iter()
                .map(|help| HelpJson {
                    text: help.text.clone(),
                    edit: help.edit.as_ref().map(|edit| EditJson {
                        span: edit.span,
                        replacement: edit.replacement.clone(),
                    }),
                })
                .collect(),
        })
        .collect()
}
