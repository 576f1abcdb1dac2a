//! A score as a function of its items.

use std::collections::BTreeMap;

use crate::data::random::PhiloxKey;
use crate::task::Grams;

/// The function from the sums over a set's items to a score. Each item has a row of numbers; a score depends only on the sum
/// of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreFunction {
    /// Rows of value and 1: the mean.
    Mean,
    /// Rows of −ln p (nats) and tokens: exp of their ratio.
    Perplexity,
    /// Rows of −ln p (nats) and bytes: their ratio ÷ ln 2.
    BitsPerByte,
    /// Rows of a text's character n-grams, as [`Grams`] counts them.
    Chrf,
}

impl ScoreFunction {
    /// Numbers of a row.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Mean | Self::Perplexity | Self::BitsPerByte => 2,
            Self::Chrf => Grams::COUNTS,
        }
    }

    pub(super) fn score(self, sums: &[f64]) -> f64 {
        match self {
            Self::Mean => sums[0] / sums[1],
            Self::Perplexity => libm::exp(sums[0] / sums[1]),
            Self::BitsPerByte => sums[0] / (std::f64::consts::LN_2 * sums[1]),
            Self::Chrf => Grams::of_counts(sums).chrf(),
        }
    }
}

/// The items of one category, which are resampled among themselves: the sizes of strata are constant.
#[derive(Clone, Debug)]
pub(super) struct Stratum {
    /// Digest of the category and the items' names: scores of the same items are resampled together.
    pub names: [u8; 32],
    /// Item by item, in the order of their names.
    pub rows: Vec<f64>,
    pub items: usize,
}

impl Stratum {
    /// The random numbers of one purpose.
    pub fn key(&self, purpose: &str) -> PhiloxKey {
        PhiloxKey::derive(
            0,
            &format!("{purpose} {}", blake3::Hash::from_bytes(self.names).to_hex()),
        )
    }
}

/// The items of one score.
#[derive(Clone, Debug)]
pub struct ScoredItems {
    pub(super) form: ScoreFunction,
    pub(super) strata: Vec<Stratum>,
}

impl ScoredItems {
    /// Collects items: each with its category (empty for none), its name and its row, whose width depends on the form.
    pub fn new<'a>(form: ScoreFunction, items: impl IntoIterator<Item = (&'a str, &'a str, Vec<f64>)>) -> Self {
        let mut by_category: BTreeMap<&str, Vec<(&str, Vec<f64>)>> = BTreeMap::new();
        for (category, name, row) in items {
            debug_assert_eq!(row.len(), form.width());
            by_category.entry(category).or_default().push((name, row));
        }
        let strata = by_category.into_iter().map(|(category, mut items)| {
            items.sort_by_key(|(name, _)| *name);
            let mut names = blake3::Hasher::new();
            for name in [category].into_iter().chain(items.iter().map(|(name, _)| *name)) {
                names.update(&(name.len() as u64).to_le_bytes());
                names.update(name.as_bytes());
            }
            Stratum {
                names: *names.finalize().as_bytes(),
                items: items.len(),
                rows: items.into_iter().flat_map(|(_, row)| row).collect(),
            }
        });
        Self {
            form,
            strata: strata.collect(),
        }
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.strata.iter().map(|stratum| stratum.items).sum()
    }

    /// The score of the original items.
    pub fn score(&self) -> f64 {
        let mut sums = vec![0.0; self.form.width()];
        for stratum in &self.strata {
            for row in stratum.rows.chunks_exact(sums.len()) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        self.form.score(&sums)
    }

    /// Whether two scores have items with the same names.
    pub fn pairs_with(&self, other: &Self) -> bool {
        self.form == other.form
            && self.strata.len() == other.strata.len()
            && self.strata.iter().zip(&other.strata).all(|(a, b)| a.names == b.names)
    }

    /// Whether each item is right or wrong.
    pub(super) fn is_binary(&self) -> bool {
        let rows = self.strata.iter().flat_map(|stratum| stratum.rows.chunks_exact(2));
        self.form == ScoreFunction::Mean && rows.into_iter().all(|row| row[0] == 0.0 || row[0] == 1.0)
    }
}
