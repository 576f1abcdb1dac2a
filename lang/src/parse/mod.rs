//! Text to syntax tree, with every syntax fault of the file.
//!
//! In: the text of a spec. Out: the blocks that could be read, all comments, and a diagnostic for each block that could
//! not: the text is cut into top-level blocks first (`chunks`), and the grammar (pest) sees one of them at a time.
//! Work is bounded: file size, blocks, nesting, lists and expressions have limits (`E0103`, `E0104`).
//! Not here: names, units and meaning.

mod build;
mod chunks;
mod expected;
mod seen;

use pest::Parser as _;

use crate::ast::{File, Span};
use crate::diagnostics::{Code, Diagnostic, sort};

/// The generated parser; private, so that the grammar's rules are known to this room only.
mod grammar {
    #[derive(pest_derive::Parser)]
    #[grammar = "parse/grammar.pest"]
    pub(super) struct Grammar;
}
use grammar::{Grammar, Rule};
use seen::Item;
pub use seen::Seen;

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
/// Syntax faults after which the rest of a file is not read.
pub const MOST_FAULTS: usize = 64;

/// What could be read, and what could not.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub file: File,
    /// Sorted by place.
    pub errors: Vec<Diagnostic>,
    /// Keyword and name of each block or statement that could not be read: these names exist, whatever is in them. An
    /// import has none.
    pub broken: Vec<(String, String)>,
}

/// Reads a whole file; goes on at the next top-level block after a fault.
pub fn parse(text: &str) -> Parsed {
    parse_from(text, 0)
}

/// As [`parse`], of the file that stands behind others in one text, from `start` on; places are those of the whole text.
pub fn parse_from(text: &str, start: usize) -> Parsed {
    parse_again(text, start, None)
}

/// As [`parse_from`]; blocks that have been seen before are not read again.
pub fn parse_again(text: &str, start: usize, mut seen: Option<&mut Seen>) -> Parsed {
    let mut parsed = Parsed {
        file: File::default(),
        errors: Vec::new(),
        broken: Vec::new(),
    };
    let bytes = text.len() - start;
    if bytes > MOST_BYTES {
        let message = format!("the file has {bytes} bytes, and at most {MOST_BYTES} are read");
        parsed.errors.push(Diagnostic::new(Code::FILE_TOO_LARGE, message));
        return parsed;
    }
    let lexed = chunks::lex(text, start);
    parsed.file.comments = lexed.comments.clone();
    for chunk in chunks::split(text, &lexed, start) {
        if parsed.errors.len() >= MOST_FAULTS {
            break;
        }
        match chunk {
            chunks::Chunk::Block(span) if parsed.file.items.len() + parsed.file.statements.len() >= MOST_BLOCKS => {
                let message = format!("the file has more than {MOST_BLOCKS} blocks");
                let place = Span::new(span.start, span.start + 1);
                parsed
                    .errors
                    .push(Diagnostic::new(Code::FILE_TOO_LARGE, message).label(place, "one block too many"));
                break;
            }
            chunks::Chunk::Block(span) => read_block(text, span, &mut parsed, seen.as_deref_mut()),
            chunks::Chunk::Fault { diagnostic, broken } => {
                parsed.errors.push(diagnostic);
                parsed.broken.extend(broken);
            }
        }
    }
    build::attach_documentation(&mut parsed.file, text);
    sort(&mut parsed.errors);
    parsed
}

fn read_block(text: &str, span: Span, parsed: &mut Parsed, seen: Option<&mut Seen>) {
    let chunk = &text[span.start..span.end];
    let known = seen.as_ref().and_then(|seen| seen.get(chunk, span.start));
    match known {
        Some(Item::Block(block)) => return parsed.file.items.push(block),
        Some(Item::Statement(statement)) => return parsed.file.statements.push(statement),
        None => {}
    }
    match Grammar::parse(Rule::item, chunk) {
        Ok(mut pairs) => {
            let item = pairs.next().expect("`item` gives one pair");
            if let Some(seen) = seen {
                keep(chunk, item.clone(), seen);
            }
            let mut builder = build::Builder {
                offset: span.start,
                errors: Vec::new(),
            };
            builder.item(item, &mut parsed.file);
            parsed.errors.append(&mut builder.errors);
        }
        Err(error) => {
            parsed.errors.push(expected::diagnostic(&error, text, span));
            parsed.broken.extend(chunks::heading(text, span.start));
        }
    }
}

/// Keeps an item that has no fault, with places that count from its start.
fn keep(chunk: &str, item: pest::iterators::Pair<'_, Rule>, seen: &mut Seen) {
    let mut builder = build::Builder {
        offset: 0,
        errors: Vec::new(),
    };
    let mut file = File::default();
    builder.item(item, &mut file);
    let item = file
        .items
        .pop()
        .map(Item::Block)
        .or_else(|| file.statements.pop().map(Item::Statement));
    if let (Some(item), true) = (item, builder.errors.is_empty()) {
        seen.keep(chunk, item);
    }
}

/// Reads one field, `path = value`, that stands behind other text from `start` on; places are those of the whole text.
///
/// # Errors
/// Every syntax fault of it.
pub fn parse_field_from(text: &str, start: usize) -> Result<crate::ast::Field, Vec<Diagnostic>> {
    let span = Span::new(start, text.len());
    let mut builder = build::Builder {
        offset: start,
        errors: Vec::new(),
    };
    match Grammar::parse(Rule::lone_field, &text[start..]) {
        Ok(mut pairs) => {
            let field = builder.lone_field(pairs.next().expect("`lone_field` gives one pair"));
            if builder.errors.is_empty() {
                Ok(field)
            } else {
                Err(builder.errors)
            }
        }
        Err(error) => Err(vec![expected::diagnostic(&error, text, span)]),
    }
}

/// Reads one value that stands alone, such as a default in a table.
///
/// # Errors
/// The first fault, with spans in `text`.
pub fn parse_value(text: &str) -> Result<crate::ast::Value, Diagnostic> {
    // The grammar knows whole blocks only; a value is read as the one field of a block.
    let block = format!("x y {{ z = {text}\n}}");
    let parsed = parse(&block);
    let fault = |message: &str| Diagnostic::new(Code::SYNTAX, message).label(Span::new(0, text.len()), "here");
    if let Some(error) = parsed.errors.into_iter().next() {
        return Err(fault(&error.message));
    }
    match parsed.file.items.into_iter().next().map(|item| item.body) {
        Some(crate::ast::Body::Entries(entries)) => match <[_; 1]>::try_from(entries) {
            Ok([crate::ast::Entry::Field(field)]) => Ok(field.value),
            _ => Err(fault("expected one value")),
        },
        _ => Err(fault("expected a value")),
    }
}
