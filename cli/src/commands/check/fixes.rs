//! `aurora check --fix`: applies the edits that diagnostics suggest.
//!
//! An edit is applied if its diagnostic suggests only this one, if it is unambiguous, and if no earlier edit changes the same
//! text. Every applied edit is printed. Edits that may change the meaning are printed too, and applied with
//! `--unsafe-fixes`.

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_lang::diagnostics::{Applicability, Diagnostic, Source, TextEdit};
use camino::Utf8Path;

use crate::failure::Failure;
use crate::project::write_spec;

/// Edits the files of a spec, `with_unsafe` also with unsafe edits. Returns a line for each applied edit, in order.
pub fn apply(bundle: &Bundle, found: &[Diagnostic], with_unsafe: bool) -> Result<Vec<String>, Failure> {
    let view = bundle.sources().view();
    let applies = |edit: &&TextEdit| with_unsafe || edit.applicability == Applicability::Safe;
    let mut edits: Vec<&TextEdit> = found.iter().filter_map(only_edit).filter(applies).collect();
    edits.sort_by_key(|edit| edit.span);
    edits.dedup();
    let mut applied = Vec::new();
    for (index, name) in bundle.file_names().enumerate() {
        let own: Vec<&TextEdit> = edits
            .iter()
            .copied()
            .filter(|edit| view.file(edit.span.start).0 == index)
            .collect();
        // The user cannot edit a remote file.
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
            applied.push(line(edit, view));
        }
        text.push_str(&old[at..]);
        write_spec(Utf8Path::new(name), &text)?;
    }
    Ok(applied)
}

/// A line for each edit that was not applied because it may change the meaning.
pub fn unsafe_edits(bundle: &Bundle, found: &[Diagnostic]) -> Vec<String> {
    let view = bundle.sources().view();
    let edits = found.iter().filter_map(only_edit);
    let edits = edits.filter(|edit| edit.applicability == Applicability::Unsafe);
    edits.map(|edit| line(edit, view)).collect()
}

/// `FILE:LINE: `old` → `new``
fn line(edit: &TextEdit, view: Source<'_>) -> String {
    let (_, name, range) = view.file(edit.span.start);
    let number = view.text[range.start..edit.span.start].matches('\n').count() + 1;
    let old = &view.text[edit.span.start..edit.span.end];
    format!("{name}:{number}: `{old}` → `{}`", edit.replacement)
}

/// The edit of a diagnostic that suggests exactly one.
fn only_edit(diagnostic: &Diagnostic) -> Option<&TextEdit> {
    let mut edits = diagnostic.helps.iter().filter_map(|help| help.edit.as_ref());
    let only = edits.next()?;
    edits.next().is_none().then_some(only)
}
