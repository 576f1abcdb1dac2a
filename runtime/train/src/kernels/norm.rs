//! Layer normalization over rows.

use super::{ACCUMULATORS, Element, dispatch, sum_accumulators};

#[inline(always)]
pub(super) fn row_sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut accumulators = [0.0f32; ACCUMULATORS];
    let chunks = row.chunks_exact(ACCUMULATORS);
    let tail = chunks.remainder();
    for chunk in chunks {
        for i in 0..ACCUMULATORS {
            accumulators[i] += term(chunk[i]);
        }
    }
    for (accumulator, &value) in accumulators.iter_mut().zip(tail) {
        *accumulator += term(value);
    }
    sum_accumulators(accumulators)
}

#[inline(always)]
fn apply_row<E: Element>(row: &[f32], mean: f32, rstd: f32, weight: &[E], bias: &[E], out: &mut [E]) {
    for (((out, &x), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
        *out = E::store((x - mean) * rstd * weight.load() + bias.load());
    }
}

dispatch! {
/// `out = (x − mean) / √(variance + ε) · weight + bias` for each row of `hidden` elements. Also writes each row's mean
/// and 1 / √(variance + ε).
pub fn norm_forward [E: Element] (
    x_th: &[f32],
    hidden: usize,
    epsilon: f32,
    weight_h: &[E],
    bias_h: &[E],
    out_th: &mut [E],
    mean_t: &mut [f32],
    rstd_t: &mut [f32],
) {
    let count = hidden as f32;
    let rows = x_th.chunks_exact(hidden).zip(out_th.chunks_exact_mut(hidden)).zip(mean_t.iter_mut().zip(rstd_t));
    for ((row, out), (mean, rstd)) in rows {
        let centre = row_sum(row, |x| x) / count;
        let variance = row_sum(row, |x| (x - centre) * (x - centre)) / count;
        *mean = centre;
        *rstd = 1.0 / (variance + epsilon).sqrt();
        apply_row(row, *mean, *rstd, weight_h, bias_h, out);
    }
}
}

dispatch! {
/// The output of [`norm_forward`] again, from its mean and reciprocal standard deviation: the same bits.
pub fn norm_apply [E: Element] (
    x_th: &[f32],
    hidden: usize,
    mean_t: &[f32],
    rstd_t: &[f32],
    weight_h: &[E],
    bias_h: &[E],
    out_th: &mut [E],
) {
    let rows = x_th.chunks_exact(hidden).zip(out_th.chunks_exact_mut(hidden)).zip(mean_t.iter().zip(rstd_t));
    for ((row, out), (&mean, &rstd)) in rows {
        apply_row(row, mean, rstd, weight_h, bias_h, out);
    }
}
}

dispatch! {
/// Adds the input's gradient to `dx_th`, and the gradients of weight and bias over these rows to `dweight_h` and
/// `dbias_h`.
pub fn norm_backward [E: Element] (
    dy_th: &[f32],
    x_th: &[f32],
    hidden: usize,
    mean_t: &[f32],
    rstd_t: &[f32],
    weight_h: &[E],
    dx_th: &mut [f32],
    dweight_h: &mut [f32],
    dbias_h: &mut [f32],
) {
    let count = hidden as f32;
    let rows = dy_th.chunks_exact(hidden).zip(x_th.chunks_exact(hidden)).zip(dx_th.chunks_exact_mut(hidden));
    for (((dy, x), dx), (&mean, &rstd)) in rows.zip(mean_t.iter().zip(rstd_t)) {
        let (mut sums, mut products) = ([0.0f32; ACCUMULATORS], [0.0f32; ACCUMULATORS]);
        let full = hidden / ACCUMULATORS * ACCUMULATORS;
        for start in (0..full).step_by(ACCUMULATORS) {
            let end = start + ACCUMULATORS;
            let (dy, x, weight) = (&dy[start..end], &x[start..end], &weight_h[start..end]);
            for i in 0..ACCUMULATORS {
                let g = dy[i] * weight[i].load();
                sums[i] += g;
                products[i] += g * ((x[i] - mean) * rstd);
            }
        }
        for (i, j) in (full..hidden).enumerate() {
            let g = dy[j] * weight_h[j].load();
            sums[i] += g;
            products[i] += g * ((x[j] - mean) * rstd);
        }
        let (sum, product) = (sum_accumulators(sums) / count, sum_accumulators(products) / count);
        let (dweight, dbias) = (&mut dweight_h[..hidden], &mut dbias_h[..hidden]);
        let (dy, x, weight, dx) = (&dy[..hidden], &x[..hidden], &weight_h[..hidden], &mut dx[..hidden]);
        for j in 0..hidden {
            let normal = (x[j] - mean) * rstd;
            let g = dy[j] * weight[j].load();
            dx[j] += rstd * (g - sum - normal * product);
            dweight[j] += dy[j] * normal;
            dbias[j] += dy[j];
        }
    }
}
}
