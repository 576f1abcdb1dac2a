//! Word and position embeddings and their gradients.

use super::{Element, dispatch};

dispatch! {
/// `out[row] = word[id − first] (+ position[row mod sequence])` for the rows whose id is in this shard, `first..first +
/// v`.
pub fn embed_rows [E: Element] (
    ids_t: &[i64],
    sequence: usize,
    first: i64,
    word_vh: &[E],
    position_sh: Option<&[E]>,
    hidden: usize,
    out_th: &mut [f32],
) {
    let count = (word_vh.len() / hidden) as i64;
    for (row, (&id, out)) in ids_t.iter().zip(out_th.chunks_exact_mut(hidden)).enumerate() {
        if id < first || id >= first + count {
            continue;
        }
        let at = (id - first) as usize * hidden;
        let word = &word_vh[at..at + hidden];
        let Some(position_sh) = position_sh else {
            for (out, word) in out.iter_mut().zip(word) {
                *out = word.load();
            }
            continue;
        };
        let at = row % sequence * hidden;
        for ((out, word), position) in out.iter_mut().zip(word).zip(&position_sh[at..at + hidden]) {
            *out = word.load() + position.load();
        }
    }
}
}

dispatch! {
/// `dword[id − first] += dx[row]` for the rows whose id is in this shard, rows in order.
pub fn embedding_gradient [] (ids_t: &[i64], first: i64, dx_th: &[f32], hidden: usize, dword_vh: &mut [f32]) {
    let count = (dword_vh.len() / hidden) as i64;
    for (&id, dx) in ids_t.iter().zip(dx_th.chunks_exact(hidden)) {
        if id < first || id >= first + count {
            continue;
        }
        let at = (id - first) as usize * hidden;
        for (gradient, dx) in dword_vh[at..at + hidden].iter_mut().zip(dx) {
            *gradient += dx;
        }
    }
}
}

dispatch! {
/// Adds `dx_th` over the rows at each position to `out_sh`, rows in order.
pub fn position_gradient [] (dx_th: &[f32], sequence: usize, hidden: usize, out_sh: &mut [f32]) {
    for (row, dx) in dx_th.chunks_exact(hidden).enumerate() {
        let at = row % sequence * hidden;
        for (out, dx) in out_sh[at..at + hidden].iter_mut().zip(dx) {
            *out += dx;
        }
    }
}
}
