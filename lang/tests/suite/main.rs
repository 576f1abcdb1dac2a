//! The language by itself: trees, messages, layout.

// The crate is pure; its tests read their files.
#![allow(clippy::disallowed_methods)]

mod property;
mod snapshots;
