//! The .aur language: text to syntax tree, canonical formatting, and diagnostics.
//!
//! In: the text of a file. Out: an [`ast::File`] that keeps every comment, the formatted text, the roles of tokens for
//! editors, or the syntax errors as [`diagnostics::Diagnostic`]s. This crate is pure: it reads no file, clock or environment.
//! Not here: what a block or field means, names, units and ranges (all in `aurora-compiler`).

pub mod ast;
pub mod cursor;
pub mod diagnostics;
pub mod format;
pub mod keywords;
pub mod merge;
pub mod parse;
pub mod printable;
pub mod token;

pub use format::format;
pub use merge::merge;
pub use parse::{Parsed, parse};
