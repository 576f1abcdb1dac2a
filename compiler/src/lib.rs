//! Checked specs to a content-keyed execution graph.
//!
//! In: the text of a spec. Out: the checked spec, its graph, keys, plan, lock and differences. This crate is pure: it
//! reads no file, clock or environment.

pub mod fields;
pub mod spec;
