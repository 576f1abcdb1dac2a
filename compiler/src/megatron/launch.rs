//! The launch inside of a script: which command trains, what its launcher is told, and its flags as argparse reads them.

use std::collections::BTreeMap;

use super::findings::{Finding, Kind};
use super::flags::{Class, Flag, Takes, flag};
use super::shell::{Command, Shell, shown};
use super::text::{Sign, Text, first_unknown, plain};

/// A word behind a flag.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub line: u32,
    /// Why it is not known.
    pub unknown: Option<String>,
}

/// A flag that was given, with the values that count.
#[derive(Clone, Debug)]
pub struct Given {
    pub flag: &'static Flag,
    pub line: u32,
    pub values: Vec<Word>,
}

impl Given {
    /// The flag with its values, as it is written.
    pub fn written(&self) -> String {
        let mut text = self.flag.name.to_owned();
        for value in &self.values {
            text.push(' ');
            text.push_str(&value.text);
        }
        text
    }
}

/// The command that trains.
#[derive(Debug, Default)]
pub struct Launch {
    /// What the launcher is told: `nnodes` and the like, without dashes.
    pub launcher: BTreeMap<String, Word>,
    pub given: BTreeMap<&'static str, Given>,
    pub findings: Vec<Finding>,
}

/// Why a script has no launch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLaunch {
    #[error("no command of the script runs `pretrain_gpt.py` with its flags")]
    Nothing,
    #[error("line {line} runs `{program}`, which trains no GPT")]
    OtherModel { program: String, line: u32 },
}

const OTHER_MODELS: [&str; 8] = ["bert", "t5", "ict", "retro", "vision", "vlm", "mamba", "multimodal"];

/// Finds the first command that trains.
///
/// # Errors
/// There is none.
pub fn launch(shell: &Shell) -> Result<Launch, NoLaunch> {
    let mut found: Option<Launch> = None;
    let mut other = None;
    for command in &shell.commands {
        let Some((at, program)) = program(command) else {
            continue;
        };
        let line = command.words[at].first().map_or(0, |sign| sign.line);
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
                kind: Kind::NotUnderstood,
                line,
                what: program,
                why: "a second launch; only the first one is read".to_owned(),
            }),
        }
    }
    found.ok_or(other.unwrap_or(NoLaunch::Nothing))
}

/// The program that a command runs with flags of Megatron, and where it stands among the words.
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

fn read(command: &Command, program: usize, shell: &Shell) -> Launch {
    let mut launch = Launch::default();
    let word = |text: &[Sign], line: u32| Word {
        text: shown(text),
        line: text.first().map_or(line, |sign| sign.line),
        unknown: first_unknown(text).map(|number| shell.reason(number).to_owned()),
    };
    let before = &command.words[..program];
    for (index, text) in before.iter().enumerate() {
        let written = plain(text);
        let Some(name) = written.strip_prefix("--") else {
            continue;
        };
        let line = text.first().map_or(0, |sign| sign.line);
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
        let line = text.first().map_or(0, |sign| sign.line);
        let written = plain(text);
        let (name, attached) = match written.split_once('=') {
            Some((name, _)) if name.starts_with("--") => (name, Some(word(&text[name.chars().count() + 1..], line))),
            _ => (written.as_str(), None),
        };
        let known = flag(name);
        let mut values: Vec<Word> = attached.into_iter().collect();
        let most = match known.map(|flag| flag.takes) {
            Some(Takes::Nothing) => 0,
            Some(Takes::One) => 1,
            Some(Takes::Many) => usize::MAX,
            // What follows a flag that is not known is taken for its value.
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

/// Whether a word is a flag, and no negative number.
fn is_flag(text: &Text) -> bool {
    plain(text).starts_with("--")
}

impl Launch {
    fn tell(&mut self, kind: Kind, line: u32, what: String, why: impl Into<String>) {
        self.findings.push(Finding {
            kind,
            line,
            what,
            why: why.into(),
        });
    }

    fn take(&mut self, flag: &'static Flag, line: u32, values: Vec<Word>) {
        let given = Given { flag, line, values };
        let empty = given.values.is_empty() && flag.takes != Takes::Nothing;
        if empty {
            self.tell(Kind::NotUnderstood, line, given.written(), "it has no value");
        }
        if let Some(earlier) = self.given.insert(flag.name, given) {
            let last = &self.given[flag.name];
            if earlier.line != last.line || earlier.written() != last.written() {
                let why = format!(
                    "given again in line {}, `{}`: the last one counts",
                    last.line,
                    last.written()
                );
                let (line, what) = (earlier.line, earlier.written());
                self.tell(Kind::Settled, line, what, why);
            }
        }
    }

    fn not_understood(&mut self, name: &str, text: &[Sign], line: u32, values: &[Word], shell: &Shell) {
        if let Some(number) = first_unknown(text) {
            let why = format!("more arguments: {}", shell.reason(number));
            return self.tell(Kind::OnlyARunKnows, line, shown(text), why);
        }
        let mut what = name.to_owned();
        for value in values {
            what.push(' ');
            what.push_str(&value.text);
        }
        if !name.starts_with("--") {
            return self.tell(Kind::NotUnderstood, line, what, "it follows no flag that takes it");
        }
        let near = crate::names::nearest(name, super::flags::FLAGS.iter().map(|flag| flag.name));
        let why = match near {
            Some(near) => format!("no flag that is known here; `{near}` is"),
            None => "no flag that is known here".to_owned(),
        };
        self.tell(Kind::NotUnderstood, line, what, why);
    }

    /// Tells of the flags that are not translated, each by its class.
    pub fn tell_classes(&mut self) {
        let mut told = Vec::new();
        for given in self.given.values() {
            let (kind, why) = match given.flag.class {
                Class::Translated => continue,
                Class::NoEffect(why) => (Kind::NoEffect, why),
                Class::Placement(_) if given.flag.name.ends_with("-size") && has_value(given, "1") => {
                    (Kind::NoEffect, "nothing is split with this value")
                }
                Class::Placement(why) => (Kind::ChangesPlacement, why),
                Class::ChangesResult { harmless, .. }
                    if harmless.is_some_and(|harmless| has_value(given, harmless)) =>
                {
                    (Kind::NoEffect, "it does nothing with this value")
                }
                Class::ChangesResult { why, .. } => (Kind::ChangesResult, why),
            };
            told.push((kind, given.line, given.written(), why));
        }
        for (kind, line, what, why) in told {
            self.tell(kind, line, what, why);
        }
    }
}

/// Whether a flag has one value, and this one: the same text or the same number.
fn has_value(given: &Given, expected: &str) -> bool {
    let [value] = given.values.as_slice() else { return false };
    let number = |text: &str| text.parse::<f64>().ok();
    value.text == expected || number(expected).is_some_and(|expected| number(&value.text) == Some(expected))
}
