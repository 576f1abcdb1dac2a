//! From answers to scores.
//!
//! Formulas of multiple choice: the choice with the largest ln p; the same divided by the choice's characters
//! (`accuracy_norm`) or its UTF-8 bytes (`accuracy_bytes`), the delimiter not counted. Ties go to the first. These
//! are lm-evaluation-harness' acc, acc_norm and acc_bytes.

use std::collections::BTreeMap;

use aurora_compiler::fields::{AnswerMode, TaskFields};
use serde::{Deserialize, Serialize};

use super::metrics::{Grams, exact_match, f1, mean};
use super::{Answer, Item, Question};
use crate::data::encoder::{Encoder, EncoderError};
use crate::job::{Measure, Scores};

/// Answers cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    #[error("{item} has no answer")]
    NoAnswer { item: String },
    #[error("{item}")]
    Decode {
        item: String,
        #[source]
        source: EncoderError,
    },
}

impl ScoringError {
    fn no_answer(item: &Item) -> Self {
        Self::NoAnswer {
            item: item.name.clone(),
        }
    }
}

/// A line of `items.jsonl`: the result of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemResult {
    pub item: String,
    /// The attack that rewrote its prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// Sets whose scores it counts for, besides that of all items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    pub prompt: String,
    /// The choices with their ln p (nats).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<(String, f64)>,
    /// The right choice's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// Answers that are judged, or have been.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// The verdict on each answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<JudgeVerdict>,
    /// By metric; that of chrF is of the item alone.
    pub scores: BTreeMap<String, f64>,
}

/// A judge's verdict on an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeVerdict {
    pub score: f64,
    /// The reason as text.
    pub words: String,
}

impl ItemResult {
    /// Whether it counts for a set; all items count for the set without a name.
    pub fn is_in(&self, set: &str) -> bool {
        set.is_empty() || self.sets.iter().any(|own| own == set)
    }
}

/// The mean of every metric over the items of every set that have it. Metrics of all attacks together (`any_…`) are not
/// reported for a single attack.
pub fn means(results: &[ItemResult]) -> BTreeMap<String, BTreeMap<String, Measure>> {
    let mut values: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for result in results {
        for set in result.sets.iter().map(String::as_str).chain([""]) {
            let is_attack = result.attack.as_deref() == Some(set);
            for (metric, value) in &result.scores {
                if !(is_attack && metric.starts_with("any_")) {
                    values.entry(set).or_default().entry(metric).or_default().push(*value);
                }
            }
        }
    }
    let of_set = |(set, metrics): (&str, BTreeMap<&str, Vec<f64>>)| {
        let measures = metrics.into_iter().map(|(metric, values)| {
            let (value, standard_error) = mean(&values);
            let items = values.len() as u64;
            let measure = Measure {
                value,
                standard_error,
                items,
            };
            (metric.to_owned(), measure)
        });
        (set.to_owned(), measures.collect())
    };
    values.into_iter().map(of_set).collect()
}

/// The next answer, which must be a text.
fn answer_text<'a>(
    rest: &mut impl Iterator<Item = &'a Answer>,
    fields: &TaskFields,
    item: &Item,
    encoder: &Encoder,
) -> Result<String, ScoringError> {
    let Some(Answer::Text(ids)) = rest.next() else {
        return Err(ScoringError::no_answer(item));
    };
    let stop: &[String] = match &fields.asks {
        AnswerMode::Text { stop, .. } => stop,
        AnswerMode::Choices(_) => &[],
    };
    let decoded = encoder.decode_until(ids, stop);
    let (text, _) = decoded.map_err(|source| ScoringError::Decode {
        item: item.name.clone(),
        source,
    })?;
    Ok(text)
}

/// The index of the largest value. Ties go to the first.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (number, value) in values.enumerate() {
        if value > best.1 {
            best = (number, value);
        }
    }
    best.0
}

/// Scores the answers to a task's requests, in the order of the requests.
///
/// # Errors
/// An answer is missing, or cannot be decoded.
pub fn score(
    fields: &TaskFields,
    items: &[Item],
    answers: &[Answer],
    encoder: &Encoder,
) -> Result<(Scores, Vec<ItemResult>), ScoringError> {
    let mut rest = answers.iter();
    let mut results = Vec::new();
    let mut grams = Vec::new();
    for item in items {
        let mut result = ItemResult {
            item: item.name.clone(),
            attack: item.attack.clone(),
            sets: item.sets.clone(),
            prompt: item.prompt.clone(),
            ..ItemResult::default()
        };
        match &item.question {
            Question::Choices { choices, right } => {
                for choice in choices {
                    let Some(Answer::Likelihood(bits)) = rest.next() else {
                        return Err(ScoringError::no_answer(item));
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
                let own = answer_text(&mut rest, fields, item, encoder)?;
                let of_item = Grams::of(&own, expected);
                let matches = f64::from(u8::from(exact_match(&own, expected)));
                result.scores.insert("exact_match".to_owned(), matches);
                result.scores.insert("f1".to_owned(), f1(&own, expected));
                result.scores.insert("chrf".to_owned(), of_item.chrf());
                grams.push(of_item);
                result.text = Some(own);
                result.expected.clone_from(expected);
            }
            Question::Open => {
                let samples = match &fields.asks {
                    AnswerMode::Text { samples, .. } => *samples,
                    AnswerMode::Choices(_) => 0,
                };
                for _ in 0..samples {
                    result.answers.push(answer_text(&mut rest, fields, item, encoder)?);
                }
            }
        }
        results.push(result);
    }
    let mut measures = means(&results);
    // chrF is computed over all texts of a set together.
    for (set, own) in &mut measures {
        if let Some(chrf) = own.get_mut("chrf") {
            let mut all = Grams::default();
            let of_set = results.iter().zip(&grams).filter(|(result, _)| result.is_in(set));
            of_set.for_each(|(_, grams)| all.add(grams));
            chrf.value = all.chrf();
            chrf.standard_error = None;
        }
    }
    let scores = Scores {
        sets: BTreeMap::new(),
        measures,
    };
    Ok((scores, results))
}
