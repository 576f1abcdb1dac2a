//! Tasks: questions put to a checkpoint, and how its answers are scored.

use serde::{Deserialize, Serialize};

use super::Exact;

/// A task over items, each a JSON object of the inputs of role `items`. Templates name an item's members in braces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFields {
    /// Patterns of the JSONL files with the items.
    pub files: Vec<String>,
    /// Patterns of those with solved examples; without any, examples are other items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shot_files: Vec<String>,
    pub prompt: String,
    pub answer: String,
    pub shots: u32,
    /// Between examples, and between a prompt and its answer.
    pub separator: String,
    pub delimiter: String,
    pub by_category: bool,
    /// Chooses examples and draws samples.
    pub seed: u64,
    pub asks: Asks,
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
    },
}
