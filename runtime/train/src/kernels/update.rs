//! The optimizer's loops: join the lanes' gradients, then one AdamW update.

use super::{Element, dispatch};

/// The numbers of one update, each rounded once from `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// What a summed gradient is multiplied by: clipping / tokens.
    pub scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// 1 − beta1 and 1 − beta2.
    pub rest1: f32,
    pub rest2: f32,
    pub epsilon: f32,
    /// learning rate / (1 − beta1ᵏ).
    pub step: f32,
    /// √(1 − beta2ᵏ).
    pub root2: f32,
    /// 1 − learning rate × weight decay.
    pub keep: f32,
}

dispatch! {
/// `first = tree sum of first and others`, in this order. Other orders that turn whole subtrees round give the same
/// bits, since an addition does not mind the order of its two numbers.
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
/// One AdamW update of `weight`, with decoupled weight decay; also writes the rounded copy that the model computes with.
pub fn adamw [E: Element] (
    update: Update,
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    compute: Option<&mut [E]>,
) {
    let length = weight.len();
    let (gradient, first, second) = (&gradient[..length], &mut first[..length], &mut second[..length]);
    for j in 0..length {
        let g = gradient[j] * update.scale;
        first[j] = update.beta1 * first[j] + update.rest1 * g;
        second[j] = update.beta2 * second[j] + update.rest2 * (g * g);
        let denominator = second[j].sqrt() / update.root2 + update.epsilon;
        weight[j] = weight[j] * update.keep - update.step * (first[j] / denominator);
    }
    if let Some(compute) = compute {
        for (compute, &weight) in compute.iter_mut().zip(weight.iter()) {
            *compute = E::store(weight);
        }
    }
}
}
