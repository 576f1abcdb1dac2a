//! From answers to scores.
//!
//! Formulas of multiple choice: the choice with the largest ln p; the same divided by the choice's characters
//! (`accuracy_norm`) or its UTF-8 bytes (`accuracy_bytes`), the delimiter not counted. Of equals the first counts. These
//! are lm-evaluation-harness' acc, acc_norm and acc_bytes.

use std::collections::BTreeMap;

use aurora_compiler::fields::{Asks, TaskFields};
use serde::{Deserialize, Serialize};

use super::metrics::{Grams, exact_match, f1};
use super::{Answer, Item, Question, by_category, text};
use crate::data::encoder::Encoder;
use crate::job::{Measure, Scores};
use crate::statistics::mean;

/// A line of `items.jsonl`: what became of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemResult {
    pub item: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub prompt: String,
    /// The choices with their ln p (nats), or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<(String, f64)>,
    /// The right choice's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// By metric; that of chrF is of the item alone.
    pub scores: BTreeMap<String, f64>,
}

/// The first of the largest.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (number, value) in values.enumerate() {
        if value > best.1 {
            best = (number, value);
        }
    }
    best.0
}

/// Scores the answers to a task's requests, which stand in the requests' order.
///
/// # Errors
/// An answer is missing, or cannot be decoded.
pub fn score(
    fields: &TaskFields,
    items: &[Item],
    answers: &[Answer],
    encoder: &Encoder,
) -> Result<(Scores, Vec<ItemResult>), String> {
    let mut rest = answers.iter();
    let mut results = Vec::new();
    let mut grams = Vec::new();
    for item in items {
        let mut result = ItemResult {
            item: item.name.clone(),
            category: item.category.clone(),
            prompt: item.prompt.clone(),
            choices: Vec::new(),
            right: None,
            text: None,
            expected: Vec::new(),
            scores: BTreeMap::new(),
        };
        match &item.question {
            Question::Choices { choices, right } => {
                for choice in choices {
                    let Some(Answer::Likelihood(bits)) = rest.next() else {
                        return Err(format!("{} has no answer", item.name));
                    };
                    result.choices.push((choice.clone(), f64::from_bits(*bits)));
                }
                result.right = Some(*right);
                type Length = fn(&str) -> f64;
                let metrics: [(&str, Length); 3] = [
                    ("accuracy", |_| 1.0),
                    ("accuracy_norm", |choice| choice.chars().count().max(1) as f64),
                    ("accuracy_bytes", |choice| choice.len().max(1) as f64),
                ];
                for (metric, length) in metrics {
                    let best = largest(result.choices.iter().map(|(choice, ln)| ln / length(choice)));
                    result
                        .scores
                        .insert(metric.to_owned(), f64::from(u8::from(best == *right)));
                }
            }
            Question::Text { expected } => {
                let Some(Answer::Text(ids)) = rest.next() else {
                    return Err(format!("{} has no answer", item.name));
                };
                let stop: &[String] = if let Asks::Text { stop, .. } = &fields.asks {
                    stop
                } else {
                    &[]
                };
                let (own, _) = text(encoder, ids, stop)?;
                let of_item = Grams::of(&own, expected);
                let matches = f64::from(u8::from(exact_match(&own, expected)));
                result.scores.insert("exact_match".to_owned(), matches);
                result.scores.insert("f1".to_owned(), f1(&own, expected));
                result.scores.insert("chrf".to_owned(), of_item.chrf());
                grams.push(of_item);
                result.text = Some(own);
                result.expected.clone_from(expected);
            }
        }
        results.push(result);
    }
    let mut measures = BTreeMap::new();
    for (category, numbers) in by_category(items) {
        let mut own = BTreeMap::new();
        let names: Vec<String> = results[numbers[0]].scores.keys().cloned().collect();
        for metric in names {
            let values: Vec<f64> = numbers.iter().map(|&number| results[number].scores[&metric]).collect();
            let (value, standard_error) = match metric.as_str() {
                "chrf" => {
                    let mut all = Grams::default();
                    numbers.iter().for_each(|&number| all.add(&grams[number]));
                    (all.chrf(), None)
                }
                _ => mean(&values),
            };
            let items = numbers.len() as u64;
            own.insert(
                metric,
                Measure {
                    value,
                    standard_error,
                    items,
                },
            );
        }
        measures.insert(category, own);
    }
    let scores = Scores {
        sets: BTreeMap::new(),
        measures,
    };
    Ok((scores, results))
}
