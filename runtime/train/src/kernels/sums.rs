//! Sums of partial results over shards, of columns and of squares, and casts.

use super::{ACCUMULATORS, Element, dispatch};

/// Columns whose sums stay in registers during a pass over rows.
const STRIP: usize = 64;
/// Rows that are added before their sum is added to a column's total.
const RUN: usize = 32;

/// Element `j` of the tree sum of the slices: neighbours are added first, an odd one moves up unchanged.
#[inline(always)]
fn tree_at<E: Element>(partials: &[&[E]], j: usize) -> f32 {
    match partials {
        [a] => a[j].load(),
        [a, b] => a[j].load() + b[j].load(),
        [a, b, c, d] => (a[j].load() + b[j].load()) + (c[j].load() + d[j].load()),
        _ => {
            let half = crate::parallel::tree_split(partials.len());
            tree_strip(&partials[..half], j) + tree_strip(&partials[half..], j)
        }
    }
}

fn tree_strip<E: Element>(partials: &[&[E]], j: usize) -> f32 {
    match partials {
        [a] => a[j].load(),
        _ => {
            let half = crate::parallel::tree_split(partials.len());
            tree_strip(&partials[..half], j) + tree_strip(&partials[half..], j)
        }
    }
}

#[inline(always)]
fn for_strips<E: Element>(partials: &[&[E]], length: usize, mut each: impl FnMut(usize, f32)) {
    // One arm per number of partials, so that each loop becomes vector code.
    match *partials {
        [a] => {
            let a = &a[..length];
            for j in 0..length {
                each(j, a[j].load());
            }
        }
        [a, b] => {
            let (a, b) = (&a[..length], &b[..length]);
            for j in 0..length {
                each(j, a[j].load() + b[j].load());
            }
        }
        [a, b, c, d] => {
            let (a, b, c, d) = (&a[..length], &b[..length], &c[..length], &d[..length]);
            for j in 0..length {
                each(j, (a[j].load() + b[j].load()) + (c[j].load() + d[j].load()));
            }
        }
        _ => {
            for j in 0..length {
                each(j, tree_at(partials, j));
            }
        }
    }
}

dispatch! {
/// `out = tree sum of the partials (+ extra)`, in `f32`.
pub fn sum_partials [P: Element, E: Element] (partials: &[&[P]], extra: Option<&[E]>, out: &mut [f32]) {
    let length = out.len();
    match extra {
        None => for_strips(partials, length, |j, sum| out[j] = sum),
        Some(extra) => {
            let extra = &extra[..length];
            for_strips(partials, length, |j, sum| out[j] = sum + extra[j].load());
        }
    }
}
}

dispatch! {
/// `out = residual + (tree sum of the partials (+ bias))`, in rows of `width` elements.
pub fn add_residual [P: Element, E: Element] (
    partials: &[&[P]], width: usize, bias_h: Option<&[E]>, residual_th: &[f32], out_th: &mut [f32],
) {
    let Some(bias) = bias_h else {
        let residual = &residual_th[..out_th.len()];
        return for_strips(partials, out_th.len(), |j, sum| out_th[j] = residual[j] + sum);
    };
    let bias = &bias[..width];
    let rows = out_th.chunks_exact_mut(width).zip(residual_th.chunks_exact(width));
    for (row, (out, residual)) in rows.enumerate() {
        let range = row * width..(row + 1) * width;
        // The partials of this row, without an allocation for usual numbers of shards.
        match *partials {
            [a] => for_strips(&[&a[range]], width, |j, sum| out[j] = residual[j] + (sum + bias[j].load())),
            [a, b] => {
                let partials = [&a[range.clone()], &b[range]];
                for_strips(&partials, width, |j, sum| out[j] = residual[j] + (sum + bias[j].load()));
            }
            [a, b, c, d] => {
                let partials = [&a[range.clone()], &b[range.clone()], &c[range.clone()], &d[range]];
                for_strips(&partials, width, |j, sum| out[j] = residual[j] + (sum + bias[j].load()));
            }
            _ => {
                for j in 0..width {
                    out[j] = residual[j] + (tree_at(partials, range.start + j) + bias[j].load());
                }
            }
        }
    }
}
}

dispatch! {
/// Adds the sum over rows of each column of `values` (rows of `out.len()` elements) to `out`: rows in order, in runs of
/// 32.
pub fn column_sums [E: Element] (values: &[E], out: &mut [f32]) {
    let width = out.len();
    for run in values.chunks(width * RUN) {
        let mut start = 0;
        while start + STRIP <= width {
            let mut sums = [0.0f32; STRIP];
            for row in run.chunks_exact(width) {
                let row = &row[start..start + STRIP];
                for i in 0..STRIP {
                    sums[i] += row[i].load();
                }
            }
            for i in 0..STRIP {
                out[start + i] += sums[i];
            }
            start += STRIP;
        }
        for j in start..width {
            let mut sum = 0.0f32;
            for row in run.chunks_exact(width) {
                sum += row[j].load();
            }
            out[j] += sum;
        }
    }
}
}

dispatch! {
/// `total += values`.
pub fn accumulate [E: Element] (total: &mut [f32], values: &[E]) {
    for (total, value) in total.iter_mut().zip(values) {
        *total += value.load();
    }
}
}

dispatch! {
/// Rounds to the element type.
pub fn cast [E: Element] (from: &[f32], to: &mut [E]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = E::store(from);
    }
}
}

dispatch! {
/// Adds the heads of each row: `out[row, offset..offset + d] = Σ values_ta[row, head, 0..d]`, heads in order. Rows of
/// `out` have `width` elements.
pub fn fold_heads [E: Element] (
    values_ta: &[E], heads: usize, d: usize, out: &mut [f32], width: usize, offset: usize,
) {
    for (row, out) in values_ta.chunks_exact(heads * d).zip(out.chunks_exact_mut(width)) {
        let out = &mut out[offset..offset + d];
        for (out, value) in out.iter_mut().zip(&row[..d]) {
            *out = value.load();
        }
        for head in row[d..].chunks_exact(d) {
            for (out, value) in out.iter_mut().zip(head) {
                *out += value.load();
            }
        }
    }
}
}

dispatch! {
/// Sum of squares in `f64`: sixteen interleaved accumulators, added as a tree.
pub fn sum_squares [] (values: &[f32]) -> f64 {
    let mut accumulators = [0.0f64; ACCUMULATORS];
    let chunks = values.chunks_exact(ACCUMULATORS);
    let tail = chunks.remainder();
    for chunk in chunks {
        for i in 0..ACCUMULATORS {
            let value = f64::from(chunk[i]);
            accumulators[i] += value * value;
        }
    }
    for (accumulator, &value) in accumulators.iter_mut().zip(tail) {
        *accumulator += f64::from(value) * f64::from(value);
    }
    crate::parallel::tree_sum(&accumulators)
}
}
