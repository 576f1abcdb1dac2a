//! Elements of a list, block or file with the comments and blank lines between them.

use crate::ast::{Comment, Span};

pub(super) enum Piece {
    /// One empty line or more.
    Blank,
    /// A comment on a line of its own.
    Comment(String),
    /// The element of this index, with the comment behind it on its line.
    Element { index: usize, tail: Option<String> },
}

/// The elements at `spans` inside of `range`, in order, with what stands between them.
pub(super) fn pieces(text: &str, comments: &[Comment], range: Span, spans: &[Span]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut end = range.start;
    let mut next = comments.partition_point(|comment| comment.span.start < range.start);
    let mut before_first = true;
    for index in 0..=spans.len() {
        let stop = spans.get(index).map_or(range.end, |span| span.start);
        while let Some(comment) = comments.get(next).filter(|comment| comment.span.start < stop) {
            next += 1;
            let between = &text[end..comment.span.start];
            let same_line = !between.contains('\n');
            match pieces.last_mut() {
                Some(Piece::Element { tail: tail @ None, .. }) if same_line => *tail = Some(comment.text.clone()),
                _ => {
                    if !before_first && has_blank_line(between) {
                        pieces.push(Piece::Blank);
                    }
                    pieces.push(Piece::Comment(comment.text.clone()));
                }
            }
            before_first = false;
            end = comment.span.end;
        }
        if let Some(span) = spans.get(index) {
            if !before_first && has_blank_line(&text[end..span.start]) {
                pieces.push(Piece::Blank);
            }
            pieces.push(Piece::Element { index, tail: None });
            before_first = false;
            end = span.end;
            // Comments inside of the element are the element's own.
            while comments.get(next).is_some_and(|comment| comment.span.start < span.end) {
                next += 1;
            }
        }
    }
    pieces
}

fn has_blank_line(between: &str) -> bool {
    between.matches('\n').count() > 1
}
