//! Causal attention, forward and backward: one head and one block of rows at a time. Shape letters: see `model`.
//!
//! Scores, probabilities and all sums are `f32` regardless of the element type. Sums over keys, over queries of a block and
//! over the elements of a head are chains of [`gemm`](super::gemm); sums over a row of probabilities have sixteen
//! interleaved accumulators. No result depends on which heads or sequences are computed by the same call.
//!
//! Sources: Vaswani et al. 2017, eq. 1; backward pass from row sums and log-sum-exp as in Dao et al. 2022, algorithm 4.

use std::cell::Cell;
use std::ops::Range;

mod step;
#[cfg(test)]
mod tests;

pub use step::attention_step;

use super::gemm::{blocks, matmul_at};
use super::sums::accumulate;
use super::{ACCUMULATORS, Element, Epilogue, Level, Matrix, dispatch, exp, level, log, sum_accumulators};

/// Query rows per block. Part of the result: the gradients of keys and values by a head are added block by block.
const BLOCK: usize = 64;

/// Dimensions of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub sequences: usize,
    /// Positions of a sequence.
    pub sequence: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`: query head `h` uses head `h · kv_heads / heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub d: usize,
}

impl AttentionShape {
    /// Query heads that share a key and value head.
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

/// Strides of `[b, s, n, d]`; the elements of a head are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStrides {
    pub sequence: usize,
    pub row: usize,
    pub head: usize,
}

impl HeadStrides {
    fn at(self, sequence: usize, head: usize, row: usize) -> usize {
        sequence * self.sequence + head * self.head + row * self.row
    }
}

/// Queries, keys, values, or other data with one row per position and head; the first one starts the slice.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, E> {
    pub values: &'a [E],
    pub strides: HeadStrides,
}

impl<'a, E> Heads<'a, E> {
    fn rows(&self, sequence: usize, head: usize, rows: &Range<usize>, d: usize) -> Matrix<'a, E> {
        let start = self.strides.at(sequence, head, rows.start);
        Matrix::new(&self.values[start..], rows.len(), d, self.strides.row)
    }
}

/// Output for the gradients of queries, keys or values. Cells, since the three may be parts of the rows of one
/// projection.
#[derive(Clone, Copy)]
pub struct HeadsOut<'a, E> {
    pub values: &'a [Cell<E>],
    pub strides: HeadStrides,
}

impl<E: Element> HeadsOut<'_, E> {
    fn write(&self, level: Level, sequence: usize, head: usize, first: usize, rows: &[f32], d: usize) {
        let start = self.strides.at(sequence, head, first);
        write_rows::at(level, rows, d, &self.values[start..], self.strides.row);
    }
}

/// Results of a forward pass that the backward pass needs.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOutput<'a, E> {
    /// `[b, s, n, d]`.
    pub out: Heads<'a, E>,
    /// Log-sum-exp of each row's scores, `[b, n, s]`.
    pub lse: &'a [f32],
}

/// Writes the result of attention to `out` (`[b, s, n, d]`) and the log-sum-exp of each row's scores to `lse_bns`. A
/// row attends to the keys up to its own position; if `excluded` has a range for each of the `b·s` rows, not to those
/// in the range.
///
/// # Panics
/// If a slice ends before its last row, or the number of query heads is not a multiple of the key and value heads.
pub fn attention_forward<E: Element>(
    shape: AttentionShape,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    excluded: &[Range<usize>],
    out: HeadsOut<'_, E>,
    lse_bns: &mut [f32],
) {
    attention_forward_at(level(), shape, query, key, value, excluded, out, lse_bns);
}

/// [`attention_forward`] with a given instruction set.
#[allow(clippy::too_many_arguments)]
pub(super) fn attention_forward_at<E: Element>(
    level: Level,
    shape: AttentionShape,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    excluded: &[Range<usize>],
    out: HeadsOut<'_, E>,
    lse_bns: &mut [f32],
) {
    let (s, d) = (shape.sequence, shape.d);
    let scale = 1.0 / (d as f32).sqrt();
    let mut scores = vec![0.0; BLOCK.min(s) * s];
    let mut sums = vec![0.0; BLOCK.min(s) * d];
    let shared = shape.shared();
    for (b, head) in heads(shape) {
        let kv_head = head / shared;
        for rows in blocks(s, BLOCK) {
            let keys = 0..rows.end;
            let scores = &mut scores[..rows.len() * keys.len()];
            let sums = &mut sums[..rows.len() * d];
            let key = key.rows(b, kv_head, &keys, d).transposed();
            matmul_at(
                level,
                query.rows(b, head, &rows, d),
                key,
                scores,
                keys.len(),
                Epilogue::Store,
            );
            let lse_s = &mut lse_bns[(b * shape.heads + head) * s..][rows.clone()];
            let first = b * s + rows.start;
            let excluded = excluded.get(first..first + rows.len()).unwrap_or_default();
            softmax_causal::at(level, scores, rows.start, excluded, scale, lse_s);
            let probabilities = Matrix::new(scores, rows.len(), keys.len(), keys.len());
            matmul_at(
                level,
                probabilities,
                value.rows(b, kv_head, &keys, d),
                sums,
                d,
                Epilogue::Store,
            );
            out.write(level, b, head, rows.start, sums, d);
        }
    }
}

/// The gradients that [`attention_backward`] writes.
#[derive(Clone, Copy)]
pub struct AttentionGradients<'a, E, K> {
    /// `[b, s, n, d]`.
    pub query: HeadsOut<'a, E>,
    /// `[b, s, g, d]`, like those of the values: the gradients of each query head that shares them, added in order of
    /// heads.
    pub key: HeadsOut<'a, K>,
    pub value: HeadsOut<'a, K>,
}

/// Writes the gradients of queries, keys and values, given `dout`, the gradient of the result.
///
/// # Panics
/// If a slice ends before its last row, or the number of query heads is not a multiple of the key and value heads.
pub fn attention_backward<E: Element, K: Element>(
    shape: AttentionShape,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    output: AttentionOutput<'_, E>,
    dout: Heads<'_, E>,
    gradients: AttentionGradients<'_, E, K>,
) {
    attention_backward_at(level(), shape, query, key, value, output, dout, gradients);
}

/// [`attention_backward`] with a given instruction set.
#[allow(clippy::too_many_arguments)]
pub(super) fn attention_backward_at<E: Element, K: Element>(
    level: Level,
    shape: AttentionShape,
    query: Heads<'_, E>,
    key: Heads<'_, E>,
    value: Heads<'_, E>,
    output: AttentionOutput<'_, E>,
    dout: Heads<'_, E>,
    gradients: AttentionGradients<'_, E, K>,
) {
    let (s, d) = (shape.sequence, shape.d);
    let scale = 1.0 / (d as f32).sqrt();
    let mut probabilities = vec![0.0; BLOCK.min(s) * s];
    let mut dscores = vec![0.0; BLOCK.min(s) * s];
    let mut dquery = vec![0.0; BLOCK.min(s) * d];
    let (mut dkey, mut dvalue) = (vec![0.0; s * d], vec![0.0; s * d]);
    let (mut dkey_sum, mut dvalue_sum) = (vec![0.0; s * d], vec![0.0; s * d]);
    let shared = shape.shared();
    for (b, head) in heads(shape) {
        let kv_head = head / shared;
        dkey.fill(0.0);
        dvalue.fill(0.0);
        for rows in blocks(s, BLOCK) {
            let keys = 0..rows.end;
            let probabilities = &mut probabilities[..rows.len() * keys.len()];
            let dscores = &mut dscores[..rows.len() * keys.len()];
            let dquery = &mut dquery[..rows.len() * d];
            let query = query.rows(b, head, &rows, d);
            let key = key.rows(b, kv_head, &keys, d);
            let value = value.rows(b, kv_head, &keys, d);
            let dout = dout.rows(b, head, &rows, d);
            let out = output.out.rows(b, head, &rows, d);
            let lse_s = &output.lse[(b * shape.heads + head) * s..][rows.clone()];
            matmul_at(
                level,
                query,
                key.transposed(),
                probabilities,
                keys.len(),
                Epilogue::Store,
            );
            matmul_at(level, dout, value.transposed(), dscores, keys.len(), Epilogue::Store);
            score_gradients::at(level, probabilities, dscores, rows.start, scale, lse_s, out, dout);
            let probabilities = Matrix::new(probabilities, rows.len(), keys.len(), keys.len());
            let dscores = Matrix::new(dscores, rows.len(), keys.len(), keys.len());
            matmul_at(level, dscores, key, dquery, d, Epilogue::Store);
            gradients.query.write(level, b, head, rows.start, dquery, d);
            matmul_at(level, dscores.transposed(), query, &mut dkey, d, Epilogue::Add);
            matmul_at(level, probabilities.transposed(), dout, &mut dvalue, d, Epilogue::Add);
        }
        if head % shared == 0 {
            dkey_sum.fill(0.0);
            dvalue_sum.fill(0.0);
        }
        accumulate::at(level, &mut dkey_sum, &dkey);
        accumulate::at(level, &mut dvalue_sum, &dvalue);
        if head % shared == shared - 1 {
            gradients.key.write(level, b, kv_head, 0, &dkey_sum, d);
            gradients.value.write(level, b, kv_head, 0, &dvalue_sum, d);
        }
    }
}

/// All heads of all sequences: sequence by sequence.
fn heads(shape: AttentionShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.sequences).flat_map(move |b| (0..shape.heads).map(move |head| (b, head)))
}

dispatch! {
/// Softmax of rows of scores, in place; also writes each row's log-sum-exp. Row `i` is at position `first + i` and
/// attends to the keys up to it, except those of range `i` of `excluded`, if there is one; other keys get 0.
#[allow(dead_code)] // only `at` is called, as for the next two
pub fn softmax_causal [] (
    scores: &mut [f32], first: usize, excluded: &[Range<usize>], scale: f32, lse_s: &mut [f32],
) {
    let keys = scores.len() / lse_s.len().max(1);
    for (i, (row, log_sum_exp)) in scores.chunks_exact_mut(keys.max(1)).zip(lse_s).enumerate() {
        let (row, later) = row.split_at_mut(first + i + 1);
        later.fill(0.0);
        if let Some(excluded) = excluded.get(i) {
            row[excluded.clone()].fill(f32::NEG_INFINITY);
        }
        let (maximum, sum) = exps(row, scale);
        *log_sum_exp = maximum + log(f64::from(sum)) as f32;
        let normalization = 1.0 / sum;
        for value in row {
            *value *= normalization;
        }
    }
}
}

/// Replaces a row of scores by exp(score · scale − maximum). Returns the maximum of score · scale, and the sum of the
/// row.
#[inline(always)]
fn exps(row: &mut [f32], scale: f32) -> (f32, f32) {
    let mut accumulators = [f32::NEG_INFINITY; ACCUMULATORS];
    by_accumulators(row, |i, value| {
        *value *= scale;
        accumulators[i] = if *value > accumulators[i] {
            *value
        } else {
            accumulators[i]
        };
    });
    let maximum = accumulators
        .into_iter()
        .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let mut sums = [0.0f32; ACCUMULATORS];
    by_accumulators(row, |i, value| {
        *value = exp(*value - maximum);
        sums[i] += *value;
    });
    (maximum, sum_accumulators(sums))
}

/// Calls `each` for every element of a row, with the index of its accumulator.
#[inline(always)]
fn by_accumulators(row: &mut [f32], mut each: impl FnMut(usize, &mut f32)) {
    let (chunks, tail) = row.as_chunks_mut::<ACCUMULATORS>();
    for chunk in chunks {
        for i in 0..ACCUMULATORS {
            each(i, &mut chunk[i]);
        }
    }
    for (i, value) in tail.iter_mut().enumerate() {
        each(i, value);
    }
}

dispatch! {
/// Replaces scores by probabilities, and gradients of probabilities by gradients of scores. Rows as in
/// [`softmax_causal`].
#[allow(dead_code)]
pub fn score_gradients [E: Element] (
    scores: &mut [f32],
    gradients: &mut [f32],
    first: usize,
    scale: f32,
    lse_s: &[f32],
    out: Matrix<'_, E>,
    dout: Matrix<'_, E>,
) {
    let keys = scores.len() / lse_s.len().max(1);
    let rows = scores.chunks_exact_mut(keys.max(1)).zip(gradients.chunks_exact_mut(keys.max(1)));
    for (i, ((scores, gradients), &log_sum_exp)) in rows.zip(lse_s).enumerate() {
        let (scores, later) = scores.split_at_mut(first + i + 1);
        later.fill(0.0);
        let (gradients, later) = gradients.split_at_mut(first + i + 1);
        later.fill(0.0);
        let mut accumulators = [0.0f32; ACCUMULATORS];
        for (out, dout) in out.row(i).chunks(ACCUMULATORS).zip(dout.row(i).chunks(ACCUMULATORS)) {
            for ((accumulator, out), dout) in accumulators.iter_mut().zip(out).zip(dout) {
                *accumulator += out.load() * dout.load();
            }
        }
        // Σ out·dout, which equals Σ probability·gradient over the row.
        let out_dot_dout = sum_accumulators(accumulators);
        for (score, gradient) in scores.iter_mut().zip(gradients) {
            *score = exp(*score * scale - log_sum_exp);
            *gradient = *score * (*gradient - out_dot_dout) * scale;
        }
    }
}
}

dispatch! {
/// Rounds rows of `d` elements to rows that are `stride` elements apart.
#[allow(dead_code)]
pub fn write_rows [E: Element] (rows: &[f32], d: usize, to: &[Cell<E>], stride: usize) {
    for (i, row) in rows.chunks_exact(d.max(1)).enumerate() {
        for (to, &value) in to[i * stride..i * stride + d].iter().zip(row) {
            to.set(E::store(value));
        }
    }
}
}
