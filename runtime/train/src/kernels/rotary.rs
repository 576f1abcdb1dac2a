//! Rotary positions as in Hugging Face's Llama: element `i` is rotated with element `i + d/2`.

use super::{Element, dispatch};

/// Cosines and sines of position · θ^(−2i/d), each `[sequence, d/2]`; computed in `f64` and rounded once.
///
/// Source: Su et al. 2021, eq. 15.
pub fn rotary_tables(sequence: usize, d: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let half = d / 2;
    let frequencies: Vec<f64> = (0..half)
        .map(|i| libm::pow(theta, -((2 * i) as f64) / d as f64))
        .collect();
    let angles =
        (0..sequence).flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
    angles
        .map(|angle| (libm::cos(angle) as f32, libm::sin(angle) as f32))
        .unzip()
}

/// The heads of a row that are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotatedHeads {
    /// Elements of a row.
    pub width: usize,
    /// Column of the first head; the others follow without gaps.
    pub first: usize,
    pub heads: usize,
    /// Elements of a head, an even number.
    pub d: usize,
}

dispatch! {
/// Rotates the heads of each row by the angles of its position (row mod `sequence`), in at; `inverse` rotates back,
/// as the backward pass does. The tables of [`rotary_tables`] have at least `sequence` positions.
pub fn rotate [E: Element] (
    rows: &mut [E],
    rotated: RotatedHeads,
    sequence: usize,
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) {
    let half = rotated.d / 2;
    let sign = if inverse { -1.0f32 } else { 1.0 };
    for (row, values) in rows.chunks_exact_mut(rotated.width).enumerate() {
        let at = row % sequence * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        let heads = &mut values[rotated.first..rotated.first + rotated.heads * rotated.d];
        for head in heads.chunks_exact_mut(rotated.d) {
            let (low, high) = head.split_at_mut(half);
            let (low, high) = (&mut low[..half], &mut high[..half]);
            for i in 0..half {
                let (a, b, sin) = (low[i].load(), high[i].load(), sign * sin[i]);
                low[i] = E::store(a * cos[i] - b * sin);
                high[i] = E::store(b * cos[i] + a * sin);
            }
        }
    }
}
}
