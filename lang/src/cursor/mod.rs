//! What the tokens of a text are, and what may be written at a cursor, for editors.
//!
//! In: any text, valid or not. Out: the role of each token ([`roles`]), or what the grammar expects at a place
//! ([`at`]). Both come from syntax trees of the grammar: an incomplete block is repaired first (`parse::repair`).
//! Not here: which blocks, fields, words and units exist. A role has the path of a field or value, not its type.

mod expected;
mod roles;

pub use expected::{Cursor, Expected, at};
pub use roles::roles;

use crate::parse::Heading;

/// The path of a field: the block or statement that contains it, and the names before the `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    pub owner: Heading,
    pub names: Vec<String>,
}

/// A step from a value to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// The value after `from`, `weight` or `max_epochs`.
    Setting(String),
    /// An element of a list, from 0.
    Element(usize),
    Argument {
        call: String,
        /// From 0.
        index: usize,
        /// `None` for an argument without a name.
        name: Option<String>,
    },
}

/// The path of a value. It has no field in a `let`, a `param` or a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValuePath {
    pub field: Option<FieldPath>,
    pub steps: Vec<PathStep>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorRole {
    /// Punctuation, and what the grammar cannot use.
    Other,
    Comment,
    /// `stage` before a name, or `let`, `from`, `every`, …
    Keyword,
    /// The name of a top-level block, a `let` or a `param`.
    Declared {
        keyword: String,
    },
    /// The name of a block inside a profile.
    Block,
    /// A name of the path of a field.
    Field {
        /// Up to this name.
        path: FieldPath,
        /// Whether no name follows.
        is_last: bool,
    },
    /// The name of a component of a mixture.
    Component {
        path: FieldPath,
    },
    Call {
        name: String,
    },
    /// The name of an argument.
    Argument {
        path: ValuePath,
    },
    /// A word as a value: one of a closed set, or a name.
    Word {
        path: ValuePath,
    },
    Number,
    Unit {
        path: ValuePath,
    },
    Text,
    /// The path of an import.
    ImportPath,
    ImportName {
        file: String,
    },
    /// The `@` or the name of a mark.
    Mark,
    /// A name of a metric.
    Metric {
        /// Up to this name.
        names: Vec<String>,
    },
}
