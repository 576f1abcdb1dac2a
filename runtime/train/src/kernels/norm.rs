//! Layer normalisation over rows.

use super::{Element, LANES, dispatch, join};

#[inline(always)]
pub(super) fn row_sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += term(chunk[i]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane += term(value);
    }
    join(lanes)
}

#[inline(always)]
fn apply_row<E: Element>(row: &[f32], mean: f32, rstd: f32, weight: &[E], bias: &[E], out: &mut [E]) {
    for (((out, &x), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
        *out = E::store((x - mean) * rstd * weight.load() + bias.load());
    }
}

dispatch! {
/// `out = (x − mean) / √(variance + ε) · weight + bias` for each row of `hidden` elements; keeps the mean and the
/// reciprocal of the root.
pub fn norm_forward [E: Element] (
    x: &[f32],
    hidden: usize,
    epsilon: f32,
    weight: &[E],
    bias: &[E],
    out: &mut [E],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let count = hidden as f32;
    let rows = x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)).zip(mean.iter_mut().zip(rstd));
    for ((row, out), (mean, rstd)) in rows {
        let centre = row_sum(row, |x| x) / count;
        let variance = row_sum(row, |x| (x - centre) * (x - centre)) / count;
        *mean = centre;
        *rstd = 1.0 / (variance + epsilon).sqrt();
        apply_row(row, *mean, *rstd, weight, bias, out);
    }
}
}

dispatch! {
/// The output of [`norm_forward`] once more, from what it kept: the same bits.
pub fn norm_apply [E: Element] (
    x: &[f32],
    hidden: usize,
    mean: &[f32],
    rstd: &[f32],
    weight: &[E],
    bias: &[E],
    out: &mut [E],
) {
    let rows = x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)).zip(mean.iter().zip(rstd));
    for ((row, out), (&mean, &rstd)) in rows {
        apply_row(row, mean, rstd, weight, bias, out);
    }
}
}

dispatch! {
/// Adds the input's gradient to `dx`, and the gradients of weight and bias of these rows to `dweight` and `dbias`.
pub fn norm_backward [E: Element] (
    dy: &[f32],
    x: &[f32],
    hidden: usize,
    mean: &[f32],
    rstd: &[f32],
    weight: &[E],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let count = hidden as f32;
    let rows = dy.chunks_exact(hidden).zip(x.chunks_exact(hidden)).zip(dx.chunks_exact_mut(hidden));
    for (((dy, x), dx), (&mean, &rstd)) in rows.zip(mean.iter().zip(rstd)) {
        let (mut sums, mut products) = ([0.0f32; LANES], [0.0f32; LANES]);
        let whole = hidden / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            let (dy, x, weight) = (&dy[start..start + LANES], &x[start..start + LANES], &weight[start..start + LANES]);
            for i in 0..LANES {
                let g = dy[i] * weight[i].load();
                sums[i] += g;
                products[i] += g * ((x[i] - mean) * rstd);
            }
        }
        for (i, j) in (whole..hidden).enumerate() {
            let g = dy[j] * weight[j].load();
            sums[i] += g;
            products[i] += g * ((x[j] - mean) * rstd);
        }
        let (sum, product) = (join(sums) / count, join(products) / count);
        let (dweight, dbias) = (&mut dweight[..hidden], &mut dbias[..hidden]);
        let (dy, x, weight, dx) = (&dy[..hidden], &x[..hidden], &weight[..hidden], &mut dx[..hidden]);
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
