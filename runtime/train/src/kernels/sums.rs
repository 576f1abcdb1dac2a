//! Sums: of partial results over shards, of columns, of squares; and the casts that go with them.

use super::{Element, LANES, dispatch};

/// Columns that a pass over rows keeps in registers.
const STRIP: usize = 64;
/// Rows that are added up before they join a column's total.
const RUN: usize = 32;

/// Element `j` of the tree sum of the slices: neighbours first, the odd one goes up as it is.
#[inline(always)]
fn tree_at<E: Element>(parts: &[&[E]], j: usize) -> f32 {
    match parts {
        [a] => a[j].load(),
        [a, b] => a[j].load() + b[j].load(),
        [a, b, c, d] => (a[j].load() + b[j].load()) + (c[j].load() + d[j].load()),
        _ => {
            let half = crate::parallel::tree_split(parts.len());
            tree_strip(&parts[..half], j) + tree_strip(&parts[half..], j)
        }
    }
}

fn tree_strip<E: Element>(parts: &[&[E]], j: usize) -> f32 {
    match parts {
        [a] => a[j].load(),
        _ => {
            let half = crate::parallel::tree_split(parts.len());
            tree_strip(&parts[..half], j) + tree_strip(&parts[half..], j)
        }
    }
}

#[inline(always)]
fn for_strips<E: Element>(parts: &[&[E]], length: usize, mut each: impl FnMut(usize, f32)) {
    // One arm a width, so that each loop is vector code.
    match *parts {
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
                each(j, tree_at(parts, j));
            }
        }
    }
}

dispatch! {
/// `out = tree sum of the parts (+ extra)`, in `f32`.
pub fn sum_partials [P: Element, E: Element] (parts: &[&[P]], extra: Option<&[E]>, out: &mut [f32]) {
    let length = out.len();
    match extra {
        None => for_strips(parts, length, |j, sum| out[j] = sum),
        Some(extra) => {
            let extra = &extra[..length];
            for_strips(parts, length, |j, sum| out[j] = sum + extra[j].load());
        }
    }
}
}

dispatch! {
/// `out = residual + (tree sum of the parts (+ bias))`, row by row of `width` elements.
pub fn add_residual [P: Element, E: Element] (
    parts: &[&[P]], width: usize, bias: Option<&[E]>, residual: &[f32], out: &mut [f32],
) {
    let Some(bias) = bias else {
        let residual = &residual[..out.len()];
        return for_strips(parts, out.len(), |j, sum| out[j] = residual[j] + sum);
    };
    let bias = &bias[..width];
    for (row, (out, residual)) in out.chunks_exact_mut(width).zip(residual.chunks_exact(width)).enumerate() {
        let range = row * width..(row + 1) * width;
        // Parts of this row, without an allocation for the usual numbers of them.
        match *parts {
            [a] => for_strips(&[&a[range]], width, |j, sum| out[j] = residual[j] + (sum + bias[j].load())),
            [a, b] => {
                let parts = [&a[range.clone()], &b[range]];
                for_strips(&parts, width, |j, sum| out[j] = residual[j] + (sum + bias[j].load()));
            }
            [a, b, c, d] => {
                let parts = [&a[range.clone()], &b[range.clone()], &c[range.clone()], &d[range]];
                for_strips(&parts, width, |j, sum| out[j] = residual[j] + (sum + bias[j].load()));
            }
            _ => {
                for j in 0..width {
                    out[j] = residual[j] + (tree_at(parts, range.start + j) + bias[j].load());
                }
            }
        }
    }
}
}

dispatch! {
/// Adds the sum over rows of each column of `values` (rows of `out.len()` elements) to `out`: rows in order, in runs
/// of 32.
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
/// Adds up the heads of each row: `out[row, offset..offset + d] = Σ values[row, head, 0..d]`, heads in order.
/// Rows of `out` hold `width` elements.
pub fn fold_heads [E: Element] (values: &[E], heads: usize, d: usize, out: &mut [f32], width: usize, offset: usize) {
    for (row, out) in values.chunks_exact(heads * d).zip(out.chunks_exact_mut(width)) {
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
/// Sum of squares in `f64`: sixteen interleaved accumulators, joined as a tree.
pub fn sum_squares [] (values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            let value = f64::from(chunk[i]);
            lanes[i] += value * value;
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(value) * f64::from(value);
    }
    crate::parallel::tree_sum(&lanes)
}
}
