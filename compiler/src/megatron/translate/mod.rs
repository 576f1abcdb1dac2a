//! Flags become the blocks of a spec, every value with the place that it is from.
//!
//! In: a launch, and what its script asks Slurm for. Out: the text of a spec (not yet laid out) and what is to be told beside it.

mod data;
mod layout;
mod model;
mod stage;

use std::fmt::{Display, Write};
use std::str::FromStr;

use rust_decimal::Decimal;

use super::findings::{Finding, Kind};
use super::launch::{Given, Launch};
use super::slurm::Batch;

/// What Megatron does where a flag is not given.
const DEFAULT: &str = "Megatron's default";

/// What a script does not say, and who asks for the import knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Entries of the tokenizer.
    pub vocabulary: Option<u64>,
}

/// A value with its origin; without a value where only a run, or nobody, knows it.
#[derive(Clone, Debug)]
struct Read<T> {
    value: Option<T>,
    origin: String,
}

impl<T> Read<T> {
    fn new(value: T, origin: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            origin: origin.into(),
        }
    }
}

/// A block that is being written.
struct Block {
    text: String,
}

impl Block {
    fn new(head: impl Display) -> Self {
        Self {
            text: format!("{head} {{\n"),
        }
    }

    fn field(&mut self, name: &str, value: impl Display, origin: &str) {
        let value = value.to_string();
        let comment = if origin.is_empty() {
            String::new()
        } else {
            format!(" // {}", one_line(origin))
        };
        self.text.push_str(&format!("  {name} = {value}{comment}\n"));
    }

    fn read<T: Display>(&mut self, name: &str, read: &Read<T>) {
        self.shown(name, read, |value| value.to_string());
    }

    fn shown<T>(&mut self, name: &str, read: &Read<T>, show: impl Fn(&T) -> String) {
        let value = read.value.as_ref().map_or("unknown".to_owned(), show);
        self.field(name, value, &read.origin);
    }

    /// A call; what its arguments are from stands on the lines above it.
    fn call(&mut self, name: &str, call: &str, arguments: &[(&str, String, String)]) {
        for (argument, _, origin) in arguments {
            self.text.push_str(&format!("  // {argument}: {}\n", one_line(origin)));
        }
        let written: Vec<String> = arguments
            .iter()
            .map(|(argument, value, _)| format!("{argument} = {value}"))
            .collect();
        self.text
            .push_str(&format!("  {name} = {call}({})\n", written.join(", ")));
    }

    fn comment(&mut self, text: &str) {
        self.text.push_str(&format!("  // {}\n", one_line(text)));
    }

    fn done(self) -> String {
        self.text + "}\n\n"
    }
}

/// A comment ends with its line.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

/// What is known of the launch as a whole, for the blocks that come later.
#[derive(Default)]
struct Facts {
    tensor: u64,
    lanes: u64,
    /// Of the run; the grid may have fewer.
    replicas: u64,
    micro_batch: Option<u64>,
    /// Documents that are kept out of training.
    held_out: bool,
    corpora: Vec<String>,
}

pub(super) struct Translation<'a> {
    launch: &'a Launch,
    batch: &'a Batch,
    file: &'a str,
    options: Options,
    pub(super) findings: Vec<Finding>,
    facts: Facts,
}

impl<'a> Translation<'a> {
    pub(super) fn new(launch: &'a Launch, batch: &'a Batch, file: &'a str, options: Options) -> Self {
        Self {
            launch,
            batch,
            file,
            options,
            findings: Vec::new(),
            facts: Facts::default(),
        }
    }

    /// The blocks of the spec, in the order in which specs have them.
    pub(super) fn spec(&mut self, experiment: &str) -> String {
        let layout = self.layout();
        let data = self.data();
        let model = self.model();
        let stage = self.stage();
        let head = self.experiment(experiment);
        [head, data, model, stage, layout].concat()
    }

    fn experiment(&mut self, name: &str) -> String {
        let mut block = Block::new(format!("experiment {name}"));
        let seed = self.or("--seed", Self::whole, 1234);
        block.read("seed", &seed);
        let micro_batch = match self.facts.micro_batch {
            Some(size) => format!("{size} sequences"),
            None => "unknown".to_owned(),
        };
        block.call(
            "numerics",
            "native",
            &[
                ("tensor", self.facts.tensor.to_string(), "the layout's".to_owned()),
                (
                    "lanes",
                    self.facts.lanes.to_string(),
                    "the layout's replicas".to_owned(),
                ),
                ("micro_batch", micro_batch, self.origin_of("--micro-batch-size")),
            ],
        );
        match self.switch("--bf16") {
            Some(origin) => block.field("precision", "bf16", &origin),
            None => block.field("precision", "f32", DEFAULT),
        }
        block.done()
    }

    fn tell(&mut self, kind: Kind, line: u32, what: impl Into<String>, why: impl Into<String>) {
        let finding = Finding {
            kind,
            line,
            what: what.into(),
            why: why.into(),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Tells something of a flag that was given.
    fn tell_of(&mut self, kind: Kind, name: &str, why: impl Into<String>) {
        match self.launch.given.get(name) {
            Some(given) => self.tell(kind, given.line, given.written(), why),
            None => self.tell(kind, 0, name, why),
        }
    }

    fn given(&self, name: &str) -> Option<&'a Given> {
        self.launch.given.get(name)
    }

    /// Where a flag stands; and where its value is set, if that is elsewhere.
    fn origin(&self, given: &Given) -> String {
        let mut text = format!("{}:{} {}", self.file, given.line, given.flag.name);
        if let [value] = given.values.as_slice()
            && value.line != given.line
            && value.line > 0
        {
            let _ = write!(text, ", set in line {}", value.line);
        }
        text
    }

    fn origin_of(&self, name: &str) -> String {
        match self.given(name) {
            Some(given) => self.origin(given),
            None => format!("{name} is not given"),
        }
    }

    /// Where a flag without a value stands.
    fn switch(&self, name: &str) -> Option<String> {
        self.given(name).map(|given| self.origin(given))
    }

    /// The first of these that was given.
    fn any_switch(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.switch(name))
    }

    fn text(&mut self, name: &str) -> Option<Read<String>> {
        let given = self.given(name)?;
        let origin = self.origin(given);
        let Some(value) = given.values.last() else {
            return Some(Read { value: None, origin });
        };
        if let Some(why) = &value.unknown {
            self.tell(Kind::OnlyARunKnows, given.line, given.written(), why.clone());
            return Some(Read {
                value: None,
                origin: format!("{origin}: {why}"),
            });
        }
        Some(Read::new(value.text.clone(), origin))
    }

    fn parsed<T>(&mut self, name: &str, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Read<T>> {
        let text = self.text(name)?;
        let Some(written) = text.value else {
            return Some(Read {
                value: None,
                origin: text.origin,
            });
        };
        let value = parse(&written);
        if value.is_none() {
            self.tell_of(Kind::NotUnderstood, name, format!("`{written}` is no {what}"));
        }
        Some(Read {
            value,
            origin: text.origin,
        })
    }

    fn whole(&mut self, name: &str) -> Option<Read<u64>> {
        self.parsed(name, "whole number", |text| text.replace('_', "").parse().ok())
    }

    fn number(&mut self, name: &str) -> Option<Read<Decimal>> {
        self.parsed(name, "number", decimal)
    }

    /// What a flag says, or what Megatron takes without it.
    fn or<T>(&mut self, name: &str, read: impl FnOnce(&mut Self, &str) -> Option<Read<T>>, default: T) -> Read<T> {
        read(self, name).unwrap_or_else(|| Read::new(default, format!("{DEFAULT}; {name} is not given")))
    }

    /// What a flag says; unknown, and told, without it.
    fn needed(&mut self, name: &str) -> Read<u64> {
        match self.whole(name) {
            Some(read) => read,
            None => {
                self.tell(Kind::OnlyARunKnows, 0, name, "it is not given, and a spec needs it");
                Read {
                    value: None,
                    origin: format!("{name} is not given"),
                }
            }
        }
    }
}

/// A number as Python reads it.
fn decimal(text: &str) -> Option<Decimal> {
    let text = text.replace('_', "");
    let value = match text.contains(['e', 'E']) {
        true => Decimal::from_scientific(&text).ok(),
        false => Decimal::from_str(&text).ok(),
    };
    value.map(|value| value.normalize())
}

/// A number as specs write it: `3e-4`, not `0.0003`.
fn number_text(value: &Decimal) -> String {
    let value = value.normalize();
    let (mantissa, scale) = (value.mantissa(), value.scale());
    let zero_digits = value.abs() < Decimal::new(1, 2) && mantissa != 0;
    if !zero_digits {
        return value.to_string();
    }
    let digits = mantissa.unsigned_abs().to_string();
    let exponent = i64::from(scale) - (digits.len() as i64 - 1);
    let sign = if mantissa < 0 { "-" } else { "" };
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}e-{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_specs_have_them() {
        let shown = |text: &str| number_text(&decimal(text).expect("a number"));
        let cases = [
            ("0.0003", "3e-4"),
            ("1.5e-4", "1.5e-4"),
            (".1", "0.1"),
            ("1.0", "1"),
            ("0.00000001", "1e-8"),
            ("1e-08", "1e-8"),
            ("0.01275", "0.01275"),
            ("6.0e-5", "6e-5"),
            ("0", "0"),
            ("1_000", "1000"),
        ];
        for (written, expected) in cases {
            assert_eq!(shown(written), expected, "{written}");
        }
        assert_eq!(decimal("$LR"), None);
    }
}
