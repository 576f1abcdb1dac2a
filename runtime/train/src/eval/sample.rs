//! The next token of a generated text: the most likely one, or one drawn with a random number that belongs to its
//! position.

use aurora_runtime::data::random::PhiloxKey;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// None: always the most likely token.
    pub temperature: Option<f64>,
    /// Only the most likely tokens with this total probability.
    pub top_p: f64,
}

/// The most likely token. Ties go to the first.
fn most_likely(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// Chooses token `position` of the answer with random key `key`. The same logits give the same token on every machine.
pub fn choose(logits: &[f32], how: Sampling, key: PhiloxKey, position: u32) -> u32 {
    let best = most_likely(logits);
    let Some(temperature) = how.temperature else {
        return best as u32;
    };
    let maximum = f64::from(logits[best]);
    let mut exps: Vec<(f64, usize)> = logits
        .iter()
        .map(|logit| libm::exp((f64::from(*logit) - maximum) / temperature))
        .zip(0..)
        .collect();
    // Most likely first. Ties go to the first.
    exps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let all: f64 = exps.iter().map(|(value, _)| value).sum();
    let mut kept = 0.0;
    let mut count = 0;
    while count < exps.len() && (count == 0 || kept < how.top_p * all) {
        kept += exps[count].0;
        count += 1;
    }
    let [low, high, ..] = key.words([position, 0, 0, 0]);
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    let random = ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 * STEP;
    let mut left = random * kept;
    for (value, id) in &exps[..count] {
        left -= value;
        if left < 0.0 {
            return *id as u32;
        }
    }
    exps[count - 1].1 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities_and_repeat() {
        // Probabilities 1/4, 1/2, 1/4.
        let logits = [0.0, (2.0f32).ln(), 0.0];
        let key = PhiloxKey::derive(7, "answer");
        let draw = |how: Sampling| {
            let mut counts = [0u32; 3];
            for position in 0..4000 {
                counts[choose(&logits, how, key, position) as usize] += 1;
            }
            counts
        };
        let greedy = Sampling {
            temperature: None,
            top_p: 1.0,
        };
        assert_eq!(draw(greedy), [0, 4000, 0]);
        let warm = Sampling {
            temperature: Some(1.0),
            top_p: 1.0,
        };
        let counts = draw(warm);
        assert_eq!(counts, draw(warm));
        for (count, expected) in counts.iter().zip([1000, 2000, 1000]) {
            assert!(count.abs_diff(expected) < 130, "{counts:?}");
        }
        // The first token reaches 1/2; the first two together 3/4.
        assert_eq!(draw(Sampling { top_p: 0.5, ..warm }), [0, 4000, 0]);
        let counts = draw(Sampling { top_p: 0.75, ..warm });
        assert!(counts[2] == 0 && counts[0].abs_diff(1333) < 130, "{counts:?}");
        let cold = Sampling {
            temperature: Some(0.05),
            top_p: 1.0,
        };
        assert_eq!(draw(cold), [0, 4000, 0]);
    }
}
