//! Parses incomplete chunks, for editors: changes a chunk until the grammar accepts it.
//!
//! In: any text. Out: a syntax tree of each chunk, with the spans of the text as it is. The only knowledge of the syntax is
//! the grammar itself: a change is kept if the grammar then gets further.
//! Not here: diagnostics. What is reported about a text is only what `parse` finds.

use pest::Parser as _;

use super::build::Builder;
use super::chunks::{self, opening};
use super::expected::expected;
use super::grammar::{Grammar, Rule};
use super::spans::MapSpans;
use crate::ast::{File, Span};
use crate::token::{Token, TokenKind, tokens};

/// Bytes that are parsed to repair one chunk.
const MOST_PARSED: usize = 4 << 20;

/// Text that is missing in an incomplete chunk. The first of equally good ones is used.
const MISSING: [&str; 15] = [
    "_",
    "= _",
    "< 0",
    "0",
    "[]",
    ",",
    "confidence",
    ".. 0",
    "\"\"",
    "(\"\")",
    "_ (\"\")",
    "{}",
    "_ {}",
    "_ = _",
    "_ < 0",
];

/// A chunk that the grammar accepts after repair.
pub(crate) struct Repaired {
    /// The chunk in the original text.
    pub span: Span,
    /// The item of the chunk. Spans refer to the original text; what the repair added has empty spans.
    pub file: File,
    /// Tokens of the original text that the repair removed, by their starts.
    pub removed: Vec<usize>,
    edited: EditedText,
}

/// What the grammar expects at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    Name,
    Equals,
    Value,
    /// A value, or the name of an argument.
    Argument,
    Unit,
    Mark,
    Setting,
    Text,
    Metric,
    Other,
}

/// A text with edits, and where each of its bytes comes from.
#[derive(Clone)]
struct EditedText {
    text: String,
    /// For each byte, and for the end: the byte of the original text that it is, or that follows it if it was added.
    origin: Vec<usize>,
    added: Vec<bool>,
}

impl EditedText {
    fn new(text: &str, span: Span) -> Self {
        Self {
            text: text[span.start..span.end].to_owned(),
            origin: (span.start..=span.end).collect(),
            added: vec![false; span.end - span.start],
        }
    }

    fn insert(&mut self, at: usize, text: &str) {
        self.insert_all(&[(at, text)]);
    }

    /// Inserts texts at places in ascending order, in one pass: there may be as many as brackets.
    fn insert_all(&mut self, all: &[(usize, &str)]) {
        let mut edited = Self {
            text: String::with_capacity(self.text.len()),
            origin: Vec::with_capacity(self.origin.len()),
            added: Vec::with_capacity(self.added.len()),
        };
        let mut done = 0;
        let mut copy_to = |edited: &mut Self, at: usize| {
            edited.text.push_str(&self.text[done..at]);
            edited.origin.extend_from_slice(&self.origin[done..at]);
            edited.added.extend_from_slice(&self.added[done..at]);
            done = at;
        };
        for &(at, text) in all {
            copy_to(&mut edited, at);
            edited.text.extend([" ", text, " "]);
            edited.origin.resize(edited.text.len(), self.origin[at]);
            edited.added.resize(edited.text.len(), true);
        }
        copy_to(&mut edited, self.text.len());
        edited.origin.extend(self.origin.last());
        *self = edited;
    }

    fn blank(&mut self, span: Span) {
        self.text
            .replace_range(span.start..span.end, &" ".repeat(span.end - span.start));
    }

    /// Parses the text, and returns how many bytes are left at the first error; none without an error.
    fn bytes_left(&self) -> usize {
        match Grammar::parse(Rule::item, &self.text) {
            Ok(_) => 0,
            Err(error) => self.text.len() - expected(&error).0 + 1,
        }
    }
}

/// The chunks of a text.
pub(crate) fn chunks(text: &str, tokens: &[Token]) -> Vec<Span> {
    let chunks = chunks::split(text, tokens).into_iter();
    chunks.map(|chunk| chunk.span).collect()
}

/// Parses a chunk of a text. `None` if it cannot be repaired, or is nested too deep or too long to be parsed while someone
/// types.
pub(crate) fn repair(text: &str, span: Span) -> Option<Repaired> {
    let mut edited = EditedText::new(text, span);
    if edited.text.len() > MOST_PARSED / 4 || chunks::too_deep(&tokens(&edited.text)).is_some() {
        return None;
    }
    let mut removed = Vec::new();
    balance(&mut edited, &mut removed);
    let mut left = edited.bytes_left();
    let mut parsed = edited.text.len();
    while left > 0 {
        (edited, left) = improve(&edited, left, &mut parsed, &mut removed)?;
    }
    let pairs = Grammar::parse(Rule::item, &edited.text).ok()?;
    let mut builder = Builder {
        offset: 0,
        errors: Vec::new(),
    };
    let mut file = File::default();
    builder.item(pairs.into_iter().next()?, &mut file);
    let map = MapSpans(|at| edited.origin[at]);
    file.items.iter_mut().for_each(|block| map.block(block));
    file.statements
        .iter_mut()
        .for_each(|statement| map.statement(statement));
    Some(Repaired {
        span,
        file,
        removed,
        edited,
    })
}

/// Closes what is not closed, and removes brackets that close nothing.
fn balance(edited: &mut EditedText, removed: &mut Vec<usize>) {
    let all = tokens(&edited.text);
    // Places and texts to add, in order.
    let mut missing: Vec<(usize, &str)> = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    let closing = |bracket: u8| match bracket {
        b'{' => "}",
        b'[' => "]",
        _ => ")",
    };
    for token in &all {
        match token.kind {
            TokenKind::Text { closed: false } => missing.push((token.span.end, "\"")),
            TokenKind::Open(bracket) => open.push(bracket),
            TokenKind::Close(bracket) => match open.iter().rposition(|&before| before == opening(bracket)) {
                Some(at) => {
                    let unclosed = open.drain(at + 1..).rev();
                    missing.extend(unclosed.map(|bracket| (token.span.start, closing(bracket))));
                    open.pop();
                }
                None => {
                    removed.push(edited.origin[token.span.start]);
                    edited.blank(token.span);
                }
            },
            _ => {}
        }
    }
    let end = edited.text.len();
    missing.extend(open.into_iter().rev().map(|bracket| (end, closing(bracket))));
    edited.insert_all(&missing);
}

/// The first change after which the grammar gets furthest, and the bytes that are then left. `None` if no change helps.
fn improve(
    edited: &EditedText,
    left: usize,
    parsed: &mut usize,
    removed: &mut Vec<usize>,
) -> Option<(EditedText, usize)> {
    let at = edited.text.len() + 1 - left;
    let all = tokens(&edited.text);
    let found = all.partition_point(|token| token.span.end <= at);
    let before = found.checked_sub(1).map(|before| all[before]);
    let is_bracket = |token: &Token| matches!(token.kind, TokenKind::Open(_) | TokenKind::Close(_));
    let insertions = MISSING.iter().map(|text| (at, *text));
    // A value may be missing before the line that starts with the previous token.
    let value = before
        .filter(|before| before.first_on_line)
        .map(|before| (before.span.start, "_"));
    let insertions = value
        .into_iter()
        .chain(insertions)
        .map(|(at, text)| Change::Insert(at, text));
    let tokens = all.get(found).copied().into_iter().chain(before);
    let removals = tokens
        .filter(|token| !is_bracket(token))
        .map(|token| Change::Remove(token.span));
    let mut best: Option<(EditedText, usize, Change)> = None;
    for change in insertions.chain(removals) {
        *parsed += edited.text.len();
        if *parsed > MOST_PARSED {
            return None;
        }
        let mut changed = edited.clone();
        match change {
            Change::Insert(at, text) => changed.insert(at, text),
            Change::Remove(span) => changed.blank(span),
        }
        let next = changed.bytes_left();
        if next < best.as_ref().map_or(left, |(_, best, _)| *best) {
            best = Some((changed, next, change));
        }
        if next == 0 {
            break;
        }
    }
    let (changed, next, change) = best?;
    if let Change::Remove(span) = change {
        removed.push(edited.origin[span.start]);
    }
    Some((changed, next))
}

/// A change of a text.
#[derive(Clone, Copy)]
enum Change {
    Insert(usize, &'static str),
    Remove(Span),
}

impl Repaired {
    /// What the grammar expects at a byte of the original text, whatever follows it.
    pub fn expects(&self, original: &str, at: usize) -> Vec<Expects> {
        // The repair may have removed the tokens before the byte: use the text as it is, unless it has an earlier error.
        expects_at_end(&original[self.span.start..at]).unwrap_or_else(|| {
            let EditedText { text, origin, added } = &self.edited;
            let end = (0..added.len()).find(|&byte| origin[byte] >= at);
            expects_at_end(&text[..end.unwrap_or(text.len())]).unwrap_or_default()
        })
    }
}

/// What the grammar expects after the start of an item. `None` if there is an error before its end.
fn expects_at_end(start: &str) -> Option<Vec<Expects>> {
    // No rule accepts this character.
    let error = Grammar::parse(Rule::item, &format!("{start}\u{1}")).err()?;
    let (at, rules) = expected(&error);
    let is_at_end = tokens(&start[at..]).is_empty();
    is_at_end.then(|| rules.iter().map(|&rule| expects(rule)).collect())
}

fn expects(rule: Rule) -> Expects {
    match rule {
        Rule::name | Rule::block_name => Expects::Name,
        Rule::equals => Expects::Equals,
        Rule::marked | Rule::value => Expects::Value,
        Rule::argument => Expects::Argument,
        Rule::unit => Expects::Unit,
        Rule::mark | Rule::at_sign => Expects::Mark,
        Rule::setting | Rule::setting_word => Expects::Setting,
        Rule::text | Rule::quote => Expects::Text,
        Rule::metric | Rule::metric_name | Rule::gate | Rule::expression | Rule::term | Rule::factor => Expects::Metric,
        _ => Expects::Other,
    }
}
