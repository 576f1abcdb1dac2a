//! References to names in all files of the workspace, and renaming.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use aurora_compiler::compose::{Occurrence, OccurrenceRole};
use aurora_lang::ast::Span;
use aurora_lang::cursor::CursorRole;
use aurora_lang::diagnostics::{Code, Diagnostic};
use camino::{Utf8Path, Utf8PathBuf};

use super::analysis::FileRange;
use super::scope::CursorPlace;
use super::text::Text;
use super::workspace::{OpenDocument, Workspace};

/// A use or declaration of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameUse {
    pub place: FileRange,
    pub declares: bool,
    /// Whether it is an import that imports other blocks of the same name too.
    pub shared: bool,
}

/// The declarations of the names at a byte.
pub fn declarations(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Vec<FileRange> {
    let Some(analysis) = workspace.analysis(path) else {
        return Vec::new();
    };
    let mut places: Vec<FileRange> = analysis
        .names_at(path, byte)
        .iter()
        .map(|found| analysis.place(found.declared))
        .collect();
    if places.is_empty() {
        places = by_word(workspace, path, byte).unwrap_or_default();
    }
    places.sort();
    places.dedup();
    places
}

/// In a block with a syntax error, every declaration that the word may refer to. In an import, the file.
fn by_word(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Option<Vec<FileRange>> {
    let place = CursorPlace::new(workspace, path, byte)?;
    let index = place.token()?;
    let analysis = workspace.analysis(path)?;
    let (number, file) = analysis.file(path)?;
    let start = place.tokens[index].span.start;
    if let Some((_, Some(target))) = file
        .imports()
        .find(|(quoted, _)| quoted.span.start - file.span.start == start)
    {
        let path = analysis.paths().get(target)?.clone();
        return Some(vec![FileRange {
            path,
            span: Span::default(),
        }]);
    }
    let is_broken = file.parsed.errors.iter().any(|_| true);
    if !is_broken
        || !matches!(
            place.role(index),
            CursorRole::Word { .. } | CursorRole::Block | CursorRole::Field { .. } | CursorRole::Metric { .. }
        )
    {
        return None;
    }
    let scope = analysis.bundle.in_scope(number);
    let named = scope.iter().filter(|declared| declared.name.text == place.word(index));
    Some(named.map(|declared| analysis.place(declared.name.span)).collect())
}

/// Every use of the names at a byte, in all files.
pub fn references(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Vec<NameUse> {
    let declared: BTreeSet<FileRange> = declarations(workspace, path, byte).into_iter().collect();
    let mut found = BTreeSet::new();
    let Some(name) = declared.first().and_then(|place| word(workspace, place)) else {
        return Vec::new();
    };
    for file in workspace.files() {
        let holds = workspace.text(&file).is_some_and(|text| text.as_str().contains(&name));
        let Some(analysis) = holds.then(|| workspace.analysis(&file)).flatten() else {
            continue;
        };
        let all = analysis.occurrences();
        for occurrence in all {
            if declared.contains(&analysis.place(occurrence.declared)) {
                found.insert(NameUse {
                    place: analysis.place(occurrence.span),
                    declares: occurrence.role == OccurrenceRole::Declaration,
                    shared: is_shared(all, occurrence),
                });
            }
        }
    }
    found.into_iter().collect()
}

/// Every use in one file of the names at a byte, and whether it is the declaration.
pub fn in_file(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Vec<(Span, bool)> {
    let Some(analysis) = workspace.analysis(path) else {
        return Vec::new();
    };
    let declared: Vec<Span> = analysis
        .names_at(path, byte)
        .iter()
        .map(|found| found.declared)
        .collect();
    let all = analysis.occurrences().iter();
    let places = all
        .filter(|found| declared.contains(&found.declared))
        .map(|found| (analysis.place(found.span), found.role == OccurrenceRole::Declaration));
    places
        .filter(|(place, _)| place.path == path)
        .map(|(place, declares)| (place.span, declares))
        .collect()
}

fn is_shared(all: &[Occurrence], one: &Occurrence) -> bool {
    one.role == OccurrenceRole::Import
        && all
            .iter()
            .any(|other| other.span == one.span && other.declared != one.declared)
}

fn word(workspace: &mut Workspace, place: &FileRange) -> Option<String> {
    let text = workspace.text(&place.path)?;
    let word = &text.as_str()[place.span.start..place.span.end];
    (!word.is_empty()).then(|| word.to_owned())
}

/// The range of the name at a byte, if it can be renamed.
///
/// # Errors
/// Why it cannot be renamed.
pub fn prepare(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Result<Span, String> {
    let Some(analysis) = workspace.analysis(path) else {
        return Err("the file cannot be read".to_owned());
    };
    let found = analysis.names_at(path, byte);
    let Some(first) = found.first() else {
        return Err("only names of blocks, `let` and `param` can be renamed".to_owned());
    };
    Ok(analysis.place(first.span).span)
}

/// The edits that rename the declaration of the name at a byte, and all its uses.
///
/// # Errors
/// Why it cannot be renamed, or which error the new name would cause.
pub fn rename(
    workspace: &mut Workspace,
    path: &Utf8Path,
    byte: usize,
    new: &str,
) -> Result<BTreeMap<Utf8PathBuf, Vec<(Span, String)>>, String> {
    prepare(workspace, path, byte)?;
    let is_name = new.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && new.chars().all(|one| one.is_ascii_alphanumeric() || one == '_');
    if !is_name {
        return Err(format!(
            "`{new}` is not a valid name: use letters, digits and `_`, and start with a letter or `_`"
        ));
    }
    let found = references(workspace, path, byte);
    let declared = found.iter().filter(|found| found.declares).count();
    if declared != 1 {
        return Err("the name has several declarations: rename it at one of them".to_owned());
    }
    let mut edits: BTreeMap<Utf8PathBuf, Vec<(Span, String)>> = BTreeMap::new();
    for found in &found {
        let text = workspace.text(&found.place.path).ok_or("a file cannot be read")?;
        let old = &text.as_str()[found.place.span.start..found.place.span.end];
        let replacement = if found.shared {
            format!("{old}, {new}")
        } else {
            new.to_owned()
        };
        edits
            .entry(found.place.path.clone())
            .or_default()
            .push((found.place.span, replacement));
    }
    let declared = found
        .iter()
        .find(|found| found.declares)
        .map(|found| found.place.clone());
    verify(workspace, &edits, declared.as_ref(), found.len())?;
    Ok(edits)
}

/// Checks the specs after the edits: they must not have new errors, and no use may be in a block with a syntax error.
fn verify(
    workspace: &mut Workspace,
    edits: &BTreeMap<Utf8PathBuf, Vec<(Span, String)>>,
    declared: Option<&FileRange>,
    count: usize,
) -> Result<(), String> {
    let mut after = workspace.trial();
    for (path, edits) in edits {
        let text = workspace.text(path).ok_or("a file cannot be read")?;
        let mut changed = text.as_str().to_owned();
        for (span, new) in edits.iter().rev() {
            changed.replace_range(span.start..span.end, new);
        }
        let uri = super::uri::of(path).ok_or("a file has no URI")?;
        after.documents.insert(
            path.clone(),
            OpenDocument {
                uri,
                version: 0,
                text: Rc::new(Text::new(changed)),
            },
        );
    }
    for path in edits.keys() {
        for spec in workspace.specs_of(path).into_iter().chain([path.clone()]) {
            let (Some(before), Some(after)) = (workspace.analysis(&spec), after.analysis(&spec)) else {
                continue;
            };
            if before.bundle.files().any(|file| !file.parsed.errors.is_empty()) {
                return Err(
                    "a file has syntax errors, and the name may be used in a block that cannot be parsed".to_owned(),
                );
            }
            let (before, after) = (before.diagnostics(), after.diagnostics());
            let is_name = |found: &&Diagnostic| {
                found.code.severity() == aurora_lang::diagnostics::Severity::Error && found.code != Code::MISSING_FIELD
            };
            if after.iter().filter(is_name).count() > before.iter().filter(is_name).count() {
                let new = after
                    .iter()
                    .filter(is_name)
                    .find(|found| !before.iter().any(|known| known.message == found.message));
                return Err(new.map_or_else(
                    || "the spec would have an error".to_owned(),
                    |found| found.message.clone(),
                ));
            }
        }
    }
    let FileRange { path, span } = declared.ok_or("nothing to rename")?;
    let before = edits[path].iter().filter(|(edit, _)| edit.start < span.start);
    let byte = before.fold(span.start, |byte, (edit, new)| byte + new.len() + edit.start - edit.end);
    if references(&mut after, path, byte).len() == count {
        Ok(())
    } else {
        Err("the new name has another meaning at one of the uses".to_owned())
    }
}
