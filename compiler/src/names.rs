//! Misspelt names: the most similar name, and whether the fix is safe.

use aurora_lang::ast;
use aurora_lang::diagnostics::{Applicability, Diagnostic};

/// Shorter names can be similar without being misspelt: `en` and `fi`, `KB` and `MB`.
const SHORTEST_TYPO: usize = 4;

/// Safe if the candidate is one edit away and no other candidate is similar.
pub(crate) fn applicability<'a>(name: &str, similar: &str, candidates: impl Iterator<Item = &'a str>) -> Applicability {
    let others = candidates.filter(|candidate| *candidate != similar);
    let is_typo = name.chars().count() >= SHORTEST_TYPO && strsim::damerau_levenshtein(name, similar) == 1;
    match is_typo && nearest(name, others).is_none() {
        true => Applicability::Safe,
        false => Applicability::Unsafe,
    }
}

/// Returns the candidate that is most similar to a misspelt name, if any is similar enough.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::damerau_levenshtein(name, candidate) <= (name.chars().count() / 3).max(1);
    candidates
        .filter(near)
        .min_by_key(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate.len()))
}

/// Adds a help with the most similar candidate; if there is none, with up to 20 candidates.
pub(crate) fn suggest<'a>(
    diagnostic: Diagnostic,
    written: &ast::Name,
    candidates: impl Iterator<Item = &'a str> + Clone,
    what: &str,
) -> Diagnostic {
    if let Some(similar) = nearest(&written.text, candidates.clone()) {
        return diagnostic.help_edit(
            format!("{what} with a similar name exists: `{similar}`"),
            written.span,
            similar,
            applicability(&written.text, similar, candidates),
        );
    }
    let all: Vec<String> = candidates.take(20).map(|name| format!("`{name}`")).collect();
    if all.is_empty() {
        diagnostic
    } else {
        diagnostic.help(format!("there are: {}", all.join(", ")))
    }
}
