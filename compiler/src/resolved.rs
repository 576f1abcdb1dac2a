//! A checked spec as one complete file, for review.
//!
//! In: a [`Spec`]. Out: its text without imports, names for values, parameters, profiles and sweeps, every default spelled
//! out, blocks and fields in the order of the tables. It is a spec itself, with the same keys as the original.
//! Comments above the blocks give totals that follow from the values.
//! Not here: where a value was written (`aurora show --origins`).

use std::fmt::Write as _;

use crate::exact::Exact;
use crate::graph::{model_fields, stage_plan};
use crate::schema::{self, BLOCKS};
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, Value};
use crate::text::grouped;

/// Returns the resolved text of a spec.
pub fn resolved(spec: &Spec) -> String {
    let mut text = String::new();
    for (what, chosen) in [("profile", &spec.profile), ("point", &spec.point)] {
        if let Some(chosen) = chosen {
            let _ = writeln!(text, "// With {what} {chosen}.");
        }
    }
    for setting in &spec.settings {
        let _ = writeln!(text, "// With --set {setting}.");
    }
    for table in BLOCKS {
        for (id, block) in spec.of_kind(table.kind) {
            if let Some(fact) = fact(spec, id, block) {
                let _ = writeln!(text, "\n// {fact}");
            }
            let _ = writeln!(text, "{} {} {{", id.kind, id.name);
            let known = table.fields.iter().map(|field| field.name);
            let others = block.fields.keys().map(String::as_str);
            let others = others.filter(|name| table.field(name).is_none());
            for name in known.chain(others) {
                if let Some(line) = block.field(name).and_then(|field| line(name, field)) {
                    let _ = writeln!(text, "  {line}");
                }
            }
            let _ = writeln!(text, "}}\n");
        }
    }
    // The text follows the grammar, because every value reads back as it is written.
    aurora_lang::format(&text).unwrap_or(text)
}

fn line(name: &str, field: &Field) -> Option<String> {
    match &field.value {
        Value::None if !field.is_written() => None,
        Value::Gate(gate) => Some(format!("{}{}", gate.text, mark(field))),
        Value::Call { name: call, arguments } if call == schema::component().name => {
            let mut line = name.to_owned();
            for schema in schema::component().all() {
                let argument = arguments.get(schema.name)?;
                if argument.value != Value::None || argument.is_written() {
                    let _ = write!(line, " {} {}", schema.name, value(argument));
                }
            }
            Some(line)
        }
        _ => Some(format!("{name} = {}", value(field))),
    }
}

/// A value with its evidence, and the evidence of its elements and arguments.
fn value(field: &Field) -> String {
    let text = match &field.value {
        Value::List(elements) => {
            let elements: Vec<String> = elements.iter().map(value).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Call { name, arguments } => {
            let table = schema::call(name);
            let first = table.and_then(|table| table.first).map(|first| first.name);
            let known: Vec<&str> =
                table.map_or_else(Vec::new, |table| table.all().map(|argument| argument.name).collect());
            let written: Vec<String> = known
                .into_iter()
                .filter_map(|name| Some((name, arguments.get(name)?)))
                .filter(|(_, argument)| argument.value != Value::None || argument.is_written())
                .map(|(name, argument)| {
                    if first == Some(name) {
                        value(argument)
                    } else {
                        format!("{name} = {}", value(argument))
                    }
                })
                .collect();
            format!("{name}({})", written.join(", "))
        }
        other => other.to_string(),
    };
    text + &mark(field)
}

fn mark(field: &Field) -> String {
    field
        .evidence
        .as_ref()
        .map_or(String::new(), |evidence| format!(" {}", evidence.mark()))
}

/// Totals that follow from the values of a block, if all of them are known.
fn fact(spec: &Spec, id: &BlockId, block: &Block) -> Option<String> {
    match id.kind {
        BlockKind::Model => {
            let counts = ["layers", "hidden", "heads", "kv_heads", "feed_forward", "vocabulary"];
            counts
                .iter()
                .all(|name| block.integer(name).is_some())
                .then(|| format!("{} parameters", grouped(model_fields(spec, id).parameters())))
        }
        BlockKind::Stage => {
            let batch = spec.batch_of(id)?;
            block.quantity("budget")?;
            let plan = stage_plan(spec, id);
            Some(format!(
                "{} steps × {} tokens = {} tokens, {} checkpoints",
                grouped(plan.steps),
                grouped(batch.tokens),
                grouped(plan.steps * batch.tokens),
                plan.checkpoints().len()
            ))
        }
        BlockKind::Mixture => {
            let count = |field: &Field| match field.argument("weight")?.value {
                Value::Quantity(count, _) => Some(count),
                _ => None,
            };
            let counts: Option<Vec<u64>> = block.fields.values().map(count).collect();
            let counts = counts.filter(|counts| !counts.is_empty())?;
            let total: u64 = counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
            let fractions = block
                .fields
                .keys()
                .zip(crate::graph::millionths(&counts))
                .map(|(name, fraction)| {
                    let percent = Exact::new(rust_decimal::Decimal::new(fraction.into(), 4));
                    format!("{name} {percent}%")
                });
            let fractions: Vec<String> = fractions.collect();
            Some(format!("{} tokens: {}", grouped(total), fractions.join(", ")))
        }
        _ => None,
    }
}
