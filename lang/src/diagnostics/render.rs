//! Draws diagnostics with annotate-snippets; the only place that knows it.
//!
//! The width is fixed and the plain form has no colour, so that the same faults are the same bytes everywhere.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity, Source};
use crate::ast::Span;

/// Diagnostics drawn in full; a last line counts the others.
pub const MOST_SHOWN: usize = 20;

/// Draws the first [`MOST_SHOWN`] diagnostics as rustc does, each followed by an empty line.
pub fn render_text(diagnostics: &[Diagnostic], source: Source<'_>, coloured: bool) -> String {
    let renderer = if coloured {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
    .term_width(120);
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(MOST_SHOWN) {
        let drawn = renderer.render(&[group(diagnostic, source)]);
        // The renderer pads some empty lines with blanks.
        for line in drawn.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out.push('\n');
    }
    let rest = diagnostics.len().saturating_sub(MOST_SHOWN);
    if rest > 0 {
        out.push_str(&format!("and {rest} more\n\n"));
    }
    out
}

fn group<'a>(diagnostic: &'a Diagnostic, source: Source<'a>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&diagnostic.message).id(diagnostic.code.as_str()));
    if diagnostic.labels.is_empty() {
        group = group.element(Origin::path(source.name));
    } else {
        let mut snippet = Snippet::source(source.text).path(source.name).fold(true);
        for (index, label) in diagnostic.labels.iter().enumerate() {
            let kind = if index == 0 {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            snippet = snippet.annotation(kind.span(drawable(label.span, source.text)).label(&label.text));
        }
        group = group.element(snippet);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note));
    }
    for help in &diagnostic.helps {
        group = group.element(Level::HELP.message(&help.text));
    }
    group
}

/// The span within the text, on character boundaries.
fn drawable(span: Span, text: &str) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    start..boundary(span.end).max(start)
}
