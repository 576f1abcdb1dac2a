//! The optimizer's loops: the sum of the lanes' gradients, then one AdamW update.

use super::{Element, dispatch};

/// Coefficients of one AdamW update, each rounded once from `f64`. Letters as in the paper: learning rate α, decay
/// rates β₁ and β₂, weight decay λ, update number t (from 1).
///
/// Source: Loshchilov and Hutter 2019, algorithm 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWCoefficients {
    /// Factor of the summed gradient: clipping / tokens.
    pub scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// 1 − β₁.
    pub one_minus_beta1: f32,
    /// 1 − β₂.
    pub one_minus_beta2: f32,
    pub epsilon: f32,
    /// α / (1 − β₁ᵗ).
    pub alpha_hat: f32,
    /// √(1 − β₂ᵗ).
    pub sqrt_correction2: f32,
    /// 1 − α · λ.
    pub decay: f32,
}

dispatch! {
/// `first = tree sum of first and others`, in this order. Orders that swap complete subtrees give the same bits, since
/// addition is commutative.
pub fn tree_into [] (first: &mut [f32], others: &[&[f32]]) {
    let length = first.len();
    match *others {
        [] => {}
        [b] => {
            let b = &b[..length];
            for j in 0..length {
                first[j] += b[j];
            }
        }
        [b, c, d] => {
            let (b, c, d) = (&b[..length], &c[..length], &d[..length]);
            for j in 0..length {
                first[j] = (first[j] + b[j]) + (c[j] + d[j]);
            }
        }
        _ => {
            for j in 0..length {
                let leaf = |at: usize| if at == 0 { first[j] } else { others[at - 1][j] };
                first[j] = crate::parallel::tree_by(others.len() + 1, &leaf);
            }
        }
    }
}
}

dispatch! {
/// One AdamW update of the weights `theta`, given the summed gradient `g` and the moments `m` and `v`, with decoupled
/// weight decay. Also writes the rounded weights that the model computes with to `compute`.
pub fn adamw [E: Element] (
    coefficients: AdamWCoefficients,
    theta: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    compute: Option<&mut [E]>,
) {
    let c = coefficients;
    let length = theta.len();
    let (g, m, v) = (&g[..length], &mut m[..length], &mut v[..length]);
    for j in 0..length {
        let g = g[j] * c.scale;
        m[j] = c.beta1 * m[j] + c.one_minus_beta1 * g;
        v[j] = c.beta2 * v[j] + c.one_minus_beta2 * (g * g);
        let denominator = v[j].sqrt() / c.sqrt_correction2 + c.epsilon;
        theta[j] = theta[j] * c.decay - c.alpha_hat * (m[j] / denominator);
    }
    if let Some(compute) = compute {
        for (compute, &theta) in compute.iter_mut().zip(theta.iter()) {
            *compute = E::store(theta);
        }
    }
}
}
