//! Root-mean-square normalisation over rows, as Llama has it: no mean, no bias.

use super::norm::row_sum;
use super::{Element, LANES, dispatch, join};

#[inline(always)]
fn apply_row<E: Element>(row: &[f32], rstd: f32, weight: &[E], out: &mut [E]) {
    for ((out, &x), weight) in out.iter_mut().zip(row).zip(weight) {
        *out = E::store(x * rstd * weight.load());
    }
}

dispatch! {
/// `out = x / √(mean of x² + ε) · weight` for each row of `hidden` elements; keeps the reciprocal of the root.
///
/// Source: Zhang and Sennrich 2019, eq. 4; ε under the root as in Llama.
pub fn rms_norm_forward [E: Element] (
    x: &[f32],
    hidden: usize,
    epsilon: f32,
    weight: &[E],
    out: &mut [E],
    rstd: &mut [f32],
) {
    let count = hidden as f32;
    for ((row, out), rstd) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)).zip(rstd) {
        let square = row_sum(row, |x| x * x) / count;
        *rstd = 1.0 / (square + epsilon).sqrt();
        apply_row(row, *rstd, weight, out);
    }
}
}

dispatch! {
/// The output of [`rms_norm_forward`] once more, from what it kept: the same bits.
pub fn rms_norm_apply [E: Element] (x: &[f32], hidden: usize, rstd: &[f32], weight: &[E], out: &mut [E]) {
    for ((row, out), &rstd) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)).zip(rstd) {
        apply_row(row, rstd, weight, out);
    }
}
}

dispatch! {
/// Adds the input's gradient to `dx`, and the weight's gradient of these rows to `dweight`.
pub fn rms_norm_backward [E: Element] (
    dy: &[f32],
    x: &[f32],
    hidden: usize,
    rstd: &[f32],
    weight: &[E],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let count = hidden as f32;
    let rows = dy.chunks_exact(hidden).zip(x.chunks_exact(hidden)).zip(dx.chunks_exact_mut(hidden));
    for (((dy, x), dx), &rstd) in rows.zip(rstd) {
        let mut products = [0.0f32; LANES];
        let whole = hidden / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            let (dy, x, weight) = (&dy[start..start + LANES], &x[start..start + LANES], &weight[start..start + LANES]);
            for i in 0..LANES {
                products[i] += dy[i] * weight[i].load() * (x[i] * rstd);
            }
        }
        for (i, j) in (whole..hidden).enumerate() {
            products[i] += dy[j] * weight[j].load() * (x[j] * rstd);
        }
        let product = join(products) / count;
        let (dy, x, weight) = (&dy[..hidden], &x[..hidden], &weight[..hidden]);
        let (dx, dweight) = (&mut dx[..hidden], &mut dweight[..hidden]);
        for j in 0..hidden {
            let normal = x[j] * rstd;
            dx[j] += rstd * (dy[j] * weight[j].load() - normal * product);
            dweight[j] += dy[j] * normal;
        }
    }
}
}
