//! Softmax cross-entropy over a sharded vocabulary.
//!
//! In the order of use: maxima by shard, their maximum over shards (exact, any order), exponentials and row sums by
//! shard, tree sum over shards, losses, gradient.

use super::{ACCUMULATORS, Element, dispatch, exp, log, sum_accumulators};

dispatch! {
/// Raises `maxima_r` to the largest logit of each row.
pub fn row_maxima [E: Element] (logits_rv: &[E], width: usize, maxima_r: &mut [f32]) {
    for (row, maximum) in logits_rv.chunks_exact(width).zip(maxima_r) {
        let mut accumulators = [f32::NEG_INFINITY; ACCUMULATORS];
        let chunks = row.chunks_exact(ACCUMULATORS);
        let tail = chunks.remainder();
        for chunk in chunks {
            for i in 0..ACCUMULATORS {
                let value = chunk[i].load();
                accumulators[i] = if value > accumulators[i] { value } else { accumulators[i] };
            }
        }
        for (accumulator, value) in accumulators.iter_mut().zip(tail) {
            *accumulator = if value.load() > *accumulator { value.load() } else { *accumulator };
        }
        for accumulator in accumulators {
            *maximum = if accumulator > *maximum { accumulator } else { *maximum };
        }
    }
}
}

dispatch! {
/// Writes the sum over each row of exp(logit − maximum) to `sums_r`; with `keep` the exponentials replace the logits.
pub fn row_sums [E: Element] (
    logits_rv: &mut [E], width: usize, maxima_r: &[f32], sums_r: &mut [f32], keep: bool,
) {
    for ((row, &maximum), sum) in logits_rv.chunks_exact_mut(width).zip(maxima_r).zip(sums_r) {
        let mut accumulators = [0.0f32; ACCUMULATORS];
        let mut chunks = row.chunks_exact_mut(ACCUMULATORS);
        for chunk in &mut chunks {
            let mut exps = [0.0f32; ACCUMULATORS];
            for i in 0..ACCUMULATORS {
                exps[i] = exp(chunk[i].load() - maximum);
                accumulators[i] += exps[i];
            }
            if keep {
                for i in 0..ACCUMULATORS {
                    chunk[i] = E::store(exps[i]);
                }
            }
        }
        for (accumulator, value) in accumulators.iter_mut().zip(chunks.into_remainder()) {
            let exp_value = exp(value.load() - maximum);
            *accumulator += exp_value;
            if keep {
                *value = E::store(exp_value);
            }
        }
        *sum = sum_accumulators(accumulators);
    }
}
}

/// −ln p of each row's target, in nats: ln(sum) + maximum − target's logit.
pub fn row_losses(sums_r: &[f32], maxima_r: &[f32], target_logits_r: &[f32], losses: &mut [f64]) {
    for (((loss, &sum), &maximum), &target) in losses.iter_mut().zip(sums_r).zip(maxima_r).zip(target_logits_r) {
        *loss = log(f64::from(sum)) + f64::from(maximum) - f64::from(target);
    }
}

dispatch! {
/// Replaces exponentials by the gradient of −ln p: exponential / sum, minus 1 at the target. `targets_r` are columns of
/// this shard; a target outside belongs to another shard.
pub fn loss_gradient [E: Element] (exps_rv: &mut [E], width: usize, sums_r: &[f32], targets_r: &[i64]) {
    for ((row, &sum), &target) in exps_rv.chunks_exact_mut(width).zip(sums_r).zip(targets_r) {
        let scale = 1.0 / sum;
        let at_target = usize::try_from(target).ok().and_then(|at| Some((at, row.get(at)?.load() * scale - 1.0)));
        for value in row.iter_mut() {
            *value = E::store(value.load() * scale);
        }
        if let Some((at, value)) = at_target {
            row[at] = E::store(value);
        }
    }
}
}
