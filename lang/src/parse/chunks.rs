//! Cuts the text into top-level blocks by strings, comments and brackets alone.
//!
//! In: the text. Out: the range of every block, or the fault that keeps one from being cut out: a string or bracket that
//! is never closed, nesting that is too deep, text outside of blocks, words that are reserved for later.

use crate::ast::{Comment, Span};
use crate::diagnostics::{Code, Diagnostic};

use super::MOST_NESTING;

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

/// Words that start an item in a later version of the language.
const RESERVED: [(&str, &str); 5] = [
    ("import", "put the blocks into this file"),
    ("param", "write the value where it is used, or use a `profile`"),
    ("let", "write the value where it is used"),
    ("extends", "use a `profile` for what differs"),
    ("sweep", "write one `profile` for each value"),
];

/// Finds comments, brackets and strings in one pass.
pub(super) fn lex(text: &str) -> Lexed {
    let bytes = text.as_bytes();
    let mut lexed = Lexed {
        comments: Vec::new(),
        marks: Vec::new(),
        starts: Vec::new(),
    };
    let mut at = 0;
    let mut own_line = true;
    while at < bytes.len() {
        let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |length| from + length);
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let written = text[at..line_end(at)].trim_end();
                let span = Span::new(at, at + written.len());
                lexed.comments.push(Comment {
                    span,
                    text: written.to_owned(),
                    own_line,
                });
                at = line_end(at);
                continue;
            }
            b'"' => match string_end(bytes, at) {
                Some(end) => {
                    at = end;
                    own_line = false;
                    continue;
                }
                None => {
                    let end = at + text[at..line_end(at)].trim_end().len();
                    lexed.marks.push(Mark {
                        at,
                        kind: MarkKind::OpenString(end),
                    });
                    at = line_end(at);
                    continue;
                }
            },
            open @ (b'{' | b'[' | b'(') => lexed.marks.push(Mark {
                at,
                kind: MarkKind::Open(open),
            }),
            close @ (b'}' | b']' | b')') => lexed.marks.push(Mark {
                at,
                kind: MarkKind::Close(close),
            }),
            byte if (at == 0 || bytes[at - 1] == b'\n') && is_name_start(byte) && starts_block(&text[at..]) => {
                lexed.starts.push(at);
            }
            _ => {}
        }
        own_line = match bytes[at] {
            b'\n' => true,
            b' ' | b'\t' | b'\r' => own_line,
            _ => false,
        };
        at += 1;
    }
    lexed
}

/// Cuts the text into blocks and faults, in order.
pub(super) fn split(text: &str, lexed: &Lexed) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut at = 0;
    let mut next_comment = 0;
    let mut next_mark = 0;
    loop {
        // White space and comments between blocks.
        at += text[at..].len() - text[at..].trim_start_matches(is_space).len();
        while next_comment < lexed.comments.len() && lexed.comments[next_comment].span.start < at {
            next_comment += 1;
        }
        if at >= text.len() || chunks.len() > 2 * text.len().min(100_000) {
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
    if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == word) {
        let diagnostic = Diagnostic::new(Code::NOT_SUPPORTED, format!("`{word}` is not supported yet"))
            .label(Span::new(at, at + word.len()), "reserved for a later version")
            .help(*instead);
        return (
            Chunk::Fault {
                diagnostic,
                broken: None,
            },
            reserved_end(text, lexed, at, resume),
        );
    }
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
    let is_profile = word == "profile";
    let mut open: Vec<(usize, u8)> = Vec::new();
    for mark in &lexed.marks[next_mark..] {
        // A block that starts at the left edge inside of another one: that one was never closed.
        if let Some(start) = following.filter(|&start| start < mark.at && !is_profile) {
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
                    if open.is_empty() && bracket == b'}' {
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
        None => (Chunk::Block(trimmed(text, at, resume)), resume),
    }
}

/// Where reading goes on after a reserved word: behind its braces if it has any, else on the next line.
fn reserved_end(text: &str, lexed: &Lexed, at: usize, resume: usize) -> usize {
    let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    let first = lexed.marks.partition_point(|mark| mark.at < at);
    let mut depth = 0_usize;
    let mut end = line_end;
    for mark in &lexed.marks[first..] {
        if depth == 0 && mark.at > end || mark.at > resume {
            break;
        }
        match mark.kind {
            MarkKind::Open(_) => depth += 1,
            MarkKind::Close(_) => {
                depth = depth.saturating_sub(1);
                end = end.max(mark.at + 1);
            }
            MarkKind::OpenString(_) => {}
        }
    }
    end.min(resume)
}

/// Keyword and name at the start of a block, as far as they are there.
pub(super) fn heading(text: &str, at: usize) -> Option<(String, String)> {
    let keyword = first_word(&text[at..]);
    let name = first_word(text[at + keyword.len()..].trim_start_matches([' ', '\t']));
    (!keyword.is_empty() && !name.is_empty()).then(|| (keyword.to_owned(), name.to_owned()))
}

/// The word, string, number or sign at `at`; empty at the end of the text.
pub(super) fn token(text: &str, at: usize) -> Span {
    let rest = &text[at..];
    let word = first_word(rest);
    let length = match rest.chars().next() {
        None => 0,
        Some(_) if !word.is_empty() => word.len(),
        Some('"') => string_end(rest.as_bytes(), 0).unwrap_or(1),
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

/// `word word {` on one line, or a reserved word.
fn starts_block(line: &str) -> bool {
    let keyword = first_word(line);
    if RESERVED.iter().any(|(reserved, _)| *reserved == keyword) {
        return true;
    }
    let rest = line[keyword.len()..].trim_start_matches([' ', '\t']);
    let name = first_word(rest);
    !name.is_empty() && rest[name.len()..].trim_start_matches([' ', '\t']).starts_with('{')
}

/// The byte behind the closing quote of the string that starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut next = at + 1;
    while let Some(&byte) = bytes.get(next) {
        match byte {
            b'"' => return Some(next + 1),
            b'\n' => return None,
            b'\\' if bytes.get(next + 1).is_some_and(|&escaped| escaped != b'\n') => next += 2,
            _ => next += 1,
        }
    }
    None
}
