//! Root-mean-square normalization over rows, as in Llama: no mean, no bias.

use super::norm::row_sum;
use super::{ACCUMULATORS, Element, dispatch, sum_accumulators};

#[inline(always)]
fn apply_row<E: Element>(row: &[f32], rstd: f32, weight: &[E], out: &mut [E]) {
    for ((out, &x), weight) in out.iter_mut().zip(row).zip(weight) {
        *out = E::store(x * rstd * weight.load());
    }
}

dispatch! {
/// `out = x / √(mean of x² + ε) · weight` for each row of `hidden` elements. Also writes each row's 1 / √(mean of x² +
/// ε).
///
/// Source: Zhang and Sennrich 2019, eq. 4; ε under the root as in Llama.
pub fn rms_norm_forward [E: Element] (
    x_th: &[f32],
    hidden: usize,
    epsilon: f32,
    weight_h: &[E],
    out_th: &mut [E],
    rstd_t: &mut [f32],
) {
    let count = hidden as f32;
    for ((row, out), rstd) in x_th.chunks_exact(hidden).zip(out_th.chunks_exact_mut(hidden)).zip(rstd_t) {
        let square = row_sum(row, |x| x * x) / count;
        *rstd = 1.0 / (square + epsilon).sqrt();
        apply_row(row, *rstd, weight_h, out);
    }
}
}

dispatch! {
/// The output of [`rms_norm_forward`] again, from its reciprocal root: the same bits.
pub fn rms_norm_apply [E: Element] (
    x_th: &[f32], hidden: usize, rstd_t: &[f32], weight_h: &[E], out_th: &mut [E],
) {
    for ((row, out), &rstd) in x_th.chunks_exact(hidden).zip(out_th.chunks_exact_mut(hidden)).zip(rstd_t) {
        apply_row(row, rstd, weight_h, out);
    }
}
}

dispatch! {
/// Adds the input's gradient to `dx_th`, and the weight's gradient over these rows to `dweight_h`.
pub fn rms_norm_backward [E: Element] (
    dy_th: &[f32],
    x_th: &[f32],
    hidden: usize,
    rstd_t: &[f32],
    weight_h: &[E],
    dx_th: &mut [f32],
    dweight_h: &mut [f32],
) {
    let count = hidden as f32;
    let rows = dy_th.chunks_exact(hidden).zip(x_th.chunks_exact(hidden)).zip(dx_th.chunks_exact_mut(hidden));
    for (((dy, x), dx), &rstd) in rows.zip(rstd_t) {
        let mut products = [0.0f32; ACCUMULATORS];
        let full = hidden / ACCUMULATORS * ACCUMULATORS;
        for start in (0..full).step_by(ACCUMULATORS) {
            let end = start + ACCUMULATORS;
            let (dy, x, weight) = (&dy[start..end], &x[start..end], &weight_h[start..end]);
            for i in 0..ACCUMULATORS {
                products[i] += dy[i] * weight[i].load() * (x[i] * rstd);
            }
        }
        for (i, j) in (full..hidden).enumerate() {
            products[i] += dy[j] * weight_h[j].load() * (x[j] * rstd);
        }
        let product = sum_accumulators(products) / count;
        let (dy, x, weight) = (&dy[..hidden], &x[..hidden], &weight_h[..hidden]);
        let (dx, dweight) = (&mut dx[..hidden], &mut dweight_h[..hidden]);
        for j in 0..hidden {
            let normal = x[j] * rstd;
            dx[j] += rstd * (dy[j] * weight[j].load() - normal * product);
            dweight[j] += dy[j] * normal;
        }
    }
}
}
