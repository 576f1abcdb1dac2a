//! The replicates of the bootstrap: scores of items drawn with repetition (Efron 1979), within each category, for
//! several scores together.
//!
//! Not here: the intervals of replicates ([`Interval`](super::Interval)), and which scores get one
//! (`report::uncertainty`, `gate`).

use rayon::prelude::*;

use super::scored_items::{ScoredItems, Stratum};
use crate::data::random::PhiloxKey;

/// Replicates of every interval: at 99%, ten are beyond each end.
pub const REPLICATES: usize = 2000;

/// How often each of `items` items is drawn in a replicate of as many draws. Draw `d` is word `d mod 4` of the counter
/// (`d ÷ 4`, replicate, 0, 0), scaled to the items.
fn draw(key: PhiloxKey, replicate: u32, times: &mut [f64]) {
    times.fill(0.0);
    let items = times.len() as u64;
    for block in 0..items.div_ceil(4) {
        let words = key.words([block as u32, replicate, (block >> 32) as u32, 0]);
        for word in words.into_iter().take((items - 4 * block).min(4) as usize) {
            times[((u64::from(word) * items) >> 32) as usize] += 1.0;
        }
    }
}

/// The scores of each replicate, in the order of `samples`. Scores whose items have the same names are drawn together, so
/// that any function of a row is a paired replicate of that function.
pub fn replicates(samples: &[&ScoredItems]) -> Vec<Vec<f64>> {
    let mut drawn: Vec<&Stratum> = Vec::new();
    let mut uses: Vec<Vec<(usize, &Stratum)>> = Vec::new();
    for (number, sample) in samples.iter().enumerate() {
        for stratum in &sample.strata {
            match drawn.iter().position(|known| known.names == stratum.names) {
                Some(at) => uses[at].push((number, stratum)),
                None => {
                    drawn.push(stratum);
                    uses.push(vec![(number, stratum)]);
                }
            }
        }
    }
    let keys: Vec<PhiloxKey> = drawn.iter().map(|stratum| stratum.key("bootstrap")).collect();
    let one = |replicate: usize| {
        let mut sums: Vec<Vec<f64>> = samples.iter().map(|sample| vec![0.0; sample.form.width()]).collect();
        let mut times = Vec::new();
        for ((stratum, key), uses) in drawn.iter().zip(&keys).zip(&uses) {
            times.resize(stratum.items, 0.0);
            draw(*key, replicate as u32, &mut times);
            for (number, stratum) in uses {
                let sums = &mut sums[*number];
                for (row, times) in stratum.rows.chunks_exact(sums.len()).zip(&times) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += times * value);
                }
            }
        }
        samples
            .iter()
            .zip(&sums)
            .map(|(sample, sums)| sample.form.score(sums))
            .collect()
    };
    (0..REPLICATES).into_par_iter().map(one).collect()
}
