//! Faults of a spec or a lock as plain data, and their picture.
//!
//! In: what parser, checker and lock reader found. Out: text as rustc draws it ([`render_text`]) or JSON ([`to_json`]).
//! Every code has a title, an explanation and an example of wrong and right in one table ([`codes`]).
//! Not here: finding faults.

pub mod codes;
mod json;
mod render;
mod source;
mod table;

pub use codes::{Code, Explanation, explain};
pub use json::{DiagnosticJson, EditJson, HelpJson, LabelJson, Position, to_json};
pub use render::{MOST_SHOWN, render_text};
pub use source::{Positions, Source, SourceFile, Sources};
pub use table::TABLE;

use schemars::JsonSchema;
use serde::Serialize;

use crate::ast::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One fault: one cause, its place, and what can be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// One sentence in lower case without a final period; names in backticks.
    pub message: String,
    /// The first one says where the fault is; the others are related places. None if the fault has no place.
    pub labels: Vec<Label>,
    /// Rules and arithmetic.
    pub notes: Vec<String>,
    /// Things to do.
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
    /// The same as an edit of the text, where there is one.
    pub edit: Option<Edit>,
}

/// Replaces the text at `span`.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    pub span: Span,
    pub replacement: String,
    pub applicability: Applicability,
}

/// Whether an edit may be made without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applicability {
    /// It says what was meant: there is nothing else that it could have been.
    Safe,
    /// It may say something else than was meant.
    Unsafe,
}

impl Diagnostic {
    /// A diagnostic of the code's own severity.
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

    /// Adds a place; the first one added is where the fault is.
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

    /// A help that is also an edit: `replacement` in place of what stands at `span`.
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
            edit: Some(Edit {
                span,
                replacement: replacement.into(),
                applicability,
            }),
        });
        self
    }

    /// Where the fault is, if it has a place.
    pub fn place(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}

/// Orders diagnostics by place (those without a place last), then by code; repeats of one fault are dropped.
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
