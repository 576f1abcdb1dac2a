//! Tasks: questions put to a checkpoint, and how its answers are scored or judged.

use serde::{Deserialize, Serialize};

use crate::exact::Exact;
use crate::spec::Better;

/// A task over items, each a JSON object of the inputs of role `items`. Templates name an item's members in braces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFields {
    /// Patterns of the files with the items.
    pub files: Vec<String>,
    /// Patterns of those with solved examples; without any, examples are other items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shot_files: Vec<String>,
    /// So many items at most, chosen by the hash of what they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    pub prompt: String,
    /// Each prompt is asked once in the words of each attack; without any, in its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<Attack>,
    /// What stands around a prompt when a model is asked: `{prompt}` stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// What is expected; nothing where answers are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    pub shots: u32,
    /// Between examples, and between a prompt and its answer.
    pub separator: String,
    pub delimiter: String,
    /// The members by which scores are told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// Chooses examples and draws samples.
    pub seed: u64,
    pub asks: Asks,
}

/// A prompt put into other words: `{prompt}` stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    pub name: String,
    pub template: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Asks {
    /// Which of several answers is the likeliest.
    Choices(Vec<String>),
    /// What comes after the prompt.
    Text {
        stop: Vec<String>,
        /// Tokens at most.
        maximum: u32,
        /// Nothing: the likeliest token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<Exact>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top_p: Option<Exact>,
        /// Answers to each prompt.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        samples: u32,
    },
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference over
fn is_one(count: &u32) -> bool {
    *count == 1
}

/// What makes scores of the answers that the input of role `answers` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JudgeFields {
    /// Each answer completes a program, which is run: share of items that one of k answers solves.
    Programs {
        /// Patterns of the files with the items, inputs of role `items`.
        files: Vec<String>,
        /// The program, as a template over the item's members and `{completion}`.
        program: String,
        k: Vec<u32>,
        /// Seconds and bytes that a program may take.
        seconds: u32,
        memory: u64,
        /// Run where this machine cannot protect itself.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unprotected: bool,
    },
    /// Share of prompts that are answered unsafely, by each attack and by any of them.
    Attacks(Judge),
    /// Share of prompts whose answer is a refusal.
    Refusals(Judge),
    /// Mean of what the judge says.
    Score { judge: Judge, better: Better },
}

/// Who looks at an answer, and says a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Judge {
    /// Rules find refusals; a response that is none counts as unsafe. With labelled responses (the input of role
    /// `labelled`) the rules' own precision and recall are told.
    Rules {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labelled: Option<Labelled>,
    },
    /// A program of the input of role `judge`.
    Program { run: Vec<String> },
    /// A model behind an interface as OpenAI's.
    Endpoint {
        url: String,
        model: String,
        /// What it is asked, as a template over `{prompt}` and `{response}`.
        question: String,
        /// The first word of a reply that says yes.
        yes: String,
    },
}

/// Responses that people have looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    pub files: Vec<String>,
    /// The members that hold prompt and response, and the one that says whether it is a refusal (0 or 1, false or true).
    pub prompt: String,
    pub response: String,
    pub label: String,
}
