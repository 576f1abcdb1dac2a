//! The gated activation of Llama's feed-forward: silu(gate) · up.

use super::math::exp;
use super::{Element, dispatch};

/// The logistic function.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

dispatch! {
/// `out = silu(gate) · up`; each row of `z` holds `width` gates, then as many ups.
///
/// Source: Shazeer 2020, eq. 6, with silu(x) = x / (1 + exp(−x)).
pub fn swiglu_forward [E: Element] (z: &[E], width: usize, out: &mut [E]) {
    for (z, out) in z.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gates, ups) = z.split_at(width);
        for ((out, gate), up) in out.iter_mut().zip(gates).zip(ups) {
            let gate = gate.load();
            *out = E::store(gate * logistic(gate) * up.load());
        }
    }
}
}

dispatch! {
/// Writes the gradient by `z` to `dz`, for the gradient `d` by the output, and the output once more to `out`.
pub fn swiglu_backward [E: Element] (z: &[E], d: &[E], width: usize, dz: &mut [E], out: &mut [E]) {
    let rows = z.chunks_exact(2 * width).zip(d.chunks_exact(width));
    let written = dz.chunks_exact_mut(2 * width).zip(out.chunks_exact_mut(width));
    for ((z, d), (dz, out)) in rows.zip(written) {
        let (gates, ups) = z.split_at(width);
        let (dgates, dups) = dz.split_at_mut(width);
        let (gates, ups, d) = (&gates[..width], &ups[..width], &d[..width]);
        let (dgates, dups, out) = (&mut dgates[..width], &mut dups[..width], &mut out[..width]);
        for j in 0..width {
            let (gate, up, d) = (gates[j].load(), ups[j].load(), d[j].load());
            let share = logistic(gate);
            let silu = gate * share;
            out[j] = E::store(silu * up);
            dups[j] = E::store(d * silu);
            dgates[j] = E::store(d * up * (share * (1.0 + gate * (1.0 - share))));
        }
    }
}
}
