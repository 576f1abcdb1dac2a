//! Diagnostics as JSON. Every place has bytes, lines and columns.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Applicability, Diagnostic, Position, Severity, Source};
use crate::ast::Span;

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DiagnosticJson {
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub file: String,
    /// The first one is at the error.
    pub labels: Vec<LabelJson>,
    pub notes: Vec<String>,
    pub helps: Vec<HelpJson>,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LabelJson {
    pub text: String,
    /// The file, if it is not that of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A range of bytes of the file.
    pub span: Span,
    pub start: Position,
    pub end: Position,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HelpJson {
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<EditJson>,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct EditJson {
    /// The file, if it is not that of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub span: Span,
    pub start: Position,
    pub end: Position,
    pub replacement: String,
    /// Whether `--fix` applies it, or only `--unsafe-fixes`.
    pub applicability: Applicability,
}

/// Converts diagnostics to JSON, all of them and in the given order.
pub fn to_json(diagnostics: &[Diagnostic], source: Source<'_>) -> Vec<DiagnosticJson> {
    // The first labels are sorted, so that their positions are found in one pass.
    let mut first = source.positions();
    let mut others = source.positions();
    diagnostics
        .iter()
        .map(|diagnostic| {
            let (_, file, _) = source.file(diagnostic.place().map_or(0, |place| place.start));
            let own = |span: Span| {
                let (_, name, range) = source.file(span.start);
                let [start, end] = [span.start, span.end].map(|byte| byte.saturating_sub(range.start));
                ((name != file).then(|| name.to_owned()), Span { start, end })
            };
            let labels = diagnostic.labels.iter().enumerate().map(|(index, label)| {
                let positions = if index == 0 { &mut first } else { &mut others };
                let (file, span) = own(label.span);
                LabelJson {
                    text: label.text.clone(),
                    file,
                    span,
                    start: positions.of(label.span.start),
                    end: positions.clone().of(label.span.end),
                }
            });
            let helps = diagnostic.helps.iter().map(|help| HelpJson {
                text: help.text.clone(),
                edit: help.edit.as_ref().map(|edit| {
                    let (file, span) = own(edit.span);
                    let mut positions = source.positions();
                    EditJson {
                        file,
                        span,
                        start: positions.of(edit.span.start),
                        end: positions.of(edit.span.end),
                        replacement: edit.replacement.clone(),
                        applicability: edit.applicability,
                    }
                }),
            });
            DiagnosticJson {
                code: diagnostic.code.as_str(),
                severity: diagnostic.severity,
                message: diagnostic.message.clone(),
                file: file.to_owned(),
                labels: labels.collect(),
                notes: diagnostic.notes.clone(),
                helps: helps.collect(),
            }
        })
        .collect()
}
