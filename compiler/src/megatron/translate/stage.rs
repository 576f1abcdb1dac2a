//! The stage: how long, how fast, with which optimizer; and what is measured on the way.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::{Block, DEFAULT, Read, Translation, number_text};
use crate::megatron::findings::Kind;

/// Arguments of a call: name, value, origin.
type Arguments = Vec<(&'static str, String, String)>;

/// The learning rate in steps, as far as it is known.
struct Rate {
    /// Where the warm-up begins.
    start: Read<Decimal>,
    peak: Read<Decimal>,
    floor: Read<Decimal>,
    warmup: Read<u64>,
    /// Where the floor is reached.
    decay: Read<u64>,
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

/// How a rate falls to its floor.
#[derive(Clone, Copy)]
enum Fall {
    Line,
    HalfCosine,
}

impl Fall {
    fn piece(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::HalfCosine => "half_cosine",
        }
    }
}

fn shown<T>(read: &Read<T>, show: impl Fn(&T) -> String) -> String {
    read.value.as_ref().map_or("unknown".to_owned(), show)
}

fn steps(count: u64) -> String {
    format!("{count} steps")
}

impl Translation<'_> {
    pub(super) fn stage(&mut self) -> String {
        let mut block = Block::new("stage pretrain");
        block.field("start", "base", "");
        let batch = self.global_batch();
        let budget = self.budget(batch.value);
        block.shown("budget", &budget, |count| steps(*count));
        block.field("mixture", "blend", "");
        let sequence = self.needed("--seq-length");
        block.shown("sequence", &sequence, |count| format!("{count} tokens"));
        block.shown("global_batch", &batch, |count| format!("{count} sequences"));
        self.learning_rate(&mut block, batch.value, &budget);
        self.optimizer(&mut block);
        let saves = self.whole("--save-interval");
        if let Some(saves) = &saves {
            block.shown("checkpoint", saves, |count| format!("every {}", steps(*count)));
        }
        let saves = saves.and_then(|saves| saves.value);
        block.done() + &self.eval(saves)
    }

    fn global_batch(&mut self) -> Read<u64> {
        if let Some(given) = self.whole("--global-batch-size") {
            return given;
        }
        let (micro_batch, replicas) = (self.facts.micro_batch, self.facts.replicas);
        Read {
            value: micro_batch.and_then(|size| size.checked_mul(replicas)),
            origin: format!("{DEFAULT}: micro-batch × {replicas} replicas"),
        }
    }

    /// Steps of the run. Source: `update_train_iters`: whole batches of the samples.
    fn budget(&mut self, batch: Option<u64>) -> Read<u64> {
        if self.given("--train-samples").is_none() || self.given("--train-iters").is_some() {
            return self.needed("--train-iters");
        }
        let samples = self.needed("--train-samples");
        self.in_steps("--train-samples", samples, batch)
    }

    /// Samples as steps of a batch.
    fn in_steps(&mut self, name: &str, samples: Read<u64>, batch: Option<u64>) -> Read<u64> {
        let (Some(count), Some(batch)) = (samples.value, batch.filter(|batch| *batch > 0)) else {
            return Read { value: None, ..samples };
        };
        if !count.is_multiple_of(batch) {
            let why = format!(
                "{count} samples ÷ {batch} = {} steps, and {} samples over",
                count / batch,
                count % batch
            );
            self.tell_of(Kind::Settled, name, why);
        }
        Read::new(count / batch, format!("{} {count} ÷ {batch}", samples.origin))
    }

    /// A length that is given in iterations or in samples.
    fn length(&mut self, iterations: &str, samples: &str, batch: Option<u64>) -> Option<Read<u64>> {
        if let Some(given) = self.whole(iterations) {
            return Some(given);
        }
        let given = self.whole(samples)?;
        Some(self.in_steps(samples, given, batch))
    }

    fn learning_rate(&mut self, block: &mut Block, batch: Option<u64>, budget: &Read<u64>) {
        let decay = self.length("--lr-decay-iters", "--lr-decay-samples", batch);
        let decay = decay.unwrap_or(Read {
            value: budget.value,
            origin: format!("{DEFAULT}: the whole run"),
        });
        let peak = match self.number("--lr") {
            Some(peak) => peak,
            None => {
                self.tell(Kind::OnlyARunKnows, 0, "--lr", "it is not given, and a spec needs it");
                let origin = "--lr is not given".to_owned();
                Read { value: None, origin }
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
            self.tell_of(Kind::NoEffect, "--lr-warmup-init", "there is no warm-up");
        }
        let style = self.or("--lr-decay-style", Self::text, "linear".to_owned());
        block.comment(&format!("shape: {}", style.origin));
        let total = budget.value.unwrap_or(0);
        match style.value.as_deref() {
            Some("cosine") => self.falling(block, &rate, Fall::HalfCosine, None, total),
            Some("linear") => self.falling(block, &rate, Fall::Line, None, total),
            Some("WSD") => self.stable(block, batch, &rate, total),
            style => {
                if let Some(other) = style.filter(|style| *style != "constant") {
                    let why = format!("there is no schedule like `{other}`; the spec says `constant`");
                    self.tell_of(Kind::ChangesResult, "--lr-decay-style", why);
                }
                if rate.start.value.is_none_or(|start| !start.is_zero()) {
                    let why = "a constant rate is warmed up to from zero";
                    self.tell_of(Kind::ChangesResult, "--lr-warmup-init", why);
                }
                let mut arguments = rate.arguments();
                arguments.remove(1);
                arguments[0].0 = "rate";
                block.call("learning_rate", "constant", &arguments);
            }
        }
    }

    fn warmup(&mut self, batch: Option<u64>, decay: &Read<u64>) -> Read<u64> {
        if let Some(fraction) = self.number("--lr-warmup-fraction") {
            let exact = fraction
                .value
                .zip(decay.value)
                .and_then(|(fraction, decay)| fraction.checked_mul(Decimal::from(decay)));
            if exact.is_some_and(|exact| !exact.fract().is_zero()) {
                let why = "it makes no whole number of steps; the last part is left out";
                self.tell_of(Kind::Settled, "--lr-warmup-fraction", why);
            }
            return Read {
                value: exact.and_then(|exact| exact.trunc().to_u64()),
                origin: format!("{} × the steps to the floor", fraction.origin),
            };
        }
        let given = self.length("--lr-warmup-iters", "--lr-warmup-samples", batch);
        given.unwrap_or_else(|| Read::new(0, DEFAULT))
    }

    /// Warm-up, stable, decay. Source: `OptimizerParamScheduler.get_lr`: the last part begins so long before the floor.
    fn stable(&mut self, block: &mut Block, batch: Option<u64>, rate: &Rate, total: u64) {
        let length = self.length("--lr-wsd-decay-iters", "--lr-wsd-decay-samples", batch);
        let length = length.unwrap_or_else(|| {
            let name = "--lr-wsd-decay-iters";
            self.tell(
                Kind::OnlyARunKnows,
                0,
                name,
                "it is not given, and the schedule needs it",
            );
            let origin = format!("{name} is not given");
            Read { value: None, origin }
        });
        let style = self.or("--lr-wsd-decay-style", Self::text, "exponential".to_owned());
        let fall = match style.value.as_deref() {
            Some("cosine") => Fall::HalfCosine,
            other => {
                if let Some(other) = other.filter(|name| *name != "linear") {
                    let why = format!("the last part is a line or half a cosine, not `{other}`; the spec says a line");
                    self.tell_of(Kind::ChangesResult, "--lr-wsd-decay-style", why);
                }
                Fall::Line
            }
        };
        let origin = format!("{}; {}", length.origin, style.origin);
        self.falling(block, rate, fall, Some(Read { origin, ..length }), total);
    }

    /// Writes a schedule that falls to its floor, over its last `length` steps if that is said. In one word where Aurora has
    /// one for it: from zero, and at the floor when the run ends.
    fn falling(&mut self, block: &mut Block, rate: &Rate, fall: Fall, length: Option<Read<u64>>, total: u64) {
        let warmup = rate.warmup.value.unwrap_or(0);
        let decay = rate.decay.value.unwrap_or(total);
        let from_zero = warmup == 0 || rate.start.value.is_some_and(|start| start.is_zero());
        let one_word = match (&length, fall) {
            (None, Fall::HalfCosine) => Some("cosine"),
            (None, Fall::Line) => Some("linear"),
            (Some(_), Fall::Line) => Some("wsd"),
            (Some(_), Fall::HalfCosine) => None,
        };
        if let Some(word) = one_word.filter(|_| from_zero && decay == total) {
            let mut arguments = rate.arguments();
            arguments.extend(length.map(|length| ("decay", shown(&length, |count| steps(*count)), length.origin)));
            return block.call("learning_rate", word, &arguments);
        }
        if decay > total {
            let why = format!(
                "the run of {total} steps ends before the rate is at its floor ({decay}); here it is there at the end"
            );
            let name = if self.given("--lr-decay-iters").is_some() {
                "--lr-decay-iters"
            } else {
                "--lr-decay-samples"
            };
            self.tell_of(Kind::ChangesResult, name, why);
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

    fn optimizer(&mut self, block: &mut Block) {
        let name = self.or("--optimizer", Self::text, "adam".to_owned());
        if let Some(other) = name.value.as_deref().filter(|name| *name != "adam") {
            let why = format!("the optimizer is AdamW, not `{other}`");
            self.tell_of(Kind::ChangesResult, "--optimizer", why);
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
            // Megatron clips nothing with 0.
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

    /// A measurement of what is held out, where there is something.
    fn eval(&mut self, saves: Option<u64>) -> String {
        let interval = self.whole("--eval-interval");
        if !self.facts.held_out {
            if interval.is_some() {
                let why = "the script holds nothing out that Aurora could hold out; write an `eval`";
                self.tell_of(Kind::Settled, "--eval-interval", why);
            }
            return String::new();
        }
        let interval = interval.unwrap_or_else(|| Read::new(1000, format!("{DEFAULT}; --eval-interval is not given")));
        let is_given = self.given("--eval-interval").is_some();
        let mut block = Block::new("eval validation");
        block.field("kind", "perplexity", "");
        block.field("data", format!("[{}]", self.facts.corpora.join(", ")), "");
        let fits = |every: u64| saves.is_some_and(|saves| saves > 0 && every.is_multiple_of(saves));
        match interval.value.filter(|every| fits(*every)) {
            Some(every) => block.field("at", format!("[every {every} steps, end]"), &interval.origin),
            None => {
                let every = interval.value.map_or("…".to_owned(), |every| every.to_string());
                let why = format!(
                    "a checkpoint is measured, and none is kept every {every} steps; the spec measures the last one"
                );
                if is_given {
                    self.tell_of(Kind::Settled, "--eval-interval", why);
                }
                block.field("at", "[end]", "");
            }
        }
        block.done()
    }
}
