//! Cuts the text into top-level blocks by strings, comments and brackets alone.
//!
//! In: the text. Out: the range of every block and statement, or the fault that keeps one from being cut out: a string or
//! bracket that is never closed, nesting that is too deep, text outside of blocks.

use crate::ast::{Comment, Span};
use crate::diagnostics::{Code, Diagnostic};
use crate::tokens::{TokenKind, text_end, tokens};

use super::{MOST_FAULTS, MOST_NESTING};

/// What the first look at the text finds.
pub(super) struct Lexed {
    pub comments: Vec<Comment>,
    marks: Vec<Mark>,
    /// Lines without indentation that start a block: where reading goes on after a fault.
    starts: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    kind: MarkKind,
}

#[derive(Clone, Copy, PartialEq)]
enum MarkKind {
    Open(u8),
    Close(u8),
    /// A string that its line does not close; up to this byte.
    OpenString(usize),
}

pub(super) enum Chunk {
    Block(Span),
    Fault {
        diagnostic: Diagnostic,
        broken: Option<(String, String)>,
    },
}

/// Words that start a statement: it ends with its line, not with a brace.
const STATEMENTS: [&str; 4] = ["import", "extends", "let", "param"];

/// Finds comments, brackets and strings in one pass over the text from `start` on.
pub(super) fn lex(text: &str, start: usize) -> Lexed {
    let mut lexed = Lexed {
        comments: Vec::new(),
        marks: Vec::new(),
        starts: Vec::new(),
    };
    for token in tokens(&text[start..]) {
        let span = token.span.moved(start);
        let mut mark = |kind| lexed.marks.push(Mark { at: span.start, kind });
        match token.kind {
            TokenKind::Comment => lexed.comments.push(Comment {
                span,
                text: text[span.start..span.end].to_owned(),
                own_line: token.first_on_line,
            }),
            TokenKind::Text { closed: false } => mark(MarkKind::OpenString(span.end)),
            TokenKind::Open(bracket) => mark(MarkKind::Open(bracket)),
            TokenKind::Close(bracket) => mark(MarkKind::Close(bracket)),
            TokenKind::Word => {
                let at_the_edge = span.start == start || text.as_bytes()[span.start - 1] == b'\n';
                if at_the_edge && starts_block(&text[span.start..]) {
                    lexed.starts.push(span.start);
                }
            }
            TokenKind::Text { closed: true } | TokenKind::Number | TokenKind::Sign => {}
        }
    }
    lexed
}

/// Cuts the text from `start` on into blocks, statements and faults, in order.
pub(super) fn split(text: &str, lexed: &Lexed, start: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut at = start;
    let mut next_comment = 0;
    let mut next_mark = 0;
    let mut faults = 0;
    loop {
        // White space and comments between blocks.
        at += text[at..].len() - text[at..].trim_start_matches(is_space).len();
        while next_comment < lexed.comments.len() && lexed.comments[next_comment].span.start < at {
            next_comment += 1;
        }
        if at >= text.len() || faults >= MOST_FAULTS {
            return chunks;
        }
        if let Some(comment) = lexed.comments.get(next_comment)
            && comment.span.start == at
        {
            at = comment.span.end;
            continue;
        }
        while next_mark < lexed.marks.len() && lexed.marks[next_mark].at < at {
            next_mark += 1;
        }
        let (chunk, end) = next_chunk(text, lexed, at, next_mark);
        faults += usize::from(matches!(chunk, Chunk::Fault { .. }));
        chunks.push(chunk);
        at = end;
    }
}

fn next_chunk(text: &str, lexed: &Lexed, at: usize, next_mark: usize) -> (Chunk, usize) {
    let following = lexed.starts[lexed.starts.partition_point(|&start| start <= at)..]
        .first()
        .copied();
    let resume = following.unwrap_or(text.len());
    let word = first_word(&text[at..]);
    let fault = |diagnostic: Diagnostic| Chunk::Fault {
        diagnostic,
        broken: heading(text, at),
    };
    if word.is_empty() {
        let found = token(text, at);
        let mut diagnostic = Diagnostic::new(
            Code::SYNTAX,
            format!("expected a block, found `{}`", &text[found.start..found.end]),
        )
        .label(found, "no block starts like this");
        diagnostic = match &text[found.start..found.end] {
            "}" => diagnostic.help("remove this brace: every block above is closed already"),
            _ => diagnostic.help("a file is a list of blocks such as `stage cap { … }`"),
        };
        let line_with_word = text[found.end..]
            .match_indices('\n')
            .map(|(at, _)| found.end + at + 1)
            .find(|&line| text.as_bytes().get(line).is_some_and(|&byte| is_name_start(byte)));
        return (fault(diagnostic), line_with_word.unwrap_or(text.len()));
    }
    // These hold lines that look like the start of a block.
    let holds_blocks = matches!(word, "profile" | "extends" | "sweep");
    let is_statement = starts_statement(&text[at..]);
    let mut open: Vec<(usize, u8)> = Vec::new();
    let mut behind = at;
    for mark in &lexed.marks[next_mark..] {
        if is_statement
            && open.is_empty()
            && let Some(end) = statement_end(text, behind, mark.at)
        {
            return (Chunk::Block(trimmed(text, at, end)), end);
        }
        // A block that starts at the left edge inside of another one: that one was never closed.
        if let Some(start) = following.filter(|&start| start < mark.at && !holds_blocks) {
            return match open.last() {
                Some(&bracket) => (
                    fault(unclosed(bracket, Some((start, "a new block starts here")))),
                    resume,
                ),
                // No brace at all: the grammar says what is wrong with the words before.
                None => (Chunk::Block(trimmed(text, at, start)), resume),
            };
        }
        match mark.kind {
            MarkKind::OpenString(end) => {
                let diagnostic = Diagnostic::new(Code::UNCLOSED_STRING, "this text is never closed")
                    .label(Span::new(mark.at, end), "no `\"` follows on this line")
                    .help("close it with `\"`; a text cannot go over the end of a line, but may hold `\\n`");
                return (fault(diagnostic), resume);
            }
            MarkKind::Open(bracket) => {
                open.push((mark.at, bracket));
                if open.len() > MOST_NESTING {
                    let message = format!("nested more than {MOST_NESTING} deep");
                    let diagnostic = Diagnostic::new(Code::TOO_DEEP, message)
                        .label(Span::new(mark.at, mark.at + 1), "one bracket too many")
                        .help("no field needs more than four levels");
                    return (fault(diagnostic), resume);
                }
            }
            MarkKind::Close(bracket) => match open.last() {
                Some(&(_, expected)) if closing(expected) == bracket => {
                    open.pop();
                    behind = mark.at + 1;
                    if open.is_empty() && bracket == b'}' && !is_statement {
                        let end = mark.at + 1;
                        return (Chunk::Block(Span::new(at, end)), end);
                    }
                }
                Some(&bracket) => {
                    return (
                        fault(unclosed(bracket, Some((mark.at, "closed by this instead")))),
                        resume,
                    );
                }
                None => return (Chunk::Block(trimmed(text, at, mark.at + 1)), resume.max(mark.at + 1)),
            },
        }
    }
    match open.last() {
        Some(&bracket) => (fault(unclosed(bracket, None)), resume),
        None if is_statement => {
            let end = statement_end(text, behind, text.len()).unwrap_or(text.len());
            (Chunk::Block(trimmed(text, at, end)), end)
        }
        None => (Chunk::Block(trimmed(text, at, resume)), resume),
    }
}

/// Where a statement ends that has no bracket open from `from` on: at the first end of a line behind which a new word
/// or nothing follows; none if that is not before `to`.
fn statement_end(text: &str, from: usize, to: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let end = at + text[at..to].find('\n')?;
        let mut rest = text[end..].trim_start_matches(is_space);
        while rest.starts_with("//") {
            rest = rest
                .find('\n')
                .map_or("", |line| rest[line..].trim_start_matches(is_space));
        }
        match rest.bytes().next() {
            None | Some(b'}') => return Some(end),
            Some(byte) if is_name_start(byte) && first_word(rest) != "in" => return Some(end),
            Some(_) => at = end + 1,
        }
    }
}

/// `let NAME`, `param NAME`, `import "…"`, `extends "…"`.
fn starts_statement(text: &str) -> bool {
    let keyword = first_word(text);
    let rest = text[keyword.len()..].trim_start_matches([' ', '\t']);
    STATEMENTS.contains(&keyword)
        && rest
            .bytes()
            .next()
            .is_some_and(|next| next == b'"' || is_name_start(next))
}

/// Keyword and name at the start of a block; a statement may have no name.
pub(super) fn heading(text: &str, at: usize) -> Option<(String, String)> {
    let keyword = first_word(&text[at..]);
    let name = first_word(text[at + keyword.len()..].trim_start_matches([' ', '\t']));
    let names_itself = STATEMENTS.contains(&keyword) || !keyword.is_empty() && !name.is_empty();
    names_itself.then(|| (keyword.to_owned(), name.to_owned()))
}

/// The word, string, number or sign at `at`; empty at the end of the text.
pub(super) fn token(text: &str, at: usize) -> Span {
    let rest = &text[at..];
    let word = first_word(rest);
    let length = match rest.chars().next() {
        None => 0,
        Some(_) if !word.is_empty() => word.len(),
        Some('"') => text_end(rest.as_bytes()).unwrap_or(1),
        Some(first) if first.is_ascii_digit() => rest
            .find(|next: char| !(next.is_ascii_alphanumeric() || matches!(next, '_' | '.' | '%')))
            .unwrap_or(rest.len()),
        Some(first) => first.len_utf8(),
    };
    Span::new(at, at + length)
}

fn unclosed((at, bracket): (usize, u8), related: Option<(usize, &str)>) -> Diagnostic {
    let (open, close) = (char::from(bracket), char::from(closing(bracket)));
    let mut diagnostic = Diagnostic::new(Code::UNCLOSED, format!("this `{open}` is never closed"))
        .label(Span::new(at, at + 1), format!("no `{close}` for this"));
    if let Some((place, text)) = related {
        diagnostic = diagnostic.label(Span::new(place, place + 1), text);
    }
    diagnostic.help(format!("add `{close}`"))
}

fn closing(open: u8) -> u8 {
    match open {
        b'{' => b'}',
        b'[' => b']',
        _ => b')',
    }
}

fn trimmed(text: &str, start: usize, end: usize) -> Span {
    Span::new(start, start + text[start..end].trim_end_matches(is_space).len())
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{FEFF}')
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn first_word(text: &str) -> &str {
    let end = text
        .find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'))
        .unwrap_or(text.len());
    let word = &text[..end];
    if word.starts_with(|first: char| first.is_ascii_digit()) {
        ""
    } else {
        word
    }
}

/// `word word {` on one line, or a statement.
fn starts_block(line: &str) -> bool {
    let keyword = first_word(line);
    if starts_statement(line) {
        return true;
    }
    let rest = line[keyword.len()..].trim_start_matches([' ', '\t']);
    let name = first_word(rest);
    !name.is_empty() && rest[name.len()..].trim_start_matches([' ', '\t']).starts_with('{')
}
