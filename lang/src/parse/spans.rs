//! Changes every span of a syntax tree: the text has moved after an edit, is part of a longer one, or was repaired.

use crate::ast::{
    Allowed, Argument, Block, Body, Component, Entry, Expression, ExpressionKind, Field, Gate, Mark, Name, Number,
    Quoted, Span, Statement, StatementKind, Value, ValueKind,
};
use crate::diagnostics::Diagnostic;

/// Applies a function to the start and end of spans.
pub(super) struct MapSpans<F>(pub F);

/// Moves what starts at `from` to `to`.
pub(super) fn shift(from: usize, to: usize) -> MapSpans<impl Fn(usize) -> usize> {
    MapSpans(move |at| at - from + to)
}

impl<F: Fn(usize) -> usize> MapSpans<F> {
    pub(super) fn span(&self, span: &mut Span) {
        *span = Span::new((self.0)(span.start), (self.0)(span.end));
    }

    fn name(&self, name: &mut Name) {
        self.span(&mut name.span);
    }

    fn names<'a>(&self, names: impl IntoIterator<Item = &'a mut Name>) {
        names.into_iter().for_each(|one| self.name(one));
    }

    pub(super) fn statement(&self, statement: &mut Statement) {
        self.span(&mut statement.span);
        let quoted = |path: &mut Quoted| self.span(&mut path.span);
        match &mut statement.kind {
            StatementKind::Import { path, names } => {
                quoted(path);
                self.names(names.iter_mut().flatten());
            }
            StatementKind::Extends { path, entries } => {
                quoted(path);
                entries.iter_mut().for_each(|one| self.entry(one));
            }
            StatementKind::Let { name, value } => {
                self.name(name);
                self.value(value);
            }
            StatementKind::Param { name, value, allowed } => {
                self.name(name);
                self.value(value);
                match allowed.as_deref_mut() {
                    Some(Allowed::Between(least, most)) => [least, most].into_iter().for_each(|one| self.value(one)),
                    Some(Allowed::OneOf(values)) => values.iter_mut().for_each(|one| self.value(one)),
                    None => {}
                }
            }
        }
    }

    pub(super) fn block(&self, block: &mut Block) {
        self.span(&mut block.span);
        self.names([&mut block.keyword, &mut block.name]);
        match &mut block.body {
            Body::Entries(entries) => entries.iter_mut().for_each(|one| self.entry(one)),
            Body::Gate(gate) => self.gate(gate),
        }
    }

    fn entry(&self, entry: &mut Entry) {
        match entry {
            Entry::Block(inner) => self.block(inner),
            Entry::Field(Field { path, value, span }) => {
                self.span(span);
                self.names(path);
                self.value(value);
            }
            Entry::Component(Component {
                name,
                from,
                settings,
                span,
            }) => {
                self.span(span);
                self.name(name);
                self.value(from);
                for (word, value) in settings {
                    self.name(word);
                    self.value(value);
                }
            }
        }
    }

    pub(super) fn value(&self, value: &mut Value) {
        self.span(&mut value.span);
        self.marks(&mut value.marks);
        match &mut value.kind {
            ValueKind::Number(inner) => self.number(inner),
            ValueKind::Every(inner) => self.value(inner),
            ValueKind::List(items) => items.iter_mut().for_each(|item| self.value(item)),
            ValueKind::Call(call) => {
                self.name(&mut call.name);
                for Argument { name, value, span } in &mut call.arguments {
                    self.span(span);
                    self.names(name);
                    self.value(value);
                }
            }
            ValueKind::Text(_) | ValueKind::Word(_) => {}
        }
    }

    fn number(&self, number: &mut Number) {
        self.names(&mut number.unit);
    }

    fn marks(&self, marks: &mut [Mark]) {
        for mark in marks {
            self.span(&mut mark.span);
            self.name(&mut mark.name);
        }
    }

    fn gate(&self, gate: &mut Gate) {
        self.span(&mut gate.span);
        self.name(&mut gate.relation);
        self.marks(&mut gate.marks);
        if let Some(confidence) = &mut gate.confidence {
            self.span(&mut confidence.span);
            self.number(&mut confidence.number);
        }
        [&mut gate.left, &mut gate.right]
            .into_iter()
            .for_each(|side| self.expression(side));
    }

    fn expression(&self, expression: &mut Expression) {
        self.span(&mut expression.span);
        match &mut expression.kind {
            ExpressionKind::Number(inner) => self.number(inner),
            ExpressionKind::Metric(path) => self.names(path),
            ExpressionKind::Function { name, arguments } => {
                self.name(name);
                arguments.iter_mut().for_each(|argument| self.expression(argument));
            }
            ExpressionKind::Group(inner) => self.expression(inner),
            ExpressionKind::Binary { left, right, .. } => {
                self.expression(left);
                self.expression(right);
            }
        }
    }

    pub(super) fn diagnostic(&self, diagnostic: &mut Diagnostic) {
        diagnostic
            .labels
            .iter_mut()
            .for_each(|label| self.span(&mut label.span));
        let edits = diagnostic.helps.iter_mut().filter_map(|help| help.edit.as_mut());
        edits.for_each(|edit| self.span(&mut edit.span));
    }
}
