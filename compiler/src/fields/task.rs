//! Tasks: prompts for a checkpoint, and how its answers are scored or judged.

use serde::{Deserialize, Serialize};

use crate::exact::Exact;
use crate::spec::Better;

/// A task over items, each a JSON object of the inputs of role `items`. Templates name an item's members in braces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFields {
    /// Patterns of the files with the items.
    pub files: Vec<String>,
    /// Patterns of the files with solved examples. If empty, other items are the examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shot_files: Vec<String>,
    /// Maximum number of items, chosen by the hash of their content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    pub prompt: String,
    /// Each prompt is run once with each attack's template. If empty, once as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<Attack>,
    /// Template of a turn of a conversation around `{prompt}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// The expected answer; none if answers are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Number of examples before each prompt.
    pub shots: u32,
    /// Text between examples.
    pub separator: String,
    /// Text between a prompt and its answer.
    pub delimiter: String,
    /// The members by which scores are grouped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// Seed for choosing examples and for sampling.
    pub seed: u64,
    pub asks: AnswerMode,
}

/// A template that rewrites each prompt; it contains `{prompt}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    pub name: String,
    pub template: String,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AnswerMode {
    /// The most likely of several answers.
    Choices(Vec<String>),
    /// Text that the model generates after the prompt.
    Text {
        stop: Vec<String>,
        /// Maximum number of tokens.
        maximum: u32,
        /// None: always the most likely token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<Exact>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top_p: Option<Exact>,
        /// Number of answers to each prompt.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        samples: u32,
    },
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_one(count: &u32) -> bool {
    *count == 1
}

/// How the answers in the input of role `answers` are scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JudgeFields {
    /// Each answer completes a program, which is run. The score (pass@k) is the fraction of items that one of k answers
    /// solves.
    Programs {
        /// Patterns of the files with the items, inputs of role `items`.
        files: Vec<String>,
        /// The program, as a template over the item's members and `{completion}`.
        program: String,
        k: Vec<u32>,
        /// CPU-time limit of a program: the field `timeout` of the spec.
        seconds: u32,
        /// Memory limit of a program, in bytes.
        memory: u64,
        /// Runs programs even if this machine has no sandbox.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unprotected: bool,
    },
    /// Fraction of prompts with an unsafe answer: for each attack, and for any of them.
    Attacks(Judge),
    /// Fraction of prompts whose answer is a refusal.
    Refusals(Judge),
    /// Mean of the judge's scores.
    Score { judge: Judge, better: Better },
}

/// The judge that gives each answer a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Judge {
    /// Rules that find refusals; any other response counts as unsafe. With labelled responses (the input of role
    /// `labelled`), the precision and recall of the rules are reported.
    Rules {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labelled: Option<Labelled>,
    },
    /// A program of the input of role `judge`.
    Program {
        run: Vec<String>,
        /// What it may do beyond reading its files and computing.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        needs: Vec<Need>,
    },
    /// A model behind an API that is compatible with OpenAI's.
    Endpoint {
        url: String,
        model: String,
        /// The question for the model, as a template over `{prompt}` and `{response}`.
        question: String,
        /// The first word of a positive reply.
        yes: String,
    },
}

/// What a judge's program may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Connections to other machines and to servers of this machine.
    Network,
}

/// Responses that people have labelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    pub files: Vec<String>,
    /// The members that hold prompt and response, and the one that marks a refusal (0 or 1, false or true).
    pub prompt: String,
    pub response: String,
    pub label: String,
}
