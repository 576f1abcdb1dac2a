//! The gated activation of Llama's feed-forward: silu(gate) · up. The header of `model` has the shape letters.

use super::math::exp;
use super::{Element, dispatch};

/// The logistic function.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

dispatch! {
/// `out = silu(gate) · up`; each row of `z_tu` contains `width` gates, then `width` ups.
///
/// Source: Shazeer 2020, eq. 6, with silu(x) = x / (1 + exp(−x)).
pub fn swiglu_forward [E: Element] (z_tu: &[E], width: usize, out_tf: &mut [E]) {
    for (z, out) in z_tu.chunks_exact(2 * width).zip(out_tf.chunks_exact_mut(width)) {
        let (gates, ups) = z.split_at(width);
        for ((out, gate), up) in out.iter_mut().zip(gates).zip(ups) {
            let gate = gate.load();
            *out = E::store(gate * logistic(gate) * up.load());
        }
    }
}
}

dispatch! {
/// Writes the gradient of `z_tu` to `dz_tu`, given the gradient of the output, and the output again to `out_tf`.
pub fn swiglu_backward [E: Element] (
    z_tu: &[E], gradient_tf: &[E], width: usize, dz_tu: &mut [E], out_tf: &mut [E],
) {
    let rows = z_tu.chunks_exact(2 * width).zip(gradient_tf.chunks_exact(width));
    let written = dz_tu.chunks_exact_mut(2 * width).zip(out_tf.chunks_exact_mut(width));
    for ((z, d), (dz, out)) in rows.zip(written) {
        let (gates, ups) = z.split_at(width);
        let (dgates, dups) = dz.split_at_mut(width);
        let (gates, ups, d) = (&gates[..width], &ups[..width], &d[..width]);
        let (dgates, dups, out) = (&mut dgates[..width], &mut dups[..width], &mut out[..width]);
        for j in 0..width {
            let (gate, up, d) = (gates[j].load(), ups[j].load(), d[j].load());
            let logistic_gate = logistic(gate);
            let silu = gate * logistic_gate;
            out[j] = E::store(silu * up);
            dups[j] = E::store(d * silu);
            dgates[j] = E::store(d * up * (logistic_gate * (1.0 + gate * (1.0 - logistic_gate))));
        }
    }
}
}
