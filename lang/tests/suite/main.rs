//! Tests of the language alone: syntax trees, diagnostics, formatting, roles of tokens.

// The crate is pure; its tests read their files.
#![allow(clippy::disallowed_methods)]

mod cursor;
mod limits;
mod property;
mod snapshots;
