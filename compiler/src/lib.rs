//! Checks a spec and turns it into a content-keyed execution graph, a plan, a lock and a diff.
//!
//! ```text
//! text → (compose) ast::File of every file → (check) Spec → (lower) Graph → (hash) Keyed → (plan) Plan
//! ```
//!
//! Beside it, a launch script of Megatron-LM as a spec (`megatron`). Pure: text and values in, values out; no file, clock or
//! environment.

pub mod check;
pub mod compose;
pub mod diff;
pub mod documents;
pub mod exact;
pub mod fields;
pub mod graph;
pub mod hash;
pub mod layout;
pub mod lock;
pub mod megatron;
pub mod memory;
pub mod names;
mod number;
pub mod plan;
pub mod points;
pub mod resolved;
pub mod schedule;
pub mod schema;
pub mod spec;
pub mod text;
pub mod views;
pub mod why;
