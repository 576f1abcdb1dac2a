//! Renders diagnostics with annotate-snippets. Only this module depends on that crate.
//!
//! Values in messages, and names of files, are made printable here; the renderer does that with the lines of the source. The width is fixed and plain output has no colour, so that equal diagnostics give equal bytes on every machine.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity, Source};
use crate::ast::Span;
use crate::printable::printable;

/// Diagnostics that are rendered; a last line counts the others.
pub const MOST_SHOWN: usize = 20;

/// Renders the first [`MOST_SHOWN`] diagnostics in the style of rustc, each followed by an empty line.
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
        // The renderer pads some empty lines with spaces.
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
    let mut group = Group::with_title(
        level
            .primary_title(printable(&diagnostic.message))
            .id(diagnostic.code.as_str()),
    );
    if diagnostic.labels.is_empty() {
        group = group.element(Origin::path(printable(source.name)));
    } else {
        // The file of the error first, then the files of the other labels.
        let mut files: Vec<usize> = Vec::new();
        for label in &diagnostic.labels {
            let (file, _, _) = source.file(label.span.start);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        for file in files {
            let mut drawn: Option<Snippet<'a, _>> = None;
            for (index, label) in diagnostic.labels.iter().enumerate() {
                let (found, name, range) = source.file(label.span.start);
                if found != file {
                    continue;
                }
                let kind = if index == 0 {
                    AnnotationKind::Primary
                } else {
                    AnnotationKind::Context
                };
                let text = &source.text[range.start..range.end];
                let snippet = drawn.unwrap_or_else(|| Snippet::source(text).path(printable(name)).fold(true));
                let own = Span::new(
                    label.span.start.saturating_sub(range.start),
                    label.span.end.saturating_sub(range.start),
                );
                drawn = Some(snippet.annotation(kind.span(drawable(own, text)).label(printable(&label.text))));
            }
            if let Some(snippet) = drawn {
                group = group.element(snippet);
            }
        }
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(printable(note)));
    }
    for help in &diagnostic.helps {
        group = group.element(Level::HELP.message(printable(&help.text)));
    }
    group
}

/// The span, limited to the text and to character boundaries.
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
