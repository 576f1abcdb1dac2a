//! Compares results of two numerics classes: losses and scores within a tolerance.
//!
//! In: the results of one graph in two classes. Out: which nodes agree, and the first that does not. Weights are not
//! compared: two classes round differently, and the differences grow with every step.

use aurora_compiler::fields::Precision;
use aurora_compiler::graph::{NodeId, Role, Work};

use super::{ResultDifference, read_step_log};
use crate::checkpoint::STEP_LOG;
use crate::job::{PerplexityScore, Scores};
use crate::results::{ResultError, Results};

/// The largest relative difference at which losses and scores of two numerics classes agree.
///
/// f32: the classes differ in the last of 24 bits of each operation. bf16: the inputs of matrix products have 8 bits, so one
/// that is rounded in another direction differs by up to 0.4%.
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 2e-2,
    }
}

/// What a comparison of two classes has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassComparison {
    /// Nodes whose losses or scores were compared.
    pub compared: usize,
    /// The largest tolerance that was used.
    pub tolerance: f64,
    /// Nodes with losses or scores of which one class has no result.
    pub missing: usize,
    /// Nodes whose losses or scores differ by more than the tolerance.
    pub differing: usize,
    pub first: Option<ResultDifference>,
}

/// A number that two classes have computed, with its name.
struct Pair {
    name: String,
    first: f64,
    second: f64,
}

impl Pair {
    fn agrees(&self, tolerance: f64) -> bool {
        let Self { first, second, .. } = *self;
        // Equal infinities agree; no other number agrees with an infinity, and none with one that is not a number.
        let largest = first.abs().max(second.abs());
        first == second || largest.is_finite() && (first - second).abs() <= tolerance * largest
    }

    fn note(&self, tolerance: f64) -> String {
        let Self { first, second, .. } = *self;
        let relative = (first - second).abs() / first.abs().max(second.abs());
        format!(
            "{first} and {second} differ by {:.2}%, allowed are {}%",
            relative * 100.0,
            tolerance * 100.0
        )
    }
}

impl ClassComparison {
    /// Compares the losses or scores of a node, if it has any.
    ///
    /// # Errors
    /// A result is damaged.
    pub fn add(&mut self, id: NodeId, first: &Results<'_>, second: &Results<'_>) -> Result<(), ResultError> {
        let Some(precision) = precision_of(first, id) else {
            return Ok(());
        };
        if first.find(id)?.is_none() || second.find(id)?.is_none() {
            self.missing += 1;
            return Ok(());
        }
        let allowed = tolerance(precision);
        let mut found = ResultDifference {
            node: first.node(id).name().to_owned(),
            ..ResultDifference::default()
        };
        let differs = if first.node(id).work.train().is_some() {
            compare_losses([first, second], id, allowed, &mut found)?
        } else {
            compare_scores([first, second], id, allowed, &mut found)?
        };
        self.compared += 1;
        self.tolerance = self.tolerance.max(allowed);
        if differs {
            self.differing += 1;
            self.first.get_or_insert(found);
        }
        Ok(())
    }
}

/// The precision behind the losses or scores of a node; `None` if it has neither.
fn precision_of(results: &Results<'_>, id: NodeId) -> Option<Precision> {
    match &results.node(id).work {
        Work::Train(fields) => Some(fields.precision),
        Work::Eval(fields) => Some(fields.precision),
        Work::Judge(_) => {
            let answers = results.input(id, &Role::Answers)?;
            Some(results.node(answers).work.eval()?.precision)
        }
        _ => None,
    }
}

fn compare_losses(
    [first, second]: [&Results<'_>; 2],
    id: NodeId,
    allowed: f64,
    found: &mut ResultDifference,
) -> Result<bool, ResultError> {
    let log = |results: &Results<'_>| {
        let path = results.file(id, STEP_LOG)?;
        read_step_log(&path).map_err(|error| results.fail(id, error))
    };
    let (old, new) = (log(first)?, log(second)?);
    if old.len() != new.len() {
        found.note = Some(format!("{} and {} steps", old.len(), new.len()));
        return Ok(true);
    }
    for (before, after) in old.iter().zip(&new) {
        let (Some(first), Some(second)) = (number(&before.loss), number(&after.loss)) else {
            found.note = Some("a loss in a step log is not a number".to_owned());
            return Ok(true);
        };
        let name = "loss".to_owned();
        let pair = Pair { name, first, second };
        let is_same_data = before.step == after.step && before.batch == after.batch;
        if !is_same_data || !pair.agrees(allowed) {
            found.step = Some(before.step);
            found.of_step = Some(if is_same_data {
                pair.name.clone()
            } else {
                "batch".to_owned()
            });
            found.note = is_same_data.then(|| pair.note(allowed));
            return Ok(true);
        }
    }
    Ok(false)
}

/// A number of a step log: the bits of an f64 in hexadecimal digits.
fn number(bits: &str) -> Option<f64> {
    Some(f64::from_bits(u64::from_str_radix(bits, 16).ok()?))
}

fn compare_scores(
    [first, second]: [&Results<'_>; 2],
    id: NodeId,
    allowed: f64,
    found: &mut ResultDifference,
) -> Result<bool, ResultError> {
    let (old, new): (Scores, Scores) = (first.json(id, "scores.json")?, second.json(id, "scores.json")?);
    match pairs(&old, &new) {
        None => found.note = Some("the scores are of other sets, metrics or items".to_owned()),
        Some(pairs) => match pairs.into_iter().find(|pair| !pair.agrees(allowed)) {
            Some(pair) => found.note = Some(format!("{}: {}", pair.name, pair.note(allowed))),
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// The numbers of two scores, side by side; `None` if they are not of the same sets, metrics and items.
fn pairs(old: &Scores, new: &Scores) -> Option<Vec<Pair>> {
    if old.sets.len() != new.sets.len() || old.measures.len() != new.measures.len() {
        return None;
    }
    let mut pairs = Vec::new();
    for (set, before) in &old.sets {
        let after = new.sets.get(set)?;
        let counts = |score: &PerplexityScore| (score.documents, score.tokens, score.bytes);
        if counts(before) != counts(after) {
            return None;
        }
        for (metric, first, second) in [
            ("perplexity", before.perplexity, after.perplexity),
            ("bits_per_byte", before.bits_per_byte, after.bits_per_byte),
        ] {
            let name = format!("{metric}.{set}");
            pairs.push(Pair { name, first, second });
        }
    }
    for (category, before) in &old.measures {
        let after = new.measures.get(category)?;
        if before.len() != after.len() {
            return None;
        }
        for (metric, before) in before {
            let after = after.get(metric)?;
            if before.items != after.items {
                return None;
            }
            let name = if category.is_empty() {
                metric.clone()
            } else {
                format!("{metric}.{category}")
            };
            pairs.push(Pair {
                name,
                first: before.value,
                second: after.value,
            });
        }
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees(first: f64, second: f64, precision: Precision) -> bool {
        let name = String::new();
        Pair { name, first, second }.agrees(tolerance(precision))
    }

    #[test]
    fn the_difference_is_relative_and_depends_on_the_precision() {
        assert!(agrees(1000.0, 1000.9, Precision::F32));
        assert!(!agrees(1.0, 1.002, Precision::F32));
        assert!(agrees(1.0, 1.002, Precision::Bf16));
        assert!(!agrees(1.0, 1.03, Precision::Bf16));
        assert!(agrees(0.0, 0.0, Precision::F32) && !agrees(0.0, 1e-9, Precision::F32));
        assert!(!agrees(f64::NAN, 1.0, Precision::Bf16) && !agrees(f64::INFINITY, 1.0, Precision::Bf16));
    }

    #[test]
    fn scores_of_other_items_do_not_agree() {
        let score = |tokens, bits_per_byte| PerplexityScore {
            documents: 1,
            tokens,
            bytes: 10,
            negative_log_likelihood: 1.0,
            perplexity: 2.0,
            bits_per_byte,
        };
        let of = |score| Scores {
            sets: std::iter::once(("en".to_owned(), score)).collect(),
            measures: std::collections::BTreeMap::new(),
        };
        let pairs_of = |old, new| pairs(&of(old), &of(new));
        assert!(pairs_of(score(4, 1.0), score(5, 1.0)).is_none());
        let found = pairs_of(score(4, 1.0), score(4, 1.5)).expect("the same items");
        let names: Vec<&str> = found.iter().map(|pair| pair.name.as_str()).collect();
        assert_eq!(names, ["perplexity.en", "bits_per_byte.en"]);
        assert!(found[0].agrees(1e-3) && !found[1].agrees(1e-3));
    }
}
