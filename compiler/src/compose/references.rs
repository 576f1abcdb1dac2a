//! The names of blocks that the values of a block refer to, according to the schema.

use aurora_lang::ast::{Block, Body, Entry, Expression, ExpressionKind, Value, ValueKind};

use crate::schema::{self, CallSchema, Type};
use crate::spec::BlockKind;

/// A name and the kinds of blocks that it can refer to.
pub(super) type Reference = (&'static [BlockKind], String);

/// The references of a block.
pub(super) fn references(block: &Block) -> Vec<Reference> {
    let mut found = Vec::new();
    let Some(kind) = schema::kind(&block.keyword.text) else {
        return found;
    };
    match &block.body {
        Body::Gate(gate) => {
            expression(&gate.left, &mut found);
            expression(&gate.right, &mut found);
        }
        Body::Entries(entries) => {
            for entry in entries {
                match entry {
                    Entry::Field(field) => {
                        let name = field.path.first().map(|name| name.text.as_str());
                        if let Some(schema) = name.and_then(|name| schema::block(kind).field(name)) {
                            value(&field.value, &schema.kind, &mut found);
                        }
                    }
                    Entry::Component(component) => {
                        for schema in schema::component().all().filter(|schema| schema.name == "from") {
                            value(&component.from, &schema.kind, &mut found);
                        }
                    }
                    Entry::Block(_) => {}
                }
            }
        }
    }
    found
}

/// Every word of the values of entries. A word of a change may refer to a block of any kind.
pub(super) fn words<'a>(entries: &'a [Entry], found: &mut Vec<&'a str>) {
    for entry in entries {
        match entry {
            Entry::Field(field) => words_of(&field.value, found),
            Entry::Component(component) => words_of(&component.from, found),
            Entry::Block(block) => {
                if let Body::Entries(entries) = &block.body {
                    words(entries, found);
                }
            }
        }
    }
}

fn words_of<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match &value.kind {
        ValueKind::Word(word) => found.push(word),
        ValueKind::List(items) => items.iter().for_each(|item| words_of(item, found)),
        ValueKind::Call(call) => call
            .arguments
            .iter()
            .for_each(|argument| words_of(&argument.value, found)),
        ValueKind::Number(_) | ValueKind::Text(_) | ValueKind::Every(_) => {}
    }
}

fn value(written: &Value, kind: &Type, found: &mut Vec<Reference>) {
    match (kind, &written.kind) {
        (Type::Reference(kinds), ValueKind::Word(word)) => found.push((kinds, word.clone())),
        (Type::List { of, .. }, ValueKind::List(items)) => items.iter().for_each(|item| value(item, of, found)),
        (Type::OneOf(types), _) => types.iter().for_each(|kind| value(written, kind, found)),
        (Type::Call(calls), ValueKind::Call(call)) => {
            let Some(schema): Option<&CallSchema> = calls.iter().find(|schema| schema.name == call.name.text) else {
                return;
            };
            for argument in &call.arguments {
                let schema = match &argument.name {
                    None => schema.first,
                    Some(name) => schema.arguments.iter().find(|schema| schema.name == name.text),
                };
                if let Some(schema) = schema {
                    value(&argument.value, &schema.kind, found);
                }
            }
        }
        _ => {}
    }
}

/// `cap.heldout.bits_per_byte.fi`: a stage or model, and an eval.
fn expression(written: &Expression, found: &mut Vec<Reference>) {
    match &written.kind {
        ExpressionKind::Number(_) => {}
        ExpressionKind::Function { arguments, .. } => arguments.iter().for_each(|argument| expression(argument, found)),
        ExpressionKind::Group(inner) => expression(inner, found),
        ExpressionKind::Binary { left, right, .. } => {
            expression(left, found);
            expression(right, found);
        }
        ExpressionKind::Metric(path) => {
            const KINDS: [&[BlockKind]; 2] = [&[BlockKind::Stage, BlockKind::Model], &[BlockKind::Eval]];
            found.extend(path.iter().zip(KINDS).map(|(name, kinds)| (kinds, name.text.clone())));
        }
    }
}
