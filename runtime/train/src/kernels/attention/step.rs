//! Attention of one row over keys and values that are kept: a step of a generation.

use super::super::dispatch;
use super::powers;

/// Steps of the inner loops that are taken at once; every sum still has one order.
const RUN: usize = 4;

dispatch! {
/// Writes to `out` (`[heads, d]`) the attention of `queries` (`[heads, d]`), which share keys and values. `keys` are columns: row
/// `e` of `d` holds element `e` of every key, `room` numbers apart. `values` are rows of `d`; the first `shares.len()` keys and
/// values are read, and `shares` is scratch.
///
/// Scores are summed over elements, and results over keys, in increasing order.
///
/// # Panics
/// If a slice is too short.
pub fn attention_step [] (
    queries: &[f32], keys: &[f32], room: usize, values: &[f32], d: usize, shares: &mut [f32], out: &mut [f32],
) {
    let scale = 1.0 / (d as f32).sqrt();
    let count = shares.len();
    for (query, out) in queries.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        shares.fill(0.0);
        let mut e = 0;
        while e + RUN <= d {
            let row = |i: usize| &keys[(e + i) * room..][..count];
            let (q, k) = ([query[e], query[e + 1], query[e + 2], query[e + 3]], [row(0), row(1), row(2), row(3)]);
            for p in 0..count {
                shares[p] = (((shares[p] + q[0] * k[0][p]) + q[1] * k[1][p]) + q[2] * k[2][p]) + q[3] * k[3][p];
            }
            e += RUN;
        }
        for e in e..d {
            let key = &keys[e * room..][..count];
            for p in 0..count {
                shares[p] += query[e] * key[p];
            }
        }
        let (_, sum) = powers(shares, scale);
        let rest = 1.0 / sum;
        out.fill(0.0);
        let mut p = 0;
        while p + RUN <= count {
            let row = |i: usize| &values[(p + i) * d..][..d];
            let (s, v) = ([shares[p], shares[p + 1], shares[p + 2], shares[p + 3]], [row(0), row(1), row(2), row(3)]);
            for e in 0..d {
                out[e] = (((out[e] + s[0] * v[0][e]) + s[1] * v[1][e]) + s[2] * v[2][e]) + s[3] * v[3][e];
            }
            p += RUN;
        }
        for p in p..count {
            let value = &values[p * d..][..d];
            for e in 0..d {
                out[e] += shares[p] * value[e];
            }
        }
        for value in out {
            *value *= rest;
        }
    }
}
}
