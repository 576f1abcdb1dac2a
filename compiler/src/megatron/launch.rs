//! Finds the launch in a script: the training command, the options of its launcher, and its flags as argparse parses them.

use std::collections::BTreeMap;

use super::findings::{Finding, FindingKind};
use super::flags::{Flag, FlagClass, FlagValues, flag};
use super::shell::{Command, Shell, shown};
use super::text::{SourceChar, SourceText, first_unknown, plain};

/// A value of a flag.
#[derive(Clone, Debug)]
pub struct LaunchArgument {
    pub text: String,
    pub line: u32,
    /// Why its value is unknown, if it is.
    pub unknown: Option<String>,
}

/// A flag of the script with its values. Of several uses, the last one.
#[derive(Clone, Debug)]
pub struct FlagUse {
    pub flag: &'static Flag,
    pub line: u32,
    pub values: Vec<LaunchArgument>,
}

impl FlagUse {
    /// The flag with its values, as in the script.
    pub fn written(&self) -> String {
        let mut text = self.flag.name.to_owned();
        for value in &self.values {
            text.push(' ');
            text.push_str(&value.text);
        }
        text
    }
}

/// The training command.
#[derive(Debug, Default)]
pub struct MegatronLaunch {
    /// The options of the launcher, such as `nnodes`, without dashes.
    pub launcher: BTreeMap<String, LaunchArgument>,
    pub given: BTreeMap<&'static str, FlagUse>,
    pub findings: Vec<Finding>,
}

/// Why a script has no launch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLaunch {
    #[error("no command of the script runs `pretrain_gpt.py` with its flags")]
    Nothing,
    #[error("line {line} runs `{program}`, which does not train a GPT")]
    OtherModel { program: String, line: u32 },
}

const OTHER_MODELS: [&str; 8] = ["bert", "t5", "ict", "retro", "vision", "vlm", "mamba", "multimodal"];

/// Finds the first training command.
///
/// # Errors
/// There is no such command.
pub fn launch(shell: &Shell) -> Result<MegatronLaunch, NoLaunch> {
    let mut found: Option<MegatronLaunch> = None;
    let mut other = None;
    for command in &shell.commands {
        let Some((at, program)) = program(command) else {
            continue;
        };
        let line = command.words[at].first().map_or(0, |character| character.line);
        if OTHER_MODELS
            .iter()
            .any(|model| program.starts_with(&format!("pretrain_{model}")))
        {
            other.get_or_insert(NoLaunch::OtherModel { program, line });
            continue;
        }
        match &mut found {
            None => found = Some(read(command, at, shell)),
            Some(first) => first.findings.push(Finding {
                kind: FindingKind::NotUnderstood,
                line,
                what: program,
                why: "a second launch; only the first one is imported".to_owned(),
            }),
        }
    }
    found.ok_or(other.unwrap_or(NoLaunch::Nothing))
}

/// The Python program that a command runs with flags of Megatron, and its index among the words.
fn program(command: &Command) -> Option<(usize, String)> {
    let words: Vec<String> = command.words.iter().map(|word| plain(word)).collect();
    if matches!(
        words.first()?.as_str(),
        "echo" | "printf" | "cat" | "tee" | "ls" | "test" | "["
    ) {
        return None;
    }
    let at = words.iter().position(|word| word.ends_with(".py"))?;
    let name = words[at].rsplit('/').next().unwrap_or_default();
    let is_known = |word: &String| flag(word.split('=').next().unwrap_or_default()).is_some();
    let trains = words[at + 1..].iter().any(is_known);
    (trains || name.starts_with("pretrain_")).then(|| (at, name.to_owned()))
}

fn read(command: &Command, program: usize, shell: &Shell) -> MegatronLaunch {
    let mut launch = MegatronLaunch::default();
    let word = |text: &[SourceChar], line: u32| LaunchArgument {
        text: shown(text),
        line: text.first().map_or(line, |character| character.line),
        unknown: first_unknown(text).map(|number| shell.reason(number).to_owned()),
    };
    let before = &command.words[..program];
    for (index, text) in before.iter().enumerate() {
        let written = plain(text);
        let Some(name) = written.strip_prefix("--") else {
            continue;
        };
        let line = text.first().map_or(0, |character| character.line);
        let (name, value) = match name.split_once('=') {
            Some((name, _)) => (name.to_owned(), Some(word(&text[name.chars().count() + 3..], line))),
            None => (name.to_owned(), before.get(index + 1).map(|value| word(value, line))),
        };
        if let Some(value) = value {
            launch.launcher.insert(name.replace('-', "_"), value);
        }
    }
    let mut rest = command.words[program + 1..].iter().peekable();
    while let Some(text) = rest.next() {
        let line = text.first().map_or(0, |character| character.line);
        let written = plain(text);
        let (name, attached) = match written.split_once('=') {
            Some((name, _)) if name.starts_with("--") => (name, Some(word(&text[name.chars().count() + 1..], line))),
            _ => (written.as_str(), None),
        };
        let known = flag(name);
        let mut values: Vec<LaunchArgument> = attached.into_iter().collect();
        let most = match known.map(|flag| flag.takes) {
            Some(FlagValues::Nothing) => 0,
            Some(FlagValues::One) => 1,
            Some(FlagValues::Many) => usize::MAX,
            // Words after an unknown flag are treated as its values.
            None if name.starts_with("--") => usize::MAX,
            None => 0,
        };
        while values.len() < most
            && let Some(value) = rest.next_if(|next| !is_flag(next))
        {
            values.push(word(value, line));
        }
        match known {
            Some(flag) => launch.take(flag, line, values),
            None => launch.not_understood(name, text, line, &values, shell),
        }
    }
    launch
}

/// Whether a word is a flag, not a negative number.
fn is_flag(text: &SourceText) -> bool {
    plain(text).starts_with("--")
}

impl MegatronLaunch {
    fn report(&mut self, kind: FindingKind, line: u32, what: String, why: impl Into<String>) {
        self.findings.push(Finding {
            kind,
            line,
            what,
            why: why.into(),
        });
    }

    fn take(&mut self, flag: &'static Flag, line: u32, values: Vec<LaunchArgument>) {
        let given = FlagUse { flag, line, values };
        let empty = given.values.is_empty() && flag.takes != FlagValues::Nothing;
        if empty {
            self.report(FindingKind::NotUnderstood, line, given.written(), "it has no value");
        }
        if let Some(earlier) = self.given.insert(flag.name, given) {
            let last = &self.given[flag.name];
            if earlier.line != last.line || earlier.written() != last.written() {
                let why = format!("also in line {}, `{}`: the last one is used", last.line, last.written());
                let (line, what) = (earlier.line, earlier.written());
                self.report(FindingKind::Resolved, line, what, why);
            }
        }
    }

    fn not_understood(&mut self, name: &str, text: &[SourceChar], line: u32, values: &[LaunchArgument], shell: &Shell) {
        if let Some(number) = first_unknown(text) {
            let why = format!("more arguments: {}", shell.reason(number));
            return self.report(FindingKind::Unknown, line, shown(text), why);
        }
        let mut what = name.to_owned();
        for value in values {
            what.push(' ');
            what.push_str(&value.text);
        }
        if !name.starts_with("--") {
            return self.report(FindingKind::NotUnderstood, line, what, "it is not the value of a flag");
        }
        let near = crate::names::nearest(name, super::flags::FLAGS.iter().map(|flag| flag.name));
        let why = match near {
            Some(near) => format!("unknown flag; a known flag with a similar name is `{near}`"),
            None => "unknown flag".to_owned(),
        };
        self.report(FindingKind::NotUnderstood, line, what, why);
    }

    /// Reports the flags that are not translated, by their class.
    pub fn report_untranslated(&mut self) {
        let mut findings = Vec::new();
        for given in self.given.values() {
            let (kind, why) = match given.flag.class {
                FlagClass::Translated => continue,
                FlagClass::NoEffect(why) => (FindingKind::NoEffect, why),
                FlagClass::Placement(_) if given.flag.name.ends_with("-size") && has_value(given, "1") => {
                    (FindingKind::NoEffect, "1 means no parallelism")
                }
                FlagClass::Placement(why) => (FindingKind::ChangesPlacement, why),
                FlagClass::ChangesResult { harmless, .. }
                    if harmless.is_some_and(|harmless| has_value(given, harmless)) =>
                {
                    (FindingKind::NoEffect, "this value has no effect")
                }
                FlagClass::ChangesResult { why, .. } => (FindingKind::ChangesResult, why),
            };
            findings.push((kind, given.line, given.written(), why));
        }
        for (kind, line, what, why) in findings {
            self.report(kind, line, what, why);
        }
    }
}

/// Whether a flag has exactly this value, as text or as a number.
fn has_value(given: &FlagUse, expected: &str) -> bool {
    let [value] = given.values.as_slice() else { return false };
    let number = |text: &str| text.parse::<f64>().ok();
    value.text == expected || number(expected).is_some_and(|expected| number(&value.text) == Some(expected))
}
