//! Defaults that follow from other fields.

use super::by_default;
use crate::check::Checker;
use crate::fields::Exact;
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, Unit, Value};

impl Checker<'_> {
    pub(super) fn derive_defaults(&mut self, spec: &mut Spec) {
        // By name, so that the order of the file does not matter.
        let stages: Vec<BlockId> = spec.of_kind(BlockKind::Stage).map(|(id, _)| id.clone()).collect();
        for (id, block) in &mut spec.blocks {
            let failed = |name: &str| self.failed.contains(&(id.clone(), name.to_owned()));
            match id.kind {
                BlockKind::Corpus => corpus(block, failed),
                BlockKind::Model => {
                    let width = block.integer("hidden").and_then(|hidden| hidden.checked_mul(4));
                    if let Some(width) = width {
                        fill(block, "feed_forward", Value::Integer(width), failed);
                    }
                    let (activation, base) = match block.word("architecture") {
                        Some("llama") => ("swiglu", Value::Decimal(Exact::new(10_000.into()))),
                        _ => ("gelu", Value::None),
                    };
                    fill(block, "activation", Value::Word(activation.to_owned()), failed);
                    fill(block, "rotary_base", base, failed);
                }
                BlockKind::Stage => {
                    let state = block.reference("start").map(|start| match start.kind {
                        BlockKind::Stage => "keep",
                        _ => "reset",
                    });
                    if let Some(state) = state {
                        fill(block, "optimizer_state", Value::Word(state.to_owned()), failed);
                    }
                    batch_in_sequences(block);
                }
                BlockKind::Eval => {
                    let all = stages
                        .iter()
                        .map(|id| by_default(Value::Reference(id.clone())))
                        .collect();
                    fill(block, "stages", Value::List(all), failed);
                    let split = match block.word("kind") {
                        Some("perplexity") => Value::Word("held_out".to_owned()),
                        _ => Value::None,
                    };
                    fill(block, "split", split, failed);
                    let kind = block.word("kind").map(str::to_owned);
                    let is_task = matches!(kind.as_deref(), Some("multiple_choice" | "generation"));
                    let text = |text: &str| Value::Text(text.to_owned());
                    let task = |value: Value| if is_task { value } else { Value::None };
                    let files = Value::List(vec![by_default(text("**/*.jsonl"))]);
                    fill(block, "files", task(files), failed);
                    fill(block, "separator", task(text("\n\n")), failed);
                    fill(block, "delimiter", task(text(" ")), failed);
                    let maximum = match kind.as_deref() {
                        Some("generation") => Value::Quantity(256, Unit::Tokens),
                        _ => Value::None,
                    };
                    fill(block, "maximum", maximum, failed);
                }
                _ => {}
            }
        }
    }
}

/// A batch that is written in tokens is held in sequences, if it is a whole number of them.
fn batch_in_sequences(block: &mut Block) {
    let (Some((tokens, Unit::Tokens)), Some((sequence, _))) =
        (block.quantity("global_batch"), block.quantity("sequence"))
    else {
        return;
    };
    if sequence > 0 && tokens % sequence == 0 && tokens > 0 {
        let field = block.fields.get_mut("global_batch");
        if let Some(Field { value, .. }) = field {
            *value = Value::Quantity(tokens / sequence, Unit::Sequences);
        }
    }
}

fn corpus(block: &mut Block, failed: impl Fn(&str) -> bool) {
    let Some(language) = block.word("language").map(str::to_owned) else {
        return;
    };
    let is_code = language == "code";
    fill(
        block,
        "language_filter",
        Value::Bool(!is_code && language != "other"),
        &failed,
    );
    let minimum = match language.as_str() {
        "code" => 0,
        "ja" => 12,
        _ => 30,
    };
    fill(block, "minimum", Value::Quantity(minimum, Unit::Characters), &failed);
    let unit = if is_code { "document" } else { "paragraph" };
    fill(block, "unit", Value::Word(unit.to_owned()), &failed);
}

/// Sets a field that is neither written nor was written wrongly.
fn fill(block: &mut Block, name: &str, value: Value, failed: impl Fn(&str) -> bool) {
    if !block.fields.contains_key(name) && !failed(name) {
        block.fields.insert(name.to_owned(), by_default(value));
    }
}
