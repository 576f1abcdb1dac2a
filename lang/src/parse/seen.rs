//! Blocks that have been read before: an editor's next text has all of them but one.
//!
//! A block is known by its text and kept with places that count from its own start. Blocks with faults are not kept:
//! what is expected at a fault depends on the text around it.

use std::collections::BTreeMap;

use crate::ast::{
    Allowed, Argument, Block, Body, Component, Entry, Expression, ExpressionKind, Field, Gate, Mark, Name, Number,
    Quoted, Span, Statement, StatementKind, Value, ValueKind,
};

/// Blocks and statements that are kept; past that all are forgotten.
const MOST_KEPT: usize = 4000;

/// What was read of texts before.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    items: BTreeMap<String, Item>,
}

/// A top-level block or statement.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Block(Block),
    Statement(Statement),
}

impl Seen {
    /// The item of this text, as it stands `at` a byte.
    pub(super) fn get(&self, text: &str, at: usize) -> Option<Item> {
        let mut item = self.items.get(text)?.clone();
        match &mut item {
            Item::Block(found) => block(found, at),
            Item::Statement(found) => statement(found, at),
        }
        Some(item)
    }

    /// Keeps an item whose places count from its start.
    pub(super) fn keep(&mut self, text: &str, item: Item) {
        if self.items.len() >= MOST_KEPT {
            self.items.clear();
        }
        self.items.insert(text.to_owned(), item);
    }
}

fn span(span: &mut Span, by: usize) {
    *span = span.moved(by);
}

fn name(name: &mut Name, by: usize) {
    span(&mut name.span, by);
}

fn names<'a>(names: impl IntoIterator<Item = &'a mut Name>, by: usize) {
    names.into_iter().for_each(|one| name(one, by));
}

fn statement(statement: &mut Statement, by: usize) {
    span(&mut statement.span, by);
    let quoted = |path: &mut Quoted| span(&mut path.span, by);
    match &mut statement.kind {
        StatementKind::Import { path, names: all } => {
            quoted(path);
            names(all.iter_mut().flatten(), by);
        }
        StatementKind::Extends { path, entries } => {
            quoted(path);
            entries.iter_mut().for_each(|one| entry(one, by));
        }
        StatementKind::Let { name: own, value: is } => {
            name(own, by);
            value(is, by);
        }
        StatementKind::Param {
            name: own,
            value: is,
            allowed,
        } => {
            name(own, by);
            value(is, by);
            match allowed.as_deref_mut() {
                Some(Allowed::Between(least, most)) => [least, most].into_iter().for_each(|one| value(one, by)),
                Some(Allowed::OneOf(values)) => values.iter_mut().for_each(|one| value(one, by)),
                None => {}
            }
        }
    }
}

fn block(block: &mut Block, by: usize) {
    span(&mut block.span, by);
    names([&mut block.keyword, &mut block.name], by);
    match &mut block.body {
        Body::Entries(entries) => entries.iter_mut().for_each(|one| entry(one, by)),
        Body::Gate(written) => gate(written, by),
    }
}

fn entry(entry: &mut Entry, by: usize) {
    match entry {
        Entry::Block(inner) => block(inner, by),
        Entry::Field(Field {
            path,
            value: is,
            span: own,
        }) => {
            span(own, by);
            names(path, by);
            value(is, by);
        }
        Entry::Component(Component {
            name: own,
            from,
            settings,
            span: range,
        }) => {
            span(range, by);
            name(own, by);
            value(from, by);
            for (word, is) in settings {
                name(word, by);
                value(is, by);
            }
        }
    }
}

fn value(written: &mut Value, by: usize) {
    span(&mut written.span, by);
    marks(&mut written.marks, by);
    match &mut written.kind {
        ValueKind::Number(inner) => number(inner, by),
        ValueKind::Every(inner) => value(inner, by),
        ValueKind::List(items) => items.iter_mut().for_each(|item| value(item, by)),
        ValueKind::Call(call) => {
            name(&mut call.name, by);
            for Argument {
                name: own,
                value: is,
                span: range,
            } in &mut call.arguments
            {
                span(range, by);
                names(own, by);
                value(is, by);
            }
        }
        ValueKind::Text(_) | ValueKind::Word(_) => {}
    }
}

fn number(number: &mut Number, by: usize) {
    names(&mut number.unit, by);
}

fn marks(marks: &mut [Mark], by: usize) {
    for mark in marks {
        span(&mut mark.span, by);
        name(&mut mark.name, by);
    }
}

fn gate(gate: &mut Gate, by: usize) {
    span(&mut gate.span, by);
    name(&mut gate.relation, by);
    marks(&mut gate.marks, by);
    if let Some(confidence) = &mut gate.confidence {
        span(&mut confidence.span, by);
        number(&mut confidence.number, by);
    }
    [&mut gate.left, &mut gate.right]
        .into_iter()
        .for_each(|side| expression(side, by));
}

fn expression(written: &mut Expression, by: usize) {
    span(&mut written.span, by);
    match &mut written.kind {
        ExpressionKind::Number(inner) => number(inner, by),
        ExpressionKind::Metric(path) => names(path, by),
        ExpressionKind::Function { name: own, arguments } => {
            name(own, by);
            arguments.iter_mut().for_each(|argument| expression(argument, by));
        }
        ExpressionKind::Group(inner) => expression(inner, by),
        ExpressionKind::Binary { left, right, .. } => {
            expression(left, by);
            expression(right, by);
        }
    }
}
