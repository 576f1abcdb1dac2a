//! Checks a spec and turns it into a content-keyed execution graph, a plan, a lock and a diff.
//!
//! ```text
//! text → (compose) ast::File of every file → (check) Spec → (lower) Graph → (hash) Keyed → (plan) Plan
//! ```
//!
//! Pure: text and values in, values out; no file, clock or environment.

pub mod check;
pub mod compose;
pub mod diff;
pub mod documents;
pub mod fields;
pub mod graph;
pub mod hash;
pub mod lock;
pub mod plan;
pub mod resolved;
pub mod schedule;
pub mod schema;
pub mod spec;
pub mod why;

/// Returns the candidate that a misspelt name is nearest to, if one is near.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::damerau_levenshtein(name, candidate) <= (name.chars().count() / 3).max(1);
    candidates
        .filter(near)
        .min_by_key(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate.len()))
}
