//! From the lines of an eval's `items.jsonl` to samples.

use std::collections::BTreeMap;

use super::scored_items::{ScoreFunction, ScoredItems};
use crate::job::{DocumentScore, Scores};
use crate::task::{Grams, ItemResult};

/// An item's category, its name, and its row.
type Row<'a> = (&'a str, &'a str, Vec<f64>);

/// The scores of an eval do not fit its items, or do not have a metric.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("line {line} of items.jsonl is not a valid item")]
    Item { line: usize, source: serde_json::Error },
    #[error("the eval has no metric `{metric}`")]
    NoMetric { metric: String },
    #[error("the eval has no set `{set}`")]
    NoSet { set: String },
}

/// The scores of an eval and the items behind them.
#[derive(Clone, Debug)]
pub struct Scored {
    pub scores: Scores,
    /// By set or category (all of a task's items under the empty name), then by metric.
    pub samples: BTreeMap<String, BTreeMap<String, ScoredItems>>,
}

impl Scored {
    /// Joins an eval's scores with the lines of its `items.jsonl`.
    ///
    /// # Errors
    /// A line is not a valid item of such an eval.
    pub fn new(scores: Scores, lines: &str) -> Result<Self, ScoreError> {
        let samples = if scores.measures.is_empty() {
            of_documents(&parse(lines)?)
        } else {
            of_items(&scores, &parse(lines)?)
        };
        Ok(Self { scores, samples })
    }

    /// A score by its set or category and its metric.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&self, set: &str, metric: &str) -> Result<f64, ScoreError> {
        let no_metric = || ScoreError::NoMetric {
            metric: metric.to_owned(),
        };
        if let Some(measures) = self.scores.measures.get(set) {
            return measures.get(metric).map(|measure| measure.value).ok_or_else(no_metric);
        }
        let score = self
            .scores
            .sets
            .get(set)
            .ok_or_else(|| ScoreError::NoSet { set: set.to_owned() })?;
        match metric {
            "perplexity" => Ok(score.perplexity),
            "bits_per_byte" => Ok(score.bits_per_byte),
            _ => Err(no_metric()),
        }
    }

    /// The items of a score, if there are two or more: one item does not show how scores vary.
    pub fn sample(&self, set: &str, metric: &str) -> Option<&ScoredItems> {
        self.samples.get(set)?.get(metric).filter(|sample| sample.items() > 1)
    }
}

fn parse<T: serde::de::DeserializeOwned>(lines: &str) -> Result<Vec<T>, ScoreError> {
    let number = lines.lines().zip(1..);
    let items =
        number.map(|(text, line)| serde_json::from_str(text).map_err(|source| ScoreError::Item { line, source }));
    items.collect()
}

fn of_documents(documents: &[DocumentScore]) -> BTreeMap<String, BTreeMap<String, ScoredItems>> {
    let mut sets: BTreeMap<&str, Vec<&DocumentScore>> = BTreeMap::new();
    for document in documents {
        sets.entry(&document.set).or_default().push(document);
    }
    let by_metric = |(set, documents): (&str, Vec<&DocumentScore>)| {
        let sample = |form: ScoreFunction, of: fn(&DocumentScore) -> u64| {
            // Documents of two sets may have the same name: each set is a category.
            let rows = documents.iter().map(|document| -> Row<'_> {
                (
                    set,
                    &document.document,
                    vec![document.negative_log_likelihood, of(document) as f64],
                )
            });
            ScoredItems::new(form, rows)
        };
        let own = BTreeMap::from([
            (
                "perplexity".to_owned(),
                sample(ScoreFunction::Perplexity, |document| document.tokens),
            ),
            (
                "bits_per_byte".to_owned(),
                sample(ScoreFunction::BitsPerByte, |document| document.bytes),
            ),
        ]);
        (set.to_owned(), own)
    };
    sets.into_iter().map(by_metric).collect()
}

fn of_items(scores: &Scores, items: &[ItemResult]) -> BTreeMap<String, BTreeMap<String, ScoredItems>> {
    // The prompts that several attacks make of one item are drawn together.
    let category = |item: &ItemResult| {
        let sets = item.sets.iter().filter(|set| item.attack.as_ref() != Some(*set));
        sets.map(String::as_str).collect::<Vec<_>>().join("\n")
    };
    let categories: Vec<String> = items.iter().map(category).collect();
    // Grams are counted once per item, not once per set.
    let mut grams: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let has_chrf = scores.measures.values().any(|own| own.contains_key("chrf"));
    for (number, item) in items.iter().enumerate().filter(|_| has_chrf) {
        let text = item.text.as_deref().unwrap_or_default();
        grams.insert(number, Grams::of(text, &item.expected).counts());
    }
    let sample = |set: &str, metric: &str| {
        let form = if metric == "chrf" {
            ScoreFunction::Chrf
        } else {
            ScoreFunction::Mean
        };
        let mut rows: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for (number, item) in items.iter().enumerate().filter(|(_, item)| item.is_in(set)) {
            let row = match form {
                ScoreFunction::Chrf => grams.get(&number).cloned(),
                _ => item.scores.get(metric).map(|value| vec![*value, 1.0]),
            };
            let Some(row) = row else { continue };
            let sums = rows
                .entry((&categories[number], &item.item))
                .or_insert_with(|| vec![0.0; row.len()]);
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        ScoredItems::new(
            form,
            rows.into_iter().map(|((category, item), row)| (category, item, row)),
        )
    };
    let of_set = |(set, own): (&String, &BTreeMap<String, _>)| {
        let metrics = own.keys().map(|metric| (metric.clone(), sample(set, metric)));
        (set.clone(), metrics.collect())
    };
    scores.measures.iter().map(of_set).collect()
}
