//! Rotary positions, in the order of Hugging Face's Llama: element `i` turns with element `i + d/2`.

use super::{Element, dispatch};

/// Cosines and sines of position · θ^(−2i/d), each `[sequence, d/2]`; worked out in `f64` and rounded once.
///
/// Source: Su et al. 2021, eq. 15.
pub fn rotary_tables(sequence: usize, d: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let half = d / 2;
    let speeds: Vec<f64> = (0..half)
        .map(|i| libm::pow(theta, -((2 * i) as f64) / d as f64))
        .collect();
    let angles = (0..sequence).flat_map(|position| speeds.iter().map(move |speed| position as f64 * speed));
    angles
        .map(|angle| (libm::cos(angle) as f32, libm::sin(angle) as f32))
        .unzip()
}

/// Which heads of a row turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Elements of a whole row.
    pub width: usize,
    /// The column where the first head begins; the others follow without gaps.
    pub first: usize,
    pub heads: usize,
    /// Elements of a head, an even number.
    pub d: usize,
}

dispatch! {
/// Turns the heads of each row by the angles of its position, row mod `sequence`, in place; `inverse` turns back, as
/// gradients do. The tables of [`rotary_tables`] hold at least `sequence` positions.
pub fn rotate [E: Element] (
    rows: &mut [E],
    turned: Turned,
    sequence: usize,
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) {
    let half = turned.d / 2;
    let sign = if inverse { -1.0f32 } else { 1.0 };
    for (row, values) in rows.chunks_exact_mut(turned.width).enumerate() {
        let place = row % sequence * half;
        let (cos, sin) = (&cos[place..place + half], &sin[place..place + half]);
        let heads = &mut values[turned.first..turned.first + turned.heads * turned.d];
        for head in heads.chunks_exact_mut(turned.d) {
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
