//! Gates: whether a gate holds, and whether that is significant.

use std::collections::BTreeMap;

use aurora_compiler::fields::{ExpectFields, Term};
use aurora_compiler::spec::{Better, Relation};
use serde::{Deserialize, Serialize};

use super::{Interval, LEVEL, ScoreError, Scored, ScoredItems, fitted_change, forgetting, replicates, signed};

/// A gate cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the gate refers to an eval that it does not have as an input")]
    NoEval,
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error("a trend needs scores at more than one count of tokens")]
    NoTrend,
    #[error("nothing was measured earlier")]
    NoEarlier,
}

/// The result of a gate, and whether resampled items would change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateVerdict {
    /// In the complete interval.
    #[serde(rename = "holds clearly")]
    HoldsClearly,
    #[serde(rename = "holds within the noise")]
    HoldsWithinNoise,
    #[serde(rename = "fails within the noise")]
    FailsWithinNoise,
    /// Nowhere in the interval.
    #[serde(rename = "fails clearly")]
    FailsClearly,
}

impl std::fmt::Display for GateVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HoldsClearly => "holds clearly",
            Self::HoldsWithinNoise => "holds within the noise",
            Self::FailsWithinNoise => "fails within the noise",
            Self::FailsClearly => "fails clearly",
        })
    }
}

/// The result of a gate: `gate.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    pub name: String,
    /// The gate as the spec states it.
    pub text: String,
    #[serde(flatten)]
    pub found: Judgement,
}

impl GateResult {
    /// The verdict as text.
    pub fn verdict(&self) -> String {
        let found = &self.found;
        match (found.holds, found.verdict) {
            (false, GateVerdict::HoldsWithinNoise) => {
                format!(
                    "FAILS: it holds within the noise, and asks for {} confidence",
                    self.level()
                )
            }
            (_, verdict) => verdict.to_string().replace("fails", "FAILS"),
        }
    }

    /// The two sides, and the difference with its interval.
    pub fn figures(&self) -> String {
        let found = &self.found;
        let sides = format!(
            "{:.4} against {:.4}, difference {:+.4}",
            found.left, found.right, found.difference
        );
        match found.interval {
            Some(Interval { low, high }) => format!("{sides}, {} interval {low:+.4} to {high:+.4}", self.level()),
            None => format!("{sides}, and too few items to say more"),
        }
    }

    fn level(&self) -> String {
        format!("{}%", (self.found.level * 1e4).round() / 100.0)
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// A gate with a confidence holds if it holds clearly, another gate if the comparison of its two sides holds.
    pub holds: bool,
    pub left: f64,
    pub right: f64,
    /// Left − right.
    pub difference: f64,
    /// Of the difference, at `level`. `None` if a score has fewer than two items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// In 0..1.
    pub level: f64,
    /// Whether the spec sets this level.
    #[serde(rename = "asked")]
    pub level_is_set: bool,
    /// Fraction of the replicates in which the comparison does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<f64>,
    pub verdict: GateVerdict,
}

/// A metric's input, set and name.
type ScoreName = (usize, String, String);

/// Compares the two sides of a gate over scores, and over replicates of them all: items are resampled once for all metrics that
/// depend on them.
///
/// # Errors
/// A metric is not among the scores, or a function cannot be computed.
pub fn judge(fields: &ExpectFields, evals: &[Scored]) -> Result<Judgement, GateError> {
    let point = |place: &ScoreName| {
        let eval = evals.get(place.0).ok_or(GateError::NoEval)?;
        Ok(eval.value(&place.1, &place.2)?)
    };
    let (left, right) = (value(&fields.left, &point)?, value(&fields.right, &point)?);
    let level = fields.confidence.map_or(LEVEL, |level| level.to_f64());
    let mut places = Vec::new();
    find(&fields.left, &mut places);
    find(&fields.right, &mut places);
    places.sort();
    places.dedup();
    let sample = |place: &ScoreName| evals.get(place.0)?.sample(&place.1, &place.2);
    let samples: Option<Vec<&ScoredItems>> = places.iter().map(sample).collect();
    let drawn = samples.map(|samples| sides(fields, &places, &samples)).transpose()?;
    let differences = drawn
        .iter()
        .flatten()
        .map(|(left, right)| left - right)
        .collect::<Vec<f64>>();
    let interval = Interval::of(&differences, level);
    let doubt = drawn.filter(|_| interval.is_some()).map(|drawn| {
        let against = drawn
            .iter()
            .filter(|(left, right)| !holds(fields.relation, *left, *right));
        against.count() as f64 / drawn.len() as f64
    });
    let by_point = holds(fields.relation, left, right);
    let ends = interval.map(|interval| [interval.low, interval.high].map(|end| holds(fields.relation, end, 0.0)));
    let verdict = match (by_point, ends) {
        (true, Some([true, true])) => GateVerdict::HoldsClearly,
        (true, _) => GateVerdict::HoldsWithinNoise,
        (false, Some([false, false])) => GateVerdict::FailsClearly,
        (false, _) => GateVerdict::FailsWithinNoise,
    };
    let level_is_set = fields.confidence.is_some();
    Ok(Judgement {
        holds: by_point && (!level_is_set || verdict == GateVerdict::HoldsClearly),
        left,
        right,
        difference: left - right,
        interval,
        level,
        level_is_set,
        doubt,
        verdict,
    })
}

/// Both sides of each replicate.
fn sides(fields: &ExpectFields, places: &[ScoreName], samples: &[&ScoredItems]) -> Result<Vec<(f64, f64)>, GateError> {
    let columns: BTreeMap<&ScoreName, usize> = places.iter().zip(0..).collect();
    let sides = |row: Vec<f64>| {
        let of = |place: &ScoreName| Ok(row[columns[place]]);
        Ok((value(&fields.left, &of)?, value(&fields.right, &of)?))
    };
    replicates(samples).into_iter().map(sides).collect()
}

fn holds(relation: Relation, left: f64, right: f64) -> bool {
    match relation {
        Relation::Less => left < right,
        Relation::AtMost => left <= right,
        Relation::Greater => left > right,
        Relation::AtLeast => left >= right,
    }
}

/// The metrics that a term reads.
fn find(term: &Term, found: &mut Vec<ScoreName>) {
    match term {
        Term::Number(_) => {}
        Term::Metric { input, metric, set } => found.push((*input, set.clone(), metric.clone())),
        Term::Trend(points) => points.iter().for_each(|(_, point)| find(point, found)),
        Term::Forgetting { earlier, last, .. } => earlier.iter().chain([&**last]).for_each(|term| find(term, found)),
        Term::Mean(of) | Term::Gap(of) | Term::Worst { of, .. } => of.iter().for_each(|term| find(term, found)),
        Term::Add(left, right) | Term::Subtract(left, right) | Term::Multiply(left, right) => {
            find(left, found);
            find(right, found);
        }
    }
}

fn value(term: &Term, of: &dyn Fn(&ScoreName) -> Result<f64, GateError>) -> Result<f64, GateError> {
    let all = |terms: &[Term]| {
        terms
            .iter()
            .map(|term| value(term, of))
            .collect::<Result<Vec<f64>, GateError>>()
    };
    Ok(match term {
        Term::Number(number) => number.to_f64(),
        Term::Metric { input, metric, set } => of(&(*input, set.clone(), metric.clone()))?,
        Term::Add(left, right) => value(left, of)? + value(right, of)?,
        Term::Subtract(left, right) => value(left, of)? - value(right, of)?,
        Term::Multiply(left, right) => value(left, of)? * value(right, of)?,
        Term::Trend(points) => {
            let points = points
                .iter()
                .map(|(tokens, term)| Ok((*tokens as f64, value(term, of)?)));
            let points = points.collect::<Result<Vec<_>, GateError>>()?;
            fitted_change(&points).ok_or(GateError::NoTrend)?
        }
        Term::Forgetting { earlier, last, better } => {
            forgetting(&all(earlier)?, value(last, of)?, *better).ok_or(GateError::NoEarlier)?
        }
        Term::Mean(terms) => {
            let values = all(terms)?;
            values.iter().sum::<f64>() / values.len() as f64
        }
        Term::Gap(terms) => {
            let values = all(terms)?;
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            largest - values.iter().copied().fold(f64::INFINITY, f64::min)
        }
        Term::Worst { of: terms, better } => {
            let worst = all(terms)?
                .into_iter()
                .map(|value| signed(*better, value))
                .fold(f64::INFINITY, f64::min);
            match better {
                Better::Higher => worst,
                Better::Lower => -worst,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Measure, Scores};

    /// An eval of `items` items, of which those before `right` are right.
    fn eval(items: usize, right: usize) -> Scored {
        let value = right as f64 / items as f64;
        let measure = Measure {
            value,
            standard_error: None,
            items: items as u64,
        };
        let scores = Scores {
            sets: BTreeMap::new(),
            measures: BTreeMap::from([(String::new(), BTreeMap::from([("accuracy".to_owned(), measure)]))]),
        };
        let line = |item: usize| {
            let score = f64::from(u8::from(item < right));
            serde_json::json!({"item": format!("{item}"), "prompt": "", "scores": {"accuracy": score}}).to_string()
                + "\n"
        };
        Scored::new(scores, &(0..items).map(line).collect::<String>()).expect("lines of items")
    }

    fn accuracy(input: usize) -> Term {
        Term::Metric {
            input,
            metric: "accuracy".to_owned(),
            set: String::new(),
        }
    }

    fn number(text: &str) -> Term {
        Term::Number(text.parse().expect("a number"))
    }

    fn gate(left: Term, relation: Relation, right: Term, confidence: Option<&str>) -> ExpectFields {
        ExpectFields {
            name: "gate".to_owned(),
            text: "left ? right".to_owned(),
            left,
            relation,
            right,
            confidence: confidence.map(|level| level.parse().expect("a number")),
        }
    }

    #[test]
    fn a_gate_says_whether_it_holds_within_the_noise() {
        let at_least = |least: &str, confidence| gate(accuracy(0), Relation::AtLeast, number(least), confidence);
        let evals = [eval(100, 60)];
        let verdict = |least: &str, confidence| {
            let found = judge(&at_least(least, confidence), &evals).expect("it is measured");
            (found.verdict, found.holds)
        };
        assert_eq!(verdict("0.4", None), (GateVerdict::HoldsClearly, true));
        assert_eq!(verdict("0.58", None), (GateVerdict::HoldsWithinNoise, true));
        assert_eq!(verdict("0.62", None), (GateVerdict::FailsWithinNoise, false));
        assert_eq!(verdict("0.8", None), (GateVerdict::FailsClearly, false));
        // The end that fails is the upper one here.
        let at_most = |most: &str| judge(&gate(accuracy(0), Relation::AtMost, number(most), None), &evals);
        let verdict_below = |most: &str| at_most(most).expect("it is measured").verdict;
        assert_eq!(verdict_below("0.62"), GateVerdict::HoldsWithinNoise);
        assert_eq!(verdict_below("0.58"), GateVerdict::FailsWithinNoise);
        assert_eq!(verdict_below("0.8"), GateVerdict::HoldsClearly);
        // The binomial standard error is 0.049: 0.52 lies within 95%, and outside of 50%.
        assert_eq!(verdict("0.52", Some("0.95")), (GateVerdict::HoldsWithinNoise, false));
        assert_eq!(verdict("0.52", Some("0.5")), (GateVerdict::HoldsClearly, true));
        let found = judge(&at_least("0.5", None), &evals).expect("it is measured");
        let interval = found.interval.expect("a hundred items");
        assert!(
            (interval.low + 0.004).abs() < 0.02 && (interval.high - 0.196).abs() < 0.02,
            "{interval:?}"
        );
        // P(Z < −2.04), and half of those who are exactly there.
        assert!(
            found.doubt.is_some_and(|doubt| doubt > 0.005 && doubt < 0.04),
            "{:?}",
            found.doubt
        );
    }

    #[test]
    fn metrics_over_the_same_items_are_compared_item_by_item() {
        // One item more: far less than the noise of either, and never less in any replicate.
        let evals = [eval(100, 60), eval(100, 61), eval(99, 61)];
        let paired = gate(accuracy(1), Relation::AtLeast, accuracy(0), Some("0.99"));
        let found = judge(&paired, &evals).expect("both are measured");
        assert_eq!((found.verdict, found.holds), (GateVerdict::HoldsClearly, true));
        // Other items are other items.
        let apart = gate(accuracy(2), Relation::AtLeast, accuracy(0), None);
        assert_eq!(
            judge(&apart, &evals).expect("both are measured").verdict,
            GateVerdict::HoldsWithinNoise
        );
        // One item does not show how scores vary.
        let one = judge(
            &gate(accuracy(0), Relation::AtLeast, number("0.5"), None),
            &[eval(1, 1)],
        );
        let one = one.expect("it is measured");
        assert_eq!(
            (one.verdict, one.interval, one.doubt),
            (GateVerdict::HoldsWithinNoise, None, None)
        );
        assert!(judge(&gate(accuracy(7), Relation::Less, number("1"), None), &evals).is_err());
    }

    #[test]
    fn functions_are_their_formulas() {
        let evals = [eval(10, 5), eval(10, 7), eval(10, 6)];
        let left = |term: Term| {
            let found = judge(&gate(term, Relation::Less, number("9"), None), &evals).expect("all are measured");
            (found.left * 1e9).round() / 1e9
        };
        let all = || vec![accuracy(0), accuracy(1), accuracy(2)];
        assert_eq!(left(Term::Mean(all())), 0.6);
        assert_eq!(left(Term::Gap(all())), 0.2);
        let worst = |better| Term::Worst { of: all(), better };
        assert_eq!((left(worst(Better::Higher)), left(worst(Better::Lower))), (0.5, 0.7));
        let forgetting = |better| Term::Forgetting {
            earlier: vec![accuracy(0), accuracy(1)],
            last: Box::new(accuracy(2)),
            better,
        };
        assert_eq!(
            (left(forgetting(Better::Higher)), left(forgetting(Better::Lower))),
            (0.1, 0.1)
        );
        // Slope of (0, 0.5), (10, 0.7), (30, 0.6): 0.0017857… a token.
        let points = [0, 10, 30].into_iter().zip(all()).collect();
        assert_eq!(left(Term::Trend(points)), 0.064_285_714);
    }
}
