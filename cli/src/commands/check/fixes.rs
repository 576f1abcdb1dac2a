//! `aurora check --fix`: makes the edits that faults suggest.
//!
//! An edit is made where its fault suggests that one alone, where it can only be what was meant, and where no edit before it
//! touches the same text. What the edit does is told, so that it can be looked at; an edit that may mean something else is
//! told as well, and made where that is asked for.

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_lang::diagnostics::{Applicability, Diagnostic, Edit, Source};
use camino::Utf8Path;

use crate::failure::Failure;

/// Edits the files of a spec, `with_unsafe` edits as well; says what was edited, in order.
pub fn apply(bundle: &Bundle, found: &[Diagnostic], with_unsafe: bool) -> Result<Vec<String>, Failure> {
    let view = bundle.sources().view();
    let made = |edit: &&Edit| with_unsafe || edit.applicability == Applicability::Safe;
    let mut edits: Vec<&Edit> = found.iter().filter_map(only_edit).filter(made).collect();
    edits.sort_by_key(|edit| edit.span);
    edits.dedup();
    let mut told = Vec::new();
    for (index, name) in bundle.file_names().enumerate() {
        let own: Vec<&Edit> = edits
            .iter()
            .copied()
            .filter(|edit| view.file(edit.span.start).0 == index)
            .collect();
        // A file of the web or of a package is not the user's to edit.
        let Some(first) = own.first().filter(|_| !is_remote(name)) else {
            continue;
        };
        let (_, _, range) = view.file(first.span.start);
        let old = &view.text[range.start..range.end];
        let mut text = String::new();
        let mut at = 0;
        for edit in own {
            let [start, end] = [edit.span.start, edit.span.end].map(|byte| byte - range.start);
            if start < at || end > old.len() {
                continue;
            }
            text.push_str(&old[at..start]);
            text.push_str(&edit.replacement);
            at = end;
            told.push(words(edit, view));
        }
        text.push_str(&old[at..]);
        aurora_runtime::write_whole(Utf8Path::new(name), text.as_bytes())
            .map_err(|error| Failure::error(format!("cannot write `{name}`: {error}")))?;
    }
    Ok(told)
}

/// The edits that were left, because they may mean something else.
pub fn left(bundle: &Bundle, found: &[Diagnostic]) -> Vec<String> {
    let view = bundle.sources().view();
    let edits = found.iter().filter_map(only_edit);
    let left = edits.filter(|edit| edit.applicability == Applicability::Unsafe);
    left.map(|edit| words(edit, view)).collect()
}

/// `FILE:LINE: `old` → `new``
fn words(edit: &Edit, view: Source<'_>) -> String {
    let (_, name, range) = view.file(edit.span.start);
    let line = view.text[range.start..edit.span.start].matches('\n').count() + 1;
    let old = &view.text[edit.span.start..edit.span.end];
    format!("{name}:{line}: `{old}` → `{}`", edit.replacement)
}

/// The edit of a fault that suggests one and no other.
fn only_edit(fault: &Diagnostic) -> Option<&Edit> {
    let mut edits = fault.helps.iter().filter_map(|help| help.edit.as_ref());
    let only = edits.next()?;
    edits.next().is_none().then_some(only)
}
