//! Softmax cross-entropy over a vocabulary that is cut into shards.
//!
//! In the order of use: maxima per shard, their maximum over shards (exact, any order), exponentials and row sums per
//! shard, tree sum over shards, losses, gradient.

use super::{Element, LANES, dispatch, exp, join, log};

dispatch! {
/// Raises `maxima` to the largest logit of each row.
pub fn row_maxima [E: Element] (logits: &[E], width: usize, maxima: &mut [f32]) {
    for (row, maximum) in logits.chunks_exact(width).zip(maxima) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = row.chunks_exact(LANES);
        let tail = chunks.remainder();
        for chunk in chunks {
            for i in 0..LANES {
                let value = chunk[i].load();
                lanes[i] = if value > lanes[i] { value } else { lanes[i] };
            }
        }
        for (lane, value) in lanes.iter_mut().zip(tail) {
            *lane = if value.load() > *lane { value.load() } else { *lane };
        }
        for lane in lanes {
            *maximum = if lane > *maximum { lane } else { *maximum };
        }
    }
}
}

dispatch! {
/// Writes exp(logit − maximum) over the logits (if `keep`) and the sum of each row to `sums`.
pub fn row_sums [E: Element] (logits: &mut [E], width: usize, maxima: &[f32], sums: &mut [f32], keep: bool) {
    for ((row, &maximum), sum) in logits.chunks_exact_mut(width).zip(maxima).zip(sums) {
        let mut lanes = [0.0f32; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            let mut powers = [0.0f32; LANES];
            for i in 0..LANES {
                powers[i] = exp(chunk[i].load() - maximum);
                lanes[i] += powers[i];
            }
            if keep {
                for i in 0..LANES {
                    chunk[i] = E::store(powers[i]);
                }
            }
        }
        for (lane, value) in lanes.iter_mut().zip(chunks.into_remainder()) {
            let power = exp(value.load() - maximum);
            *lane += power;
            if keep {
                *value = E::store(power);
            }
        }
        *sum = join(lanes);
    }
}
}

/// −ln p of each row's target, in nats: ln(sum) + maximum − target's logit.
pub fn row_losses(sums: &[f32], maxima: &[f32], targets: &[f32], losses: &mut [f64]) {
    for (((loss, &sum), &maximum), &target) in losses.iter_mut().zip(sums).zip(maxima).zip(targets) {
        *loss = log(f64::from(sum)) + f64::from(maximum) - f64::from(target);
    }
}

dispatch! {
/// Turns exponentials into the gradient of −ln p by the logits, in place: exponential / sum, less 1 at the target.
/// `targets` are places within this shard; what lies outside it belongs to another.
pub fn loss_gradient [E: Element] (exponentials: &mut [E], width: usize, sums: &[f32], targets: &[i64]) {
    for ((row, &sum), &target) in exponentials.chunks_exact_mut(width).zip(sums).zip(targets) {
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
