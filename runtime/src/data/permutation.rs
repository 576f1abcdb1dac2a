//! A shuffle of `0..n` that maps any position in constant time.
//!
//! In: a key, the length, a tweak (an epoch, a block). Out: the new position of a position, and the other way round. A Feistel network over pairs (left,
//! right) of nearly equal ranges whose product is barely more than `n`; a result outside `0..n` is mapped again
//! (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Not here: what the positions mean (`order`).

use super::random::PhiloxKey;

/// Enough rounds for every pair of positions to appear independent (the tests count); more rounds only take time.
const ROUNDS: u32 = 8;

/// The shape of a permutation of `0..length`; the key and tweak choose which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    length: u64,
    left: u64,
    right: u64,
}

impl Permutation {
    /// `length` may be anything up to 2⁶³; a permutation of length 0 has no positions.
    pub fn new(length: u64) -> Self {
        let mut left = length.isqrt();
        if left * left < length {
            left += 1;
        }
        let left = left.max(1);
        Self {
            length,
            left,
            right: length.div_ceil(left).max(1),
        }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// The new position of `place`.
    ///
    /// # Panics
    /// If `place` is not below the length.
    #[inline]
    pub fn apply(&self, key: PhiloxKey, tweak: u64, place: u64) -> u64 {
        assert!(place < self.length, "place {place} of a permutation of {}", self.length);
        let mut at = place;
        loop {
            at = self.once(key, tweak, at);
            if at < self.length {
                return at;
            }
        }
    }

    /// The position whose new position is `at`: the inverse of [`apply`](Self::apply), at the same cost.
    ///
    /// # Panics
    /// If `at` is not below the length.
    #[inline]
    pub fn invert(&self, key: PhiloxKey, tweak: u64, at: u64) -> u64 {
        assert!(at < self.length, "place {at} of a permutation of {}", self.length);
        // `apply` skips the results outside the range: the way back skips them in the opposite order.
        let mut place = at;
        loop {
            place = self.once_back(key, tweak, place);
            if place < self.length {
                return place;
            }
        }
    }

    /// One pass over the whole rectangle `left` × `right`: a bijection of it, as each round only adds to one half a
    /// number that depends on the other.
    #[inline]
    fn once(&self, key: PhiloxKey, tweak: u64, at: u64) -> u64 {
        let (mut left, mut right) = (at / self.right, at % self.right);
        for round in (0..ROUNDS).step_by(2) {
            left = add(left, draw(key, tweak, round, right, self.left), self.left);
            right = add(right, draw(key, tweak, round + 1, left, self.right), self.right);
        }
        left * self.right + right
    }

    /// The inverse of [`once`](Self::once): the rounds in reverse, each subtracted.
    #[inline]
    fn once_back(&self, key: PhiloxKey, tweak: u64, at: u64) -> u64 {
        let (mut left, mut right) = (at / self.right, at % self.right);
        for round in (0..ROUNDS).step_by(2).rev() {
            right = subtract(right, draw(key, tweak, round + 1, left, self.right), self.right);
            left = subtract(left, draw(key, tweak, round, right, self.left), self.left);
        }
        left * self.right + right
    }
}

#[inline]
fn add(a: u64, b: u64, modulus: u64) -> u64 {
    let sum = a + b;
    if sum >= modulus { sum - modulus } else { sum }
}

#[inline]
fn subtract(a: u64, b: u64, modulus: u64) -> u64 {
    if a >= b { a - b } else { a + modulus - b }
}

/// A number in `0..bound`. Both halves are below 2³², so each fits in one counter word.
#[inline]
fn draw(key: PhiloxKey, tweak: u64, round: u32, half: u64, bound: u64) -> u64 {
    let words = key.words([half as u32, round, tweak as u32, (tweak >> 32) as u32]);
    let word = u64::from(words[1]) << 32 | u64::from(words[0]);
    ((u128::from(word) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_bijection(length in 1u64..5000, seed: u64, tweak: u64) {
            let permutation = Permutation::new(length);
            let key = PhiloxKey::derive(seed, "test");
            let mut seen = vec![false; length as usize];
            for place in 0..length {
                let to = permutation.apply(key, tweak, place) as usize;
                prop_assert!(!std::mem::replace(&mut seen[to], true), "{to} twice");
            }
        }

        #[test]
        fn the_inverse_is_exact_at_any_length(
            length in prop_oneof![1u64..5000, 1u64..(1 << 63)],
            seed: u64,
            tweak: u64,
            part in 0.0f64..1.0,
        ) {
            let permutation = Permutation::new(length);
            let key = PhiloxKey::derive(seed, "test");
            let place = ((length as f64 * part) as u64).min(length - 1);
            prop_assert_eq!(permutation.invert(key, tweak, permutation.apply(key, tweak, place)), place);
            prop_assert_eq!(permutation.apply(key, tweak, permutation.invert(key, tweak, place)), place);
        }

        #[test]
        fn keeps_its_range_at_any_length(length in 1u64..(1 << 63), seed: u64, part in 0.0f64..1.0) {
            let permutation = Permutation::new(length);
            let place = ((length as f64 * part) as u64).min(length - 1);
            prop_assert!(permutation.apply(PhiloxKey::derive(seed, "test"), 3, place) < length);
            prop_assert!(u128::from(permutation.left) * u128::from(permutation.right) >= u128::from(length));
            prop_assert!(permutation.left <= 1 << 32 && permutation.right <= 1 << 32);
        }
    }

    /// All 24 orders of four places are equally frequent (chi-square, 23 degrees of freedom, far beyond 99.99 %).
    #[test]
    fn small_permutations_are_uniform() {
        let permutation = Permutation::new(4);
        let key = PhiloxKey::derive(1, "uniform");
        let mut counts = std::collections::BTreeMap::new();
        let tries = 24_000u64;
        for tweak in 0..tries {
            let order: Vec<u64> = (0..4).map(|place| permutation.apply(key, tweak, place)).collect();
            *counts.entry(order).or_insert(0u64) += 1;
        }
        let expected = tries as f64 / 24.0;
        assert_eq!(counts.len(), 24);
        let chi: f64 = counts
            .values()
            .map(|&count| (count as f64 - expected).powi(2) / expected)
            .sum();
        assert!(chi < 60.0, "chi-square {chi}");
    }

    /// The new position of a position does not depend on that of its neighbour, or on the next epoch.
    #[test]
    fn neighbours_and_epochs_are_independent() {
        let length = 100_003u64;
        let permutation = Permutation::new(length);
        let key = PhiloxKey::derive(2, "independent");
        let mut tables = [[0u64; 256]; 2];
        for place in 0..length - 1 {
            let cell = |at: u64| (at * 16 / length) as usize;
            let here = cell(permutation.apply(key, 0, place));
            tables[0][here * 16 + cell(permutation.apply(key, 0, place + 1))] += 1;
            tables[1][here * 16 + cell(permutation.apply(key, 1, place))] += 1;
        }
        for table in tables {
            let expected = (length - 1) as f64 / 256.0;
            let chi: f64 = table
                .iter()
                .map(|&count| (count as f64 - expected).powi(2) / expected)
                .sum();
            assert!(
                (100.0..400.0).contains(&chi),
                "chi-square {chi} of 255 degrees of freedom"
            );
        }
    }
}
