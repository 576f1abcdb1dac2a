//! Checks a spec and turns it into a content-keyed execution graph, a plan, a lock and a diff.
//!
//! ```text
//! text → ast::File → (check) Spec → (lower) Graph → (hash) Keyed → (plan) Plan
//! ```
//!
//! Pure: text and values in, values out; no file, clock or environment.

pub mod fields;
pub mod graph;
pub mod hash;
pub mod lock;
pub mod plan;
pub mod schedule;
pub mod spec;
pub mod why;
