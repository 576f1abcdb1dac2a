//! Inlay hints: the same value in another unit (tokens as steps, steps as tokens, weights as tokens).

use std::collections::BTreeMap;

use aurora_compiler::spec::StageBatch;
use aurora_compiler::spec::{BlockKind, Field, Unit, Value};
use aurora_lang::ast::Span;
use camino::Utf8Path;

use super::analysis::Analysis;
use super::facts;

pub struct Hint {
    /// The value that it follows.
    pub value: Span,
    pub text: String,
}

/// The hints of a file. A value that differs between stages, such as one with a name, has no hint.
pub fn hints(analysis: &Analysis, path: &Utf8Path) -> Vec<Hint> {
    let spec = &analysis.examined().spec;
    let mut found: BTreeMap<Span, Option<String>> = BTreeMap::new();
    let mut add = |field: &Field, text: Option<String>| {
        if let (Some(span), Some(text)) = (field.span(), text) {
            let known = found.entry(span).or_insert_with(|| Some(text.clone()));
            if known.as_ref() != Some(&text) {
                *known = None;
            }
        }
    };
    for (id, block) in spec.of_kind(BlockKind::Stage) {
        let Some(batch) = spec.batch_of(id) else { continue };
        for (name, field) in &block.fields {
            if name != "sequence" {
                quantities(field, batch, &mut add);
            }
        }
    }
    for (id, block) in spec.of_kind(BlockKind::Mixture) {
        for field in block.fields.values() {
            let Some(weight) = field.argument("weight") else {
                continue;
            };
            for stage in facts::stages_of(spec, id) {
                add(
                    weight,
                    facts::component_tokens(spec, stage, field)
                        .map(|tokens| format!("≈ {} tokens", facts::short(tokens))),
                );
            }
        }
    }
    let Some((_, file)) = analysis.file(path) else {
        return Vec::new();
    };
    let own = found.into_iter().filter(|(span, _)| file.span.contains(*span));
    own.filter_map(|(span, text)| {
        let value = Span::new(span.start - file.span.start, span.end - file.span.start);
        Some(Hint { value, text: text? })
    })
    .collect()
}

/// Adds the hints of a value and its parts. A batch in tokens has been converted to sequences, which the hint shows.
fn quantities(field: &Field, batch: StageBatch, add: &mut impl FnMut(&Field, Option<String>)) {
    match &field.value {
        Value::Quantity(..) | Value::Every(_) => {
            let text = field
                .quantity()
                .filter(|(_, unit)| matches!(unit, Unit::Tokens | Unit::Steps | Unit::Sequences));
            add(
                field,
                text.and_then(|quantity| facts::converted(batch, quantity))
                    .map(|text| with_sign(&text)),
            );
        }
        Value::Call { arguments, .. } => arguments.values().for_each(|argument| quantities(argument, batch, add)),
        Value::List(elements) => elements.iter().for_each(|element| quantities(element, batch, add)),
        _ => {}
    }
}

fn with_sign(text: &str) -> String {
    if text.starts_with('≈') {
        text.to_owned()
    } else {
        format!("= {text}")
    }
}
