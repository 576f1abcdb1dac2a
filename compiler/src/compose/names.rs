//! Resolves the names of a file: a block, or a value with a name (`let`, `param`).
//!
//! A name is visible in the file that declares it and in the files that import it. An import does not make the other names
//! of the imported file visible.

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{
    Allowed, Block, Body, Entry, Expression, ExpressionKind, Name, Span, Statement, StatementKind, Value, ValueKind,
};
use aurora_lang::diagnostics::{Code, Diagnostic};
use aurora_lang::parse::MOST_NESTING;
use rust_decimal::Decimal;

use super::Bundle;
use crate::language;
use crate::names::suggest;
use crate::number::{Counted, counted, decimal};
use crate::schema::{self, CallSchema, Type};
use crate::spec::Unit;
use crate::text::grouped;

/// A block or a statement (`let`, `param`): the index of its file, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Block(usize, usize),
    Statement(usize, usize),
}

/// Elements that values of `let` and `param` may have in total where they replace names. Values that contain each other would
/// otherwise grow without bound.
const MOST_REPLACED: usize = 100_000;

/// Names that a value may depend on one after the other; their values are computed recursively.
const MOST_DEPENDENCIES: usize = 128;

pub(super) struct Names<'b> {
    bundle: &'b Bundle,
    /// For each file, what each name refers to.
    scopes: Vec<Option<BTreeMap<&'b str, Vec<Target>>>>,
    values: BTreeMap<Target, Option<Value>>,
    /// Statements whose values are being computed, to detect cycles.
    open: Vec<Target>,
    /// Values that replace the default of a parameter, each with the file whose names it uses.
    chosen: BTreeMap<Target, (usize, Value)>,
    /// Elements of all values that have replaced names.
    replaced: usize,
    /// A limit was exceeded, which is reported once; names are not replaced any more.
    is_too_large: bool,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'b> Names<'b> {
    pub(super) fn of(bundle: &'b Bundle) -> Self {
        let mut names = Self {
            bundle,
            scopes: vec![None; bundle.files.len()],
            values: BTreeMap::new(),
            open: Vec::new(),
            chosen: BTreeMap::new(),
            replaced: 0,
            is_too_large: false,
            errors: Vec::new(),
        };
        let has_statements = bundle.files.iter().any(|file| !file.parsed.file.statements.is_empty());
        let words = if has_statements {
            schema_words()
        } else {
            BTreeSet::new()
        };
        names.scope(0, &words);
        names
    }

    pub(super) fn block(&self, target: Target) -> Option<&'b Block> {
        match target {
            Target::Block(file, index) => self.bundle.files[file].parsed.file.items.get(index),
            Target::Statement(..) => None,
        }
    }

    pub(super) fn statement(&self, target: Target) -> Option<&'b Statement> {
        match target {
            Target::Statement(file, index) => self.bundle.files[file].parsed.file.statements.get(index),
            Target::Block(..) => None,
        }
    }

    /// What a name refers to in a file.
    pub(super) fn targets(&self, file: usize, name: &str) -> &[Target] {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        scope.and_then(|scope| scope.get(name)).map_or(&[], Vec::as_slice)
    }

    /// Everything that a file can refer to, sorted by name.
    pub(super) fn all_targets(&self, file: usize) -> impl Iterator<Item = Target> + '_ {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        scope.into_iter().flat_map(|scope| scope.values().flatten().copied())
    }

    /// The parameter that a name refers to in a file.
    pub(super) fn param(&self, file: usize, name: &str) -> Option<Target> {
        self.targets(file, name).iter().copied().find(|&target| {
            self.statement(target)
                .is_some_and(|statement| matches!(statement.kind, StatementKind::Param { .. }))
        })
    }

    pub(super) fn params(&self, file: usize) -> impl Iterator<Item = &'b str> {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        let names = scope.into_iter().flat_map(|scope| scope.keys().copied());
        names.filter(move |name| self.param(file, name).is_some())
    }

    /// Replaces the default of a parameter by a value of `file`.
    pub(super) fn set_param(&mut self, param: Target, file: usize, value: Value) {
        self.values.clear();
        self.chosen.insert(param, (file, value));
    }

    fn place(&self, target: Target) -> Option<Span> {
        match &self.statement(target)?.kind {
            StatementKind::Let { name, .. } | StatementKind::Param { name, .. } => Some(name.span),
            StatementKind::Import { .. } | StatementKind::Extends { .. } => None,
        }
    }

    fn scope(&mut self, file: usize, words: &BTreeSet<&'static str>) {
        if self.scopes[file].is_some() {
            return;
        }
        let loaded = &self.bundle.files[file];
        for target in loaded.targets.iter().flatten() {
            self.scope(*target, words);
        }
        let mut scope: BTreeMap<&'b str, Vec<Target>> = BTreeMap::new();
        for (index, block) in loaded.parsed.file.items.iter().enumerate() {
            scope
                .entry(&block.name.text)
                .or_default()
                .push(Target::Block(file, index));
        }
        for (index, statement) in loaded.parsed.file.statements.iter().enumerate() {
            match &statement.kind {
                StatementKind::Let { name, .. } | StatementKind::Param { name, .. } => {
                    if words.contains(name.text.as_str()) {
                        self.errors.push(
                            Diagnostic::new(Code::NAME_TAKEN, format!("`{}` is a word of the language", name.text))
                                .label(name.span, "has another meaning in a field")
                                .help("choose another name"),
                        );
                        continue;
                    }
                    self.add(&mut scope, &name.text, Target::Statement(file, index), name.span);
                }
                StatementKind::Import { path, names } => {
                    let Some(target) = loaded.targets[index] else { continue };
                    let theirs = self.scopes[target].clone().unwrap_or_default();
                    if let Some(extends) = self.extends(target) {
                        self.errors.push(
                            Diagnostic::new(
                                Code::BAD_EXTENDS,
                                format!(
                                    "`{}` changes another experiment, and names are not imported from it",
                                    path.text
                                ),
                            )
                            .label(path.span, "imported here")
                            .label(extends, "what it changes")
                            .help("import from a library that both use, or extend this file as well"),
                        );
                        continue;
                    }
                    match names {
                        Some(names) => self.import(&mut scope, &theirs, names, &path.text),
                        None => {
                            for (name, targets) in theirs {
                                for target in targets {
                                    let is_own = self.block(target).is_some_and(|block| {
                                        matches!(block.keyword.text.as_str(), "experiment" | "profile" | "sweep")
                                    });
                                    if !is_own {
                                        self.add(&mut scope, name, target, path.span);
                                    }
                                }
                            }
                        }
                    }
                }
                StatementKind::Extends { path, .. } => {
                    let Some(target) = loaded.targets[index] else { continue };
                    for (name, targets) in self.scopes[target].clone().unwrap_or_default() {
                        for target in targets {
                            let is_own = self
                                .block(target)
                                .is_some_and(|block| matches!(block.keyword.text.as_str(), "experiment" | "sweep"));
                            if !is_own {
                                self.add(&mut scope, name, target, path.span);
                            }
                        }
                    }
                }
            }
        }
        self.scopes[file] = Some(scope);
    }

    /// The place of `extends` in a file.
    fn extends(&self, file: usize) -> Option<Span> {
        let statements = &self.bundle.files[file].parsed.file.statements;
        statements.iter().find_map(|statement| match &statement.kind {
            StatementKind::Extends { path, .. } => Some(path.span),
            _ => None,
        })
    }

    fn import(
        &mut self,
        scope: &mut BTreeMap<&'b str, Vec<Target>>,
        theirs: &BTreeMap<&'b str, Vec<Target>>,
        names: &'b [Name],
        path: &str,
    ) {
        for name in names {
            let Some(targets) = theirs.get(name.text.as_str()) else {
                // A file that could not be read may have the name.
                if !self.bundle.errors.is_empty() {
                    continue;
                }
                let message = format!("`{path}` has no `{}`", name.text);
                let diagnostic = Diagnostic::new(Code::UNKNOWN_IMPORT, message).label(name.span, "unknown name");
                self.errors
                    .push(suggest(diagnostic, name, theirs.keys().copied(), "a name"));
                continue;
            };
            for &target in targets {
                self.add(scope, &name.text, target, name.span);
            }
        }
    }

    /// Adds what a name refers to, or reports a clash. `span` is the place of the declaration or import.
    fn add(&mut self, scope: &mut BTreeMap<&'b str, Vec<Target>>, name: &'b str, target: Target, span: Span) {
        let known = scope.entry(name).or_default();
        if known.contains(&target) {
            return;
        }
        let keyword = |target| self.block(target).map(|block| block.keyword.text.as_str());
        let clash = known
            .iter()
            .copied()
            .find(|&other| match (keyword(other), keyword(target)) {
                (Some(one), Some(two)) => one == two,
                _ => true,
            });
        let Some(other) = clash else {
            known.push(target);
            return;
        };
        let message = match keyword(target).filter(|_| keyword(other).is_some()) {
            Some(keyword) => format!("there are two blocks `{keyword} {name}`"),
            None => format!("the name `{name}` is already in use"),
        };
        let code = match keyword(target).filter(|_| keyword(other).is_some()) {
            Some(_) => Code::DUPLICATE_BLOCK,
            None => Code::NAME_TAKEN,
        };
        let mut diagnostic = Diagnostic::new(code, message).label(span, "second declaration or import");
        for target in [other, target] {
            let place = self.block(target).map(|block| block.name.span).or(self.place(target));
            if let Some(place) = place.filter(|&place| place != span) {
                diagnostic = diagnostic.label(place, "declared here");
            }
        }
        self.errors
            .push(diagnostic.help("rename one of them, or import only the names that are needed"));
    }

    /// The value of a statement. `None`, with an error, if it refers to itself or is not allowed.
    fn value(&mut self, target: Target) -> Option<Value> {
        if let Some(known) = self.values.get(&target) {
            return known.clone();
        }
        let statement = self.statement(target)?;
        if self.open.contains(&target) {
            let place = self.place(target).unwrap_or(statement.span);
            self.errors.push(
                Diagnostic::new(Code::VALUE_CYCLE, "this value refers to itself")
                    .label(place, "depends on its own value")
                    .help("replace one of the names by a value"),
            );
            self.values.insert(target, None);
            return None;
        }
        let Target::Statement(own_file, _) = target else {
            return None;
        };
        if self.open.len() >= MOST_DEPENDENCIES {
            let place = self.place(target).unwrap_or(statement.span);
            let text = format!("values depend on more than {MOST_DEPENDENCIES} names one after the other");
            self.too_large(Diagnostic::new(Code::TOO_DEEP, text).label(place, "depends on still more names"));
            return None;
        }
        self.open.push(target);
        let value = match &statement.kind {
            StatementKind::Let { value, .. } => Some(self.replaced(own_file, value)),
            StatementKind::Param { name, value, allowed } => {
                let default = self.replaced(own_file, value);
                let range = allowed.as_deref();
                let mut is_valid = self.fits(name, &default, &default, range, own_file);
                let chosen = match self.chosen.get(&target).cloned() {
                    None => default,
                    Some((file, value)) => {
                        let value = self.replaced(file, &value);
                        is_valid &= self.fits(name, &value, &default, range, own_file);
                        value
                    }
                };
                is_valid.then_some(chosen)
            }
            StatementKind::Import { .. } | StatementKind::Extends { .. } => None,
        };
        self.open.pop();
        // A cycle through this statement has been reported already.
        if let Some(known) = self.values.get(&target) {
            return known.clone();
        }
        self.values.insert(target, value.clone());
        value
    }

    /// Computes every value, to report its errors.
    pub(super) fn check_all(&mut self) {
        for file in 0..self.bundle.files.len() {
            for index in 0..self.bundle.files[file].parsed.file.statements.len() {
                self.value(Target::Statement(file, index));
            }
        }
    }

    /// Checks a value of a parameter from a profile or point that is not chosen.
    pub(super) fn check_param(&mut self, param: Target, file: usize, value: &Value) {
        let (Some(statement), Target::Statement(own, _)) = (self.statement(param), param) else {
            return;
        };
        if let StatementKind::Param {
            name,
            value: default,
            allowed,
        } = &statement.kind
        {
            let default = self.replaced(own, default);
            let value = self.replaced(file, value);
            self.fits(name, &value, &default, allowed.as_deref(), own);
        }
    }

    fn fits(&mut self, name: &Name, value: &Value, default: &Value, allowed: Option<&Allowed>, file: usize) -> bool {
        let (form, wanted) = (ParamValue::of(value), ParamValue::of(default));
        let error = |text: String, label: String| {
            Diagnostic::new(Code::BAD_PARAM, text)
                .label(value.span, label)
                .label(name.span, "the parameter")
        };
        if form.kind() != wanted.kind() {
            let message = format!("`{}` is {}, not {}", name.text, wanted.kind(), form.kind());
            self.errors.push(
                error(message, format!("expected {}", wanted.kind())).note("the default of a parameter fixes its kind"),
            );
            return false;
        }
        match allowed {
            None => true,
            Some(Allowed::Between(least, most)) => {
                let (low, high) = (ParamValue::of(least), ParamValue::of(most));
                let (ParamValue::Number(low, _), ParamValue::Number(high, _), ParamValue::Number(given, _)) =
                    (&low, &high, &form)
                else {
                    let message = format!("`{}` is {} and cannot have a range", name.text, wanted.kind());
                    self.errors
                        .push(error(message, "not a number".to_owned()).help("list the allowed values: `in [a, b]`"));
                    return false;
                };
                if ParamValue::of(least).kind() != wanted.kind()
                    || ParamValue::of(most).kind() != wanted.kind()
                    || low > high
                {
                    let message = format!("the range of `{}` is not a range of {}", name.text, wanted.kind());
                    self.errors.push(Diagnostic::new(Code::BAD_PARAM, message).label(
                        least.span.to(most.span),
                        "expected the minimum and the maximum, in the unit of the value",
                    ));
                    return false;
                }
                if given < low || given > high {
                    let text = |value: &Value| aurora_lang::format::value(value);
                    let message = format!("`{}` cannot be {}", name.text, text(value));
                    let range = format!("allowed: {} to {}", text(least), text(most));
                    self.errors.push(error(message, range));
                    return false;
                }
                true
            }
            Some(Allowed::OneOf(values)) => {
                let known: Vec<Value> = values.iter().map(|value| self.replaced(file, value)).collect();
                if known.iter().any(|known| ParamValue::of(known) == form) {
                    return true;
                }
                let list: Vec<String> = known.iter().map(aurora_lang::format::value).collect();
                let message = format!("`{}` cannot be {}", name.text, aurora_lang::format::value(value));
                self.errors
                    .push(error(message, format!("allowed: {}", list.join(", "))));
                false
            }
        }
    }

    /// A value in which the names of `let` and `param` are replaced by their values.
    pub(super) fn replaced(&mut self, file: usize, value: &Value) -> Value {
        let mut value = value.clone();
        self.replace(file, &mut value);
        value
    }

    fn too_large(&mut self, diagnostic: Diagnostic) {
        if !std::mem::replace(&mut self.is_too_large, true) {
            self.errors
                .push(diagnostic.help("write the values that the spec needs"));
        }
    }

    /// Whether a value fits the limits where it replaces a name at `place`, `depth` lists and calls deep.
    fn is_allowed(&mut self, found: &Value, place: Span, depth: usize) -> bool {
        if self.is_too_large {
            return false;
        }
        let size = Size::of(found);
        self.replaced += size.elements;
        if self.replaced > MOST_REPLACED {
            let text = format!(
                "values of `let` and `param` have more than {} elements in total",
                grouped(MOST_REPLACED as u64)
            );
            self.too_large(Diagnostic::new(Code::FILE_TOO_LARGE, text).label(place, "exceeds the limit"));
        } else if depth + size.depth > MOST_NESTING {
            let text = format!("the value of a name is nested more than {MOST_NESTING} deep");
            self.too_large(Diagnostic::new(Code::TOO_DEEP, text).label(place, "exceeds the limit"));
        }
        !self.is_too_large
    }

    fn replace(&mut self, file: usize, value: &mut Value) {
        self.replace_at(file, value, 0);
    }

    fn replace_at(&mut self, file: usize, value: &mut Value, depth: usize) {
        match &mut value.kind {
            ValueKind::Word(word) => {
                let target = self.targets(file, word).first().copied();
                let Some(target) = target.filter(|target| matches!(target, Target::Statement(..))) else {
                    return;
                };
                if let Some(found) = self.value(target)
                    && self.is_allowed(&found, value.span, depth)
                {
                    // Evidence at the use replaces that of the declaration.
                    let marks = std::mem::take(&mut value.marks);
                    *value = found;
                    if !marks.is_empty() {
                        value.marks = marks;
                    }
                }
            }
            ValueKind::List(items) => items.iter_mut().for_each(|item| self.replace_at(file, item, depth + 1)),
            ValueKind::Call(call) => call
                .arguments
                .iter_mut()
                .for_each(|argument| self.replace_at(file, &mut argument.value, depth + 1)),
            ValueKind::Number(_) | ValueKind::Text(_) | ValueKind::Every(_) => {}
        }
    }

    /// Replaces names in all values of a block.
    pub(super) fn replace_block(&mut self, file: usize, block: &mut Block) {
        match &mut block.body {
            Body::Entries(entries) => self.replace_entries(file, entries),
            Body::Gate(gate) => {
                self.replace_expression(file, &mut gate.left);
                self.replace_expression(file, &mut gate.right);
            }
        }
    }

    pub(super) fn replace_entries(&mut self, file: usize, entries: &mut [Entry]) {
        for entry in entries {
            match entry {
                Entry::Field(field) => self.replace(file, &mut field.value),
                Entry::Component(component) => {
                    self.replace(file, &mut component.from);
                    for (_, value) in &mut component.settings {
                        self.replace(file, value);
                    }
                }
                Entry::Block(block) => self.replace_block(file, block),
            }
        }
    }

    /// A single name in a gate may be a number.
    fn replace_expression(&mut self, file: usize, expression: &mut Expression) {
        match &mut expression.kind {
            ExpressionKind::Number(_) => {}
            ExpressionKind::Function { arguments, .. } => arguments
                .iter_mut()
                .for_each(|argument| self.replace_expression(file, argument)),
            ExpressionKind::Group(inner) => self.replace_expression(file, inner),
            ExpressionKind::Binary { left, right, .. } => {
                self.replace_expression(file, left);
                self.replace_expression(file, right);
            }
            ExpressionKind::Metric(path) => {
                let [name] = path.as_slice() else { return };
                let target = self.targets(file, &name.text).first().copied();
                let value = target
                    .filter(|target| matches!(target, Target::Statement(..)))
                    .and_then(|target| self.value(target));
                if let Some(Value {
                    kind: ValueKind::Number(number),
                    span,
                    ..
                }) = value
                {
                    *expression = Expression {
                        kind: ExpressionKind::Number(number),
                        span,
                    };
                }
            }
        }
    }
}

/// The kind and value of a parameter.
#[derive(Clone, Debug, PartialEq)]
enum ParamValue {
    /// The exact number in its base unit.
    Number(Decimal, Counts),
    Text(String),
    Word(String),
    Other(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Counts {
    Nothing,
    Percent,
    Points,
    Unit(Unit),
}

impl ParamValue {
    fn of(value: &Value) -> Self {
        match &value.kind {
            ValueKind::Text(text) => Self::Text(text.clone()),
            ValueKind::Word(word) => Self::Word(word.clone()),
            ValueKind::List(_) => Self::Other("a list"),
            ValueKind::Call(_) => Self::Other("a call"),
            ValueKind::Every(_) => Self::Other("an interval"),
            ValueKind::Number(number) => {
                let (factor, counts) = match counted(number) {
                    Some(Counted::Plain) => (1, Counts::Nothing),
                    Some(Counted::Percent) => (1, Counts::Percent),
                    Some(Counted::Points) => (1, Counts::Points),
                    Some(Counted::Unit(unit)) => (unit.factor, Counts::Unit(unit.unit)),
                    None => return Self::Other("a number of an unknown unit"),
                };
                match decimal(number).and_then(|value| value.checked_mul(factor.into())) {
                    Some(value) => Self::Number(value.normalize(), counts),
                    None => Self::Other("a number that is too large or too precise"),
                }
            }
        }
    }

    fn kind(&self) -> String {
        match self {
            Self::Number(_, Counts::Nothing) => "a number".to_owned(),
            Self::Number(_, Counts::Percent) => "a percentage".to_owned(),
            Self::Number(_, Counts::Points) => "a number of percentage points".to_owned(),
            Self::Number(_, Counts::Unit(unit)) => format!("a number of {unit}"),
            Self::Text(_) => "a text".to_owned(),
            Self::Word(_) => "a word".to_owned(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

/// The size of a value: its elements, itself included, and how deep lists and calls are nested.
struct Size {
    elements: usize,
    depth: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let of_all = |values: &mut dyn Iterator<Item = &Value>| {
            values
                .map(Self::of)
                .fold(Self { elements: 1, depth: 1 }, |sum, size| Self {
                    elements: sum.elements + size.elements,
                    depth: sum.depth.max(size.depth + 1),
                })
        };
        match &value.kind {
            ValueKind::List(items) => of_all(&mut items.iter()),
            ValueKind::Call(call) => of_all(&mut call.arguments.iter().map(|argument| &argument.value)),
            ValueKind::Word(_) | ValueKind::Number(_) | ValueKind::Text(_) | ValueKind::Every(_) => {
                Self { elements: 1, depth: 0 }
            }
        }
    }
}

/// Every word with a meaning in a value. A `let` or `param` of the same name would change that meaning.
fn schema_words() -> BTreeSet<&'static str> {
    let mut words = BTreeSet::from([
        "true",
        "false",
        "unknown",
        "none",
        "every",
        "in",
        "weight",
        "max_epochs",
        "from",
    ]);
    for block in schema::BLOCKS {
        for field in block.fields {
            words_of(&field.kind, &mut words);
        }
    }
    words
}

fn words_of(kind: &Type, words: &mut BTreeSet<&'static str>) {
    match kind {
        Type::Word(list) => words.extend(list.iter().map(|(word, _)| *word)),
        Type::Language => {
            words.extend(language::DETECTED.into_iter().map(|(tag, _)| tag));
            words.extend(language::WITHOUT.into_iter().map(|(name, _)| name));
        }
        Type::List { of, .. } => words_of(of, words),
        Type::OneOf(types) => types.iter().for_each(|kind| words_of(kind, words)),
        Type::Call(calls) => {
            for call in *calls {
                words.insert(call.name);
                CallSchema::all(call).for_each(|argument| words_of(&argument.kind, words));
            }
        }
        _ => {}
    }
}
