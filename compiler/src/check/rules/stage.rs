//! Stages: whole steps, batches that split evenly, schedules that fit, and no cycles.

use std::collections::BTreeSet;

use aurora_lang::ast::Span;
use aurora_lang::diagnostics::{Code, Diagnostic};

use super::nearest_multiples;
use crate::check::Checker;
use crate::spec::StageBatch;
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, Unit, Value};

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
                    .label(block.place("start"), "a model has weights only")
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
        self.budget_fits(block, batch, budget);
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
                .label(place, "the model's positions")
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
        if batch.sequences.is_multiple_of(part) {
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
        let pieces = rate.argument("pieces").map_or(&[][..], Field::elements);
        for (index, piece) in pieces.iter().enumerate() {
            let Some(length) = piece.argument("over") else { continue };
            if length.value == Value::None {
                if index + 1 < pieces.len() {
                    self.error(
                        Diagnostic::new(
                            Code::BAD_ARGUMENT,
                            "only the last piece may run to the end of the stage",
                        )
                        .label(piece.span().unwrap_or(block.span), "needs `over`")
                        .help("add `over = … steps`"),
                    );
                    return;
                }
                continue;
            }
            let Some(steps) = self.whole_steps("over", length, batch) else {
                return;
            };
            parts.push(("over", steps, length.span()));
        }
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
                    .help("swap the two"),
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
        let before = |id: &BlockId| {
            let start = spec.blocks.get(id).and_then(|block| block.reference("start"));
            start.filter(|start| start.kind == BlockKind::Stage)
        };
        let mut done: BTreeSet<&BlockId> = BTreeSet::new();
        for (id, _) in spec.of_kind(BlockKind::Stage) {
            let mut path: Vec<&BlockId> = Vec::new();
            let mut on_path: BTreeSet<&BlockId> = BTreeSet::new();
            let mut at = Some(id);
            while let Some(stage) = at.filter(|stage| !done.contains(stage) && !on_path.contains(stage)) {
                path.push(stage);
                on_path.insert(stage);
                at = before(stage);
            }
            if let Some(first) = at.filter(|stage| on_path.contains(stage)) {
                let cycle: Vec<&BlockId> = path.iter().copied().skip_while(|stage| *stage != first).collect();
                self.cycle(&cycle, spec);
            }
            done.extend(path);
        }
    }

    fn cycle(&mut self, cycle: &[&BlockId], spec: &Spec) {
        let shown = cycle.iter().take(6).chain(cycle.first());
        let names: Vec<&str> = shown.map(|id| id.name.as_str()).collect();
        let mut diagnostic = Diagnostic::new(
            Code::CYCLE,
            format!("stages start from each other: {}", names.join(" ← ")),
        );
        for (index, id) in cycle.iter().take(5).enumerate() {
            let text = if index == 0 {
                "leads back to itself"
            } else {
                "through this stage"
            };
            if let Some(block) = spec.blocks.get(*id) {
                diagnostic = diagnostic.label(block.place("start"), text);
            }
        }
        self.error(diagnostic.help("let one of them start from a model"));
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
