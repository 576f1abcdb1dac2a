//! What each token of a text is for, on sound and on broken files: one pass over the tokens, guided by the tables.
//!
//! In: tokens, one after the other. Out: the role of each ([`Walker::feed`]), and at any point between two of them what
//! may be written there ([`Walker::expected`]). The walk never fails: what fits nowhere has no role, and a line that
//! starts a block at the left edge starts afresh, as the parser does.
//! Not here: which names there are (`scope`).

mod body;
mod expected;
mod value;
mod walk;

pub use walk::Walker;

use aurora_compiler::schema::{CallSchema, FieldSchema, Type};
use aurora_compiler::spec::BlockKind;
use aurora_lang::tokens::Token;

/// What a token is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Signs, and what fits nowhere.
    Other,
    Comment,
    /// `stage` before a name, or `let`, `from`, `every`, …
    Keyword,
    /// The name that a block or a line declares.
    Declared {
        keyword: String,
    },
    /// The name of a block in a path or in a profile.
    Block,
    /// A field, as the path of its value.
    Key {
        path: Vec<String>,
        schema: Option<&'static FieldSchema>,
    },
    /// A line of a mixture, as the path of its value.
    Component {
        path: Vec<String>,
    },
    Call {
        name: String,
    },
    Argument {
        path: Vec<String>,
        schema: Option<&'static FieldSchema>,
    },
    /// A word of a value: one of a closed set, or a name.
    Word {
        types: Vec<&'static Type>,
    },
    Number,
    Unit,
    Text,
    /// The path of an import.
    Path,
    ImportName,
    Mark,
    /// A name of a metric.
    Metric,
}

/// What may be written at a place.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A block or a statement.
    Item,
    /// A file, in the quotes of an import.
    Path {
        quoted: bool,
    },
    /// A name that the file at this path has.
    ImportName {
        path: String,
    },
    /// A field of a block.
    Key {
        kind: BlockKind,
    },
    /// `from`, behind a component's name.
    From,
    /// `weight`, `max_epochs`.
    Setting {
        present: Vec<String>,
    },
    /// The next name of a path in a profile, a sweep or `extends`.
    PathKey {
        owner: String,
        path: Vec<String>,
    },
    /// A value, perhaps one that may be unknown; `swept` values stand in a list of their own.
    Value {
        types: Vec<&'static Type>,
        unknown: bool,
        swept: bool,
    },
    Argument {
        call: &'static CallSchema,
    },
    Unit {
        types: Vec<&'static Type>,
    },
    /// `@published("…")`; `sign` says whether the `@` is there.
    Mark {
        sign: bool,
    },
    /// The next name of a metric.
    Metric {
        path: Vec<String>,
    },
}

/// The alternatives of a type.
pub fn flat(kind: &'static Type) -> Vec<&'static Type> {
    match kind {
        Type::OneOf(all) => all.iter().flat_map(flat).collect(),
        _ => vec![kind],
    }
}

/// The roles of all tokens.
pub fn roles(text: &str, tokens: &[Token]) -> Vec<Role> {
    let mut walker = Walker::new(text, tokens);
    (0..tokens.len()).map(|index| walker.feed(index)).collect()
}
