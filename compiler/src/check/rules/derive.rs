//! Defaults that follow from other fields.

use super::by_default;
use crate::check::Checker;
use crate::exact::Exact;
use crate::language;
use crate::schema::EvalKind;
use crate::spec::{Block, BlockId, BlockKind, Field, Origin, Spec, Unit, Value};

impl Checker<'_> {
    pub(super) fn derive_defaults(&mut self, spec: &mut Spec) {
        // In order of names, so that the order of the file does not matter.
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
                    let Some(kind) = EvalKind::of(block) else { continue };
                    for (field, value) in of_kind(kind) {
                        fill(block, field, value, failed);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Defaults of an eval by its kind; `None` for fields of other kinds.
fn of_kind(kind: EvalKind) -> [(&'static str, Value); 9] {
    let text = |text: &str| Value::Text(text.to_owned());
    let only = |applies: bool, value: Value| if applies { value } else { Value::None };
    let has_answers = kind.has_items() && !kind.is_judged();
    let runs = kind == EvalKind::PassAtK;
    let files = if runs { "**/*.jsonl*" } else { "**/*.jsonl" };
    [
        (
            "split",
            only(kind == EvalKind::Perplexity, Value::Word("held_out".to_owned())),
        ),
        (
            "files",
            only(kind.has_items(), Value::List(vec![by_default(text(files))])),
        ),
        ("prompt", only(kind.is_judged(), text("{prompt}"))),
        ("separator", only(has_answers, text("\n\n"))),
        ("delimiter", only(has_answers, text(" "))),
        ("maximum", only(kind.generates(), Value::Quantity(256, Unit::Tokens))),
        ("timeout", only(runs, Value::Quantity(3, Unit::Seconds))),
        ("memory", only(runs, Value::Quantity(512 << 20, Unit::Bytes))),
        ("unprotected", only(runs, Value::Bool(false))),
    ]
}

/// Converts a batch in tokens to sequences, if it is a whole number of them.
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

/// The steps that `unit`, `minimum` and `language_filter` are short forms of, and the minimum of a script.
fn corpus(block: &mut Block, failed: impl Fn(&str) -> bool) {
    let short = ["unit", "minimum", "language_filter"];
    if !block.fields.contains_key("prepare") && !short.iter().chain(&["prepare"]).any(|name| failed(name)) {
        let mut steps = Vec::new();
        let mut step = |name: &str, arguments: &[(&str, Value)], origin: &Origin| {
            let arguments = arguments.iter();
            let arguments = arguments.map(|(name, value)| ((*name).to_owned(), by_default(value.clone())));
            steps.push(Field {
                value: Value::Call {
                    name: name.to_owned(),
                    arguments: arguments.collect(),
                },
                origin: origin.clone(),
                evidence: None,
            });
        };
        if let Some(unit) = block.field("unit").filter(|unit| unit.word() == Some("paragraph")) {
            step("paragraphs", &[], &unit.origin);
        }
        if let Some(minimum) = block
            .field("minimum")
            .filter(|minimum| minimum.quantity().is_some_and(|(least, _)| least > 0))
        {
            step("minimum", &[("characters", minimum.value.clone())], &minimum.origin);
        }
        if let Some(filter) = block
            .field("language_filter")
            .filter(|filter| filter.value == Value::Bool(true))
        {
            step("language", &[], &filter.origin);
        }
        block
            .fields
            .insert("prepare".to_owned(), by_default(Value::List(steps)));
        // A resolved spec has the steps, and only them.
        for name in short {
            block.fields.insert(name.to_owned(), by_default(Value::None));
        }
    }
    let least = block.word("language").map_or(30, language::usual_minimum);
    let Some(Field {
        value: Value::List(steps),
        ..
    }) = block.fields.get_mut("prepare")
    else {
        return;
    };
    for step in steps {
        if let Value::Call { name, arguments } = &mut step.value
            && name == "minimum"
        {
            let usual = || by_default(Value::Quantity(least, Unit::Characters));
            arguments.entry("characters".to_owned()).or_insert_with(usual);
        }
    }
}

/// Whether a corpus is made of prompts and answers.
pub(super) fn has_pairs(corpus: &Block) -> bool {
    let from = corpus.field("from").map_or(&[][..], Field::elements);
    from.iter().any(|call| call.word() == Some("pairs"))
}

/// Sets a field that is neither written nor was written wrongly.
fn fill(block: &mut Block, name: &str, value: Value, failed: impl Fn(&str) -> bool) {
    if !block.fields.contains_key(name) && !failed(name) {
        block.fields.insert(name.to_owned(), by_default(value));
    }
}
