//! What may be written at a cursor.
//!
//! A word in the place of the cursor makes the text complete enough to be parsed: the role of that word shows which
//! field, value or call the cursor is in. What may follow the text before the cursor is what the grammar expects there.

use super::roles::Roles;
use super::{CursorRole, FieldPath, PathStep, ValuePath};
use crate::ast::Span;
use crate::parse::{Expects, chunks, repair};
use crate::token::{Token, TokenKind, tokens};

/// The word in the place of the cursor.
const WORD: &str = "_";

/// What may be written at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A block or a statement.
    Item,
    /// The path of an import, in quotes.
    ImportPath,
    /// A name that the file of an import declares.
    ImportName {
        file: String,
    },
    /// The next name of the path of a field; `names` are those before it.
    FieldName {
        path: FieldPath,
    },
    /// The word after a name that is not followed by `=`, as in `fi from …` or `stage cap { … }`.
    AfterName {
        path: FieldPath,
    },
    Value {
        path: ValuePath,
    },
    /// The name of an argument.
    Argument {
        call: String,
    },
    Unit {
        path: ValuePath,
    },
    /// `@published("…")`; `has_sign` if the `@` is there already.
    Mark {
        has_sign: bool,
    },
    /// `weight` or `max_epochs`; `present` are the words that the component has.
    Setting {
        present: Vec<String>,
    },
    /// The next name of a metric; `names` are those before it.
    Metric {
        names: Vec<String>,
    },
}

/// What may be written at a place of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The start of the word at the cursor. It is empty if there is no word.
    pub replaced: Span,
    pub expected: Vec<Expected>,
    /// The fields, arguments or names that the block, call or import around the cursor has already.
    pub present: Vec<String>,
}

/// What may be written at a byte of a text.
pub fn at(text: &str, byte: usize) -> Cursor {
    let is_prefix = |token: &Token| token.span.start < byte && byte <= token.span.end;
    let word = tokens(text)
        .into_iter()
        .find(|token| token.kind == TokenKind::Word && is_prefix(token))
        .map_or(Span::new(byte, byte), |token| token.span);
    let text = format!("{} {WORD} {}", &text[..word.start], &text[word.end..]);
    let at = word.start + 1;
    let mut cursor = Cursor {
        replaced: Span::new(word.start, byte),
        expected: Vec::new(),
        present: Vec::new(),
    };
    let tokens = tokens(&text);
    let chunk = chunks(&text, &tokens)
        .into_iter()
        .find(|chunk| chunk.start <= at && at < chunk.end);
    let Some(chunk) = chunk else { return cursor };
    if chunk.start == at {
        cursor.expected.push(Expected::Item);
        return cursor;
    }
    let Some(repaired) = repair(&text, chunk) else {
        return cursor;
    };
    let mut roles = Roles::new(&text, &tokens);
    roles.cursor = Some(at);
    roles.chunk(chunk, &repaired.file, &repaired.removed);
    let index = tokens.partition_point(|token| token.span.start < at);
    let place = Place {
        before: index.checked_sub(1).map(|before| (&tokens[before], &roles.all[before])),
        role: &roles.all[index],
        settings: &roles.settings,
        text: &text,
    };
    let expects = repaired.expects(&text, at);
    cursor.expected = place.expected(&expects);
    cursor.present = roles.present;
    cursor
}

/// The word in the place of the cursor, and the token before it.
struct Place<'r> {
    before: Option<(&'r Token, &'r CursorRole)>,
    role: &'r CursorRole,
    settings: &'r [String],
    text: &'r str,
}

impl Place<'_> {
    fn expected(&self, expects: &[Expects]) -> Vec<Expected> {
        let before = self.before.map_or("", |(token, _)| token.text(self.text));
        let is = |expected: Expects| expects.contains(&expected);
        let mut all = Vec::new();
        match self.role {
            CursorRole::Word { path } if is(Expects::Argument) => {
                if let Some(PathStep::Argument { call, .. }) = path.steps.last() {
                    all.push(Expected::Argument { call: call.clone() });
                }
                all.push(Expected::Value { path: path.clone() });
            }
            CursorRole::Word { path } if is(Expects::Value) => all.push(Expected::Value { path: path.clone() }),
            // The grammar accepts a unit after a percentage, but no value has one.
            CursorRole::Unit { path } if is(Expects::Unit) && !before.ends_with('%') => {
                all.push(Expected::Unit { path: path.clone() });
            }
            CursorRole::Metric { names } if is(Expects::Metric) => all.push(Expected::Metric {
                names: names[..names.len() - 1].to_vec(),
            }),
            CursorRole::Call { .. } if is(Expects::Metric) => all.push(Expected::Metric { names: Vec::new() }),
            CursorRole::ImportName { file } if is(Expects::Name) => {
                all.push(Expected::ImportName { file: file.clone() })
            }
            CursorRole::Mark if is(Expects::Name) => all.push(Expected::Mark { has_sign: true }),
            _ => {}
        }
        if is(Expects::Mark) {
            all.push(Expected::Mark { has_sign: false });
        }
        if is(Expects::Setting) {
            all.push(Expected::Setting {
                present: self.settings.to_vec(),
            });
        }
        match (self.role, self.before) {
            (CursorRole::Field { path, .. } | CursorRole::Component { path }, _) if is(Expects::Name) => {
                let mut path = path.clone();
                path.names.pop();
                all.push(Expected::FieldName { path });
            }
            (_, Some((_, CursorRole::Field { path, .. }))) if is(Expects::Equals) && !is(Expects::Value) => {
                all.push(Expected::AfterName { path: path.clone() });
            }
            (_, Some((_, CursorRole::Keyword))) if is(Expects::Text) => all.push(Expected::ImportPath),
            _ => {}
        }
        all
    }
}
