//! Word and position embeddings and their gradients.

use super::{Element, dispatch};

dispatch! {
/// `out[row] = word[id − first] (+ position[row mod sequence])` for the rows whose id lies in this shard's
/// `first..first + n`.
pub fn embed_rows [E: Element] (
    ids: &[i64],
    sequence: usize,
    first: i64,
    word: &[E],
    position: Option<&[E]>,
    hidden: usize,
    out: &mut [f32],
) {
    let count = (word.len() / hidden) as i64;
    for (row, (&id, out)) in ids.iter().zip(out.chunks_exact_mut(hidden)).enumerate() {
        if id < first || id >= first + count {
            continue;
        }
        let at = (id - first) as usize * hidden;
        let word = &word[at..at + hidden];
        let Some(position) = position else {
            for (out, word) in out.iter_mut().zip(word) {
                *out = word.load();
            }
            continue;
        };
        let place = row % sequence * hidden;
        for ((out, word), position) in out.iter_mut().zip(word).zip(&position[place..place + hidden]) {
            *out = word.load() + position.load();
        }
    }
}
}

dispatch! {
/// `gradient[id − first] += dx[row]` for the rows whose id lies in this shard, rows in order.
pub fn embedding_gradient [] (ids: &[i64], first: i64, dx: &[f32], hidden: usize, gradient: &mut [f32]) {
    let count = (gradient.len() / hidden) as i64;
    for (&id, dx) in ids.iter().zip(dx.chunks_exact(hidden)) {
        if id < first || id >= first + count {
            continue;
        }
        let at = (id - first) as usize * hidden;
        for (gradient, dx) in gradient[at..at + hidden].iter_mut().zip(dx) {
            *gradient += dx;
        }
    }
}
}

dispatch! {
/// Adds `dx` over the rows at each position to `out` (`sequence` × `hidden`), rows in order.
pub fn position_gradient [] (dx: &[f32], sequence: usize, hidden: usize, out: &mut [f32]) {
    for (row, dx) in dx.chunks_exact(hidden).enumerate() {
        let at = row % sequence * hidden;
        for (out, dx) in out[at..at + hidden].iter_mut().zip(dx) {
            *out += dx;
        }
    }
}
}
