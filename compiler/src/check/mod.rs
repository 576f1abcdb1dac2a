//! Checks a spec: every fault at once, or the checked spec.
//!
//! In: the text of a file and the name of a profile. Out: a [`Spec`] with every name resolved, unit applied and default
//! filled in; or every fault, ordered by place, one cause each.
//! How: blocks are collected (`collect`), the profile is laid over them (`profile`), each value is read against the
//! tables (`value`), and then the rules that look at several values (`rules`) see what could be read. A value that could
//! not be read is absent from there on, and rules that need it stay silent: that keeps one cause to one error.
//! Not here: what work follows from a spec (`graph`), and what it costs.

mod access;
mod assumptions;
mod collect;
mod number;
mod profile;
mod rules;
mod source;
mod text;
mod value;

pub use access::set_names;
pub use assumptions::{Assumption, AssumptionKind, assumptions};

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{self, Span};
use aurora_lang::diagnostics::{Code, Diagnostic, sort};
use aurora_lang::parse::{Parsed, parse};

use crate::nearest;
use crate::schema::{self, Default};
use crate::spec::{Block, BlockId, BlockKind, Field, Origin, Spec, Value};
use collect::Draft;

/// Checks the text of a spec, with one profile laid over it if `profile` names one.
///
/// # Errors
/// All errors of the file, ordered by place. Warnings come with them only if there is no error, in [`Spec::warnings`].
pub fn check(file_name: &str, text: &str, profile: Option<&str>) -> Result<Spec, Vec<Diagnostic>> {
    let parsed = parse(text);
    check_parsed(file_name, text, &parsed, profile)
}

/// As [`check`], of a text that has been parsed already.
///
/// # Errors
/// As [`check`].
pub fn check_parsed(
    file_name: &str,
    text: &str,
    parsed: &Parsed,
    profile: Option<&str>,
) -> Result<Spec, Vec<Diagnostic>> {
    let mut checker = Checker::new(text);
    checker.errors.extend(parsed.errors.iter().cloned());
    let collected = checker.collect(parsed);
    let mut drafts = collected.drafts;
    checker.lay_over(&mut drafts, &collected.profiles, profile);
    let mut spec = Spec {
        name: String::new(),
        file: file_name.to_owned(),
        profile: profile.map(str::to_owned),
        blocks: BTreeMap::new(),
        warnings: Vec::new(),
    };
    for draft in &drafts {
        let block = checker.block(draft);
        if draft.id.kind == BlockKind::Experiment && spec.name.is_empty() {
            spec.name.clone_from(&draft.id.name);
        }
        spec.blocks.insert(draft.id.clone(), block);
    }
    checker.rules(&mut spec, &drafts, &collected.broken_kinds);
    if checker.errors.is_empty() {
        sort(&mut checker.warnings);
        spec.warnings = checker.warnings;
        return Ok(spec);
    }
    sort(&mut checker.errors);
    Err(checker.errors)
}

/// What the parts of the check share.
struct Checker<'t> {
    text: &'t str,
    /// Where each line starts.
    lines: Vec<usize>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    names: Names,
    /// Parsed defaults, by their text.
    defaults: BTreeMap<&'static str, Option<ast::Value>>,
    /// Where values come from at the moment.
    reading_default: bool,
    /// The span of the profile that is laid over the file.
    profile: Option<Span>,
    /// Fields that are written but could not be read.
    failed: BTreeSet<(BlockId, String)>,
}

/// Which blocks exist, those that could not be read included.
#[derive(Debug, std::default::Default)]
struct Names {
    /// With the place of the name; none for a block that could not be read.
    declared: BTreeMap<BlockId, Option<Span>>,
    /// Names of blocks whose kind is not known: they may be anything.
    anything: BTreeSet<String>,
}

impl Names {
    fn of_kind(&self, kind: BlockKind) -> impl Iterator<Item = &str> {
        self.declared
            .keys()
            .filter(move |id| id.kind == kind)
            .map(|id| id.name.as_str())
    }
}

impl<'t> Checker<'t> {
    fn new(text: &'t str) -> Self {
        let line_starts = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            text,
            lines: [0].into_iter().chain(line_starts).collect(),
            errors: Vec::new(),
            warnings: Vec::new(),
            names: Names::default(),
            defaults: BTreeMap::new(),
            reading_default: false,
            profile: None,
            failed: BTreeSet::new(),
        }
    }

    fn error(&mut self, diagnostic: Diagnostic) {
        self.errors.push(diagnostic);
    }

    /// Where a value at `span` comes from.
    fn origin(&self, span: Span) -> Origin {
        if self.reading_default {
            return Origin::Default;
        }
        let line = self.lines.partition_point(|&start| start <= span.start).max(1);
        let column = self
            .text
            .get(self.lines[line - 1]..span.start)
            .map_or(0, |before| before.chars().count());
        let (line, column) = (line as u32, column as u32 + 1);
        match self.profile {
            Some(profile) if profile.contains(span) => Origin::Profile { line, column, span },
            _ => Origin::Written { line, column, span },
        }
    }

    /// Reads the fields of one block against its table.
    fn block(&mut self, draft: &Draft) -> Block {
        let table = schema::block(draft.id.kind);
        let mut fields = BTreeMap::new();
        for written in &draft.fields {
            let Some(schema) = table.field(&written.name.text) else {
                continue;
            };
            match self.field(&written.value, schema) {
                Some(field) => {
                    fields.insert(schema.name.to_owned(), field);
                }
                None => {
                    self.failed.insert((draft.id.clone(), schema.name.to_owned()));
                }
            }
        }
        for schema in table.fields {
            if draft.fields.iter().any(|written| written.name.text == schema.name) {
                continue;
            }
            match schema.default {
                Default::Required => {
                    self.failed.insert((draft.id.clone(), schema.name.to_owned()));
                    // A misspelt field is most likely this one.
                    if draft
                        .unknown
                        .iter()
                        .any(|name| nearest(name, [schema.name].into_iter()).is_some())
                    {
                        continue;
                    }
                    let message = format!("{} `{}` has no `{}`", draft.id.kind, draft.id.name, schema.name);
                    self.error(
                        Diagnostic::new(Code::MISSING_FIELD, message)
                            .label(draft.name_span, format!("needs `{}`", schema.name))
                            .note(format!("`{}`: {}", schema.name, lower_first(schema.meaning)))
                            .help(format!("add `{} = …`, {}", schema.name, schema::describe(&schema.kind))),
                    );
                }
                Default::Value(_) | Default::Unset(_) => {
                    if let Some(field) = self.default_field(schema) {
                        fields.insert(schema.name.to_owned(), field);
                    }
                }
                // `rules` works these out when every written field is there.
                Default::Derived(_) => {}
            }
        }
        for component in &draft.components {
            match self.component(component) {
                Some(field) => {
                    fields.insert(component.name.text.clone(), field);
                }
                None => {
                    self.failed.insert((draft.id.clone(), component.name.text.clone()));
                }
            }
        }
        Block {
            fields,
            span: draft.name_span,
            position: draft.position,
        }
    }

    /// The value of a field that is not written.
    fn default_field(&mut self, schema: &crate::schema::FieldSchema) -> Option<Field> {
        let text = match schema.default {
            Default::Value(text) => text,
            Default::Unset(_) => {
                return Some(Field {
                    value: Value::None,
                    origin: Origin::Default,
                    evidence: None,
                });
            }
            Default::Required | Default::Derived(_) => return None,
        };
        let value = self
            .defaults
            .entry(text)
            .or_insert_with(|| aurora_lang::parse::parse_value(text).ok())
            .clone()?;
        let before = std::mem::replace(&mut self.reading_default, true);
        let field = self.field(&value, schema);
        self.reading_default = before;
        field
    }
}

/// Adds "a field with a similar name exists" if one does, else what there is.
fn suggest<'a>(
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
        );
    }
    let all: Vec<String> = candidates.take(20).map(|name| format!("`{name}`")).collect();
    if all.is_empty() {
        diagnostic
    } else {
        diagnostic.help(format!("there are: {}", all.join(", ")))
    }
}

fn lower_first(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut characters = sentence.chars();
    match characters.next() {
        Some(first) if !characters.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => sentence.to_owned(),
    }
}
