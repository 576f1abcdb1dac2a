//! Text to syntax tree, with every syntax error of the file.
//!
//! In: the text of a file. Out: its blocks, its comments, and a diagnostic for each block that cannot be parsed: `chunks`
//! splits the text into top-level blocks, and the grammar (pest) parses one of them at a time.
//! Work is bounded: file size, blocks, nesting, lists and expressions have limits (`E0103`, `E0104`).
//! Not here: names, units and meaning.

mod build;
mod chunks;
mod expected;
mod repair;
mod spans;

use std::collections::BTreeMap;

use pest::Parser as _;

use crate::ast::{Block, Comment, File, Span, Statement};
use crate::diagnostics::{Code, Diagnostic, sort};
use crate::token::{Token, TokenKind, tokens};

/// The generated parser. Private, so that only this module depends on the rules of the grammar.
mod grammar {
    #[derive(pest_derive::Parser)]
    #[grammar = "parse/grammar.pest"]
    pub(super) struct Grammar;
}
use grammar::{Grammar, Rule};
pub(crate) use repair::{Expects, chunks, repair};
use spans::shift;

/// Bytes that a file may have.
pub const MOST_BYTES: usize = 1 << 20;
/// Brackets and braces that may be open at once.
pub const MOST_NESTING: usize = 32;
/// Operators that one side of a gate may have.
pub const MOST_OPERATORS: usize = 64;
/// Top-level blocks that a file may have.
pub const MOST_BLOCKS: usize = 2000;
/// Elements that a list, call or block may have.
pub const MOST_ELEMENTS: usize = 1000;
/// Syntax errors after which the rest of a file is not parsed.
pub const MOST_ERRORS: usize = 64;

/// The result of parsing a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The blocks and statements without a syntax error, and all comments.
    pub file: File,
    /// Sorted by place.
    pub errors: Vec<Diagnostic>,
    /// The blocks and statements that cannot be parsed. Their names are declared all the same.
    pub broken: Vec<Heading>,
    /// The chunks that were parsed without an error, in order.
    valid: Vec<Span>,
}

/// Keyword and name of a block or statement. An import has an empty name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    pub keyword: String,
    pub name: String,
}

/// An earlier version of a text. Blocks that are the same in both are not parsed again.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'p> {
    /// The text that the spans of `parsed` refer to.
    pub text: &'p str,
    pub parsed: &'p Parsed,
}

/// Parses a complete file. After an error it continues with the next top-level block.
pub fn parse(text: &str, previous: Option<Previous<'_>>) -> Parsed {
    let mut parsed = Parsed::default();
    let bytes = text.len();
    if bytes > MOST_BYTES {
        let message = format!("the file has {bytes} bytes, and the limit is {MOST_BYTES}");
        parsed.errors.push(Diagnostic::new(Code::FILE_TOO_LARGE, message));
        return parsed;
    }
    let tokens = tokens(text);
    parsed.file.comments = comments(text, &tokens);
    let known = previous.map(Known::new);
    for chunk in chunks::split(text, &tokens) {
        if parsed.errors.len() >= MOST_ERRORS {
            break;
        }
        if let Some(error) = chunk.error {
            parsed.errors.push(error);
            parsed.broken.extend(chunk.heading);
            continue;
        }
        if parsed.file.items.len() + parsed.file.statements.len() >= MOST_BLOCKS {
            let message = format!("the file has more than {MOST_BLOCKS} blocks");
            let place = Span::new(chunk.span.start, chunk.span.start + 1);
            let error = Diagnostic::new(Code::FILE_TOO_LARGE, message).label(place, "one block too many");
            parsed.errors.push(error);
            break;
        }
        match known.as_ref().and_then(|known| known.item(text, chunk.span)) {
            Some(item) => {
                item.add_to(&mut parsed.file);
                parsed.valid.push(chunk.span);
            }
            None => parse_chunk(text, &tokens, chunk, &mut parsed),
        }
    }
    build::attach_documentation(&mut parsed.file, text);
    sort(&mut parsed.errors);
    parsed
}

fn comments(text: &str, tokens: &[Token]) -> Vec<Comment> {
    let comments = tokens.iter().filter(|token| token.kind == TokenKind::Comment);
    comments
        .map(|token| Comment {
            span: token.span,
            text: token.text(text).to_owned(),
            own_line: token.first_on_line,
        })
        .collect()
}

fn parse_chunk(text: &str, tokens: &[Token], chunk: chunks::Chunk, parsed: &mut Parsed) {
    let span = chunk.span;
    match Grammar::parse(Rule::item, &text[span.start..span.end]) {
        Ok(mut pairs) => {
            let mut builder = build::Builder {
                offset: span.start,
                errors: Vec::new(),
            };
            builder.item(pairs.next().expect("`item` gives one pair"), &mut parsed.file);
            if builder.errors.is_empty() {
                parsed.valid.push(span);
            }
            parsed.errors.append(&mut builder.errors);
        }
        Err(error) => {
            parsed.errors.push(expected::diagnostic(&error, text, tokens, span));
            parsed.broken.extend(chunk.heading);
        }
    }
}

/// A top-level block or statement.
enum Item {
    Block(Block),
    Statement(Statement),
}

impl Item {
    fn add_to(self, file: &mut File) {
        match self {
            Self::Block(block) => file.items.push(block),
            Self::Statement(statement) => file.statements.push(statement),
        }
    }
}

/// The valid chunks of an earlier text.
struct Known<'p> {
    file: &'p File,
    chunks: BTreeMap<&'p str, Span>,
}

impl<'p> Known<'p> {
    fn new(previous: Previous<'p>) -> Self {
        let chunks = previous.parsed.valid.iter();
        Self {
            file: &previous.parsed.file,
            chunks: chunks
                .map(|&span| (&previous.text[span.start..span.end], span))
                .collect(),
        }
    }

    /// The item that a chunk has, if the earlier text has the same chunk.
    fn item(&self, text: &str, chunk: Span) -> Option<Item> {
        let from = self.chunks.get(&text[chunk.start..chunk.end])?.start;
        let shift = shift(from, chunk.start);
        let File { items, statements, .. } = self.file;
        if let Ok(at) = items.binary_search_by_key(&from, |block| block.span.start) {
            let mut block = items[at].clone();
            // The comments before it may have changed.
            block.documentation.clear();
            shift.block(&mut block);
            return Some(Item::Block(block));
        }
        let at = statements
            .binary_search_by_key(&from, |statement| statement.span.start)
            .ok()?;
        let mut statement = statements[at].clone();
        shift.statement(&mut statement);
        Some(Item::Statement(statement))
    }
}

impl Parsed {
    /// The same file at `to` of a longer text.
    #[must_use]
    pub fn moved(mut self, to: usize) -> Self {
        let shift = shift(0, to);
        let File {
            items,
            statements,
            comments,
        } = &mut self.file;
        items.iter_mut().for_each(|block| shift.block(block));
        statements.iter_mut().for_each(|statement| shift.statement(statement));
        comments.iter_mut().for_each(|comment| shift.span(&mut comment.span));
        self.errors.iter_mut().for_each(|error| shift.diagnostic(error));
        self.valid.iter_mut().for_each(|span| shift.span(span));
        self
    }
}

/// Parses one field, `path = value`, such as that of `--set`. Its spans are those of a text in which it is at `at`.
///
/// # Errors
/// All its syntax errors.
pub fn parse_field(text: &str, at: usize) -> Result<crate::ast::Field, Vec<Diagnostic>> {
    let tokens = tokens(text);
    let mut errors: Vec<Diagnostic> = chunks::too_deep(&tokens).into_iter().collect();
    if errors.is_empty() {
        match Grammar::parse(Rule::lone_field, text) {
            Ok(mut pairs) => {
                let mut builder = build::Builder {
                    offset: at,
                    errors: Vec::new(),
                };
                let field = builder.lone_field(pairs.next().expect("`lone_field` gives one pair"));
                if builder.errors.is_empty() {
                    return Ok(field);
                }
                return Err(builder.errors);
            }
            Err(error) => errors.push(expected::diagnostic(&error, text, &tokens, Span::new(0, text.len()))),
        }
    }
    let shift = shift(0, at);
    errors.iter_mut().for_each(|error| shift.diagnostic(error));
    Err(errors)
}

/// Parses one value, such as a default in a table.
///
/// # Errors
/// The first error, with spans in `text`.
pub fn parse_value(text: &str) -> Result<crate::ast::Value, Diagnostic> {
    match parse_field(&format!("x = {text}\n"), 0) {
        Ok(mut field) => {
            shift("x = ".len(), 0).value(&mut field.value);
            Ok(field.value)
        }
        Err(errors) => {
            let message = errors
                .into_iter()
                .next()
                .map_or_else(String::new, |error| error.message);
            Err(Diagnostic::new(Code::SYNTAX, message).label(Span::new(0, text.len()), "here"))
        }
    }
}
