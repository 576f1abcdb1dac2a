//! How similar a text is to the expected one.
//!
//! Exact match compares texts without the white space at their ends. F1 is that of words (Rajpurkar et al. 2016) in lower
//! case and without punctuation; no articles are dropped, as only English has those. chrF is chrF2 of Popović 2015 over a
//! complete set, averaging precision and recall over orders 1 to 6 as sacreBLEU does.

use std::collections::HashMap;

/// Whether a text is one of those expected.
pub fn exact_match(text: &str, expected: &[String]) -> bool {
    expected.iter().any(|expected| expected.trim() == text.trim())
}

fn words(text: &str) -> Vec<String> {
    let letters = |word: &str| {
        word.chars()
            .filter(|c| c.is_alphanumeric() || is_mark(*c))
            .collect::<String>()
    };
    let words = text.split_whitespace().map(|word| letters(&word.to_lowercase()));
    words.filter(|word| !word.is_empty()).collect()
}

/// Combining marks, such as the vowel signs of Devanagari.
fn is_mark(c: char) -> bool {
    !c.is_alphanumeric() && !c.is_ascii() && !c.is_whitespace() && !is_punctuation(c)
}

fn is_punctuation(c: char) -> bool {
    matches!(c as u32, 0x80..=0xbf | 0x2000..=0x206f | 0x20a0..=0x20cf | 0x2190..=0x2bff | 0x3000..=0x303f | 0x964..=0x965 | 0xff00..=0xff0f | 0xff1a..=0xff20)
}

fn counts<T: std::hash::Hash + Eq>(all: impl Iterator<Item = T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

fn common<T: std::hash::Hash + Eq>(a: &HashMap<T, u64>, b: &HashMap<T, u64>) -> u64 {
    // A sum does not depend on the order of a map.
    a.iter()
        .map(|(one, count)| (*count).min(b.get(one).copied().unwrap_or(0)))
        .sum()
}

/// The largest F1 of words over the expected texts.
pub fn f1(text: &str, expected: &[String]) -> f64 {
    let own = words(text);
    let of = |expected: &String| {
        let theirs = words(expected);
        if own.is_empty() || theirs.is_empty() {
            return f64::from(u8::from(own.is_empty() && theirs.is_empty()));
        }
        let same = common(&counts(own.iter()), &counts(theirs.iter())) as f64;
        2.0 * same / (own.len() + theirs.len()) as f64
    };
    expected.iter().map(of).fold(0.0, f64::max)
}

const ORDERS: usize = 6;
/// The weight of recall relative to precision, squared.
const BETA_SQUARED: f64 = 4.0;

/// Counts of character n-grams by order: in the text, in the expected one, in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grams([[u64; 3]; ORDERS]);

impl Grams {
    /// Of a text and the most similar expected text.
    pub fn of(text: &str, expected: &[String]) -> Self {
        let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
        let own = characters(text);
        let mut best = Self::default();
        for expected in expected {
            let theirs = characters(expected);
            let mut grams = Self::default();
            for (order, counted) in (1..).zip(&mut grams.0) {
                let (a, b) = (counts(own.windows(order)), counts(theirs.windows(order)));
                *counted = [a.values().sum(), b.values().sum(), common(&a, &b)];
            }
            if best == Self::default() || grams.chrf() > best.chrf() {
                best = grams;
            }
        }
        best
    }

    /// The length of [`Grams::counts`].
    pub const COUNTS: usize = 3 * ORDERS;

    /// Order by order: of the text, of the expected one, of both. Their sums over texts are again grams.
    pub fn counts(&self) -> Vec<f64> {
        self.0.iter().flatten().map(|count| *count as f64).collect()
    }

    /// Grams from the result of [`Grams::counts`].
    pub fn of_counts(counts: &[f64]) -> Self {
        let mut grams = Self::default();
        let places = grams.0.iter_mut().flatten();
        places.zip(counts).for_each(|(place, count)| *place = *count as u64);
        grams
    }

    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            for (own, other) in own.iter_mut().zip(other) {
                *own += other;
            }
        }
    }

    /// Between 0 and 100.
    pub fn chrf(&self) -> f64 {
        let both = self.0.iter().filter(|[own, theirs, _]| *own > 0 && *theirs > 0);
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for [own, theirs, same] in both {
            precision += *same as f64 / *own as f64;
            recall += *same as f64 / *theirs as f64;
            orders += 1.0;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / orders, recall / orders);
        100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    }
}

/// The mean, and its standard error with n − 1, which needs two numbers.
pub fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let error = (values.len() > 1).then(|| libm::sqrt(squares / (count - 1.0)) / libm::sqrt(count));
    (mean, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn metrics_are_as_their_formulas() {
        assert!(exact_match(" Paris\n", &one("Paris")) && !exact_match("paris", &one("Paris")));
        assert_eq!(f1("The cat sat.", &one("the cat")), 0.8);
        assert_eq!(f1("", &one("")), 1.0);
        assert_eq!(f1("x", &one("")), 0.0);
        assert_eq!(f1("नमस्ते दुनिया।", &one("नमस्ते दुनिया")), 1.0);
        assert_eq!(f1("b", &["a".to_owned(), "b".to_owned()]), 1.0);
        assert_eq!(Grams::of("same text", &one("same text")).chrf(), 100.0);
        assert_eq!(Grams::of("abc", &one("xyz")).chrf(), 0.0);
        // Order 1: 3 of 4 and 3 of 4; 2: 2 of 3 and 2 of 3; 3: 1 of 2; 4: 0 of 1. Mean of both: (3/4 + 2/3 + 1/2) / 4.
        let found = Grams::of("abcd", &one("abce")).chrf();
        assert!(
            (found - 100.0 * (0.75 + 2.0 / 3.0 + 0.5) / 4.0).abs() < 1e-12,
            "{found}"
        );
        let mut sum = Grams::of("abcd", &one("abce"));
        sum.add(&Grams::of("abcd", &one("abce")));
        assert_eq!(sum.chrf(), found);
    }

    #[test]
    fn a_mean_of_two_or_more_has_a_standard_error() {
        let (value, error) = mean(&[3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]);
        let error = error.expect("there are eight");
        assert!((value - 3.875).abs() < 1e-12, "{value}");
        assert!((error - 0.971_697_704_315_199_3).abs() < 1e-12, "{error}");
        assert_eq!(mean(&[2.0]), (2.0, None));
    }
}
