//! The language by itself: trees, messages, layout.

mod property;
mod snapshots;
