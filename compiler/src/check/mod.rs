//! Checks a spec: returns the checked spec, or all of its errors.
//!
//! In: the files of a spec ([`Bundle`]), and the selected profile and point. Out: a [`Spec`] with every name resolved, unit
//! applied and default filled in; or all errors, ordered by position, one per cause.
//! How: `collect` collects the blocks, `profile` applies the profile and other changes, `value` reads each value against
//! the tables, and `rules` checks rules between values. A value that could not be read is absent afterwards, and rules that
//! need it report nothing, so that one cause gives one error.
//! Not here: the nodes that follow from a spec (`graph`), and their cost.

mod assumptions;
mod collect;
mod number;
mod points;
mod profile;
mod rules;
mod source;
mod text;
mod value;

pub use assumptions::{Assumption, AssumptionKind, assumptions};

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{self, Span};
use aurora_lang::diagnostics::{Code, Diagnostic, Label, Position, Positions, sort};

use crate::compose::{Bundle, Choice, Flat};
use crate::names::nearest;
use crate::schema::{self, Default};
use crate::spec::{Block, BlockId, BlockKind, Field, Origin, Spec, Value};
use crate::views;
use collect::{CollectedBlocks, Draft};

/// Checks the text of a spec that imports nothing, with the profile `profile` applied, if any.
///
/// # Errors
/// All errors of the file, ordered by position. Warnings are in [`Spec::warnings`] and only reported without errors.
pub fn check(file_name: &str, text: &str, profile: Option<&str>) -> Result<Spec, Vec<Diagnostic>> {
    Bundle::alone(file_name, text).check(&Choice { profile, point: None })
}

impl Bundle {
    /// Checks the spec with the selected profile and point.
    ///
    /// # Errors
    /// As [`check()`]; positions are those of [`Bundle::sources`].
    pub fn check(&self, choice: &Choice<'_>) -> Result<Spec, Vec<Diagnostic>> {
        let flat = self.flatten(choice)?;
        self.check_flat(&flat, choice).into_result()
    }

    /// Reads as much of a spec as possible despite errors: for editors, in which a spec is often incomplete.
    pub fn examine(&self, choice: &Choice<'_>) -> Examined {
        let (flat, errors) = self.join(choice);
        let examined = self.check_flat(&flat, choice);
        match errors {
            // The files do not form one spec: other errors may follow from that.
            Some(errors) => Examined { errors, ..examined },
            None => examined,
        }
    }

    fn check_flat(&self, flat: &Flat, choice: &Choice<'_>) -> Examined {
        let mut checker = Checker::new(self);
        let mut drafts = checker.collect(flat);
        checker.mentioned = flat.words();
        checker.know_profile(&flat.profiles, choice.profile);
        for layer in &flat.layers {
            checker.lay_over(&mut drafts.drafts, layer);
        }
        checker.finish(self, choice, &drafts)
    }
}

impl Checker<'_> {
    fn finish(mut self, bundle: &Bundle, choice: &Choice<'_>, collected: &CollectedBlocks) -> Examined {
        let mut spec = self.empty_spec(bundle, choice);
        for draft in &collected.drafts {
            let block = self.block(draft);
            if draft.id.kind == BlockKind::Experiment && spec.name.is_empty() {
                spec.name.clone_from(&draft.id.name);
            }
            spec.blocks.insert(draft.id.clone(), block);
        }
        let drafts: Vec<&Draft> = collected.drafts.iter().collect();
        self.rules(&mut spec, &drafts, &collected.broken_kinds);
        if self.errors.is_empty() {
            self.verify_views(&spec, spec.blocks.keys());
        }
        sort(&mut self.warnings);
        sort(&mut self.errors);
        spec.warnings = self.warnings;
        Examined {
            spec,
            errors: self.errors,
        }
    }

    /// Reports values that pass the tables and the rules but do not have the type of their view.
    fn verify_views<'s>(&mut self, spec: &'s Spec, blocks: impl Iterator<Item = &'s BlockId>) {
        for error in views::verify(spec, blocks) {
            let block = spec.blocks.get(&error.block).map(|block| block.span);
            let mut diagnostic = Diagnostic::new(Code::OUT_OF_RANGE, error.to_string());
            if let Some(span) = error.span.or(block) {
                diagnostic = diagnostic.label(span, format!("expected {}", error.expected));
            }
            self.error(diagnostic);
        }
    }

    fn empty_spec(&self, bundle: &Bundle, choice: &Choice<'_>) -> Spec {
        Spec {
            name: String::new(),
            file: bundle.sources().view().name.to_owned(),
            files: bundle.sources().files().to_vec(),
            causes: bundle.causes(),
            profile: choice.profile.map(str::to_owned),
            point: choice.point.map(str::to_owned),
            settings: bundle.settings_text(),
            blocks: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// The readable part of a spec, and its errors.
#[derive(Clone, Debug)]
pub struct Examined {
    /// If there are errors, fields that could not be read are absent.
    pub spec: Spec,
    /// All errors, sorted by position.
    pub errors: Vec<Diagnostic>,
}

impl Examined {
    fn into_result(self) -> Result<Spec, Vec<Diagnostic>> {
        if self.errors.is_empty() {
            Ok(self.spec)
        } else {
            Err(self.errors)
        }
    }
}

/// The state of a check.
struct Checker<'t> {
    text: &'t str,
    positions: Positions<'t>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    names: Names,
    /// Parsed defaults, by their text.
    defaults: BTreeMap<&'static str, Option<ast::Value>>,
    /// The value being read is a default.
    reading_default: bool,
    /// The range of the spec's own file: blocks of imported files may be unused.
    own: Span,
    /// Words of profiles and sweeps: the blocks that they name count as used, even if they are not selected.
    mentioned: BTreeSet<String>,
    /// Fields that are written but could not be read.
    failed: BTreeSet<(BlockId, String)>,
}

/// The blocks that exist, including those that could not be read.
#[derive(Debug, std::default::Default)]
struct Names {
    /// With the position of the name; none for a block that could not be read.
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
    fn new(bundle: &'t Bundle) -> Self {
        let view = bundle.sources().view();
        Self {
            text: view.text,
            positions: view.positions(),
            errors: bundle.syntax_errors().cloned().collect(),
            warnings: Vec::new(),
            names: Names::default(),
            defaults: BTreeMap::new(),
            reading_default: false,
            own: view.file(0).2,
            mentioned: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    fn error(&mut self, diagnostic: Diagnostic) {
        self.errors.push(diagnostic);
    }

    /// Where a value at `span` comes from.
    fn origin(&mut self, span: Span) -> Origin {
        if self.reading_default {
            return Origin::Default;
        }
        let Position { line, column } = self.positions.of(span.start);
        Origin::Written { line, column, span }
    }

    /// Reads the fields of one block against its table.
    fn block(&mut self, draft: &Draft) -> Block {
        let table = schema::block(draft.id.kind);
        let mut fields = BTreeMap::new();
        for written in &draft.fields {
            let Some(schema) = table.field(&written.name.text) else {
                continue;
            };
            let before = self.errors.len();
            let field = self.field(&written.value, schema);
            // An error in a value that is written elsewhere, in a `let` or `param`, also gets a label where it is used.
            for error in &mut self.errors[before..] {
                let elsewhere = |place: Span| place.end < written.name.span.start || place.start > written.end;
                if error.place().is_some_and(elsewhere) {
                    error.labels.push(Label {
                        span: written.name.span,
                        text: "used here".to_owned(),
                    });
                }
            }
            match field {
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
                // `rules` derives these after all written fields have been read.
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
