//! Learns byte-pair merges.
//!
//! In: words and how often each occurs, a number of merges. Out: the merges, in the order they were learned: always the
//! pair that occurs most often; ties go to the pair with the smaller ids. Nothing here depends on the order
//! of a hash map or on threads; the trainer of the `tokenizers` crate has several queue entries per pair, whose
//! order comes from a randomly seeded map. Not here: how text becomes words (`tokenizer`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Two neighbouring symbols.
pub type Pair = (u32, u32);

/// One learned rule: two symbols become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    pub pair: Pair,
    /// A new id, or an older one with the same text: `a` + `bc` and `ab` + `c` are one symbol.
    pub becomes: u32,
}

/// The training data: each word as symbols, and its count.
pub struct Words {
    symbols: Vec<Vec<u32>>,
    counts: Vec<u64>,
}

impl Words {
    /// The order of the words does not change the result.
    pub fn new(words: impl IntoIterator<Item = (Vec<u32>, u64)>) -> Self {
        let (symbols, counts) = words.into_iter().unzip();
        Self { symbols, counts }
    }
}

/// The state of a pair.
#[derive(Default)]
struct Place {
    count: u64,
    /// Words that may contain the pair; some no longer do.
    words: Vec<u32>,
}

/// Learns until the vocabulary has `vocabulary` entries, or no pair occurs `minimum` times. `texts` are the symbols known
/// at the start; the new ones are added to it. A merge whose text is in `forbidden` is never learned (special tokens).
/// `each` is called after every merge; learning ends early if it returns `false`.
pub fn learn(
    mut words: Words,
    texts: &mut Vec<String>,
    vocabulary: usize,
    minimum: u64,
    forbidden: &HashSet<String>,
    mut each: impl FnMut(usize) -> bool,
) -> Vec<Merge> {
    let mut ids: HashMap<String, u32> = texts.iter().cloned().zip(0..).collect();
    let mut places: HashMap<Pair, Place> = HashMap::new();
    for (word, symbols) in words.symbols.iter().enumerate() {
        for pair in symbols.windows(2) {
            let place = places.entry((pair[0], pair[1])).or_default();
            place.count += words.counts[word];
            if place.words.last() != Some(&(word as u32)) {
                place.words.push(word as u32);
            }
        }
    }
    // The queue may have outdated counts of a pair; they are corrected when they are taken out.
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> = places
        .iter()
        .map(|(&pair, place)| (place.count, Reverse(pair)))
        .collect();
    let minimum = minimum.max(1);
    let mut merges = Vec::new();
    let mut learned: HashSet<Pair> = HashSet::new();
    while texts.len() < vocabulary {
        let Some((count, Reverse(pair))) = queue.pop() else {
            break;
        };
        let now = places.get(&pair).map_or(0, |place| place.count);
        if now != count {
            if now >= minimum {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < minimum {
            break;
        }
        let text = format!("{}{}", texts[pair.0 as usize], texts[pair.1 as usize]);
        let Some(place) = places.remove(&pair) else { continue };
        if forbidden.contains(&text) {
            continue;
        }
        let becomes = *ids.entry(text).or_insert_with_key(|text| {
            texts.push(text.clone());
            texts.len() as u32 - 1
        });
        // A pair can occur again after it was learned, if another rule makes one of its symbols: it is the same rule.
        if learned.insert(pair) {
            merges.push(Merge { pair, becomes });
        }
        let changed = apply(&mut words, place.words, pair, becomes, &mut places);
        queue.extend(changed.into_iter().filter_map(|pair| {
            let count = places.get(&pair)?.count;
            (count >= minimum).then_some((count, Reverse(pair)))
        }));
        if !each(merges.len()) {
            break;
        }
    }
    merges
}

/// Merges one pair in the given words. Returns the pairs that are more frequent now.
fn apply(
    words: &mut Words,
    mut holders: Vec<u32>,
    pair: Pair,
    becomes: u32,
    places: &mut HashMap<Pair, Place>,
) -> HashSet<Pair> {
    holders.sort_unstable();
    holders.dedup();
    let mut grown = HashSet::new();
    for word in holders {
        let symbols = &mut words.symbols[word as usize];
        if !symbols.windows(2).any(|window| (window[0], window[1]) == pair) {
            continue;
        }
        let count = words.counts[word as usize];
        // The word's pairs are counted again. The merged pair itself no longer occurs, so its count is not needed.
        for window in symbols.windows(2) {
            if let Some(place) = places.get_mut(&(window[0], window[1])) {
                place.count -= count;
            }
        }
        merge(symbols, pair, becomes);
        for window in symbols.windows(2) {
            let neighbours = (window[0], window[1]);
            let place = places.entry(neighbours).or_default();
            place.count += count;
            if (neighbours.0 == becomes || neighbours.1 == becomes) && place.words.last() != Some(&word) {
                place.words.push(word);
                grown.insert(neighbours);
            }
        }
    }
    grown
}

/// Replaces the pair from left to right, as encoding does.
fn merge(symbols: &mut Vec<u32>, pair: Pair, becomes: u32) {
    let (mut read, mut write) = (0, 0);
    while read < symbols.len() {
        let merged = read + 1 < symbols.len() && (symbols[read], symbols[read + 1]) == pair;
        symbols[write] = if merged { becomes } else { symbols[read] };
        read += if merged { 2 } else { 1 };
        write += 1;
    }
    symbols.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(alphabet: &str) -> Vec<String> {
        alphabet.chars().map(String::from).collect()
    }

    fn words(texts: &[(&str, u64)], alphabet: &str) -> Words {
        let id = |c| alphabet.find(c).expect("in the alphabet") as u32;
        Words::new(
            texts
                .iter()
                .map(|(text, count)| (text.chars().map(id).collect(), *count)),
        )
    }

    /// The simplest implementation: counts all pairs again before every merge.
    fn plainly(words: &[(Vec<u32>, u64)], texts: &mut Vec<String>, vocabulary: usize, minimum: u64) -> Vec<Merge> {
        let mut words = words.to_vec();
        let mut merges: Vec<Merge> = Vec::new();
        while texts.len() < vocabulary {
            let mut counts: HashMap<Pair, u64> = HashMap::new();
            for (symbols, count) in &words {
                for window in symbols.windows(2) {
                    *counts.entry((window[0], window[1])).or_default() += count;
                }
            }
            let best = counts.into_iter().max_by_key(|&(pair, count)| (count, Reverse(pair)));
            let Some((pair, _)) = best.filter(|&(_, count)| count >= minimum.max(1)) else {
                break;
            };
            let text = format!("{}{}", texts[pair.0 as usize], texts[pair.1 as usize]);
            let known = texts.iter().position(|known| *known == text);
            let becomes = known.unwrap_or(texts.len()) as u32;
            if known.is_none() {
                texts.push(text);
            }
            if merges.iter().all(|merge| merge.pair != pair) {
                merges.push(Merge { pair, becomes });
            }
            for (symbols, _) in &mut words {
                merge(symbols, pair, becomes);
            }
        }
        merges
    }

    proptest! {
        #[test]
        fn the_queue_learns_what_plain_counting_learns(
            words in proptest::collection::vec((proptest::collection::vec(0u32..4, 1..12), 1u64..6), 1..40),
            vocabulary in 4usize..60,
            minimum in 0u64..4,
        ) {
            let mut plain_texts = start("abcd");
            let plain = plainly(&words, &mut plain_texts, vocabulary, minimum);
            for turn in 0..2 {
                let mut words = words.clone();
                if turn == 1 {
                    words.reverse();
                }
                let mut texts = start("abcd");
                let merges = learn(Words::new(words), &mut texts, vocabulary, minimum, &HashSet::new(), |_| true);
                prop_assert_eq!(&merges, &plain);
                prop_assert_eq!(&texts, &plain_texts);
            }
        }
    }

    #[test]
    fn equal_counts_go_by_the_smaller_ids() {
        let mut texts = start("abcd");
        let merges = learn(
            words(&[("cd", 3), ("ab", 3)], "abcd"),
            &mut texts,
            6,
            0,
            &HashSet::new(),
            |_| true,
        );
        assert_eq!(
            merges.iter().map(|merge| merge.pair).collect::<Vec<_>>(),
            [(0, 1), (2, 3)]
        );
        assert_eq!(texts[4..], ["ab", "cd"]);
    }

    #[test]
    fn rare_and_forbidden_pairs_are_not_learned() {
        let learned = |minimum, forbidden: &[&str]| {
            let mut texts = start("abcd");
            let forbidden = forbidden.iter().map(|&text| text.to_owned()).collect();
            learn(
                words(&[("ab", 3), ("cd", 2)], "abcd"),
                &mut texts,
                9,
                minimum,
                &forbidden,
                |_| true,
            );
            texts[4..].to_vec()
        };
        assert_eq!(learned(2, &[]), ["ab", "cd"]);
        assert_eq!(learned(3, &[]), ["ab"]);
        assert_eq!(learned(0, &["ab"]), ["cd"]);
    }
}
