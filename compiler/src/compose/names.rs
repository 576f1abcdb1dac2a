//! What a word of a file stands for: a block, or a value that `let` or `param` gives a name.
//!
//! Names hold for the file that declares them and for the files that import them; a `let` of a library is never taken
//! for a name of the file that imports another name from it.

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{
    Allowed, Block, Body, Entry, Expression, ExpressionKind, Name, Span, Statement, StatementKind, Value, ValueKind,
};
use aurora_lang::diagnostics::{Code, Diagnostic};
use rust_decimal::Decimal;

use super::Bundle;
use crate::exact::decimal;
use crate::names::suggest;
use crate::schema::{self, CallSchema, Type, written_unit};
use crate::spec::Unit;

/// A block or a line (`let`, `param`): the number of its file, and its own number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Block(usize, usize),
    Line(usize, usize),
}

pub(super) struct Names<'b> {
    bundle: &'b Bundle,
    /// For each file, what each name stands for.
    scopes: Vec<Option<BTreeMap<&'b str, Vec<Target>>>>,
    values: BTreeMap<Target, Option<Value>>,
    /// Lines whose values are being worked out.
    open: Vec<Target>,
    /// Values that take the place of a parameter's own, each with the file whose names it uses.
    given: BTreeMap<Target, (usize, Value)>,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'b> Names<'b> {
    pub(super) fn of(bundle: &'b Bundle) -> Self {
        let mut names = Self {
            bundle,
            scopes: vec![None; bundle.files.len()],
            values: BTreeMap::new(),
            open: Vec::new(),
            given: BTreeMap::new(),
            errors: Vec::new(),
        };
        let has_lines = bundle.files.iter().any(|file| !file.parsed.file.statements.is_empty());
        let words = if has_lines { schema_words() } else { BTreeSet::new() };
        names.scope(0, &words);
        names
    }

    pub(super) fn block(&self, target: Target) -> Option<&'b Block> {
        match target {
            Target::Block(file, index) => self.bundle.files[file].parsed.file.items.get(index),
            Target::Line(..) => None,
        }
    }

    pub(super) fn line(&self, target: Target) -> Option<&'b Statement> {
        match target {
            Target::Line(file, index) => self.bundle.files[file].parsed.file.statements.get(index),
            Target::Block(..) => None,
        }
    }

    /// What a name stands for in a file.
    pub(super) fn targets(&self, file: usize, name: &str) -> &[Target] {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        scope.and_then(|scope| scope.get(name)).map_or(&[], Vec::as_slice)
    }

    /// Everything that has a name in a file, by name.
    pub(super) fn all_targets(&self, file: usize) -> impl Iterator<Item = Target> + '_ {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        scope.into_iter().flat_map(|scope| scope.values().flatten().copied())
    }

    /// The parameter of this name, as a file sees it.
    pub(super) fn param(&self, file: usize, name: &str) -> Option<Target> {
        self.targets(file, name).iter().copied().find(|&target| {
            self.line(target)
                .is_some_and(|line| matches!(line.kind, StatementKind::Param { .. }))
        })
    }

    pub(super) fn params(&self, file: usize) -> impl Iterator<Item = &'b str> {
        let scope = self.scopes.get(file).and_then(Option::as_ref);
        let names = scope.into_iter().flat_map(|scope| scope.keys().copied());
        names.filter(move |name| self.param(file, name).is_some())
    }

    /// Gives a parameter another value, written in `file`.
    pub(super) fn give(&mut self, param: Target, file: usize, value: Value) {
        self.values.clear();
        self.given.insert(param, (file, value));
    }

    fn place(&self, target: Target) -> Option<Span> {
        match &self.line(target)?.kind {
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
                            Diagnostic::new(
                                Code::NAME_TAKEN,
                                format!("`{}` is a word of the language already", name.text),
                            )
                            .label(name.span, "means something else in a field")
                            .help("choose another name"),
                        );
                        continue;
                    }
                    self.add(&mut scope, &name.text, Target::Line(file, index), name.span);
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

    /// Where a file says that it extends another.
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
                // What could not be read may have had the name.
                if !self.bundle.errors.is_empty() {
                    continue;
                }
                let message = format!("`{path}` has nothing that is called `{}`", name.text);
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

    /// Adds what a name stands for, unless it stands for something else already; `span` is where it comes in.
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
            None => format!("`{name}` has a meaning already"),
        };
        let code = match keyword(target).filter(|_| keyword(other).is_some()) {
            Some(_) => Code::DUPLICATE_BLOCK,
            None => Code::NAME_TAKEN,
        };
        let mut diagnostic = Diagnostic::new(code, message).label(span, "comes in again here");
        for target in [other, target] {
            let place = self.block(target).map(|block| block.name.span).or(self.place(target));
            if let Some(place) = place.filter(|&place| place != span) {
                diagnostic = diagnostic.label(place, "declared here");
            }
        }
        self.errors
            .push(diagnostic.help("rename one of them, or import by name what is needed"));
    }

    /// The value of a line; none, and an error, if it leads back to itself or may not be that.
    fn value(&mut self, target: Target) -> Option<Value> {
        if let Some(known) = self.values.get(&target) {
            return known.clone();
        }
        let line = self.line(target)?;
        if self.open.contains(&target) {
            let place = self.place(target).unwrap_or(line.span);
            self.errors.push(
                Diagnostic::new(Code::VALUE_CYCLE, "this value is made of itself")
                    .label(place, "needs its own value")
                    .help("write the value itself at one place"),
            );
            self.values.insert(target, None);
            return None;
        }
        let Target::Line(own_file, _) = target else { return None };
        self.open.push(target);
        let value = match &line.kind {
            StatementKind::Let { value, .. } => Some(self.replaced(own_file, value)),
            StatementKind::Param { name, value, allowed } => {
                let default = self.replaced(own_file, value);
                let range = allowed.as_deref();
                let mut sound = self.fits(name, &default, &default, range, own_file);
                let chosen = match self.given.get(&target).cloned() {
                    None => default,
                    Some((file, given)) => {
                        let given = self.replaced(file, &given);
                        sound &= self.fits(name, &given, &default, range, own_file);
                        given
                    }
                };
                sound.then_some(chosen)
            }
            StatementKind::Import { .. } | StatementKind::Extends { .. } => None,
        };
        self.open.pop();
        // A circle through this line has said so already.
        if let Some(known) = self.values.get(&target) {
            return known.clone();
        }
        self.values.insert(target, value.clone());
        value
    }

    /// Works out every line, for its faults.
    pub(super) fn try_all(&mut self) {
        for file in 0..self.bundle.files.len() {
            for index in 0..self.bundle.files[file].parsed.file.statements.len() {
                self.value(Target::Line(file, index));
            }
        }
    }

    /// Whether a parameter may have a value, which another profile or point gives it; says so if not.
    pub(super) fn may_be(&mut self, param: Target, file: usize, value: &Value) {
        let (Some(line), Target::Line(own, _)) = (self.line(param), param) else {
            return;
        };
        if let StatementKind::Param {
            name,
            value: default,
            allowed,
        } = &line.kind
        {
            let default = self.replaced(own, default);
            let value = self.replaced(file, value);
            self.fits(name, &value, &default, allowed.as_deref(), own);
        }
    }

    fn fits(&mut self, name: &Name, value: &Value, default: &Value, allowed: Option<&Allowed>, file: usize) -> bool {
        let (form, wanted) = (Form::of(value), Form::of(default));
        let fault = |text: String, label: String| {
            Diagnostic::new(Code::BAD_PARAM, text)
                .label(value.span, label)
                .label(name.span, "the parameter")
        };
        if form.kind() != wanted.kind() {
            let message = format!("`{}` is {}, not {}", name.text, wanted.kind(), form.kind());
            self.errors.push(
                fault(message, format!("expected {}", wanted.kind()))
                    .note("a parameter's own value says what it counts"),
            );
            return false;
        }
        match allowed {
            None => true,
            Some(Allowed::Between(least, most)) => {
                let (low, high) = (Form::of(least), Form::of(most));
                let (Form::Number(low, _), Form::Number(high, _), Form::Number(given, _)) = (&low, &high, &form) else {
                    let message = format!("`{}` is {}, and has no range", name.text, wanted.kind());
                    self.errors
                        .push(fault(message, "not a number".to_owned()).help("list the values: `in [a, b]`"));
                    return false;
                };
                if Form::of(least).kind() != wanted.kind() || Form::of(most).kind() != wanted.kind() || low > high {
                    let message = format!("the range of `{}` is not one of {}", name.text, wanted.kind());
                    self.errors.push(Diagnostic::new(Code::BAD_PARAM, message).label(
                        least.span.to(most.span),
                        "from the least to the most, in the unit of the value",
                    ));
                    return false;
                }
                if given < low || given > high {
                    let text = |value: &Value| aurora_lang::format::value(value);
                    let message = format!("`{}` cannot be {}", name.text, text(value));
                    let range = format!("allowed: {} to {}", text(least), text(most));
                    self.errors.push(fault(message, range));
                    return false;
                }
                true
            }
            Some(Allowed::OneOf(values)) => {
                let known: Vec<Value> = values.iter().map(|value| self.replaced(file, value)).collect();
                if known.iter().any(|known| Form::of(known) == form) {
                    return true;
                }
                let list: Vec<String> = known.iter().map(aurora_lang::format::value).collect();
                let message = format!("`{}` cannot be {}", name.text, aurora_lang::format::value(value));
                self.errors
                    .push(fault(message, format!("allowed: {}", list.join(", "))));
                false
            }
        }
    }

    /// A value in which every name of a line has become that line's value.
    pub(super) fn replaced(&mut self, file: usize, value: &Value) -> Value {
        let mut value = value.clone();
        self.replace(file, &mut value);
        value
    }

    fn replace(&mut self, file: usize, value: &mut Value) {
        match &mut value.kind {
            ValueKind::Word(word) => {
                let line = self.targets(file, word).first().copied();
                let Some(line) = line.filter(|line| matches!(line, Target::Line(..))) else {
                    return;
                };
                if let Some(found) = self.value(line) {
                    // Evidence at the place of use is about that use.
                    let marks = std::mem::take(&mut value.marks);
                    *value = found;
                    if !marks.is_empty() {
                        value.marks = marks;
                    }
                }
            }
            ValueKind::List(items) => items.iter_mut().for_each(|item| self.replace(file, item)),
            ValueKind::Call(call) => call
                .arguments
                .iter_mut()
                .for_each(|argument| self.replace(file, &mut argument.value)),
            ValueKind::Number(_) | ValueKind::Text(_) | ValueKind::Every(_) => {}
        }
    }

    /// Replaces names in everything that a block holds.
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

    /// A lone name in a gate may be a number.
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
                let line = self.targets(file, &name.text).first().copied();
                let value = line
                    .filter(|line| matches!(line, Target::Line(..)))
                    .and_then(|line| self.value(line));
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

/// What a value is, as far as a parameter tells values apart.
#[derive(Clone, Debug, PartialEq)]
enum Form {
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

impl Form {
    fn of(value: &Value) -> Self {
        match &value.kind {
            ValueKind::Text(text) => Self::Text(text.clone()),
            ValueKind::Word(word) => Self::Word(word.clone()),
            ValueKind::List(_) => Self::Other("a list"),
            ValueKind::Call(_) => Self::Other("a call"),
            ValueKind::Every(_) => Self::Other("an interval"),
            ValueKind::Number(number) => {
                let suffix: u64 = match number.suffix {
                    None => 1,
                    Some('K') => 1_000,
                    Some('M') => 1_000_000,
                    Some('B') => 1_000_000_000,
                    Some(_) => 1_000_000_000_000,
                };
                let unit = number.unit.as_ref().map(|unit| unit.text.as_str());
                let (factor, counts) = match (unit, number.percent) {
                    (None, false) => (1, Counts::Nothing),
                    (None, true) => (1, Counts::Percent),
                    (Some("pp"), false) => (1, Counts::Points),
                    (Some(unit), _) => match written_unit(unit) {
                        Some(unit) => (unit.factor, Counts::Unit(unit.unit)),
                        None => return Self::Other("a number of an unknown unit"),
                    },
                };
                let value = decimal(&number.digits)
                    .and_then(|value| value.checked_mul(suffix.into()))
                    .and_then(|value| value.checked_mul(factor.into()));
                match value {
                    Some(value) => Self::Number(value.normalize(), counts),
                    None => Self::Other("a number out of reach"),
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

/// Every word that means something in a value: a line of the same name would change that meaning.
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
