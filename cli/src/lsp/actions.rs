//! Quick fixes for diagnostics: their suggested edits, and missing fields.

use aurora_compiler::schema::{self, BlockSchema};
use aurora_lang::ast::{Block, Body, Entry, Span};
use aurora_lang::diagnostics::{Applicability, Code, Diagnostic, TextEdit};
use camino::Utf8Path;

use super::analysis::Analysis;

pub struct Action {
    pub title: String,
    /// In the concatenated text of the spec.
    pub edits: Vec<TextEdit>,
    pub fixes: Diagnostic,
    /// Whether it is the only edit of the diagnostic, and a safe one.
    pub preferred: bool,
}

/// The actions for the diagnostics that touch a range of a file.
pub fn actions(analysis: &Analysis, path: &Utf8Path, range: Span) -> Vec<Action> {
    let mut all = Vec::new();
    let found = analysis.diagnostics();
    let here = |found: &&Diagnostic| {
        let place = found.place().map(|place| analysis.place(place));
        place.is_some_and(|place| place.path == path && place.span.start <= range.end && range.start <= place.span.end)
    };
    for error in found.iter().filter(here) {
        let edits: Vec<_> = error
            .helps
            .iter()
            .filter_map(|help| Some((&help.text, help.edit.as_ref()?)))
            .collect();
        all.extend(edits.iter().map(|(text, edit)| Action {
            title: title(text, edit),
            edits: vec![(*edit).clone()],
            fixes: error.clone(),
            preferred: edits.len() == 1 && edit.applicability == Applicability::Safe,
        }));
        if error.code == Code::MISSING_FIELD {
            all.extend(missing(analysis, error, &found));
        }
    }
    all
}

/// The title of an edit: an instruction instead of "a field with a similar name exists: `budget`".
fn title(help: &str, edit: &TextEdit) -> String {
    if help.contains("similar name") {
        return format!("Change to `{}`", edit.replacement);
    }
    let mut characters = help.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + characters.as_str()
}

/// Adds the missing field of a diagnostic, or all missing fields of its block.
fn missing(analysis: &Analysis, error: &Diagnostic, found: &[Diagnostic]) -> Vec<Action> {
    let Some(place) = error.place() else { return Vec::new() };
    let Some(block) = analysis
        .bundle
        .declared_at(place)
        .and_then(|declared| match declared.item {
            aurora_compiler::compose::DeclaredItem::Block(block) => Some(block),
            _ => None,
        })
    else {
        return Vec::new();
    };
    let all: Vec<&str> = found
        .iter()
        .filter(|other| other.code == Code::MISSING_FIELD && other.place() == Some(place))
        .filter_map(field_of)
        .collect();
    let one = field_of(error)
        .into_iter()
        .map(|field| (format!("Add `{field}`"), vec![field], true));
    let rest = (all.len() > 1).then(|| {
        (
            format!("Add all {} missing fields of `{}`", all.len(), block.name.text),
            all.clone(),
            false,
        )
    });
    one.chain(rest)
        .filter_map(|(title, fields, preferred)| {
            let edit = insertion(analysis.bundle.sources().text(), block, &fields)?;
            Some(Action {
                title,
                edits: vec![edit],
                fixes: error.clone(),
                preferred,
            })
        })
        .collect()
}

/// The missing field, from the label of the diagnostic.
fn field_of(error: &Diagnostic) -> Option<&str> {
    error.labels.first()?.text.split('`').nth(1)
}

/// Inserts fields before the closing brace, with the values of the example in the schema.
fn insertion(text: &str, block: &Block, fields: &[&str]) -> Option<TextEdit> {
    let block_schema = schema::block(schema::kind(&block.keyword.text)?);
    let lines: Vec<String> = fields
        .iter()
        .map(|field| format!("{field} = {}", example(block_schema, field)))
        .collect();
    let brace = block.span.end - 1;
    let line = &text[..brace].rsplit('\n').next().unwrap_or_default();
    let replacement = if line.trim().is_empty() {
        let start = brace - line.len();
        let inner: String = lines.iter().map(|one| format!("{line}  {one}\n")).collect();
        return Some(TextEdit {
            span: Span::new(start, start),
            replacement: inner,
            applicability: Applicability::Unsafe,
        });
    } else {
        format!(" {} ", lines.join("  "))
    };
    Some(TextEdit {
        span: Span::new(brace, brace),
        replacement,
        // The values are only examples.
        applicability: Applicability::Unsafe,
    })
}

/// The value of a field in the example of its block, or a placeholder.
fn example(schema: &BlockSchema, name: &str) -> String {
    let parsed = aurora_lang::parse(schema.example, None);
    let entries = parsed.file.items.iter().filter_map(|block| match &block.body {
        Body::Entries(entries) => Some(entries),
        Body::Gate(_) => None,
    });
    let found = entries.flatten().find_map(|entry| match entry {
        Entry::Field(field) if field.path[0].text == name => Some(aurora_lang::format::value(&field.value)),
        _ => None,
    });
    found.unwrap_or_else(|| "unknown".to_owned())
}
