//! Attention of one row over cached keys and values: one step of generation.

use super::super::dispatch;
use super::exps;

/// Iterations of the inner loops that are unrolled; every sum still has one order.
const RUN: usize = 4;

dispatch! {
/// Writes to `out_nd` the attention of `queries_nd`, which share keys and values. `keys` are columns: row `e` of `d`
/// contains element `e` of every key; rows are `capacity` elements apart. `values` are rows of `d`. The first
/// `probabilities.len()` keys and values are used; `probabilities` is scratch.
///
/// Scores are summed over elements, and results over keys, in increasing order.
///
/// # Panics
/// If a slice is too short.
pub fn attention_step [] (
    queries_nd: &[f32], keys: &[f32], capacity: usize, values: &[f32], d: usize, probabilities: &mut [f32], out_nd: &mut [f32],
) {
    let scale = 1.0 / (d as f32).sqrt();
    let count = probabilities.len();
    for (query, out) in queries_nd.chunks_exact(d).zip(out_nd.chunks_exact_mut(d)) {
        probabilities.fill(0.0);
        let mut e = 0;
        while e + RUN <= d {
            let row = |i: usize| &keys[(e + i) * capacity..][..count];
            let (q, k) = ([query[e], query[e + 1], query[e + 2], query[e + 3]], [row(0), row(1), row(2), row(3)]);
            for p in 0..count {
                probabilities[p] = (((probabilities[p] + q[0] * k[0][p]) + q[1] * k[1][p]) + q[2] * k[2][p]) + q[3] * k[3][p];
            }
            e += RUN;
        }
        for e in e..d {
            let key = &keys[e * capacity..][..count];
            for p in 0..count {
                probabilities[p] += query[e] * key[p];
            }
        }
        let (_, sum) = exps(probabilities, scale);
        let normalization = 1.0 / sum;
        out.fill(0.0);
        let mut p = 0;
        while p + RUN <= count {
            let row = |i: usize| &values[(p + i) * d..][..d];
            let (s, v) = ([probabilities[p], probabilities[p + 1], probabilities[p + 2], probabilities[p + 3]], [row(0), row(1), row(2), row(3)]);
            for e in 0..d {
                out[e] = (((out[e] + s[0] * v[0][e]) + s[1] * v[1][e]) + s[2] * v[2][e]) + s[3] * v[3][e];
            }
            p += RUN;
        }
        for p in p..count {
            let value = &values[p * d..][..d];
            for e in 0..d {
                out[e] += probabilities[p] * value[e];
            }
        }
        for value in out {
            *value *= normalization;
        }
    }
}
}
