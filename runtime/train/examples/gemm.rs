//! GFLOP/s of this crate's matrix product and libtorch's, on one thread.
//!
//! `gemm [LEVEL]`: with the instruction set `baseline`, `avx2` or `avx512`; the widest by default.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use aurora_train::kernels::{Element, Epilogue, Level, Matrix, level, matmul_at, matmul_few_rows_at};
use half::bf16;
use tch::{Device, Kind, Tensor};

/// Seconds of the fastest of several runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn numbers<E: Element>(count: usize) -> Vec<E> {
    (0..count)
        .map(|i| E::store(((i * 7919 % 1009) as f32 - 504.0) / 504.0))
        .collect()
}

/// Which operand is stored transposed.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Right,
    Left,
    /// As `Right`, with the kernels for few rows: steps of generation.
    FewRows,
}

fn ours<E: Element>(level: Level, form: Form, [m, k, n]: [usize; 3]) -> f64 {
    let (left, right) = (numbers::<E>(m * k), numbers::<E>(k * n));
    let mut out = numbers::<E>(m * n);
    let (left, right) = match form {
        Form::Plain => (Matrix::new(&left, m, k, k), Matrix::new(&right, k, n, n)),
        Form::Right => (Matrix::new(&left, m, k, k), Matrix::new(&right, n, k, k).transposed()),
        Form::FewRows => {
            let (left, right) = (Matrix::new(&left, m, k, k), Matrix::new(&right, n, k, k));
            return fastest(|| matmul_few_rows_at(level, left, right, black_box(&mut out), n, None));
        }
        Form::Left => (Matrix::new(&left, k, m, m).transposed(), Matrix::new(&right, k, n, n)),
    };
    fastest(|| matmul_at(level, left, right, black_box(&mut out), n, Epilogue::Store))
}

fn theirs(kind: Kind, form: Form, shape: [usize; 3]) -> Result<f64, Box<dyn Error>> {
    let [m, k, n] = shape.map(|size| size as i64);
    let random = |rows, columns| Tensor::f_randn([rows, columns], (Kind::Float, Device::Cpu))?.f_to_kind(kind);
    let (left, right) = match form {
        Form::Plain => (random(m, k)?, random(k, n)?),
        Form::Right | Form::FewRows => (random(m, k)?, random(n, k)?.f_transpose(0, 1)?),
        Form::Left => (random(k, m)?.f_transpose(0, 1)?, random(k, n)?),
    };
    let out = random(m, n)?;
    let _ = left.f_mm_out(&out, &right)?;
    Ok(fastest(|| {
        let _ = left.mm_out(&out, &right);
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let level = match std::env::args().nth(1).as_deref() {
        None => level(),
        Some("avx512") => Level::Avx512,
        Some("avx2") => Level::Avx2,
        Some("baseline") => Level::Baseline,
        Some(other) => return Err(format!("unknown level `{other}`: use baseline, avx2 or avx512").into()),
    };
    tch::set_num_threads(1);
    println!("{level:?}; rows x inner x columns, GFLOP/s: ours, libtorch's, ratio");
    let shapes = [
        [512, 512, 512],
        [2048, 512, 2048],
        [2048, 2048, 512],
        [2048, 512, 512],
        [512, 2048, 2048],
        [1024, 512, 16_384],
        [130, 130, 130],
        [1, 512, 2048],
    ];
    let few = [
        [1, 576, 1536],
        [8, 576, 1536],
        [32, 576, 1536],
        [32, 576, 49_152],
        [32, 2048, 8192],
    ];
    let forms = [Form::Plain, Form::Right, Form::Left];
    let all = shapes.into_iter().flat_map(|shape| forms.map(|form| (shape, form)));
    for (shape @ [m, k, n], form) in all.chain(few.map(|shape| (shape, Form::FewRows))) {
        let work = (2 * m * k * n) as f64 / 1e9;
        let floats = (
            work / ours::<f32>(level, form, shape),
            work / theirs(Kind::Float, form, shape)?,
        );
        let halves = (
            work / ours::<bf16>(level, form, shape),
            work / theirs(Kind::BFloat16, form, shape)?,
        );
        println!(
            "{:>5} x {k:>4} x {n:>5} {form:?}\tf32 {:6.1} {:6.1} {:4.2}\tbf16 {:6.1} {:6.1} {:4.2}",
            m,
            floats.0,
            floats.1,
            floats.0 / floats.1,
            halves.0,
            halves.1,
            halves.0 / halves.1
        );
    }
    Ok(())
}
