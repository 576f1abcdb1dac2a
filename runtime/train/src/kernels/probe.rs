//! Digests of the kernels' results for fixed inputs: equal digests mean equal kernels.
//!
//! The same on every processor. A run compares them to decide whether results of another machine are comparable.

use std::cell::Cell;

use half::bf16;

use super::{
    AdamWCoefficients, AttentionGradients, AttentionOutput, AttentionShape, Element, Epilogue, Gelu, HeadStrides,
    Heads, HeadsOut, Level, Matrix, RotatedHeads, activation, attention, embedding, gemm, level, loss, norm, rms_norm,
    rotary, rotary_tables, row_losses, sums, swiglu, update,
};

/// Rows and row length of the inputs: not multiples of vectors or blocks.
const ROWS: usize = 70;
const WIDTH: usize = 150;
const SIZE: usize = ROWS * WIDTH;

/// BLAKE3 of the results of each group of kernels, with the widest instruction set.
pub fn probe() -> Vec<(&'static str, blake3::Hash)> {
    probe_at(level())
}

/// [`probe`] with a given instruction set.
pub fn probe_at(level: Level) -> Vec<(&'static str, blake3::Hash)> {
    type Probe = fn(Level, &mut Results);
    let groups: [(&str, [Probe; 2]); 9] = [
        ("products", [products::<f32>, products::<bf16>]),
        ("attention", [attend::<f32>, attend::<bf16>]),
        ("norms", [norms::<f32>, norms::<bf16>]),
        ("activations", [activations::<f32>, activations::<bf16>]),
        ("rotary positions", [positions::<f32>, positions::<bf16>]),
        ("embeddings", [embeddings::<f32>, embeddings::<bf16>]),
        ("loss", [losses::<f32>, losses::<bf16>]),
        ("sums", [totals::<f32>, totals::<bf16>]),
        ("update", [updates::<f32>, updates::<bf16>]),
    ];
    let digest = |probes: [Probe; 2]| {
        let mut results = Results(blake3::Hasher::new());
        probes.into_iter().for_each(|probe| probe(level, &mut results));
        results.0.finalize()
    };
    groups.map(|(name, probes)| (name, digest(probes))).to_vec()
}

struct Results(blake3::Hasher);

impl Results {
    fn add<E: Element>(&mut self, values: &[E]) {
        for value in values {
            self.0.update(&value.load().to_bits().to_le_bytes());
        }
    }
}

/// Values between −2 and 2 from a fixed generator.
fn numbers<E: Element>(count: usize, seed: u32) -> Vec<E> {
    let mut state = seed.wrapping_mul(747_796_405) | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        E::store((state >> 8) as f32 / 4_194_304.0 - 2.0)
    };
    (0..count).map(next).collect()
}

fn products<E: Element>(level: Level, results: &mut Results) {
    let (m, k, n) = (ROWS, 300, WIDTH);
    let (left, right, bias) = (numbers::<E>(m * k, 1), numbers::<E>(k * n, 2), numbers::<E>(n, 3));
    let lefts = [Matrix::new(&left, m, k, k), Matrix::new(&left, k, m, m).transposed()];
    let rights = [Matrix::new(&right, k, n, n), Matrix::new(&right, n, k, k).transposed()];
    for (left, right) in [(lefts[0], rights[0]), (lefts[0], rights[1]), (lefts[1], rights[0])] {
        let mut out = numbers::<E>(SIZE, 4);
        gemm::matmul_at(level, left, right, &mut out, n, Epilogue::Store);
        results.add(&out);
        gemm::matmul_at(level, left, right, &mut out, n, Epilogue::Bias(&bias));
        results.add(&out);
        let mut sum = numbers::<f32>(SIZE, 5);
        gemm::matmul_at(level, left, right, &mut sum, n, Epilogue::Add);
        results.add(&sum);
    }
}

fn attend<E: Element>(level: Level, results: &mut Results) {
    let shape = AttentionShape {
        sequences: 2,
        sequence: ROWS,
        heads: 6,
        kv_heads: 2,
        d: 20,
    };
    let strides = |heads: usize| HeadStrides {
        sequence: shape.sequence * heads * shape.d,
        row: heads * shape.d,
        head: shape.d,
    };
    let (strides, kv_strides) = (strides(shape.heads), strides(shape.kv_heads));
    let (size, kv_size) = (
        shape.sequences * strides.sequence,
        shape.sequences * kv_strides.sequence,
    );
    let (query, gradient) = (numbers::<E>(size, 1), numbers::<E>(size, 2));
    let (key, value) = (numbers::<E>(kv_size, 3), numbers::<E>(kv_size, 4));
    let [query, gradient] = [&query, &gradient].map(|values| Heads { values, strides });
    let [key, value] = [&key, &value].map(|values| Heads {
        values,
        strides: kv_strides,
    });
    let (mut out, mut lse) = (numbers::<E>(size, 0), vec![0.0; size / shape.d]);
    let cells = Cell::from_mut(&mut out[..]).as_slice_of_cells();
    attention::attention_forward_at(
        level,
        shape,
        query,
        key,
        value,
        &[],
        HeadsOut { values: cells, strides },
        &mut lse,
    );
    let (mut dquery, mut dkey, mut dvalue) = (numbers::<E>(size, 0), numbers::<E>(kv_size, 0), numbers(kv_size, 0));
    let output = AttentionOutput {
        out: Heads { values: &out, strides },
        lse: &lse,
    };
    let to = AttentionGradients {
        query: HeadsOut {
            values: Cell::from_mut(&mut dquery[..]).as_slice_of_cells(),
            strides,
        },
        key: HeadsOut {
            values: Cell::from_mut(&mut dkey[..]).as_slice_of_cells(),
            strides: kv_strides,
        },
        value: HeadsOut {
            values: Cell::from_mut(&mut dvalue[..]).as_slice_of_cells(),
            strides: kv_strides,
        },
    };
    attention::attention_backward_at(level, shape, query, key, value, output, gradient, to);
    for values in [&out, &dquery, &dkey, &dvalue] {
        results.add(values);
    }
    results.add(&lse);
}

fn norms<E: Element>(level: Level, results: &mut Results) {
    let (x, dy) = (numbers::<f32>(SIZE, 1), numbers::<f32>(SIZE, 2));
    let (weight, bias) = (numbers::<E>(WIDTH, 3), numbers::<E>(WIDTH, 4));
    let (mut out, mut mean, mut rstd) = (numbers::<E>(SIZE, 0), vec![0.0; ROWS], vec![0.0; ROWS]);
    let (mut dx, mut dweight, mut dbias) = (numbers::<f32>(SIZE, 5), vec![0.0; WIDTH], vec![0.0; WIDTH]);
    norm::norm_forward::at(level, &x, WIDTH, 1e-5, &weight, &bias, &mut out, &mut mean, &mut rstd);
    results.add(&out);
    norm::norm_backward::at(
        level,
        &dy,
        &x,
        WIDTH,
        &mean,
        &rstd,
        &weight,
        &mut dx,
        &mut dweight,
        &mut dbias,
    );
    for values in [&mean, &rstd, &dx, &dweight, &dbias] {
        results.add(values);
    }
    rms_norm::rms_norm_forward::at(level, &x, WIDTH, 1e-5, &weight, &mut out, &mut rstd);
    rms_norm::rms_norm_backward::at(level, &dy, &x, WIDTH, &rstd, &weight, &mut dx, &mut dweight);
    results.add(&out);
    for values in [&rstd, &dx, &dweight] {
        results.add(values);
    }
}

fn activations<E: Element>(level: Level, results: &mut Results) {
    for gelu in [Gelu::Erf, Gelu::Tanh] {
        let (mut z, bias) = (numbers::<E>(SIZE, 1), numbers::<E>(WIDTH, 2));
        let (mut out, mut gradient) = (numbers::<E>(SIZE, 0), numbers::<E>(SIZE, 3));
        activation::gelu_forward::at(level, gelu, &mut z, &bias, &mut out);
        results.add(&out);
        activation::gelu_backward::at(level, gelu, &z, &mut gradient, &mut out);
        results.add(&gradient);
    }
    let (z, d) = (numbers::<E>(2 * SIZE, 4), numbers::<E>(SIZE, 5));
    let (mut out, mut dz) = (numbers::<E>(SIZE, 0), numbers::<E>(2 * SIZE, 0));
    swiglu::swiglu_forward::at(level, &z, WIDTH, &mut out);
    results.add(&out);
    swiglu::swiglu_backward::at(level, &z, &d, WIDTH, &mut dz, &mut out);
    results.add(&dz);
}

fn positions<E: Element>(level: Level, results: &mut Results) {
    let rotated = RotatedHeads {
        width: WIDTH,
        first: 10,
        heads: 5,
        d: 22,
    };
    let (cos, sin) = rotary_tables(2048, rotated.d, 1e4);
    results.add(&cos);
    results.add(&sin);
    let mut rows = numbers::<E>(SIZE, 1);
    for inverse in [false, true] {
        rotary::rotate::at(level, &mut rows, rotated, 35, &cos, &sin, inverse);
        results.add(&rows);
    }
}

fn embeddings<E: Element>(level: Level, results: &mut Results) {
    let (words, sequence) = (40, 35);
    let ids: Vec<i64> = (0..ROWS as i64).map(|row| row * row % 50).collect();
    let (word, position) = (numbers::<E>(words * WIDTH, 1), numbers::<E>(sequence * WIDTH, 2));
    let mut out = numbers::<f32>(SIZE, 3);
    embedding::embed_rows::at(level, &ids, sequence, 5, &word, None, WIDTH, &mut out);
    results.add(&out);
    embedding::embed_rows::at(level, &ids, sequence, 5, &word, Some(&position), WIDTH, &mut out);
    results.add(&out);
    let (mut by_word, mut by_position) = (vec![0.0; words * WIDTH], vec![0.0; sequence * WIDTH]);
    embedding::embedding_gradient::at(level, &ids, 5, &out, WIDTH, &mut by_word);
    embedding::position_gradient::at(level, &out, sequence, WIDTH, &mut by_position);
    results.add(&by_word);
    results.add(&by_position);
}

fn losses<E: Element>(level: Level, results: &mut Results) {
    let mut logits = numbers::<E>(SIZE, 1);
    let (mut maxima, mut sums) = (vec![f32::NEG_INFINITY; ROWS], vec![0.0; ROWS]);
    loss::row_maxima::at(level, &logits, WIDTH, &mut maxima);
    loss::row_sums::at(level, &mut logits, WIDTH, &maxima, &mut sums, true);
    let mut losses = vec![0.0f64; ROWS];
    row_losses(&sums, &maxima, &numbers::<f32>(ROWS, 2), &mut losses);
    for loss in losses {
        results.0.update(&loss.to_bits().to_le_bytes());
    }
    let targets: Vec<i64> = (0..ROWS as i64).map(|row| row * 3 - 20).collect();
    loss::loss_gradient::at(level, &mut logits, WIDTH, &sums, &targets);
    results.add(&maxima);
    results.add(&sums);
    results.add(&logits);
}

fn totals<E: Element>(level: Level, results: &mut Results) {
    let (bias, extra, residual) = (numbers::<E>(WIDTH, 1), numbers::<E>(SIZE, 2), numbers::<f32>(SIZE, 3));
    for count in [1, 2, 4, 8] {
        let parts: Vec<Vec<E>> = (0..count).map(|i| numbers(SIZE, 10 + i)).collect();
        let parts: Vec<&[E]> = parts.iter().map(Vec::as_slice).collect();
        let mut out = vec![0.0; SIZE];
        sums::sum_partials::at(level, &parts, Some(&extra), &mut out);
        results.add(&out);
        sums::add_residual::at(level, &parts, WIDTH, Some(&bias), &residual, &mut out);
        results.add(&out);
        sums::add_residual::at(level, &parts, WIDTH, None::<&[E]>, &residual, &mut out);
        results.add(&out);
    }
    let (values, mut columns) = (numbers::<E>(SIZE, 4), numbers::<f32>(WIDTH, 5));
    sums::column_sums::at(level, &values, &mut columns);
    results.add(&columns);
    let mut total = residual;
    sums::accumulate::at(level, &mut total, &values);
    let mut rounded = values;
    sums::cast::at(level, &total, &mut rounded);
    results.add(&rounded);
    let mut folded = vec![0.0; SIZE / 3];
    sums::fold_heads::at(level, &rounded, 3, WIDTH / 3, &mut folded, WIDTH / 3, 0);
    results.add(&folded);
    let squares = sums::sum_squares::at(level, &total);
    results.0.update(&squares.to_bits().to_le_bytes());
}

fn updates<E: Element>(level: Level, results: &mut Results) {
    let lanes: Vec<Vec<f32>> = (0..4).map(|i| numbers(SIZE, 20 + i)).collect();
    let lanes: Vec<&[f32]> = lanes.iter().map(Vec::as_slice).collect();
    let mut gradient = numbers::<f32>(SIZE, 1);
    update::tree_into::at(level, &mut gradient, &lanes[1..]);
    let coefficients = AdamWCoefficients {
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
    let (mut weight, mut first, mut second) = (numbers::<f32>(SIZE, 2), numbers::<f32>(SIZE, 3), vec![0.5; SIZE]);
    let mut rounded = numbers::<E>(SIZE, 0);
    update::adamw::at(
        level,
        coefficients,
        &mut weight,
        &gradient,
        &mut first,
        &mut second,
        Some(&mut rounded),
    );
    for values in [&gradient, &weight, &first, &second] {
        results.add(values);
    }
    results.add(&rounded);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of every x86-64 processor. A changed digest means that the weights of every run change too: a new
    /// version of `portable` numerics.
    const DIGESTS: [(&str, &str); 9] = [
        (
            "products",
            "213b952d7a5011e9381e97262af19f50381ece14bb23629310d6295c87ad57a7",
        ),
        (
            "attention",
            "5149fecde850fa9905fcf2dc8e59b2cfb1063fe69deef18cfa7af3d678bb92f7",
        ),
        (
            "norms",
            "558607e76791d228dc4b6126b57efeb792b83a0b3758f8f8188ecddbb999b249",
        ),
        (
            "activations",
            "6525a9530797ea879f6369fc696ed27c8bf4235cfdab7c3bee3850f8749ccea9",
        ),
        (
            "rotary positions",
            "3deacc415f673108b69b734e68c4ed684ffd96ec70b0e4960bca1f6d67f2b055",
        ),
        (
            "embeddings",
            "df6d6a403b1a7a623b041644d54c3c6fe7d81a4ec6efde9b5d9164dd9897361f",
        ),
        (
            "loss",
            "c5ffbae0604f0b36d5fdb2ac5714f74d79a972922ac5687cd4f140cb932da42f",
        ),
        (
            "sums",
            "990d4cfbc55bdd63f8955e0f449907c9cc7a489a4d0f22df52573639578cd7a3",
        ),
        (
            "update",
            "cfeceb7552284ba196c9a8b0e72c8ee45fdd95a7f5ace2addcc933bd093d9e4a",
        ),
    ];

    #[test]
    fn digests_are_the_same_on_every_processor() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            for ((name, digest), expected) in probe_at(level).iter().zip(DIGESTS) {
                assert_eq!((*name, digest.to_hex().as_str()), expected, "{level:?}");
            }
        }
        assert_eq!(probe(), probe_at(Level::Baseline));
    }
}
