//! Hover: documentation and values of the token under the cursor.

use aurora_compiler::compose::{Declared, DeclaredItem};
use aurora_compiler::schema::{self, FieldSchema, Type};
use aurora_compiler::spec::{BlockId, Cause};
use aurora_lang::ast::Span;
use aurora_lang::cursor::{CursorRole, PathStep};
use aurora_lang::diagnostics::explain;
use camino::Utf8Path;

use super::analysis::Analysis;
use super::scope::CursorPlace;
use super::types::{self, ChangePart};
use super::workspace::Workspace;
use super::{docs, facts};

/// Markdown about the token at a byte, and the range of the token.
pub fn hover(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Option<(Span, String)> {
    let place = CursorPlace::new(workspace, path, byte)?;
    let index = place.token()?;
    let word = place.word(index).to_owned();
    let analysis = workspace.best(path)?;
    let mut parts: Vec<String> = Vec::new();
    match place.role(index) {
        CursorRole::Keyword => parts.extend(keyword(&word)),
        CursorRole::Declared { .. } | CursorRole::Block | CursorRole::ImportName { .. } | CursorRole::Metric { .. } => {
            parts.extend(names(&analysis, path, byte));
        }
        CursorRole::Field { path: field, is_last } => match types::change_part(&field, is_last) {
            Some(ChangePart::Kind) => parts.extend(keyword(&word)),
            Some(ChangePart::Name) => parts.extend(names(&analysis, path, byte)),
            None => parts.extend(value(&analysis, &types::spec_path(&field), types::field(&field))),
        },
        CursorRole::Argument { path } => {
            let schema = match path.steps.last() {
                Some(PathStep::Argument { call, index, name }) => types::argument(call, name.as_deref(), *index),
                _ => None,
            };
            parts.extend(value(&analysis, &types::argument_path(&path), schema));
        }
        CursorRole::Component { path } => parts.extend(component(&analysis, &types::spec_path(&path))),
        CursorRole::Call { name } => {
            let function = schema::FUNCTIONS.iter().find(|table| table.name == name);
            parts.extend(function.map(docs::function));
            parts.extend(schema::call(&name).filter(|_| function.is_none()).map(docs::call));
        }
        CursorRole::Word { path: value } => {
            parts.extend(names(&analysis, path, byte));
            if parts.is_empty() {
                let types = types::value(&value).types;
                parts.extend(types.iter().filter_map(|kind| closed_word(kind, &word)));
            }
        }
        CursorRole::Unit { .. } => parts.push(format!("**{word}**: {}", docs::unit(&word))),
        CursorRole::Number => parts.extend(number(&analysis, path, place.tokens[index].span)),
        CursorRole::Mark => {
            let word = if word == "@" { place.word(index + 1) } else { &word };
            let mark = docs::MARKS.iter().find(|(name, _, _)| name == &word);
            parts.extend(mark.map(|(name, argument, meaning)| {
                format!("**@{name}(\"{argument}\")**: {meaning} Evidence never changes a result.")
            }));
        }
        CursorRole::ImportPath => parts.extend(import(&analysis, path, place.tokens[index].span)),
        CursorRole::Other | CursorRole::Comment | CursorRole::Text => {}
    }
    parts.extend(explanations(&analysis, path, place.tokens[index].span));
    parts.retain(|part| !part.is_empty());
    (!parts.is_empty()).then(|| (place.tokens[index].span, parts.join("\n\n---\n\n")))
}

/// The meaning of a kind of block, or of another word of the language.
fn keyword(word: &str) -> Option<String> {
    let block = schema::kind(word).map(|kind| docs::block(schema::block(kind)));
    block.or_else(|| docs::word(word).map(|meaning| format!("**{word}**: {meaning}")))
}

/// The meaning of a word of a closed set.
fn closed_word(kind: &Type, word: &str) -> Option<String> {
    let Type::Word(words) = kind else { return None };
    words
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(known, meaning)| format!("**{known}**: {meaning}"))
}

fn names(analysis: &Analysis, path: &Utf8Path, byte: usize) -> Vec<String> {
    let found = analysis.names_at(path, byte);
    found
        .iter()
        .filter_map(|found| analysis.bundle.declared_at(found.declared))
        .map(|declared| self::declared(analysis, &declared))
        .collect()
}

fn declared(analysis: &Analysis, declared: &Declared<'_>) -> String {
    let name = &declared.name.text;
    let mut lines = Vec::new();
    match declared.item {
        DeclaredItem::Block(block) => {
            lines.push(format!("```aur\n{} {name}\n```", block.keyword.text));
            lines.push(
                block
                    .documentation
                    .iter()
                    .map(|line| line.trim())
                    .collect::<Vec<_>>()
                    .join("\n"),
            );
            let id = schema::kind(&block.keyword.text).map(|kind| BlockId {
                kind,
                name: name.clone(),
            });
            // A spec may have another block of this kind and name.
            let id = id.filter(|id| {
                analysis
                    .examined()
                    .spec
                    .blocks
                    .get(id)
                    .is_some_and(|own| own.span == declared.name.span)
            });
            if let Some(id) = id {
                let facts = facts::block(analysis.examined(), &id);
                lines.push(
                    facts
                        .iter()
                        .map(|fact| format!("- {fact}"))
                        .collect::<Vec<_>>()
                        .join("\n"),
                );
            }
        }
        DeclaredItem::Let(value) => lines.push(format!(
            "```aur\nlet {name} = {}\n```",
            aurora_lang::format::value(value)
        )),
        DeclaredItem::Param { .. } => {
            let text = &analysis.bundle.sources().text()[declared.span.start..declared.span.end];
            lines.push(format!("```aur\n{text}\n```"));
            lines.push(format!(
                "May be set with `--set {name}=VALUE`, in a profile or by a sweep."
            ));
        }
    }
    let (_, file, _) = analysis.bundle.sources().view().file(declared.name.span.start);
    lines.push(format!("Declared in {file}."));
    lines.retain(|line| !line.is_empty());
    lines.join("\n\n")
}

/// The documentation of a field, and its value in the spec.
fn value(analysis: &Analysis, path: &[String], schema: Option<&FieldSchema>) -> Vec<String> {
    let mut parts: Vec<String> = schema.map(docs::field).into_iter().collect();
    let spec = &analysis.examined().spec;
    let resolved = spec.resolved();
    if let Some((text, field)) = resolved.get(&path.join(".")) {
        let mut line = format!("`{} = {text}`", path.join("."));
        match (spec.place(&field.origin), spec.cause(&field.origin)) {
            (Some(place), Cause::Spec) => line.push_str(&format!(", written at {place}")),
            (Some(place), cause) => line.push_str(&format!(", written at {place} ({cause})")),
            (None, _) => line.push_str(", the default"),
        }
        if let Some(evidence) = &field.evidence {
            line.push_str(&format!(" `{}`", evidence.mark()));
        }
        parts.push(line);
        if let [kind, name, ..] = path
            && let (Some(kind), Some(quantity)) = (schema::kind(kind), field.quantity())
            && let Some(batch) = spec.batch_of(&BlockId {
                kind,
                name: name.clone(),
            })
        {
            parts.extend(facts::converted(batch, quantity).map(|other| format!("= {other}")));
        }
    }
    parts
}

fn component(analysis: &Analysis, path: &[String]) -> Vec<String> {
    let [kind, mixture, name] = path else { return Vec::new() };
    let Some(kind) = schema::kind(kind) else {
        return Vec::new();
    };
    let id = BlockId {
        kind,
        name: mixture.clone(),
    };
    let spec = &analysis.examined().spec;
    let Some(field) = spec.blocks.get(&id).and_then(|block| block.field(name)) else {
        return vec![schema::component().meaning.to_owned()];
    };
    let mut parts = vec![format!("```aur\n{name} {}\n```", field.value)];
    let facts = facts::component(spec, &id, name, field);
    parts.push(
        facts
            .iter()
            .map(|fact| format!("- {fact}"))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    parts
}

/// The inlay hint of a number.
fn number(analysis: &Analysis, path: &Utf8Path, span: Span) -> Option<String> {
    let hints = super::hints::hints(analysis, path);
    let hint = hints
        .into_iter()
        .find(|hint| hint.value.start <= span.start && span.end <= hint.value.end)?;
    Some(hint.text)
}

fn import(analysis: &Analysis, path: &Utf8Path, span: Span) -> Option<String> {
    let (_, file) = analysis.file(path)?;
    let (_, target) = file
        .imports()
        .find(|(quoted, _)| quoted.span.start - file.span.start == span.start)?;
    let target = analysis.bundle.files().nth(target?)?;
    let blocks = target
        .parsed
        .file
        .items
        .iter()
        .map(|block| format!("- {} `{}`", block.keyword.text, block.name.text));
    Some(format!(
        "`{}`\n\n{}",
        target.name,
        blocks.collect::<Vec<_>>().join("\n")
    ))
}

/// The explanations of the diagnostics at a token.
fn explanations(analysis: &Analysis, path: &Utf8Path, span: Span) -> Vec<String> {
    let found = analysis.diagnostics();
    let here = found.iter().filter(|found| {
        let place = found.place().map(|place| analysis.place(place));
        place.is_some_and(|place| place.path == path && place.span.start <= span.start && span.end <= place.span.end)
    });
    let mut codes: Vec<_> = here.map(|found| found.code).collect();
    codes.dedup();
    codes
        .iter()
        .filter_map(|code| explain(code.as_str()))
        .map(|found| format!("**{}: {}**\n\n{}", found.code, found.title, found.text))
        .collect()
}
