//! The items of a list, block or file with the comments and blank lines between them.

use crate::ast::{Comment, Span};

pub(super) enum Element {
    /// At least one empty line.
    Blank,
    /// A comment on a line of its own.
    Comment(String),
    /// The item with this index, and the comment after it on its line.
    Item { index: usize, tail: Option<String> },
}

/// The items at `spans` inside `range`, in order, with the comments and blank lines between them.
pub(super) fn elements(text: &str, comments: &[Comment], range: Span, spans: &[Span]) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    let mut end = range.start;
    let mut next = comments.partition_point(|comment| comment.span.start < range.start);
    let mut before_first = true;
    for index in 0..=spans.len() {
        let stop = spans.get(index).map_or(range.end, |span| span.start);
        while let Some(comment) = comments.get(next).filter(|comment| comment.span.start < stop) {
            next += 1;
            let between = &text[end..comment.span.start];
            let same_line = !between.contains('\n');
            match elements.last_mut() {
                Some(Element::Item { tail: tail @ None, .. }) if same_line => *tail = Some(comment.text.clone()),
                _ => {
                    if !before_first && has_blank_line(between) {
                        elements.push(Element::Blank);
                    }
                    elements.push(Element::Comment(comment.text.clone()));
                }
            }
            before_first = false;
            end = comment.span.end;
        }
        if let Some(span) = spans.get(index) {
            if !before_first && has_blank_line(&text[end..span.start]) {
                elements.push(Element::Blank);
            }
            elements.push(Element::Item { index, tail: None });
            before_first = false;
            end = span.end;
            // Comments inside the item are part of it.
            while comments.get(next).is_some_and(|comment| comment.span.start < span.end) {
                next += 1;
            }
        }
    }
    elements
}

fn has_blank_line(between: &str) -> bool {
    between.matches('\n').count() > 1
}
