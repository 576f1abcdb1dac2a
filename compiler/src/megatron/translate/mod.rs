//! Translates flags to the blocks of a spec, with the origin of every value.
//!
//! In: a launch, and the `#SBATCH` options of its script. Out: the unformatted text of a spec, and the findings.

mod data;
mod layout;
mod model;
mod stage;

use std::fmt::{Display, Write};
use std::str::FromStr;

use rust_decimal::Decimal;

use super::findings::{Finding, FindingKind};
use super::launch::{FlagUse, MegatronLaunch};
use super::slurm::SbatchOptions;

/// The origin of a value without a flag.
const DEFAULT: &str = "Megatron's default";

/// Values that the script does not contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct TranslateOptions {
    /// The number of entries of the tokenizer.
    pub vocabulary: Option<u64>,
}

/// A value with its origin. The value is `None` if it is unknown.
#[derive(Clone, Debug)]
struct WithOrigin<T> {
    value: Option<T>,
    origin: String,
}

impl<T> WithOrigin<T> {
    fn new(value: T, origin: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            origin: origin.into(),
        }
    }
}

/// The text of a block.
struct TranslatedBlock {
    text: String,
}

impl TranslatedBlock {
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

    fn read<T: Display>(&mut self, name: &str, read: &WithOrigin<T>) {
        self.shown(name, read, |value| value.to_string());
    }

    fn shown<T>(&mut self, name: &str, read: &WithOrigin<T>, show: impl Fn(&T) -> String) {
        let value = read.value.as_ref().map_or("unknown".to_owned(), show);
        self.field(name, value, &read.origin);
    }

    /// Writes a call, with the origins of its arguments in comments above it.
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

/// Removes line breaks, which would end a comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

/// Values that several blocks need.
#[derive(Default)]
struct SharedValues {
    tensor: u64,
    lanes: u64,
    /// The data-parallel replicas of the run; the logical grid may have fewer.
    replicas: u64,
    micro_batch: Option<u64>,
    /// Whether the corpora have a held-out split.
    held_out: bool,
    corpora: Vec<String>,
}

pub(super) struct Translation<'a> {
    launch: &'a MegatronLaunch,
    batch: &'a SbatchOptions,
    file: &'a str,
    options: TranslateOptions,
    pub(super) findings: Vec<Finding>,
    shared: SharedValues,
}

impl<'a> Translation<'a> {
    pub(super) fn new(
        launch: &'a MegatronLaunch,
        batch: &'a SbatchOptions,
        file: &'a str,
        options: TranslateOptions,
    ) -> Self {
        Self {
            launch,
            batch,
            file,
            options,
            findings: Vec::new(),
            shared: SharedValues::default(),
        }
    }

    /// The blocks of the spec, in the usual order.
    pub(super) fn spec(&mut self, experiment: &str) -> String {
        let layout = self.layout();
        let data = self.data();
        let model = self.model();
        let stage = self.stage();
        let head = self.experiment(experiment);
        [head, data, model, stage, layout].concat()
    }

    fn experiment(&mut self, name: &str) -> String {
        let mut block = TranslatedBlock::new(format!("experiment {name}"));
        let seed = self.or("--seed", Self::integer, 1234);
        block.read("seed", &seed);
        let micro_batch = match self.shared.micro_batch {
            Some(size) => format!("{size} sequences"),
            None => "unknown".to_owned(),
        };
        block.call(
            "numerics",
            "native",
            &[
                ("tensor", self.shared.tensor.to_string(), "as in the layout".to_owned()),
                (
                    "lanes",
                    self.shared.lanes.to_string(),
                    "the replicas of the layout".to_owned(),
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

    fn report(&mut self, kind: FindingKind, line: u32, what: impl Into<String>, why: impl Into<String>) {
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

    /// Reports a finding about a flag.
    fn report_flag(&mut self, kind: FindingKind, name: &str, why: impl Into<String>) {
        match self.launch.given.get(name) {
            Some(given) => self.report(kind, given.line, given.written(), why),
            None => self.report(kind, 0, name, why),
        }
    }

    fn given(&self, name: &str) -> Option<&'a FlagUse> {
        self.launch.given.get(name)
    }

    /// The line of a flag, and the line where its value is set, if that is another one.
    fn origin(&self, given: &FlagUse) -> String {
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

    /// The origin of a flag without a value, if the script has it.
    fn switch(&self, name: &str) -> Option<String> {
        self.given(name).map(|given| self.origin(given))
    }

    /// The origin of the first of these flags that the script has.
    fn any_switch(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.switch(name))
    }

    fn text(&mut self, name: &str) -> Option<WithOrigin<String>> {
        let given = self.given(name)?;
        let origin = self.origin(given);
        let Some(value) = given.values.last() else {
            return Some(WithOrigin { value: None, origin });
        };
        if let Some(why) = &value.unknown {
            self.report(FindingKind::Unknown, given.line, given.written(), why.clone());
            return Some(WithOrigin {
                value: None,
                origin: format!("{origin}: {why}"),
            });
        }
        Some(WithOrigin::new(value.text.clone(), origin))
    }

    fn parsed<T>(&mut self, name: &str, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<WithOrigin<T>> {
        let text = self.text(name)?;
        let Some(written) = text.value else {
            return Some(WithOrigin {
                value: None,
                origin: text.origin,
            });
        };
        let value = parse(&written);
        if value.is_none() {
            self.report_flag(FindingKind::NotUnderstood, name, format!("`{written}` is not a {what}"));
        }
        Some(WithOrigin {
            value,
            origin: text.origin,
        })
    }

    fn integer(&mut self, name: &str) -> Option<WithOrigin<u64>> {
        self.parsed(name, "whole number", |text| text.replace('_', "").parse().ok())
    }

    fn number(&mut self, name: &str) -> Option<WithOrigin<Decimal>> {
        self.parsed(name, "number", decimal)
    }

    /// The value of a flag, or the default of Megatron.
    fn or<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self, &str) -> Option<WithOrigin<T>>,
        default: T,
    ) -> WithOrigin<T> {
        read(self, name).unwrap_or_else(|| WithOrigin::new(default, format!("{DEFAULT}; {name} is not given")))
    }

    /// The value of a required flag. Without the flag it is unknown, which is reported.
    fn required(&mut self, name: &str) -> WithOrigin<u64> {
        match self.integer(name) {
            Some(read) => read,
            None => {
                self.report(FindingKind::Unknown, 0, name, "it is not given, but a spec requires it");
                WithOrigin {
                    value: None,
                    origin: format!("{name} is not given"),
                }
            }
        }
    }
}

/// Parses a number like Python.
fn decimal(text: &str) -> Option<Decimal> {
    let text = text.replace('_', "");
    let value = match text.contains(['e', 'E']) {
        true => Decimal::from_scientific(&text).ok(),
        false => Decimal::from_str(&text).ok(),
    };
    value.map(|value| value.normalize())
}

/// A number as in specs: `3e-4`, not `0.0003`.
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
    fn numbers_are_written_as_in_specs() {
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
