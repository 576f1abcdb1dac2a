//! Misspelt names: what was probably meant, and whether a fix is safe.

use aurora_lang::ast;
use aurora_lang::diagnostics::{Applicability, Diagnostic};

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

/// Adds "a field with a similar name exists" if one does, else what there is.
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
