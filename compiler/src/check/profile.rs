//! Applies changes to the blocks of a spec: those of a profile, of `extends`, of a point of a sweep, of `--set`.
//!
//! A profile changes single values (`stage.cap.budget = 1M tokens`) or some fields of a block. Profiles that are not
//! selected are checked too: each value against its table, but not together with the rest of the file.

use std::collections::BTreeMap;

use aurora_lang::ast::{self, Argument, Body, Entry, Name, Span, ValueKind};
use aurora_lang::diagnostics::{Code, Diagnostic};

use super::Checker;
use super::collect::{Draft, DraftField, duplicate};
use crate::compose::{LayerKind, SpecLayer};
use crate::names::suggest;
use crate::schema;
use crate::spec::{BlockId, BlockKind};

/// One value of a profile, and the field or argument that it changes.
struct FieldChange {
    block: usize,
    /// Field, then argument if any.
    path: Vec<Name>,
    value: ast::Value,
}

impl Checker<'_> {
    pub(super) fn lay_over(&mut self, drafts: &mut [Draft], layer: &SpecLayer) {
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        for entry in &layer.entries {
            for change in self.changes(entry, drafts, &mut seen) {
                match layer.kind {
                    LayerKind::Applied => self.apply(&mut drafts[change.block], &change),
                    LayerKind::Checked => self.try_out(&drafts[change.block], &change),
                }
            }
            if let (LayerKind::Applied, Entry::Block(block)) = (layer.kind, entry) {
                replace_components(block, drafts);
            }
        }
    }

    fn changes(&mut self, entry: &Entry, drafts: &[Draft], seen: &mut BTreeMap<String, Span>) -> Vec<FieldChange> {
        let mut changes = Vec::new();
        match entry {
            Entry::Field(field) => {
                let [kind, name, path @ ..] = field.path.as_slice() else {
                    self.error(not_a_path(field.path[0].span, &field.path[0].text));
                    return changes;
                };
                if path.is_empty() {
                    self.error(not_a_path(
                        kind.span.to(name.span),
                        &format!("{}.{}", kind.text, name.text),
                    ));
                    return changes;
                }
                if let Some(block) = self.block_of(kind, name, drafts) {
                    changes.extend(self.change(block, path.to_vec(), field.value.clone(), drafts, seen));
                }
            }
            Entry::Block(block) => {
                let Some(found) = self.block_of(&block.keyword, &block.name, drafts) else {
                    return changes;
                };
                let Body::Entries(entries) = &block.body else {
                    return changes;
                };
                for entry in entries {
                    match entry {
                        Entry::Field(field) => {
                            changes.extend(self.change(found, field.path.clone(), field.value.clone(), drafts, seen));
                        }
                        Entry::Component(component) if drafts[found].id.kind == BlockKind::Mixture => {
                            let path = format!("{}.{}", drafts[found].id, component.name.text);
                            self.once(&path, component.name.span, seen);
                            // Read only for its errors; the mixture is read again if the profile is selected.
                            self.component(component);
                        }
                        Entry::Component(component) => {
                            let kind = schema::with_article(drafts[found].id.kind);
                            self.error(
                                Diagnostic::new(Code::UNKNOWN_FIELD, format!("{kind} has no components"))
                                    .label(component.name.span, "a line of a mixture"),
                            );
                        }
                        Entry::Block(inner) => self.error(
                            Diagnostic::new(Code::NESTED_BLOCK, "a block inside a block of a profile")
                                .label(inner.keyword.span.to(inner.name.span), "one level too deep")
                                .help("a profile contains blocks, and blocks contain fields"),
                        ),
                    }
                }
            }
            Entry::Component(component) => self.error(not_a_path(component.name.span, &component.name.text)),
        }
        changes
    }

    /// The block that a profile changes.
    fn block_of(&mut self, keyword: &Name, name: &Name, drafts: &[Draft]) -> Option<usize> {
        let Some(kind) = schema::kind(&keyword.text) else {
            let words: Vec<String> = schema::BLOCKS.iter().map(|block| block.kind.to_string()).collect();
            let message = format!("no kind of block is called `{}`", keyword.text);
            let diagnostic = Diagnostic::new(Code::UNKNOWN_BLOCK, message).label(keyword.span, "unknown kind of block");
            self.error(suggest(diagnostic, keyword, words.iter().map(String::as_str), "a kind"));
            return None;
        };
        if kind == BlockKind::Expect {
            self.error(
                Diagnostic::new(Code::BAD_PROFILE, "an `expect` cannot be changed")
                    .label(keyword.span.to(name.span), "gates apply in every profile and point"),
            );
            return None;
        }
        let found = drafts
            .iter()
            .position(|draft| draft.id.kind == kind && draft.id.name == name.text);
        let is_broken = self.names.declared.contains_key(&BlockId {
            kind,
            name: name.text.clone(),
        }) || self.names.anything.contains(&name.text);
        if found.is_none() && !is_broken {
            let diagnostic = Diagnostic::new(Code::UNKNOWN_NAME, format!("no {kind} is called `{}`", name.text))
                .label(name.span, "only a block that exists can be changed");
            let names = drafts
                .iter()
                .filter(|draft| draft.id.kind == kind)
                .map(|draft| draft.id.name.as_str());
            self.error(suggest(diagnostic, name, names, "one"));
        }
        found
    }

    fn change(
        &mut self,
        block: usize,
        path: Vec<Name>,
        value: ast::Value,
        drafts: &[Draft],
        seen: &mut BTreeMap<String, Span>,
    ) -> Option<FieldChange> {
        let draft = &drafts[block];
        let names: Vec<&str> = path.iter().map(|name| name.text.as_str()).collect();
        let span = path[0].span.to(path[path.len() - 1].span);
        self.once(&format!("{}.{}", draft.id, names.join(".")), span, seen)?;
        if draft.id.kind == BlockKind::Mixture {
            let is_setting = matches!(names.as_slice(), [_, "weight" | "max_epochs" | "from"]);
            let component = draft
                .components
                .iter()
                .find(|component| component.name.text == names[0]);
            if !is_setting || component.is_none() {
                let message = format!("no `{}` in mixture `{}`", names.join("."), draft.id.name);
                let diagnostic =
                    Diagnostic::new(Code::UNKNOWN_FIELD, message).label(span, "unknown component or setting");
                self.error(diagnostic.help("write `mixture.NAME.COMPONENT.weight = WEIGHT`"));
                return None;
            }
        } else if !self.known_field(draft.id.kind, &path[0], &[]) {
            return None;
        }
        if path.len() > 2 {
            self.error(
                Diagnostic::new(Code::BAD_PROFILE, "this path has too many parts")
                    .label(path[2].span, "a field or an argument has no parts")
                    .help("write the complete value of the field"),
            );
            return None;
        }
        Some(FieldChange { block, path, value })
    }

    fn once(&mut self, path: &str, span: Span, seen: &mut BTreeMap<String, Span>) -> Option<()> {
        if let Some(first) = seen.get(path) {
            self.error(duplicate(
                &Name {
                    text: path.to_owned(),
                    span,
                },
                *first,
                "value",
            ));
            return None;
        }
        seen.insert(path.to_owned(), span);
        Some(())
    }

    fn apply(&mut self, draft: &mut Draft, change: &FieldChange) {
        let [first, rest @ ..] = change.path.as_slice() else {
            return;
        };
        if draft.id.kind == BlockKind::Mixture {
            let component = draft
                .components
                .iter_mut()
                .find(|component| component.name.text == first.text);
            if let (Some(component), [setting]) = (component, rest) {
                set(component, setting, &change.value);
            }
            return;
        }
        let existing = draft.fields.iter_mut().find(|field| field.name.text == first.text);
        let [argument] = rest else {
            match existing {
                Some(field) => {
                    field.name = first.clone();
                    field.value = change.value.clone();
                    field.end = change.value.span.end;
                }
                None => draft.fields.push(DraftField {
                    name: first.clone(),
                    value: change.value.clone(),
                    end: change.value.span.end,
                }),
            }
            return;
        };
        let written = Argument {
            name: Some(argument.clone()),
            value: change.value.clone(),
            span: argument.span,
        };
        match existing.map(|field| &mut field.value) {
            Some(ast::Value {
                kind: ValueKind::Call(call),
                ..
            }) => {
                let known = call
                    .arguments
                    .iter_mut()
                    .find(|known| known.name.as_ref().is_some_and(|name| name.text == argument.text));
                match known {
                    Some(known) => *known = written,
                    None => call.arguments.push(written),
                }
            }
            Some(value) => {
                // A call without arguments may be written as a word.
                if let ValueKind::Word(word) = &value.kind {
                    let name = Name {
                        text: word.clone(),
                        span: value.span,
                    };
                    value.kind = ValueKind::Call(ast::Call {
                        name,
                        arguments: vec![written],
                    });
                } else {
                    let span = argument.span;
                    self.error(no_arguments(&first.text, span));
                }
            }
            None => {
                let table = schema::block(draft.id.kind).field(&first.text);
                let default = table.and_then(|table| match table.default {
                    schema::Default::Value(text) => aurora_lang::parse::parse_value(text).ok(),
                    _ => None,
                });
                match default.map(|default| default.kind) {
                    Some(ValueKind::Call(call)) => {
                        // The arguments of the default are filled in from the call's own table.
                        let name = Name {
                            text: call.name.text,
                            span: first.span,
                        };
                        let kind = ValueKind::Call(ast::Call {
                            name,
                            arguments: vec![written],
                        });
                        let span = first.span.to(change.value.span);
                        draft.fields.push(DraftField {
                            name: first.clone(),
                            value: ast::Value {
                                kind,
                                span,
                                marks: Vec::new(),
                            },
                            end: span.end,
                        });
                    }
                    _ => self.error(no_arguments(&first.text, argument.span)),
                }
            }
        }
    }

    /// Reads a value of a profile that is not selected, only for its errors.
    fn try_out(&mut self, draft: &Draft, change: &FieldChange) {
        let Some(name) = change.path.first() else { return };
        let mut scratch = Draft {
            id: draft.id.clone(),
            fields: draft
                .fields
                .iter()
                .filter(|field| field.name.text == name.text)
                .cloned()
                .collect(),
            components: draft
                .components
                .iter()
                .filter(|known| known.name.text == name.text)
                .cloned()
                .collect(),
            gate: None,
            unknown: Vec::new(),
            ..*draft
        };
        self.apply(&mut scratch, change);
        let before = self.errors.len();
        if let (Some(schema), Some(field)) = (
            schema::block(draft.id.kind).field(&name.text),
            scratch.fields.iter().find(|field| field.name.text == name.text),
        ) {
            self.field(&field.value, schema);
        }
        if let Some(component) = scratch
            .components
            .iter()
            .find(|component| component.name.text == name.text)
        {
            self.component(component);
        }
        // An error in the block itself is reported only once, when the block is read.
        let is_own =
            |place: Span| change.value.span.contains(place) || change.path.iter().any(|name| name.span.contains(place));
        let mut kept = self.errors.split_off(before);
        kept.retain(|error| error.place().is_some_and(is_own));
        self.errors.append(&mut kept);
    }
}

fn set(component: &mut ast::Component, setting: &Name, value: &ast::Value) {
    if setting.text == "from" {
        component.from = value.clone();
        return;
    }
    match component
        .settings
        .iter_mut()
        .find(|(word, _)| word.text == setting.text)
    {
        Some(known) => known.1 = value.clone(),
        None => component.settings.push((setting.clone(), value.clone())),
    }
}

fn replace_components(block: &ast::Block, drafts: &mut [Draft]) {
    let Body::Entries(entries) = &block.body else { return };
    let draft = drafts
        .iter_mut()
        .find(|draft| draft.id.kind == BlockKind::Mixture && draft.id.name == block.name.text);
    let Some(draft) = draft.filter(|_| block.keyword.text == "mixture") else {
        return;
    };
    for entry in entries {
        if let Entry::Component(component) = entry {
            match draft
                .components
                .iter_mut()
                .find(|known| known.name.text == component.name.text)
            {
                Some(known) => *known = component.clone(),
                None => draft.components.push(component.clone()),
            }
        }
    }
}

fn not_a_path(span: Span, written: &str) -> Diagnostic {
    Diagnostic::new(
        Code::BAD_PROFILE,
        format!("`{written}` is not the path of a field of a block"),
    )
    .label(span, "expected a kind, a name and a field")
    .help("write a path such as `stage.cap.budget = 1M tokens`, or a block such as `model small { layers = 2 }`")
}

fn no_arguments(field: &str, span: Span) -> Diagnostic {
    Diagnostic::new(Code::BAD_PROFILE, format!("the value of `{field}` has no arguments"))
        .label(span, "not part of the field's value")
        .help("write the complete value of the field")
}
