//! Errors and warnings of a spec or a lock, as plain data and rendered.
//!
//! In: the diagnostics of the parser, the checker and the lock reader. Out: text in the style of rustc ([`render_text`]), or
//! JSON ([`to_json`]). One table ([`TABLE`]) has a title, an explanation and examples for every code.
//! Not here: finding errors.

pub mod codes;
mod json;
mod render;
mod source;
mod table;

pub use codes::{Code, Explanation};
pub use json::{DiagnosticJson, EditJson, HelpJson, LabelJson, to_json};
pub use render::{MOST_SHOWN, render_text};
pub use source::{Position, Positions, Source, SourceFile, Sources};
pub use table::{TABLE, explain};

use schemars::JsonSchema;
use serde::Serialize;

use crate::ast::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One error or warning: one cause, its place, and how to fix it.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// One lower-case sentence without a final period. Names are in backticks.
    pub message: String,
    /// The first label is at the error, the others at related places. Empty if the error has no place.
    pub labels: Vec<Label>,
    /// Rules and arithmetic.
    pub notes: Vec<String>,
    /// How to fix it.
    pub helps: Vec<Help>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Help {
    pub text: String,
    /// The edit that the text describes, if there is one.
    pub edit: Option<TextEdit>,
}

/// A replacement of the text at `span`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEdit {
    pub span: Span,
    pub replacement: String,
    pub applicability: Applicability,
}

/// Whether an edit may be applied without review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applicability {
    /// The edit is unambiguous.
    Safe,
    /// The edit may change the intended meaning.
    Unsafe,
}

impl Diagnostic {
    /// A diagnostic with the severity of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            labels: Vec::new(),
            notes: Vec::new(),
            helps: Vec::new(),
        }
    }

    /// Adds a label. The first one is at the error.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(Help {
            text: text.into(),
            edit: None,
        });
        self
    }

    /// Adds a help with an edit that puts `replacement` at `span`.
    #[must_use]
    pub fn help_edit(
        mut self,
        text: impl Into<String>,
        span: Span,
        replacement: impl Into<String>,
        applicability: Applicability,
    ) -> Self {
        self.helps.push(Help {
            text: text.into(),
            edit: Some(TextEdit {
                span,
                replacement: replacement.into(),
                applicability,
            }),
        });
        self
    }

    /// The place of the error, if it has one.
    pub fn place(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}

/// Sorts diagnostics by place (those without a place last), then by code, and removes duplicates.
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    let order = |diagnostic: &Diagnostic| {
        let place = diagnostic.place();
        (
            place.is_none(),
            place.map(|span| (span.start, span.end)),
            diagnostic.code.as_str(),
        )
    };
    diagnostics.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.message.cmp(&b.message)));
    diagnostics.dedup();
}
