//! Causal attention, forward and backward: one head and one block of rows at a time.
//!
//! Scores, shares and all sums are `f32` whatever the element type. Sums over keys, over queries of a block and over
//! the elements of a head are chains of [`gemm`](super::gemm); those over a row of shares have sixteen interleaved
//! accumulators. Nothing depends on which heads or sequences stand in the same call.
//!
//! Sources: Vaswani et al. 2017, eq. 1; backward from row sums and kept logarithms as in Dao et al. 2022, algorithm 4.

use std::cell::Cell;
use std::ops::Range;

mod step;
#[cfg(test)]
mod tests;

pub use step::attention_step;

use super::gemm::{blocks, product_at};
use super::sums::accumulate;
use super::{Element, Finish, LANES, Level, Matrix, dispatch, exp, join, level, log};

/// Query rows that are worked on at a time. Part of the result: the gradients of keys and values by a head are added up
/// block by block.
const BLOCK: usize = 64;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    pub sequences: usize,
    /// Positions of a sequence.
    pub sequence: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`: query head `h` looks at head `h · kv_heads / heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub d: usize,
}

impl Attention {
    /// Heads that look at the same keys and values.
    fn shared(&self) -> usize {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads cannot share {} heads of keys and values",
            self.heads,
            self.kv_heads
        );
        self.heads / self.kv_heads
    }
}

/// Elements between neighbours of `[b, s, n, d]`; those of a head stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub sequence: usize,
    pub row: usize,
    pub head: usize,
}

impl Steps {
    fn at(self, sequence: usize, head: usize, row: usize) -> usize {
        sequence * self.sequence + head * self.head + row * self.row
    }
}

/// Queries, keys or values, or what else has a row a position and head; the first one begins the slice.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, E> {
    pub values: &'a [E],
    pub steps: Steps,
}

impl<'a, E> Heads<'a, E> {
    fn rows(&self, sequence: usize, head: usize, rows: &Range<usize>, d: usize) -> Matrix<'a, E> {
        let start = self.steps.at(sequence, head, rows.start);
        Matrix::new(&self.values[start..], rows.len(), d, self.steps.row)
    }
}

/// A place for the gradients of queries, keys or values. Cells, since the three may stand in the rows of one
/// projection.
#[derive(Clone, Copy)]
pub struct HeadsOut<'a, E> {
    pub values: &'a [Cell<E>],
    pub steps: Steps,
}

impl<E: Element> HeadsOut<'_, E> {
    fn write(&self, level: Level, sequence: usize, head: usize, first: usize, rows: &[f32], d: usize) {
        let start = self.steps.at(sequence, head, first);
        write_rows::at(level, rows, d, &self.values[start..], self.steps.row);
    }
}

/// What of a forward its backward needs.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'a, E> {
    /// `[b, s, n, d]`.
    pub out: Heads<'a, E>,
    /// Logarithms of the sums of powers, `[b, n, s]`.
    pub logs: &'a [f32],
}

/// Writes the attention's result to `out` (`[b, s, n, d]`) and the logarithms of the sums of powers to `logs`
/// (`[b, n, s]`). A row sees the keys up to its own; where `hidden` has a range for each of the `b·s` rows, not those in it.
///
/// # Panics
/// If a slice ends before its last row does, or the heads cannot be shared out.
pub fn attention_forward<E: Element>(
    sizes: Attention,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    hidden: &[Range<usize>],
    out: HeadsOut<'_, E>,
    logs: &mut [f32],
) {
    attention_forward_at(level(), sizes, query, key, value, hidden, out, logs);
}

/// [`attention_forward`] by the instructions of a given level.
#[allow(clippy::too_many_arguments)]
pub(super) fn attention_forward_at<E: Element>(
    level: Level,
    sizes: Attention,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    hidden: &[Range<usize>],
    out: HeadsOut<'_, E>,
    logs: &mut [f32],
) {
    let (s, d) = (sizes.sequence, sizes.d);
    let scale = 1.0 / (d as f32).sqrt();
    let mut scores = vec![0.0; BLOCK.min(s) * s];
    let mut sums = vec![0.0; BLOCK.min(s) * d];
    let shared = sizes.shared();
    for (b, head) in heads(sizes) {
        let kv_head = head / shared;
        for rows in blocks(s, BLOCK) {
            let keys = 0..rows.end;
            let scores = &mut scores[..rows.len() * keys.len()];
            let sums = &mut sums[..rows.len() * d];
            let key = key.rows(b, kv_head, &keys, d).transposed();
            product_at(
                level,
                query.rows(b, head, &rows, d),
                key,
                scores,
                keys.len(),
                Finish::Store,
            );
            let logs = &mut logs[(b * sizes.heads + head) * s..][rows.clone()];
            let first = b * s + rows.start;
            let hidden = hidden.get(first..first + rows.len()).unwrap_or_default();
            shares::at(level, scores, rows.start, hidden, scale, logs);
            let shares = Matrix::new(scores, rows.len(), keys.len(), keys.len());
            product_at(level, shares, value.rows(b, kv_head, &keys, d), sums, d, Finish::Store);
            out.write(level, b, head, rows.start, sums, d);
        }
    }
}

/// The gradients that [`attention_backward`] writes.
#[derive(Clone, Copy)]
pub struct AttentionGradients<'a, E, K> {
    /// `[b, s, n, d]`.
    pub query: HeadsOut<'a, E>,
    /// `[b, s, g, d]`, like those of the values: those by each head that shares them, added up in order of heads.
    pub key: HeadsOut<'a, K>,
    pub value: HeadsOut<'a, K>,
}

/// Writes the gradients of queries, keys and values, for the gradient of the result.
///
/// # Panics
/// If a slice ends before its last row does, or the heads cannot be shared out.
pub fn attention_backward<E: Element, K: Element>(
    sizes: Attention,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    attended: Attended<'_, E>,
    gradient: Heads<'_, E>,
    to: AttentionGradients<'_, E, K>,
) {
    attention_backward_at(level(), sizes, query, key, value, attended, gradient, to);
}

/// [`attention_backward`] by the instructions of a given level.
#[allow(clippy::too_many_arguments)]
pub(super) fn attention_backward_at<E: Element, K: Element>(
    level: Level,
    sizes: Attention,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    attended: Attended<'_, E>,
    gradient: Heads<'_, E>,
    to: AttentionGradients<'_, E, K>,
) {
    let (s, d) = (sizes.sequence, sizes.d);
    let scale = 1.0 / (d as f32).sqrt();
    let mut shares = vec![0.0; BLOCK.min(s) * s];
    let mut dscores = vec![0.0; BLOCK.min(s) * s];
    let mut dquery = vec![0.0; BLOCK.min(s) * d];
    let (mut dkey, mut dvalue) = (vec![0.0; s * d], vec![0.0; s * d]);
    let (mut dkey_sum, mut dvalue_sum) = (vec![0.0; s * d], vec![0.0; s * d]);
    let shared = sizes.shared();
    for (b, head) in heads(sizes) {
        let kv_head = head / shared;
        dkey.fill(0.0);
        dvalue.fill(0.0);
        for rows in blocks(s, BLOCK) {
            let keys = 0..rows.end;
            let shares = &mut shares[..rows.len() * keys.len()];
            let dscores = &mut dscores[..rows.len() * keys.len()];
            let dquery = &mut dquery[..rows.len() * d];
            let query = query.rows(b, head, &rows, d);
            let key = key.rows(b, kv_head, &keys, d);
            let value = value.rows(b, kv_head, &keys, d);
            let dout = gradient.rows(b, head, &rows, d);
            let out = attended.out.rows(b, head, &rows, d);
            let logs = &attended.logs[(b * sizes.heads + head) * s..][rows.clone()];
            product_at(level, query, key.transposed(), shares, keys.len(), Finish::Store);
            product_at(level, dout, value.transposed(), dscores, keys.len(), Finish::Store);
            score_gradients::at(level, shares, dscores, rows.start, scale, logs, out, dout);
            let shares = Matrix::new(shares, rows.len(), keys.len(), keys.len());
            let dscores = Matrix::new(dscores, rows.len(), keys.len(), keys.len());
            product_at(level, dscores, key, dquery, d, Finish::Store);
            to.query.write(level, b, head, rows.start, dquery, d);
            product_at(level, dscores.transposed(), query, &mut dkey, d, Finish::Add);
            product_at(level, shares.transposed(), dout, &mut dvalue, d, Finish::Add);
        }
        if head % shared == 0 {
            dkey_sum.fill(0.0);
            dvalue_sum.fill(0.0);
        }
        accumulate::at(level, &mut dkey_sum, &dkey);
        accumulate::at(level, &mut dvalue_sum, &dvalue);
        if head % shared == shared - 1 {
            to.key.write(level, b, kv_head, 0, &dkey_sum, d);
            to.value.write(level, b, kv_head, 0, &dvalue_sum, d);
        }
    }
}

/// Every head of every sequence, those of a sequence in order.
fn heads(sizes: Attention) -> impl Iterator<Item = (usize, usize)> {
    (0..sizes.sequences).flat_map(move |b| (0..sizes.heads).map(move |head| (b, head)))
}

dispatch! {
/// Turns rows of scores into shares that sum to 1, and keeps the logarithm of the sum of powers. Row `i` belongs to
/// position `first + i` and sees the keys up to it but those of range `i` of `hidden`, if there is one; the others get 0.
#[allow(dead_code)] // only `at` is called, like the two that follow
pub fn shares [] (scores: &mut [f32], first: usize, hidden: &[Range<usize>], scale: f32, logs: &mut [f32]) {
    let keys = scores.len() / logs.len().max(1);
    for (i, (row, log_sum)) in scores.chunks_exact_mut(keys.max(1)).zip(logs).enumerate() {
        let (row, later) = row.split_at_mut(first + i + 1);
        later.fill(0.0);
        if let Some(hidden) = hidden.get(i) {
            row[hidden.clone()].fill(f32::NEG_INFINITY);
        }
        let (maximum, sum) = powers(row, scale);
        *log_sum = maximum + log(f64::from(sum)) as f32;
        let rest = 1.0 / sum;
        for value in row {
            *value *= rest;
        }
    }
}
}

/// Turns a row of scores into powers: e to the score times `scale`, less the largest. Returns that and the powers' sum.
#[inline(always)]
fn powers(row: &mut [f32], scale: f32) -> (f32, f32) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    by_lanes(row, |i, value| {
        *value *= scale;
        lanes[i] = if *value > lanes[i] { *value } else { lanes[i] };
    });
    let maximum = lanes
        .into_iter()
        .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let mut sums = [0.0f32; LANES];
    by_lanes(row, |i, value| {
        *value = exp(*value - maximum);
        sums[i] += *value;
    });
    (maximum, join(sums))
}

/// Calls `each` for every number of a row, with its accumulator.
#[inline(always)]
fn by_lanes(row: &mut [f32], mut each: impl FnMut(usize, &mut f32)) {
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            each(i, &mut chunk[i]);
        }
    }
    for (i, value) in tail.iter_mut().enumerate() {
        each(i, value);
    }
}

dispatch! {
/// Turns scores into shares and the gradients of shares into those of scores. Rows as in [`shares`].
#[allow(dead_code)]
pub fn score_gradients [E: Element] (
    scores: &mut [f32],
    gradients: &mut [f32],
    first: usize,
    scale: f32,
    logs: &[f32],
    out: Matrix<'_, E>,
    dout: Matrix<'_, E>,
) {
    let keys = scores.len() / logs.len().max(1);
    let rows = scores.chunks_exact_mut(keys.max(1)).zip(gradients.chunks_exact_mut(keys.max(1)));
    for (i, ((scores, gradients), &log_sum)) in rows.zip(logs).enumerate() {
        let (scores, hidden) = scores.split_at_mut(first + i + 1);
        hidden.fill(0.0);
        let (gradients, hidden) = gradients.split_at_mut(first + i + 1);
        hidden.fill(0.0);
        let mut lanes = [0.0f32; LANES];
        for (out, dout) in out.row(i).chunks(LANES).zip(dout.row(i).chunks(LANES)) {
            for ((lane, out), dout) in lanes.iter_mut().zip(out).zip(dout) {
                *lane += out.load() * dout.load();
            }
        }
        let mean = join(lanes);
        for (score, gradient) in scores.iter_mut().zip(gradients) {
            *score = exp(*score * scale - log_sum);
            *gradient = *score * (*gradient - mean) * scale;
        }
    }
}
}

dispatch! {
/// Rounds rows of `d` numbers to rows `step` elements apart.
#[allow(dead_code)]
pub fn write_rows [E: Element] (rows: &[f32], d: usize, to: &[Cell<E>], step: usize) {
    for (i, row) in rows.chunks_exact(d.max(1)).enumerate() {
        for (to, &value) in to[i * step..i * step + d].iter().zip(row) {
            to.set(E::store(value));
        }
    }
}
}
