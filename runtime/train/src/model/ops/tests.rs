//! Operations against their ATen equivalents, and against libtorch's autograd.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::model::tests::numbers;

const ROWS: usize = 24;
const WIDTH: usize = 70;

fn tensor(rows: usize, width: usize, seed: u64, kind: Kind) -> Tensor {
    let values = Tensor::from_slice(&numbers(rows * width, seed, 1.5));
    values.view([rows as i64, width as i64]).to_kind(kind)
}

fn zeros(rows: usize, width: usize, kind: Kind) -> Tensor {
    Tensor::zeros([rows as i64, width as i64], (kind, Device::Cpu))
}

/// Rounding error relative to the largest element: half a unit in the last place, of which f32 sums accumulate several.
fn bound(kind: Kind) -> f64 {
    if kind == Kind::Float { 2e-6 } else { 8e-3 }
}

fn assert_near(what: &str, found: &[Tensor], expected: &[Tensor], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
        let largest = expected.abs().max().double_value(&[]);
        assert!(largest > 0.0, "{what}: result {i} contains only zeros");
        let distance = (found - expected).abs().max().double_value(&[]) / largest;
        assert!(distance < bound, "{what}: result {i} is {distance:e} off");
    }
}

/// Compares the results of own kernels with their ATen equivalents and with autograd in `f64`, for both element types.
fn compare(what: &str, run: impl Fn(Kernels, Kind) -> Vec<Tensor>, autograd: impl Fn(Kind) -> Vec<Tensor>) {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (own, aten) = (run(Kernels::Own, kind), run(Kernels::Aten, kind));
        let what = format!("{what}, {kind:?}");
        assert_near(&format!("{what}, against ATen"), &own, &aten, bound(kind));
        assert_near(&format!("{what}, against autograd"), &own, &autograd(kind), bound(kind));
    }
}

/// An autograd leaf with these values.
fn leaf(values: &Tensor) -> Tensor {
    values.to_kind(Kind::Double).set_requires_grad(true)
}

#[test]
fn rms_norm_matches_its_definition() {
    let arguments = |kind| {
        let (x, dy) = (tensor(ROWS, WIDTH, 1, Kind::Float), tensor(ROWS, WIDTH, 2, Kind::Float));
        (x, dy, tensor(1, WIDTH, 3, kind).view([-1]))
    };
    // Earlier contents of the gradients are kept.
    let before = || {
        (
            tensor(ROWS, WIDTH, 4, Kind::Float),
            tensor(1, WIDTH, 5, Kind::Float).view([-1]),
        )
    };
    compare(
        "rms norm",
        |kernels, kind| {
            let (x, dy, weight) = arguments(kind);
            let (out, again) = (zeros(ROWS, WIDTH, kind), zeros(ROWS, WIDTH, kind));
            let rstd = zeros(1, ROWS, Kind::Float).view([-1]);
            let norm = |weight: Vec<Tensor>| Norm {
                weight_h: weight,
                bias_h: Vec::new(),
            };
            let (mean, weights) = (zeros(1, 0, Kind::Float), norm(vec![weight]));
            let stats = NormStats {
                mean_t: &mean,
                rstd_t: &rstd,
            };
            kernels.norm_forward(&x, &weights, 1e-5, &out, stats).unwrap();
            kernels.norm_apply(&x, &weights, &again, stats).unwrap();
            assert!(out.equal(&again), "the output again");
            let (dx, dweight) = before();
            let blocks = norm(vec![
                dweight,
                zeros(1, WIDTH, Kind::Float).view([-1]),
                zeros(1, WIDTH, Kind::Float).view([-1]),
            ]);
            kernels
                .norm_backward(&dy, &x, &weights, stats, &[0..10, 10..16, 16..ROWS], &dx, &blocks)
                .unwrap();
            let dweight = blocks
                .weight_h
                .iter()
                .fold(Tensor::zeros([1], (Kind::Float, Device::Cpu)), |sum, block| sum + block);
            vec![out, dx, dweight]
        },
        |kind| {
            let (x, dy, weight) = arguments(kind);
            let (dx, dweight) = before();
            let (x, weight) = (leaf(&x), leaf(&weight));
            let square = (&x * &x).mean_dim(&[1i64][..], true, Kind::Double);
            let out = &x * (square + 1e-5).rsqrt() * &weight;
            (&out * dy).sum(Kind::Double).backward();
            vec![out.detach(), dx + x.grad(), dweight + weight.grad()]
        },
    );
}

#[test]
fn swiglu_matches_its_definition() {
    let arguments = |kind| (tensor(ROWS, 2 * WIDTH, 6, kind) * 4.0, tensor(ROWS, WIDTH, 7, kind));
    compare(
        "swiglu",
        |kernels, kind| {
            let (z, d) = arguments(kind);
            let (out, again, dz) = (
                zeros(ROWS, WIDTH, kind),
                zeros(ROWS, WIDTH, kind),
                zeros(ROWS, 2 * WIDTH, kind),
            );
            kernels.swiglu_forward(&z, &out).unwrap();
            kernels.swiglu_backward(&z, &d, &dz, &again).unwrap();
            assert!(out.equal(&again), "the output again");
            vec![out, dz]
        },
        |kind| {
            let (z, d) = arguments(kind);
            let z = leaf(&z);
            let width = WIDTH as i64;
            let out = z.narrow(1, 0, width).silu() * z.narrow(1, width, width);
            (&out * d).sum(Kind::Double).backward();
            vec![out.detach(), z.grad()]
        },
    );
}

#[test]
fn rotation_matches_hugging_face() {
    let (sequence, d, heads, first) = (8, 6, 3, 10);
    let rotary = Rotary::new(11, d, 1e4, Device::Cpu).unwrap();
    let columns = |rows: &Tensor| rows.narrow(1, first as i64, (heads * d) as i64);
    compare(
        "rotary",
        |kernels, kind| {
            let rows = tensor(ROWS, WIDTH, 8, kind);
            let rotate = |rows: &Tensor, inverse| {
                kernels.rotate(rows, &rotary, sequence, first, heads, inverse).unwrap();
            };
            rotate(&rows, false);
            let untouched = tensor(ROWS, WIDTH, 8, kind);
            columns(&untouched).copy_(&columns(&rows));
            assert!(untouched.equal(&rows), "other columns do not change");
            let back = rows.copy();
            rotate(&back, true);
            vec![rows, back]
        },
        |kind| {
            let rows = tensor(ROWS, WIDTH, 8, kind).to_kind(Kind::Double);
            // cat(angles, angles), and cat(−second half, first half), as in `apply_rotary_pos_emb`.
            let exponents = Tensor::arange(d as i64 / 2, (Kind::Double, Device::Cpu)) * (-2.0 / d as f64);
            let frequencies = Tensor::from(1e4f64).pow(&exponents);
            let angles = Tensor::arange(sequence as i64, (Kind::Double, Device::Cpu)).outer(&frequencies);
            let angles = Tensor::cat(&[&angles, &angles], 1).unsqueeze(1);
            let x = columns(&rows).reshape([-1, sequence as i64, heads as i64, d as i64]);
            let halves = x.chunk(2, 3);
            let other = Tensor::cat(&[&-&halves[1], &halves[0]], 3);
            let rotated = &x * angles.cos() + other * angles.sin();
            let expected = rows.copy();
            columns(&expected).copy_(&rotated.view([ROWS as i64, -1]));
            vec![expected, rows]
        },
    );
}

#[test]
fn rotary_positions_need_an_even_head() {
    let error = Rotary::new(4, 5, 1e4, Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "rotary positions need an even head dimension, not 5");
}
