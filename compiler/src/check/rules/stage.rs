//! Stages: whole steps, batches that split evenly, schedules that fit, and no circles.

use std::collections::BTreeSet;

use aurora_lang::ast::Span;
use aurora_lang::diagnostics::{Code, Diagnostic};

use super::nearest_multiples;
use crate::check::Checker;
use crate::check::access::StageBatch;
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, Unit};

impl Checker<'_> {
    pub(super) fn stage(&mut self, id: &BlockId, block: &Block, spec: &Spec) {
        self.sequence_fits(id, block, spec);
        if block
            .reference("start")
            .is_some_and(|start| start.kind == BlockKind::Model)
            && block.word("optimizer_state") == Some("keep")
        {
            self.error(
                Diagnostic::new(Code::NO_STATE_TO_KEEP, "there is no optimizer state to keep")
                    .label(block.place("optimizer_state"), "needs a stage before it")
                    .label(block.place("start"), "a model brings weights only")
                    .help("write `optimizer_state = reset`, or leave it out"),
            );
        }
        if let (Some((tokens, Unit::Tokens)), Some((sequence, _))) =
            (block.quantity("global_batch"), block.quantity("sequence"))
        {
            self.error(
                Diagnostic::new(
                    Code::NOT_WHOLE_STEPS,
                    format!("global_batch {tokens} tokens is not a whole number of sequences of {sequence} tokens"),
                )
                .label(
                    block.place("global_batch"),
                    format!("{tokens} ÷ {sequence} leaves {}", tokens % sequence),
                )
                .help(nearest_multiples(tokens, sequence, " tokens")),
            );
            return;
        }
        let Some(batch) = spec.batch_of(id) else { return };
        self.batch_splits(block, batch, spec);
        let budget = block
            .field("budget")
            .and_then(|field| self.whole_steps("budget", field, batch));
        if let Some(checkpoint) = block.field("checkpoint") {
            self.whole_steps("checkpoint", checkpoint, batch);
        }
        self.schedule_fits(block, batch, budget);
    }

    fn sequence_fits(&mut self, id: &BlockId, block: &Block, spec: &Spec) {
        let Some(model) = spec.model_of(id) else { return };
        let context = spec
            .blocks
            .get(model)
            .and_then(|model| Some((model.quantity("context")?.0, model.place("context"))));
        if let (Some((sequence, _)), Some((context, place))) = (block.quantity("sequence"), context)
            && sequence > context
        {
            self.error(
                Diagnostic::new(
                    Code::SEQUENCE_TOO_LONG,
                    format!(
                        "sequence {sequence} tokens is longer than the context of model `{}`, {context} tokens",
                        model.name
                    ),
                )
                .label(block.place("sequence"), format!("{} too long", sequence - context))
                .label(place, "the model's learned positions")
                .help(format!("write at most {context} tokens")),
            );
        }
    }

    /// The steps of a quantity; an error if they are not whole.
    fn whole_steps(&mut self, name: &str, field: &Field, batch: StageBatch) -> Option<u64> {
        let quantity = field.quantity()?;
        let steps = batch.steps(quantity);
        if steps.is_none() && quantity.1 == Unit::Tokens {
            let span = field.span().unwrap_or_default();
            self.error(not_whole_steps(name, quantity.0, span, batch));
        }
        steps
    }

    fn batch_splits(&mut self, block: &Block, batch: StageBatch, spec: &Spec) {
        let Some(numerics) = spec.experiment().and_then(|experiment| experiment.field("numerics")) else {
            return;
        };
        let Some((micro_batch, _)) = numerics.argument("micro_batch").and_then(Field::quantity) else {
            return;
        };
        let lanes = numerics
            .argument("lanes")
            .and_then(Field::integer)
            .and_then(|lanes| u64::try_from(lanes).ok());
        let (part, text) = match lanes {
            Some(lanes) => (
                lanes.saturating_mul(micro_batch),
                format!("lanes {lanes} × micro-batch {micro_batch}"),
            ),
            None => (micro_batch, format!("micro-batch {micro_batch}")),
        };
        if batch.sequences % part == 0 {
            return;
        }
        let product = if lanes.is_some() {
            format!("{text} = {part}")
        } else {
            text
        };
        let mut diagnostic = Diagnostic::new(
            Code::BATCH_SPLIT,
            format!("global_batch {} is not divisible by {product}", batch.sequences),
        )
        .label(
            block.place("global_batch"),
            format!("{} ÷ {part} leaves {}", batch.sequences, batch.sequences % part),
        );
        if let Some(span) = numerics.span() {
            diagnostic = diagnostic.label(span, "how it is split");
        }
        self.error(diagnostic.help(nearest_multiples(batch.sequences, part, " sequences")));
    }

    fn schedule_fits(&mut self, block: &Block, batch: StageBatch, budget: Option<u64>) {
        let Some(rate) = block.field("learning_rate") else {
            return;
        };
        let mut parts = Vec::new();
        for name in ["warmup", "decay"] {
            let Some(field) = rate.argument(name) else { continue };
            let Some(steps) = self.whole_steps(name, field, batch) else {
                return;
            };
            parts.push((name, steps, field.span()));
        }
        if let (Some(peak), Some(floor)) = (rate.argument("peak"), rate.argument("floor"))
            && let (Some(high), Some(low)) = (peak.number(), floor.number())
            && low > high
        {
            self.error(
                Diagnostic::new(Code::OUT_OF_RANGE, "the floor of the learning rate is above its peak")
                    .label(floor.span().unwrap_or(block.span), "higher than the peak")
                    .label(peak.span().unwrap_or(block.span), "the peak")
                    .help("exchange the two"),
            );
        }
        let Some(budget) = budget else { return };
        let total = parts
            .iter()
            .fold(0_u64, |sum, (_, steps, _)| sum.saturating_add(*steps));
        if total <= budget {
            return;
        }
        let written: Vec<_> = parts.iter().filter(|(_, steps, _)| *steps > 0).collect();
        let text: Vec<String> = written
            .iter()
            .map(|(name, steps, _)| format!("{name} {steps}"))
            .collect();
        let is = if written.len() > 1 {
            format!("{} = {total} steps are", text.join(" + "))
        } else {
            format!("{} steps is", text.join(""))
        };
        let mut diagnostic = Diagnostic::new(
            Code::SCHEDULE_TOO_LONG,
            format!("{is} longer than the stage, {budget} steps"),
        );
        for (name, _, span) in &written {
            if let Some(span) = span {
                diagnostic = diagnostic.label(*span, *name);
            }
        }
        self.error(
            diagnostic
                .label(block.place("budget"), format!("{budget} steps"))
                .help("shorten it, or extend the stage"),
        );
    }

    pub(super) fn stage_cycles(&mut self, spec: &Spec) {
        let mut told: BTreeSet<&BlockId> = BTreeSet::new();
        for (id, block) in spec.of_kind(BlockKind::Stage) {
            if told.contains(id) {
                continue;
            }
            let mut circle = vec![id];
            let mut at = block.reference("start");
            while let Some(next) = at.filter(|next| next.kind == BlockKind::Stage) {
                if next == id {
                    break;
                }
                if circle.contains(&next) {
                    // A circle that this stage only leads into; it is told at its own stages.
                    circle.clear();
                    break;
                }
                circle.push(next);
                at = spec.blocks.get(next).and_then(|block| block.reference("start"));
            }
            if circle.is_empty() || at != Some(id) {
                continue;
            }
            told.extend(circle.iter().copied());
            let mut names: Vec<&str> = circle.iter().map(|id| id.name.as_str()).collect();
            names.push(&id.name);
            let mut diagnostic = Diagnostic::new(
                Code::CYCLE,
                format!("stages start from each other: {}", names.join(" ← ")),
            )
            .label(block.place("start"), "leads back to itself");
            for other in circle.iter().skip(1).take(4) {
                if let Some(other) = spec.blocks.get(*other) {
                    diagnostic = diagnostic.label(other.place("start"), "by way of this");
                }
            }
            self.error(diagnostic.help("let one of them start from a model"));
        }
    }
}

pub(super) fn not_whole_steps(name: &str, tokens: u64, span: Span, batch: StageBatch) -> Diagnostic {
    let steps = tokens / batch.tokens;
    let nearest = if steps == 0 {
        "1 steps".to_owned()
    } else {
        format!("{steps} steps or {} steps", steps + 1)
    };
    Diagnostic::new(
        Code::NOT_WHOLE_STEPS,
        format!("{name} {tokens} tokens is not a whole number of steps"),
    )
    .label(
        span,
        format!("{tokens} ÷ {} leaves {}", batch.tokens, tokens % batch.tokens),
    )
    .note(format!(
        "a step is {} sequences × {} tokens = {} tokens",
        batch.sequences, batch.sequence, batch.tokens
    ))
    .help(format!(
        "{}; or write {nearest}",
        nearest_multiples(tokens, batch.tokens, " tokens")
    ))
}
