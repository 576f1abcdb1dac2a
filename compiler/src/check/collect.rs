//! Blocks as they were written, by kind and name.

use std::collections::BTreeSet;

use aurora_lang::ast::{Block, Body, Component, Entry, Gate, Name, Span, Value};
use aurora_lang::diagnostics::{Applicability, Code, Diagnostic};

use super::Checker;
use crate::compose::Flat;
use crate::names::nearest;
use crate::names::suggest;
use crate::schema::{self, keywords};
use crate::spec::{BlockId, BlockKind};

/// A block as it was written, after its fields have been collected and before their values are read.
///
/// `collect` makes one draft for each block with a known kind and a new name. `profile` applies the changes of a
/// profile, a sweep or the command line to drafts, and `Checker::block` reads each draft to a
/// [`Block`](crate::spec::Block), with errors and defaults. A draft may lack required fields, and its values may have
/// the wrong type.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub id: BlockId,
    pub name_span: Span,
    pub position: usize,
    /// Unique names that the table has.
    pub fields: Vec<DraftField>,
    /// Lines of a mixture.
    pub components: Vec<Component>,
    pub gate: Option<Gate>,
    /// Names of fields that the table does not have.
    pub unknown: Vec<String>,
    /// A component is missing because of an error.
    pub is_incomplete: bool,
}

#[derive(Clone, Debug)]
pub(super) struct DraftField {
    pub name: Name,
    pub value: Value,
    /// Where the field ends in the text; its value may be written elsewhere.
    pub end: usize,
}

pub(super) struct CollectedBlocks {
    pub drafts: Vec<Draft>,
    /// Kinds of which a block could not be read.
    pub broken_kinds: BTreeSet<BlockKind>,
}

impl Checker<'_> {
    pub(super) fn collect(&mut self, flat: &Flat) -> CollectedBlocks {
        let mut collected = CollectedBlocks {
            drafts: Vec::new(),
            broken_kinds: BTreeSet::new(),
        };
        for heading in &flat.broken {
            self.declare_broken(&heading.keyword, &heading.name, &mut collected);
        }
        for (position, item) in flat.blocks.iter().enumerate() {
            let Some(kind) = schema::kind(&item.keyword.text) else {
                let words = keywords();
                let message = format!("no kind of block is called `{}`", item.keyword.text);
                let diagnostic =
                    Diagnostic::new(Code::UNKNOWN_BLOCK, message).label(item.keyword.span, "unknown kind of block");
                self.error(suggest(
                    diagnostic,
                    &item.keyword,
                    words.iter().map(String::as_str),
                    "a kind",
                ));
                self.declare_broken(&item.keyword.text, &item.name.text, &mut collected);
                continue;
            };
            let id = BlockId {
                kind,
                name: item.name.text.clone(),
            };
            if let Some(first) = self.names.declared.get(&id) {
                let mut diagnostic = Diagnostic::new(
                    Code::DUPLICATE_BLOCK,
                    format!("there are two blocks `{kind} {}`", id.name),
                )
                .label(item.name.span, "declared again");
                if let Some(first) = *first {
                    diagnostic = diagnostic.label(first, "declared here first");
                }
                self.error(diagnostic.help("rename one of them, or remove it"));
                continue;
            }
            self.names.declared.insert(id.clone(), Some(item.name.span));
            let mut draft = Draft {
                id,
                name_span: item.name.span,
                position,
                fields: Vec::new(),
                components: Vec::new(),
                gate: None,
                unknown: Vec::new(),
                is_incomplete: false,
            };
            match &item.body {
                Body::Gate(gate) => draft.gate = Some((**gate).clone()),
                Body::Entries(entries) => {
                    for entry in entries {
                        self.collect_entry(entry, entries, &mut draft);
                    }
                }
            }
            collected.drafts.push(draft);
        }
        collected
    }

    /// Declares the name of a block that could not be read, under the most similar kind.
    fn declare_broken(&mut self, keyword: &str, name: &str, collected: &mut CollectedBlocks) {
        let words = keywords();
        let kind = nearest(keyword, words.iter().map(String::as_str)).and_then(schema::kind);
        let Some(kind) = kind else {
            self.names.anything.insert(name.to_owned());
            return;
        };
        collected.broken_kinds.insert(kind);
        self.names
            .declared
            .entry(BlockId {
                kind,
                name: name.to_owned(),
            })
            .or_insert(None);
    }

    /// Reports profiles with equal names, and a selected profile that does not exist.
    pub(super) fn know_profile(&mut self, profiles: &[Block], chosen: Option<&str>) {
        for (index, profile) in profiles.iter().enumerate() {
            let name = &profile.name;
            if let Some(first) = profiles[..index].iter().find(|first| first.name.text == name.text) {
                self.error(
                    Diagnostic::new(Code::DUPLICATE_BLOCK, format!("there are two profiles `{}`", name.text))
                        .label(name.span, "declared again")
                        .label(first.name.span, "declared here first")
                        .help("rename one of them, or remove it"),
                );
            }
        }
        let names = || profiles.iter().map(|profile| profile.name.text.as_str());
        let Some(name) = chosen.filter(|name| !names().any(|known| known == *name)) else {
            return;
        };
        if self.names.anything.contains(name) {
            return;
        }
        let diagnostic = Diagnostic::new(Code::UNKNOWN_PROFILE, format!("no profile is called `{name}`"));
        let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
        self.error(match nearest(name, names()) {
            Some(similar) => diagnostic.help(format!("a profile with a similar name exists: `{similar}`")),
            None if all.is_empty() => diagnostic.help("the file has no profile"),
            None => diagnostic.help(format!("there are: {}", all.join(", "))),
        });
    }

    fn collect_entry(&mut self, entry: &Entry, all: &[Entry], draft: &mut Draft) {
        let kind = draft.id.kind;
        match entry {
            Entry::Field(field) => {
                let [name] = field.path.as_slice() else {
                    let (first, last) = (&field.path[0], &field.path[field.path.len() - 1]);
                    self.error(
                        Diagnostic::new(
                            Code::PATH_OUTSIDE_PROFILE,
                            "a path of names is only allowed in a `profile`",
                        )
                        .label(first.span.to(last.span), "not the name of a field")
                        .help(format!("write the field's own name: `{} = …`", last.text)),
                    );
                    return;
                };
                if !self.known_field(kind, name, all) {
                    draft.unknown.push(name.text.clone());
                } else if self.is_first(draft, name) {
                    draft.fields.push(DraftField {
                        name: name.clone(),
                        value: field.value.clone(),
                        end: field.span.end,
                    });
                }
            }
            Entry::Component(component) if kind == BlockKind::Mixture => {
                if let Some(first) = draft
                    .components
                    .iter()
                    .find(|first| first.name.text == component.name.text)
                {
                    let first = first.name.span;
                    self.error(duplicate(&component.name, first, "component"));
                    draft.is_incomplete = true;
                    return;
                }
                draft.components.push(component.clone());
            }
            Entry::Component(component) => {
                self.error(
                    Diagnostic::new(
                        Code::UNKNOWN_FIELD,
                        format!("{} has no components", schema::with_article(kind)),
                    )
                    .label(component.name.span, "a line of a mixture")
                    .help("lines such as `en from [english] weight 30%` belong in a `mixture`"),
                );
            }
            Entry::Block(block) => {
                self.error(
                    Diagnostic::new(
                        Code::NESTED_BLOCK,
                        format!("a block inside {}", schema::with_article(kind)),
                    )
                    .label(block.keyword.span.to(block.name.span), "blocks belong on the top level")
                    .help(format!(
                        "move it out of `{kind} {}`; only a `profile` contains blocks",
                        draft.id.name
                    )),
                );
            }
        }
    }

    /// Whether the table of `kind` has the field; reports an error if not. `beside` are the entries of the same block: a
    /// suggestion that is already one of them is not safe.
    pub(super) fn known_field(&mut self, kind: BlockKind, name: &Name, beside: &[Entry]) -> bool {
        let table = schema::block(kind);
        if table.field(&name.text).is_some() {
            return true;
        }
        let message = format!("no field `{}` in {}", name.text, schema::with_article(kind));
        let diagnostic = Diagnostic::new(Code::UNKNOWN_FIELD, message).label(name.span, "unknown field");
        let diagnostic = if kind == BlockKind::Mixture {
            diagnostic.help(
                "a line of a mixture is `NAME from [CORPORA] weight WEIGHT`, such as `en from [english] weight 30%`",
            )
        } else {
            let mut diagnostic = suggest(diagnostic, name, table.fields.iter().map(|field| field.name), "a field");
            for edit in diagnostic.helps.iter_mut().filter_map(|help| help.edit.as_mut()) {
                let is_set =
                    |entry: &Entry| matches!(entry, Entry::Field(field) if field.path[0].text == edit.replacement);
                if beside.iter().any(is_set) {
                    edit.applicability = Applicability::Unsafe;
                }
            }
            diagnostic
        };
        self.error(diagnostic);
        false
    }

    fn is_first(&mut self, draft: &Draft, name: &Name) -> bool {
        let Some(first) = draft.fields.iter().find(|first| first.name.text == name.text) else {
            return true;
        };
        let first = first.name.span;
        self.error(duplicate(name, first, "field"));
        false
    }
}

pub(super) fn duplicate(name: &Name, first: Span, what: &str) -> Diagnostic {
    Diagnostic::new(Code::DUPLICATE_FIELD, format!("{what} `{}` is set twice", name.text))
        .label(name.span, "set again")
        .label(first, "set here first")
        .help("remove one of the two")
}
