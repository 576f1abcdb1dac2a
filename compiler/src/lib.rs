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
pub mod fields;
pub mod graph;
pub mod hash;
pub mod lock;
pub mod megatron;
pub mod memory;
pub mod placement;
pub mod plan;
pub mod resolved;
pub mod schedule;
pub mod schema;
pub mod spec;
pub mod why;

use aurora_lang::diagnostics::Applicability;

/// Shorter names are near each other without being misspelt: `en` and `fi`, `KB` and `MB`.
const SHORTEST_TYPO: usize = 4;

/// Whether a misspelt name can only have meant this candidate: no other one is near, and it is one slip of the keys away.
pub(crate) fn applicability<'a>(name: &str, similar: &str, candidates: impl Iterator<Item = &'a str>) -> Applicability {
    let others = candidates.filter(|candidate| *candidate != similar);
    let is_slip = name.chars().count() >= SHORTEST_TYPO && strsim::damerau_levenshtein(name, similar) == 1;
    match is_slip && nearest(name, others).is_none() {
        true => Applicability::Safe,
        false => Applicability::Unsafe,
    }
}

/// Returns the candidate that a misspelt name is nearest to, if one is near.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::damerau_levenshtein(name, candidate) <= (name.chars().count() / 3).max(1);
    candidates
        .filter(near)
        .min_by_key(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate.len()))
}
