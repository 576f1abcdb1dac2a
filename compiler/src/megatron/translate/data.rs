//! Translates the data flags to sources, corpora and the mixture.

use rust_decimal::Decimal;

use super::{DEFAULT, TranslatedBlock, Translation, WithOrigin, decimal};
use crate::megatron::findings::FindingKind;
use crate::megatron::launch::LaunchArgument;

/// Decimals of a percentage: weights have a precision of parts per million.
const DECIMALS: u32 = 4;

/// A data set of the blend.
struct DataSet {
    name: String,
    path: String,
    /// The weight of the script. Without weights, Megatron uses the sizes.
    weight: Option<Decimal>,
    line: u32,
}

impl Translation<'_> {
    pub(super) fn data(&mut self) -> String {
        let (flag, parts) = self.data_sets();
        let held_out = self.held_out(flag);
        self.shared.held_out = held_out
            .as_ref()
            .is_some_and(|share| share.value.is_some_and(|share| !share.is_zero()));
        let mut text = String::new();
        let mut mixture = TranslatedBlock::new("mixture blend");
        let weights: Option<Vec<Decimal>> = parts.iter().map(|part| part.weight).collect();
        let shares = weights.as_deref().and_then(percentages);
        if weights.is_some() && shares.is_none() {
            self.report_flag(
                FindingKind::NotUnderstood,
                flag,
                "invalid weights: none may be negative, and not all may be zero",
            );
        }
        for (index, part) in parts.iter().enumerate() {
            let DataSet { name, path, line, .. } = part;
            let origin = if *line == 0 {
                path.clone()
            } else {
                format!("{}:{line} {flag} {path}", self.file)
            };
            let mut source = TranslatedBlock::new(format!("source {name}_files"));
            source.field("from", "unknown", &origin);
            text.push_str(&source.done());
            let mut corpus = TranslatedBlock::new(format!("corpus {name}"));
            corpus.field("language", "other", "the script does not contain the language");
            corpus.field(
                "from",
                format!("[jsonl({name}_files)]"),
                "the input format of Megatron's preprocessing",
            );
            if let Some(share) = held_out.as_ref().filter(|share| share.value.is_some()) {
                corpus.shown("held_out", share, |share| format!("{share}%"));
            }
            text.push_str(&corpus.done());
            let share = shares.as_ref().and_then(|shares| shares.get(index));
            let (share, exact) = match share {
                Some(share) => (format!("{}%", share.percent), share.rounded.as_deref()),
                None if parts.len() == 1 && flag != WEIGHTS_FILE => ("100%".to_owned(), None),
                None => ("unknown".to_owned(), Some("Megatron uses the sizes as weights")),
            };
            let written = part.weight.map(|weight| format!("weight {weight}"));
            let comment: Vec<&str> = [written.as_deref(), exact].into_iter().flatten().collect();
            let comment = if comment.is_empty() {
                String::new()
            } else {
                format!(" // {}", comment.join("; "))
            };
            mixture
                .text
                .push_str(&format!("  {name} from [{name}] weight {share}{comment}\n"));
            self.shared.corpora.push(name.clone());
        }
        text + &mixture.done()
    }

    /// The data sets of the blend, and their flag.
    fn data_sets(&mut self) -> (&'static str, Vec<DataSet>) {
        let unknown = |why: &str| DataSet {
            name: "data".to_owned(),
            path: why.to_owned(),
            weight: None,
            line: 0,
        };
        for flag in ["--data-path", "--train-data-path"] {
            let Some(given) = self.given(flag) else { continue };
            if let Some(why) = given.values.iter().find_map(|word| word.unknown.clone()) {
                self.report(FindingKind::Unknown, given.line, given.written(), why);
            }
            return (flag, named(blend(&given.values)));
        }
        if let Some(given) = self.given("--train-weighted-split-paths") {
            return ("--train-weighted-split-paths", named(groups(&given.values)));
        }
        if let Some(file) = self.text(WEIGHTS_FILE) {
            self.report_flag(
                FindingKind::Unknown,
                WEIGHTS_FILE,
                "the blend is in that file; write it as a mixture",
            );
            let mut part = unknown(&format!("the blend is in {}", file.value.unwrap_or_default()));
            part.line = self.given(WEIGHTS_FILE).map_or(0, |given| given.line);
            return (WEIGHTS_FILE, vec![part]);
        }
        self.report(FindingKind::Unknown, 0, "the data", "no flag contains the data");
        ("--data-path", vec![unknown("no flag contains the data")])
    }

    /// The percentage of held-out data. Megatron splits files by position, Aurora splits documents by the hash of their text.
    fn held_out(&mut self, flag: &str) -> Option<WithOrigin<Decimal>> {
        if flag != "--data-path" || self.given(flag).is_none() {
            if self.given("--split").is_some() {
                self.report_flag(FindingKind::NoEffect, "--split", "it is only used with --data-path");
            }
            return None;
        }
        let split = self.or("--split", Self::text, "969, 30, 1".to_owned());
        let written = split.value?;
        let parts: Vec<Decimal> = written
            .split(|char: char| !char.is_ascii_digit() && char != '.')
            .filter(|part| !part.is_empty())
            .filter_map(decimal)
            .collect();
        let total = parts.iter().try_fold(Decimal::ZERO, |sum, part| sum.checked_add(*part));
        let share = match (parts.first(), total.filter(|total| !total.is_zero())) {
            (Some(train), Some(total)) => ((total - train) * Decimal::ONE_HUNDRED).checked_div(total),
            _ => None,
        };
        let Some(share) = share.filter(|share| *share < Decimal::ONE_HUNDRED) else {
            self.report_flag(FindingKind::NotUnderstood, "--split", "it leaves no data for training");
            return None;
        };
        let rounded = share.round_dp(DECIMALS).normalize();
        let note = if rounded == share.normalize() { "" } else { ", rounded" };
        Some(WithOrigin::new(
            rounded,
            format!(
                "{written}: validation and test{note}, by the hash of each document; {}",
                split.origin
            ),
        ))
    }
}

const WEIGHTS_FILE: &str = "--train-weighted-split-paths-path";

/// Parses `WEIGHT PATH WEIGHT PATH …`, or only paths.
fn blend(values: &[LaunchArgument]) -> Vec<DataSet> {
    let pairs = values.len().is_multiple_of(2) && values.iter().step_by(2).all(|word| decimal(&word.text).is_some());
    let part = |path: &LaunchArgument, weight: Option<Decimal>| DataSet {
        name: String::new(),
        path: path.text.clone(),
        weight,
        line: path.line,
    };
    if pairs {
        return values
            .chunks(2)
            .map(|pair| part(&pair[1], decimal(&pair[0].text)))
            .collect();
    }
    values.iter().map(|path| part(path, None)).collect()
}

/// Parses `NAME: WEIGHT START:END PATH, WEIGHT START:END PATH`.
fn groups(values: &[LaunchArgument]) -> Vec<DataSet> {
    let text: Vec<&str> = values.iter().map(|word| word.text.as_str()).collect();
    let text = text.join(" ");
    let list = text.split_once(':').map_or(text.as_str(), |(_, list)| list);
    let parts = list.split(',').map(|group| {
        let words: Vec<&str> = group.split_whitespace().map(|word| word.trim_matches('"')).collect();
        DataSet {
            name: String::new(),
            path: words.last().copied().unwrap_or_default().to_owned(),
            weight: words.first().and_then(|weight| decimal(weight)),
            line: values.first().map_or(0, |word| word.line),
        }
    });
    parts.collect()
}

/// Gives each data set a unique name, from its path.
fn named(mut parts: Vec<DataSet>) -> Vec<DataSet> {
    let mut taken: Vec<String> = Vec::new();
    for part in &mut parts {
        let file = part.path.rsplit('/').next().unwrap_or_default();
        let stem = file
            .trim_end_matches("_document")
            .trim_end_matches("_text")
            .trim_end_matches("_content");
        let base = super::super::identifier(stem, "data");
        let mut name = base.clone();
        let mut number = 2;
        while taken.contains(&name) {
            name = format!("{base}_{number}");
            number += 1;
        }
        taken.push(name.clone());
        part.name = name;
    }
    if parts.is_empty() {
        parts.push(DataSet {
            name: "data".to_owned(),
            path: format!("{DEFAULT}: none"),
            weight: None,
            line: 0,
        });
    }
    parts
}

/// A weight as a percentage.
struct Weight {
    percent: Decimal,
    /// The exact fraction, if it had to be rounded.
    rounded: Option<String>,
}

/// Converts weights to percentages that sum to exactly 100, rounded by the largest-remainder method.
fn percentages(weights: &[Decimal]) -> Option<Vec<Weight>> {
    let total = weights.iter().try_fold(Decimal::ZERO, |sum, weight| {
        (!weight.is_sign_negative() || weight.is_zero())
            .then(|| sum.checked_add(*weight))
            .flatten()
    })?;
    let unit = Decimal::new(1, DECIMALS);
    let exact: Vec<Decimal> = weights
        .iter()
        .map(|weight| weight.checked_mul(Decimal::ONE_HUNDRED)?.checked_div(total))
        .collect::<Option<_>>()?;
    let mut shown: Vec<Decimal> = exact.iter().map(|share| share.trunc_with_scale(DECIMALS)).collect();
    let mut left = Decimal::ONE_HUNDRED - shown.iter().sum::<Decimal>();
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by_key(|&index| (shown[index] - exact[index], index));
    for index in order {
        if left < unit {
            break;
        }
        shown[index] += unit;
        left -= unit;
    }
    let shares = shown.iter().zip(weights).map(|(shown, weight)| {
        let is_exact = weight.checked_mul(Decimal::ONE_HUNDRED) == shown.checked_mul(total);
        Weight {
            percent: shown.normalize(),
            rounded: (!is_exact).then(|| format!("{weight} ÷ {total}, rounded to parts per million")),
        }
    });
    Some(shares.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(weights: &[&str]) -> Vec<String> {
        let weights: Vec<Decimal> = weights.iter().filter_map(|weight| decimal(weight)).collect();
        let shares = percentages(&weights).expect("shares");
        shares.iter().map(|share| share.percent.to_string()).collect()
    }

    #[test]
    fn percentages_are_exact_if_possible() {
        assert_eq!(numbers(&["0.3", "0.7"]), ["30", "70"]);
        assert_eq!(numbers(&["1", "3"]), ["25", "75"]);
        assert_eq!(numbers(&["1", "1", "1"]), ["33.3334", "33.3333", "33.3333"]);
        assert!(percentages(&[Decimal::ZERO]).is_none());
        assert!(percentages(&[Decimal::NEGATIVE_ONE, Decimal::TWO]).is_none());
    }

    proptest! {
        #[test]
        fn percentages_sum_to_100(weights in prop::collection::vec(1_u32..1_000_000, 1..40)) {
            let weights: Vec<Decimal> = weights.into_iter().map(|weight| Decimal::new(weight.into(), 3)).collect();
            let shares = percentages(&weights).expect("positive weights");
            let sum: Decimal = shares.iter().map(|share| share.percent).sum();
            prop_assert_eq!(sum, Decimal::ONE_HUNDRED);
        }
    }
}
