//! Translates the training flags to a stage, and the evaluation flags to an eval.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::{DEFAULT, TranslatedBlock, Translation, WithOrigin, number_text};
use crate::megatron::findings::FindingKind;

/// Arguments of a call: name, value, origin.
type Arguments = Vec<(&'static str, String, String)>;

/// The learning-rate schedule in steps.
struct Rate {
    /// The rate at the start of the warm-up.
    start: WithOrigin<Decimal>,
    peak: WithOrigin<Decimal>,
    floor: WithOrigin<Decimal>,
    warmup: WithOrigin<u64>,
    /// The step at which the floor is reached.
    decay: WithOrigin<u64>,
}

impl Rate {
    fn arguments(&self) -> Arguments {
        vec![
            ("peak", shown(&self.peak, number_text), self.peak.origin.clone()),
            ("floor", shown(&self.floor, number_text), self.floor.origin.clone()),
            (
                "warmup",
                shown(&self.warmup, |count| steps(*count)),
                self.warmup.origin.clone(),
            ),
        ]
    }
}

/// The shape of the decay to the floor.
#[derive(Clone, Copy)]
enum Decay {
    Line,
    HalfCosine,
}

impl Decay {
    fn piece(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::HalfCosine => "half_cosine",
        }
    }
}

fn shown<T>(read: &WithOrigin<T>, show: impl Fn(&T) -> String) -> String {
    read.value.as_ref().map_or("unknown".to_owned(), show)
}

fn steps(count: u64) -> String {
    format!("{count} steps")
}

impl Translation<'_> {
    pub(super) fn stage(&mut self) -> String {
        let mut block = TranslatedBlock::new("stage pretrain");
        block.field("start", "base", "");
        let batch = self.global_batch();
        let budget = self.budget(batch.value);
        block.shown("budget", &budget, |count| steps(*count));
        block.field("mixture", "blend", "");
        let sequence = self.required("--seq-length");
        block.shown("sequence", &sequence, |count| format!("{count} tokens"));
        block.shown("global_batch", &batch, |count| format!("{count} sequences"));
        self.learning_rate(&mut block, batch.value, &budget);
        self.optimizer(&mut block);
        let saves = self.integer("--save-interval");
        if let Some(saves) = &saves {
            block.shown("checkpoint", saves, |count| format!("every {}", steps(*count)));
        }
        let saves = saves.and_then(|saves| saves.value);
        block.done() + &self.eval(saves)
    }

    fn global_batch(&mut self) -> WithOrigin<u64> {
        if let Some(given) = self.integer("--global-batch-size") {
            return given;
        }
        let (micro_batch, replicas) = (self.shared.micro_batch, self.shared.replicas);
        WithOrigin {
            value: micro_batch.and_then(|size| size.checked_mul(replicas)),
            origin: format!("{DEFAULT}: micro-batch × {replicas} replicas"),
        }
    }

    /// The steps of the run. Source: `update_train_iters`: the complete batches of the samples.
    fn budget(&mut self, batch: Option<u64>) -> WithOrigin<u64> {
        if self.given("--train-samples").is_none() || self.given("--train-iters").is_some() {
            return self.required("--train-iters");
        }
        let samples = self.required("--train-samples");
        self.in_steps("--train-samples", samples, batch)
    }

    /// Converts samples to steps.
    fn in_steps(&mut self, name: &str, samples: WithOrigin<u64>, batch: Option<u64>) -> WithOrigin<u64> {
        let (Some(count), Some(batch)) = (samples.value, batch.filter(|batch| *batch > 0)) else {
            return WithOrigin { value: None, ..samples };
        };
        if !count.is_multiple_of(batch) {
            let why = format!(
                "{count} samples ÷ {batch} = {} steps, with {} samples left over",
                count / batch,
                count % batch
            );
            self.report_flag(FindingKind::Resolved, name, why);
        }
        WithOrigin::new(count / batch, format!("{} {count} ÷ {batch}", samples.origin))
    }

    /// A length in iterations or in samples.
    fn length(&mut self, iterations: &str, samples: &str, batch: Option<u64>) -> Option<WithOrigin<u64>> {
        if let Some(given) = self.integer(iterations) {
            return Some(given);
        }
        let given = self.integer(samples)?;
        Some(self.in_steps(samples, given, batch))
    }

    fn learning_rate(&mut self, block: &mut TranslatedBlock, batch: Option<u64>, budget: &WithOrigin<u64>) {
        let decay = self.length("--lr-decay-iters", "--lr-decay-samples", batch);
        let decay = decay.unwrap_or(WithOrigin {
            value: budget.value,
            origin: format!("{DEFAULT}: the complete run"),
        });
        let peak = match self.number("--lr") {
            Some(peak) => peak,
            None => {
                self.report(
                    FindingKind::Unknown,
                    0,
                    "--lr",
                    "it is not given, but a spec requires it",
                );
                let origin = "--lr is not given".to_owned();
                WithOrigin { value: None, origin }
            }
        };
        let rate = Rate {
            start: self.or("--lr-warmup-init", Self::number, Decimal::ZERO),
            peak,
            floor: self.or("--min-lr", Self::number, Decimal::ZERO),
            warmup: self.warmup(batch, &decay),
            decay,
        };
        if rate.warmup.value == Some(0) && self.given("--lr-warmup-init").is_some() {
            self.report_flag(FindingKind::NoEffect, "--lr-warmup-init", "there is no warm-up");
        }
        let style = self.or("--lr-decay-style", Self::text, "linear".to_owned());
        block.comment(&format!("shape: {}", style.origin));
        let total = budget.value.unwrap_or(0);
        match style.value.as_deref() {
            Some("cosine") => self.falling(block, &rate, Decay::HalfCosine, None, total),
            Some("linear") => self.falling(block, &rate, Decay::Line, None, total),
            Some("WSD") => self.stable(block, batch, &rate, total),
            style => {
                if let Some(other) = style.filter(|style| *style != "constant") {
                    let why = format!("the schedule `{other}` is not supported; the spec has `constant`");
                    self.report_flag(FindingKind::ChangesResult, "--lr-decay-style", why);
                }
                if rate.start.value.is_none_or(|start| !start.is_zero()) {
                    let why = "the warm-up of a constant rate starts from zero";
                    self.report_flag(FindingKind::ChangesResult, "--lr-warmup-init", why);
                }
                let mut arguments = rate.arguments();
                arguments.remove(1);
                arguments[0].0 = "rate";
                block.call("learning_rate", "constant", &arguments);
            }
        }
    }

    fn warmup(&mut self, batch: Option<u64>, decay: &WithOrigin<u64>) -> WithOrigin<u64> {
        if let Some(fraction) = self.number("--lr-warmup-fraction") {
            let exact = fraction
                .value
                .zip(decay.value)
                .and_then(|(fraction, decay)| fraction.checked_mul(Decimal::from(decay)));
            if exact.is_some_and(|exact| !exact.fract().is_zero()) {
                let why = "it is not a whole number of steps; the spec rounds down";
                self.report_flag(FindingKind::Resolved, "--lr-warmup-fraction", why);
            }
            return WithOrigin {
                value: exact.and_then(|exact| exact.trunc().to_u64()),
                origin: format!("{} × the steps of the decay", fraction.origin),
            };
        }
        let given = self.length("--lr-warmup-iters", "--lr-warmup-samples", batch);
        given.unwrap_or_else(|| WithOrigin::new(0, DEFAULT))
    }

    /// Warm-up, stable, decay. Source: `OptimizerParamScheduler.get_lr`: the decay starts this number of steps before the floor.
    fn stable(&mut self, block: &mut TranslatedBlock, batch: Option<u64>, rate: &Rate, total: u64) {
        let length = self.length("--lr-wsd-decay-iters", "--lr-wsd-decay-samples", batch);
        let length = length.unwrap_or_else(|| {
            let name = "--lr-wsd-decay-iters";
            self.report(
                FindingKind::Unknown,
                0,
                name,
                "it is not given, but the schedule requires it",
            );
            let origin = format!("{name} is not given");
            WithOrigin { value: None, origin }
        });
        let style = self.or("--lr-wsd-decay-style", Self::text, "exponential".to_owned());
        let fall = match style.value.as_deref() {
            Some("cosine") => Decay::HalfCosine,
            other => {
                if let Some(other) = other.filter(|name| *name != "linear") {
                    let why = format!(
                        "the supported decays are linear and cosine, not `{other}`; the spec has a linear decay"
                    );
                    self.report_flag(FindingKind::ChangesResult, "--lr-wsd-decay-style", why);
                }
                Decay::Line
            }
        };
        let origin = format!("{}; {}", length.origin, style.origin);
        self.falling(block, rate, fall, Some(WithOrigin { origin, ..length }), total);
    }

    /// Writes a schedule with a decay to the floor, over its last `length` steps if that is given. Uses the name of the schedule
    /// if it starts from zero and ends at the floor, and pieces otherwise.
    fn falling(
        &mut self,
        block: &mut TranslatedBlock,
        rate: &Rate,
        fall: Decay,
        length: Option<WithOrigin<u64>>,
        total: u64,
    ) {
        let warmup = rate.warmup.value.unwrap_or(0);
        let decay = rate.decay.value.unwrap_or(total);
        let from_zero = warmup == 0 || rate.start.value.is_some_and(|start| start.is_zero());
        let one_word = match (&length, fall) {
            (None, Decay::HalfCosine) => Some("cosine"),
            (None, Decay::Line) => Some("linear"),
            (Some(_), Decay::Line) => Some("wsd"),
            (Some(_), Decay::HalfCosine) => None,
        };
        if let Some(word) = one_word.filter(|_| from_zero && decay == total) {
            let mut arguments = rate.arguments();
            arguments.extend(length.map(|length| ("decay", shown(&length, |count| steps(*count)), length.origin)));
            return block.call("learning_rate", word, &arguments);
        }
        if decay > total {
            let why = format!(
                "the run of {total} steps ends before the floor is reached (step {decay}); in the spec the floor is reached at the end"
            );
            let name = if self.given("--lr-decay-iters").is_some() {
                "--lr-decay-iters"
            } else {
                "--lr-decay-samples"
            };
            self.report_flag(FindingKind::ChangesResult, name, why);
        }
        let after = decay.min(total).saturating_sub(warmup);
        let down = length
            .as_ref()
            .and_then(|length| length.value)
            .unwrap_or(after)
            .min(after);
        let (peak, floor) = (shown(&rate.peak, number_text), shown(&rate.floor, number_text));
        let mut pieces = Vec::new();
        let mut origins = vec![
            rate.peak.origin.clone(),
            rate.floor.origin.clone(),
            rate.decay.origin.clone(),
        ];
        let start = match warmup {
            0 => ("start", peak.clone(), rate.peak.origin.clone()),
            _ => {
                pieces.push(format!("line(to = {peak}, over = {warmup} steps)"));
                origins.push(rate.warmup.origin.clone());
                ("start", shown(&rate.start, number_text), rate.start.origin.clone())
            }
        };
        if down < after {
            pieces.push(format!("hold(over = {} steps)", after - down));
        }
        pieces.push(format!("{}(to = {floor}, over = {down} steps)", fall.piece()));
        if decay < total {
            pieces.push("hold()".to_owned());
        }
        origins.extend(length.map(|length| length.origin));
        let pieces = ("pieces", format!("[{}]", pieces.join(", ")), origins.join("; "));
        block.call("learning_rate", "piecewise", &[start, pieces]);
    }

    fn optimizer(&mut self, block: &mut TranslatedBlock) {
        let name = self.or("--optimizer", Self::text, "adam".to_owned());
        if let Some(other) = name.value.as_deref().filter(|name| *name != "adam") {
            let why = format!("the optimizer is AdamW, not `{other}`");
            self.report_flag(FindingKind::ChangesResult, "--optimizer", why);
        }
        let defaults = [
            ("beta1", "--adam-beta1", Decimal::new(9, 1)),
            ("beta2", "--adam-beta2", Decimal::new(999, 3)),
            ("epsilon", "--adam-eps", Decimal::new(1, 8)),
            ("weight_decay", "--weight-decay", Decimal::new(1, 2)),
            ("clip", "--clip-grad", Decimal::ONE),
        ];
        let mut arguments = Arguments::new();
        for (argument, flag, default) in defaults {
            let read = self.or(flag, Self::number, default);
            // In Megatron, 0 turns clipping off.
            let nothing = argument == "clip" && read.value.is_some_and(|value| value.is_zero());
            let value = if nothing {
                "none".to_owned()
            } else {
                shown(&read, number_text)
            };
            arguments.push((argument, value, read.origin));
        }
        if self.given("--optimizer").is_some() {
            block.comment(&format!("AdamW: {}", name.origin));
        }
        block.call("optimizer", "adamw", &arguments);
    }

    /// An eval of the held-out data, if there is any.
    fn eval(&mut self, saves: Option<u64>) -> String {
        let interval = self.integer("--eval-interval");
        if !self.shared.held_out {
            if interval.is_some() {
                let why = "the script has no held-out data that Aurora supports; write an `eval`";
                self.report_flag(FindingKind::Resolved, "--eval-interval", why);
            }
            return String::new();
        }
        let interval =
            interval.unwrap_or_else(|| WithOrigin::new(1000, format!("{DEFAULT}; --eval-interval is not given")));
        let is_given = self.given("--eval-interval").is_some();
        let mut block = TranslatedBlock::new("eval validation");
        block.field("kind", "perplexity", "");
        block.field("data", format!("[{}]", self.shared.corpora.join(", ")), "");
        let fits = |every: u64| saves.is_some_and(|saves| saves > 0 && every.is_multiple_of(saves));
        match interval.value.filter(|every| fits(*every)) {
            Some(every) => block.field("at", format!("[every {every} steps, end]"), &interval.origin),
            None => {
                let every = interval.value.map_or("…".to_owned(), |every| every.to_string());
                let why = format!(
                    "evals need checkpoints, and none is saved every {every} steps; the spec evaluates the last checkpoint"
                );
                if is_given {
                    self.report_flag(FindingKind::Resolved, "--eval-interval", why);
                }
                block.field("at", "[end]", "");
            }
        }
        block.done()
    }
}
