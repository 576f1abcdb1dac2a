//! Every kernel gives the same bits with every instruction set, for odd sizes too.

use half::bf16;

use super::*;

pub fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405) | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 3.0
    };
    (0..count).map(next).collect()
}

pub fn stored<E: Element>(count: usize, seed: u32) -> Vec<E> {
    numbers(count, seed).into_iter().map(E::store).collect()
}

/// All outputs of a kernel as bits.
pub fn bits<E: Element>(values: &[&[E]]) -> Vec<u32> {
    values
        .iter()
        .flat_map(|values| values.iter().map(|value| value.load().to_bits()))
        .collect()
}

fn same(what: &str, run: impl Fn(Level) -> Vec<u32>) {
    let expected = run(Level::Baseline);
    assert!(expected.iter().any(|bits| *bits != 0), "{what} wrote nothing");
    for level in [Level::Avx2, Level::Avx512] {
        assert!(run(level) == expected, "{what} differs at {level:?}");
    }
}

fn all<E: Element>() {
    for (rows, width) in [(7, 64), (5, 37), (70, 130), (3, 16), (40, 1)] {
        norms::<E>(rows, width);
        activations::<E>(rows, width);
        sums_and_updates::<E>(rows, width);
    }
}

fn norms<E: Element>(rows: usize, width: usize) {
    let size = rows * width;
    same("norm", |level| {
        let (x, dy) = (numbers(size, 1), numbers(size, 2));
        let (weight, bias) = (stored::<E>(width, 3), stored::<E>(width, 4));
        let (mut out, mut mean, mut rstd) = (stored::<E>(size, 0), vec![0.0; rows], vec![0.0; rows]);
        norm::norm_forward::at(level, &x, width, 1e-5, &weight, &bias, &mut out, &mut mean, &mut rstd);
        let mut again = stored::<E>(size, 0);
        norm::norm_apply::at(level, &x, width, &mean, &rstd, &weight, &bias, &mut again);
        assert!(bits(&[&again]) == bits(&[&out]), "the output again");
        let (mut dx, mut dweight, mut dbias) = (numbers(size, 5), vec![0.0; width], vec![0.0; width]);
        norm::norm_backward::at(
            level,
            &dy,
            &x,
            width,
            &mean,
            &rstd,
            &weight,
            &mut dx,
            &mut dweight,
            &mut dbias,
        );
        [bits(&[&out]), bits::<f32>(&[&mean, &rstd, &dx, &dweight, &dbias])].concat()
    });
    same("rms norm", |level| {
        let (x, dy, weight) = (numbers(size, 1), numbers(size, 2), stored::<E>(width, 3));
        let (mut out, mut rstd) = (stored::<E>(size, 0), vec![0.0; rows]);
        rms_norm::rms_norm_forward::at(level, &x, width, 1e-5, &weight, &mut out, &mut rstd);
        let mut again = stored::<E>(size, 0);
        rms_norm::rms_norm_apply::at(level, &x, width, &rstd, &weight, &mut again);
        assert!(bits(&[&again]) == bits(&[&out]), "the output again");
        let (mut dx, mut dweight) = (numbers(size, 5), vec![0.0; width]);
        rms_norm::rms_norm_backward::at(level, &dy, &x, width, &rstd, &weight, &mut dx, &mut dweight);
        [bits(&[&out]), bits::<f32>(&[&rstd, &dx, &dweight])].concat()
    });
}

fn activations<E: Element>(rows: usize, width: usize) {
    let size = rows * width;
    same("swiglu", |level| {
        let (z, d) = (stored::<E>(2 * size, 6), stored::<E>(size, 7));
        let (mut out, mut again, mut dz) = (stored::<E>(size, 0), stored::<E>(size, 0), stored::<E>(2 * size, 0));
        swiglu::swiglu_forward::at(level, &z, width, &mut out);
        swiglu::swiglu_backward::at(level, &z, &d, width, &mut dz, &mut again);
        assert!(bits(&[&again]) == bits(&[&out]), "the value again");
        bits(&[&out, &dz])
    });
    same("rotary", |level| {
        let d = 2 * width.div_ceil(2);
        let rotated = RotatedHeads {
            width: 4 * d + 3,
            first: d + 1,
            heads: 2,
            d,
        };
        let (cos, sin) = rotary_tables(5, d, 1e4);
        let mut values = stored::<E>(rows * rotated.width, 8);
        rotary::rotate::at(level, &mut values, rotated, 5, &cos, &sin, false);
        let mut back = values.clone();
        rotary::rotate::at(level, &mut back, rotated, 5, &cos, &sin, true);
        bits(&[&values, &back])
    });
    for gelu in [Gelu::Erf, Gelu::Tanh] {
        same("gelu", |level| {
            let (mut z, bias, mut out) = (stored::<E>(size, 6), stored::<E>(width, 7), stored::<E>(size, 0));
            activation::gelu_forward::at(level, gelu, &mut z, &bias, &mut out);
            let mut gradient = stored::<E>(size, 8);
            let mut again = stored::<E>(size, 0);
            activation::gelu_backward::at(level, gelu, &z, &mut gradient, &mut again);
            assert!(bits(&[&again]) == bits(&[&out]), "the value again");
            bits(&[&z, &out, &gradient])
        });
    }
    same("loss", |level| {
        let (mut logits, targets) = (stored::<E>(size, 9), (0..rows as i64).collect::<Vec<_>>());
        let (mut maxima, mut sums) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows]);
        loss::row_maxima::at(level, &logits, width, &mut maxima);
        let mut kept = logits.clone();
        loss::row_sums::at(level, &mut kept, width, &maxima, &mut vec![0.0; rows], false);
        assert!(kept == logits, "logits are not changed");
        loss::row_sums::at(level, &mut logits, width, &maxima, &mut sums, true);
        loss::loss_gradient::at(level, &mut logits, width, &sums, &targets);
        [bits(&[&logits]), bits::<f32>(&[&maxima, &sums])].concat()
    });
}

fn sums_and_updates<E: Element>(rows: usize, width: usize) {
    let size = rows * width;
    for shards in [1, 2, 4, 8] {
        same("sums", |level| {
            let parts: Vec<Vec<E>> = (0..shards).map(|i| stored(size, 10 + i)).collect();
            let parts: Vec<&[E]> = parts.iter().map(Vec::as_slice).collect();
            let (mut sum, mut more, mut out) = (vec![0.0; size], vec![0.0; size], vec![0.0; size]);
            let (extra, bias) = (stored::<E>(size, 30), stored::<E>(width, 31));
            sums::sum_partials::at(level, &parts, None::<&[f32]>, &mut sum);
            sums::sum_partials::at(level, &parts, Some(&extra), &mut more);
            sums::add_residual::at(level, &parts, width, Some(&bias), &numbers(size, 32), &mut out);
            for j in 0..size {
                let expected = crate::parallel::tree_by(parts.len(), &|i| parts[i][j].load());
                assert_eq!(sum[j].to_bits(), expected.to_bits(), "{shards} shards: the tree");
            }
            bits::<f32>(&[&sum, &more, &out])
        });
    }
    same("columns and casts", |level| {
        let values = stored::<E>(size, 33);
        let (mut columns, mut total) = (numbers(width, 34), numbers(size, 35));
        sums::column_sums::at(level, &values, &mut columns);
        sums::accumulate::at(level, &mut total, &values);
        let mut rounded = stored::<E>(size, 0);
        sums::cast::at(level, &total, &mut rounded);
        [bits::<f32>(&[&columns, &total]), bits(&[&rounded])].concat()
    });
    same("adamw", |level| {
        let (mut weight, gradient) = (numbers(size, 36), numbers(size, 37));
        let (mut first, mut second, mut copy) = (numbers(size, 38), vec![0.5; size], stored::<E>(size, 0));
        update::adamw::at(
            level,
            UPDATE,
            &mut weight,
            &gradient,
            &mut first,
            &mut second,
            Some(&mut copy),
        );
        [bits::<f32>(&[&weight, &first, &second]), bits(&[&copy])].concat()
    });
}

const UPDATE: AdamWCoefficients = AdamWCoefficients {
    scale: 0.37,
    beta1: 0.9,
    beta2: 0.95,
    one_minus_beta1: 0.1,
    one_minus_beta2: 0.05,
    epsilon: 1e-8,
    alpha_hat: 1e-3,
    sqrt_correction2: 0.3,
    decay: 0.9999,
};

#[test]
fn instruction_sets_do_not_change_bits() {
    all::<f32>();
    all::<bf16>();
    same("sum of squares", |level| {
        let sum = sums::sum_squares::at(level, &numbers(1003, 40));
        vec![sum.to_bits() as u32, (sum.to_bits() >> 32) as u32]
    });
}

#[test]
fn lanes_are_added_as_a_tree() {
    for lanes in [1usize, 2, 4, 8] {
        let parts: Vec<Vec<f32>> = (0..lanes).map(|i| numbers(50, 50 + i as u32)).collect();
        // Swapping subtrees at any node gives the same bits.
        for swap in 0..lanes {
            let others: Vec<&[f32]> = (1..lanes).map(|i| parts[i ^ swap].as_slice()).collect();
            let mut sum = parts[swap].clone();
            tree_into(&mut sum, &others);
            for j in 0..50 {
                assert_eq!(
                    sum[j].to_bits(),
                    crate::parallel::tree_by(lanes, &|i| parts[i][j]).to_bits()
                );
            }
        }
    }
}

/// The update against its definition, computed by libtorch in `f64`.
#[test]
fn adamw_matches_its_definition() {
    use tch::Tensor;
    let count = 1000;
    let (weight, gradient, first) = (numbers(count, 90), numbers(count, 91), numbers(count, 92));
    let second: Vec<f32> = numbers(count, 93).iter().map(|v| v * v).collect();
    let double = |values: &[f32]| Tensor::from_slice(values).to_kind(tch::Kind::Double);
    let (rate, beta1, beta2, decay, k) = (1e-3, 0.9f64, 0.95f64, 0.1, 7);
    let update = AdamWCoefficients {
        scale: 0.25,
        alpha_hat: (rate / (1.0 - beta1.powi(k))) as f32,
        sqrt_correction2: (1.0 - beta2.powi(k)).sqrt() as f32,
        decay: (1.0 - rate * decay) as f32,
        ..UPDATE
    };
    let g = double(&gradient) * 0.25;
    let m = double(&first) * beta1 + &g * (1.0 - beta1);
    let v = double(&second) * beta2 + &g * &g * (1.0 - beta2);
    let (mean, variance) = (&m / (1.0 - beta1.powi(k)), &v / (1.0 - beta2.powi(k)));
    let expected = double(&weight) * (1.0 - rate * decay) - mean / (variance.sqrt() + 1e-8) * rate;
    let (mut weight, mut first, mut second) = (weight, first, second);
    adamw::<f32>(update, &mut weight, &gradient, &mut first, &mut second, None);
    for (what, found, expected) in [("weight", &weight, &expected), ("m", &first, &m), ("v", &second, &v)] {
        let distance = (double(found) - expected).abs().max().double_value(&[]);
        assert!(distance < 1e-6, "{what} is {distance:e} off");
    }
}
