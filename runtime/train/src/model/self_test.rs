//! Compares everything that a device computes with this crate's kernels or a fused kernel of libtorch with its reference
//! in libtorch's basic operations, on the device.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::ops::{HeadColumns, NormStats, Rotary, UpdateChunk};
use super::views::Norm;
use super::{Kernels, ModelError, composed_attention, fused_attention, to_host};
use crate::kernels::{AdamWCoefficients, Gelu};

/// The result of one comparison.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KernelCheck {
    pub name: String,
    /// The largest distance from the reference, relative to the reference's largest element.
    pub error: f64,
    pub bound: f64,
    /// Two runs gave the same bits.
    pub repeats: bool,
}

impl KernelCheck {
    pub fn passes(&self) -> bool {
        self.error <= self.bound && self.repeats
    }
}

const ROWS: i64 = 72;
const BLOCKS: [Range<usize>; 3] = [0..32, 32..40, 40..72];

/// Rounding of sums in `f32`, and of results in `bf16`, relative to the largest element.
fn bound(kind: Kind) -> f64 {
    if kind == Kind::Float { 1e-5 } else { 1.6e-2 }
}

/// Draws inputs on the device.
struct Inputs {
    device: Device,
    kind: Kind,
}

impl Inputs {
    /// Numbers near ±1 that depend on `seed` and their index only.
    fn of(&self, kind: Kind, rows: i64, columns: i64, seed: i64) -> Result<Tensor, ModelError> {
        let index = Tensor::f_arange(rows * columns, (Kind::Double, self.device))?;
        let angle = index.f_mul_scalar(0.7 + 0.1 * seed as f64)?.f_add_scalar(seed)?;
        let values = angle.f_sin()?.f_mul(&angle.f_mul_scalar(0.37)?.f_cos()?)?;
        Ok(values.f_mul_scalar(1.5)?.f_to_kind(kind)?.f_view([rows, columns])?)
    }

    fn element(&self, rows: i64, columns: i64, seed: i64) -> Result<Tensor, ModelError> {
        self.of(self.kind, rows, columns, seed)
    }

    fn float(&self, rows: i64, columns: i64, seed: i64) -> Result<Tensor, ModelError> {
        self.of(Kind::Float, rows, columns, seed)
    }

    fn vector(&self, kind: Kind, length: i64, seed: i64) -> Result<Tensor, ModelError> {
        Ok(self.of(kind, 1, length, seed)?.f_view([-1])?)
    }

    fn empty(&self, kind: Kind, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
        // An element that is not written is found.
        Ok(Tensor::f_full([rows, columns], f64::NAN, (kind, self.device))?)
    }
}

type Run<'a> = &'a dyn Fn(Kernels) -> Result<Vec<Tensor>, ModelError>;

/// Runs an operation twice and its reference once.
fn compare(name: &str, kind: Kind, run: Run<'_>) -> Result<KernelCheck, ModelError> {
    let (found, again, expected) = (run(Kernels::Device)?, run(Kernels::Device)?, run(Kernels::Aten)?);
    let mut error = 0.0f64;
    let mut repeats = true;
    for ((found, again), expected) in found.iter().zip(&again).zip(&expected) {
        let doubles = |tensor: &Tensor| to_host::<f64>(&tensor.f_to_kind(Kind::Double)?);
        let (found, again, expected) = (doubles(found)?, doubles(again)?, doubles(expected)?);
        let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        for ((found, again), expected) in found.iter().zip(&again).zip(&expected) {
            repeats &= found.to_bits() == again.to_bits();
            let distance = (found - expected).abs() / largest.max(f64::MIN_POSITIVE);
            // Not a number is infinitely far away.
            error = error.max(if distance.is_nan() && found.to_bits() != expected.to_bits() {
                f64::INFINITY
            } else if distance.is_nan() {
                0.0
            } else {
                distance
            });
        }
    }
    Ok(KernelCheck {
        name: format!("{name}, {kind:?}"),
        error,
        bound: bound(kind),
        repeats,
    })
}

/// All comparisons, for both element types.
///
/// # Errors
/// [`ModelError`] if an operation fails.
pub fn self_test(device: Device) -> Result<Vec<KernelCheck>, ModelError> {
    let _guard = tch::no_grad_guard();
    let mut checks = Vec::new();
    for kind in [Kind::Float, Kind::BFloat16] {
        let inputs = Inputs { device, kind };
        // Widths with and without a rest, at most and above one pass of a group of lanes.
        for width in [36, 130, 512] {
            checks.extend(rows(&inputs, width)?);
            checks.extend(sums(&inputs, width)?);
        }
        checks.extend(embeddings(&inputs)?);
        checks.extend(losses(&inputs)?);
        checks.extend(optimizer(&inputs)?);
        checks.extend(products(&inputs)?);
    }
    Ok(checks)
}

/// Norms and activations.
fn rows(inputs: &Inputs, width: i64) -> Result<Vec<KernelCheck>, ModelError> {
    let kind = inputs.kind;
    let norm = |with_bias: bool, kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let (x, dy) = (inputs.float(ROWS, width, 1)?, inputs.float(ROWS, width, 2)?);
        let mut norm = Norm {
            weight_h: vec![inputs.vector(kind, width, 3)?],
            bias_h: Vec::new(),
        };
        let gradients = |seed| -> Result<Vec<Tensor>, ModelError> {
            BLOCKS.iter().map(|_| inputs.vector(Kind::Float, width, seed)).collect()
        };
        let mut gradient = Norm {
            weight_h: gradients(5)?,
            bias_h: Vec::new(),
        };
        if with_bias {
            norm.bias_h.push(inputs.vector(kind, width, 4)?);
            gradient.bias_h = gradients(6)?;
        }
        let (out, dx) = (inputs.empty(kind, ROWS, width)?, inputs.float(ROWS, width, 7)?);
        let again = out.copy();
        let (mean, rstd) = (
            inputs.empty(Kind::Float, 1, ROWS)?.f_view([-1])?,
            inputs.empty(Kind::Float, 1, ROWS)?.f_view([-1])?,
        );
        let stats = NormStats {
            mean_t: &mean,
            rstd_t: &rstd,
        };
        kernels.norm_forward(&x, &norm, 1e-5, &out, stats)?;
        kernels.norm_apply(&x, &norm, &again, stats)?;
        kernels.norm_backward(&dy, &x, &norm, stats, &BLOCKS, &dx, &gradient)?;
        Ok([vec![out, again, dx, rstd], gradient.weight_h, gradient.bias_h].concat_tensors())
    };
    let gelu = |form: Gelu, kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let (z, bias) = (inputs.element(ROWS, width, 8)?, inputs.vector(kind, width, 9)?);
        let (out, again) = (inputs.empty(kind, ROWS, width)?, inputs.empty(kind, ROWS, width)?);
        let gradient = inputs.element(ROWS, width, 10)?;
        kernels.gelu_forward(form, &z, &bias, &out)?;
        kernels.gelu_backward(form, &z, &gradient, &again)?;
        Ok(vec![z, out, gradient, again])
    };
    let swiglu = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let (z, gradient) = (inputs.element(ROWS, 2 * width, 11)?, inputs.element(ROWS, width, 12)?);
        let (out, again) = (inputs.empty(kind, ROWS, width)?, inputs.empty(kind, ROWS, width)?);
        let dz = inputs.empty(kind, ROWS, 2 * width)?;
        kernels.swiglu_forward(&z, &out)?;
        kernels.swiglu_backward(&z, &gradient, &dz, &again)?;
        Ok(vec![out, dz, again])
    };
    Ok(vec![
        compare(&format!("norm, width {width}"), kind, &|kernels| norm(true, kernels))?,
        compare(&format!("rms norm, width {width}"), kind, &|kernels| {
            norm(false, kernels)
        })?,
        compare(&format!("gelu, width {width}"), kind, &|kernels| {
            gelu(Gelu::Erf, kernels)
        })?,
        compare(&format!("gelu tanh, width {width}"), kind, &|kernels| {
            gelu(Gelu::Tanh, kernels)
        })?,
        compare(&format!("swiglu, width {width}"), kind, &swiglu)?,
    ])
}

/// Joins lists of tensors.
trait Concatenate {
    fn concat_tensors(self) -> Vec<Tensor>;
}

impl Concatenate for [Vec<Tensor>; 3] {
    fn concat_tensors(self) -> Vec<Tensor> {
        self.into_iter().flatten().collect()
    }
}

/// Sums over shards, rows and heads, and rotation.
fn sums(inputs: &Inputs, width: i64) -> Result<Vec<KernelCheck>, ModelError> {
    let kind = inputs.kind;
    let parts = |count: i64, kind: Kind| -> Result<Vec<Tensor>, ModelError> {
        (0..count).map(|seed| inputs.of(kind, ROWS, width, 20 + seed)).collect()
    };
    let mut checks = Vec::new();
    for count in [1, 2, 8] {
        let residual = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
            let (all, out) = (parts(count, kind)?, inputs.empty(Kind::Float, ROWS, width)?);
            let (bias, before) = (inputs.vector(kind, width, 31)?, inputs.float(ROWS, width, 32)?);
            kernels.add_residual(&all, Some(&bias), &before, &out)?;
            let (sum, gradient) = (inputs.empty(Kind::Float, ROWS, width)?, inputs.float(ROWS, width, 33)?);
            kernels.sum_partials(&all, Some(&inputs.element(ROWS, width, 34)?), &sum)?;
            kernels.add_partials(&all, &gradient)?;
            let floats = parts(count, Kind::Float)?;
            kernels.add_tree(&floats[0], &floats[1..])?;
            kernels.accumulate(&sum, &floats[0])?;
            Ok(vec![out, sum, gradient])
        };
        checks.push(compare(&format!("sum of {count}, width {width}"), kind, &residual)?);
    }
    let columns = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let gradients = BLOCKS
            .iter()
            .map(|_| inputs.vector(Kind::Float, width, 35))
            .collect::<Result<Vec<_>, _>>()?;
        kernels.column_sums(&inputs.element(ROWS, width, 36)?, &BLOCKS, &gradients)?;
        let folded = inputs.empty(Kind::Float, ROWS, 2 * (width / 2))?;
        let (dk, dv) = (
            inputs.element(ROWS, width / 2 * 3, 37)?,
            inputs.element(ROWS, width / 2 * 3, 38)?,
        );
        kernels.fold_heads(&dk, &dv, 3, &folded)?;
        let rounded = inputs.empty(kind, ROWS, width)?;
        kernels.cast(&inputs.float(ROWS, width, 39)?, &rounded)?;
        Ok([gradients, vec![folded, rounded], Vec::new()].concat_tensors())
    };
    checks.push(compare(&format!("column sums, width {width}"), kind, &columns)?);
    let rotate = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let rotary = Rotary::new(24, 6, 1e4, inputs.device)?;
        let (rows, back) = (inputs.element(ROWS, width, 40)?, inputs.element(ROWS, width, 40)?);
        kernels.rotate(&rows, &rotary, 24, 6, 4, false)?;
        kernels.rotate(&back, &rotary, 24, 0, 5, true)?;
        Ok(vec![rows, back])
    };
    checks.push(compare(&format!("rotary, width {width}"), kind, &rotate)?);
    let pack = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let rotary = Rotary::new(24, 12, 1e4, inputs.device)?;
        let heads = |n: i64, seed| {
            inputs
                .element(ROWS, n * 12, seed)?
                .f_view([ROWS, n, 12])
                .map_err(ModelError::from)
        };
        let (dq, dk, dv) = (heads(4, 41)?, heads(2, 42)?, heads(2, 43)?);
        let to = inputs.element(ROWS, 8 * 12, 44)?;
        let columns = [0, 4 * 12, 6 * 12].map(|first| HeadColumns { first, step: 12 });
        if !kernels.pack_heads([&dq, &dk, &dv], Some(&rotary), 24, columns, &to)? {
            let flat = [dq, dk, dv].map(|heads| heads.f_flatten(1, 2));
            let [dq, dk, dv] = flat;
            to.shallow_clone().f_copy_(&Tensor::f_cat(&[dq?, dk?, dv?], 1)?)?;
            kernels.rotate(&to, &rotary, 24, 0, 6, true)?;
        }
        Ok(vec![to])
    };
    checks.push(compare(&format!("gradients of heads, width {width}"), kind, &pack)?);
    Ok(checks)
}

/// Ids of which many are equal.
fn ids(inputs: &Inputs, below: i64) -> Result<Tensor, ModelError> {
    let index = Tensor::f_arange(ROWS, (Kind::Int64, inputs.device))?;
    Ok(index.f_mul_scalar(7)?.f_remainder(below)?)
}

fn embeddings(inputs: &Inputs) -> Result<Vec<KernelCheck>, ModelError> {
    let (kind, width) = (inputs.kind, 68);
    let run = |shards: i64, kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let tables = |kind| {
            (0..shards)
                .map(|seed| inputs.of(kind, 8, width, 50 + seed))
                .collect::<Result<Vec<_>, _>>()
        };
        let (word, dword) = (tables(kind)?, tables(Kind::Float)?);
        let (position, dposition) = (inputs.element(24, width, 60)?, inputs.float(24, width, 61)?);
        let (ids, out) = (ids(inputs, 8 * shards)?, inputs.empty(Kind::Float, ROWS, width)?);
        kernels.embed(&ids, 24, 0, &word, Some(&position), &out)?;
        kernels.embed_backward(&ids, 24, 0, &inputs.float(ROWS, width, 62)?, &dword, Some(&dposition))?;
        Ok([vec![out, dposition], dword, Vec::new()].concat_tensors())
    };
    let compared = |shards: i64| {
        compare(&format!("embedding, {shards} shards"), kind, &|kernels| {
            run(shards, kernels)
        })
    };
    [1, 2].into_iter().map(compared).collect()
}

/// Losses and their gradient over one and several shards of a vocabulary, with targets that do not count.
fn losses(inputs: &Inputs) -> Result<Vec<KernelCheck>, ModelError> {
    let kind = inputs.kind;
    let run = |shards: i64, width: i64, kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let logits = (0..shards)
            .map(|seed| inputs.element(ROWS, width, 70 + seed))
            .collect::<Result<Vec<_>, _>>()?;
        let targets = ids(inputs, width * shards)?;
        let _ = targets.f_narrow(0, 3, 2)?.f_fill_(-1)?;
        let (maxima, sums) = (inputs.empty(Kind::Float, 1, ROWS)?, inputs.empty(Kind::Float, 2, ROWS)?);
        let own = Tensor::f_full([ROWS], f64::NAN, (Kind::Double, inputs.device))?;
        let whole: Vec<Tensor> = logits.iter().map(Tensor::copy).collect();
        let own_whole = own.copy();
        let is_whole = kernels.whole_loss(&whole, &targets, &own_whole, true)?;
        kernels.row_maxima(&logits, &maxima)?;
        kernels.row_sums(&logits, &targets, 0, &maxima, &sums, true)?;
        kernels.finish_loss(&logits, &targets, 0, &maxima, &sums, &own, true)?;
        // At once, and in parts: the same.
        let (own_whole, whole) = if is_whole {
            (own_whole, whole)
        } else {
            (own.copy(), logits.iter().map(Tensor::copy).collect())
        };
        Ok([vec![own, own_whole, maxima], logits, whole].concat_tensors())
    };
    let compared = |(shards, width): (i64, i64)| {
        let name = format!("loss, {shards} shards of {width}");
        compare(&name, kind, &|kernels| run(shards, width, kernels))
    };
    [(1, 5000), (1, 1027), (4, 96)].into_iter().map(compared).collect()
}

fn optimizer(inputs: &Inputs) -> Result<Vec<KernelCheck>, ModelError> {
    let kind = inputs.kind;
    let coefficients = AdamWCoefficients {
        scale: 0.5,
        beta1: 0.9,
        beta2: 0.95,
        one_minus_beta1: 0.1,
        one_minus_beta2: 0.05,
        epsilon: 1e-8,
        alpha_hat: 1e-3,
        sqrt_correction2: 0.3,
        decay: 0.99,
    };
    let chunk = |range: Range<usize>, decays: bool| UpdateChunk {
        master: range.clone(),
        moments: range.clone(),
        range,
        decays,
    };
    let chunks = [chunk(0..4096, true), chunk(4096..4101, false), chunk(4101..7000, true)];
    let run = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let float = |seed| inputs.vector(Kind::Float, 7000, seed);
        let (theta, g, m) = (float(80)?, float(81)?, float(82)?);
        let v = float(83)?.f_square()?;
        let compute = match kind {
            Kind::Float => theta.shallow_clone(),
            _ => inputs.vector(kind, 7000, 84)?,
        };
        let table = UpdateChunk::table(&chunks, inputs.device)?;
        kernels.adamw_chunks(coefficients, &chunks, Some(&table), [&theta, &g, &m, &v, &compute])?;
        let ranges: Vec<Range<usize>> = chunks.iter().map(|chunk| chunk.range.clone()).collect();
        let starts = ranges.iter().map(|range| range.start as i64);
        let numbers: Vec<i64> = starts.chain(ranges.iter().map(|range| range.len() as i64)).collect();
        let table = super::to_device(&numbers, inputs.device)?.f_view([2, ranges.len() as i64])?;
        Ok(vec![theta, m, v, compute, kernels.sum_squares(&g, &ranges, &table)?])
    };
    Ok(vec![compare("adamw", kind, &run)?])
}

/// A product that is added in `f32`, and attention.
fn products(inputs: &Inputs) -> Result<Vec<KernelCheck>, ModelError> {
    let kind = inputs.kind;
    let add = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let (left, right) = (inputs.element(ROWS, 64, 90)?, inputs.element(ROWS, 96, 91)?);
        let gradient = inputs.float(64, 96, 92)?;
        kernels.add_matmul(&gradient, &left, &right)?;
        Ok(vec![gradient])
    };
    let attention = |kernels: Kernels| -> Result<Vec<Tensor>, ModelError> {
        let heads = |n: i64, seed| -> Result<Tensor, ModelError> {
            let rows = inputs.element(2 * 48, n * 32, seed)?;
            Ok(rows.f_view([2, 48, n, 32])?.f_transpose(1, 2)?)
        };
        let (query, key, value, dout) = (heads(6, 93)?, heads(2, 94)?, heads(2, 95)?, heads(6, 96)?);
        let fused = kernels == Kernels::Device && fused_attention::fits(&query, None);
        if fused {
            let (out, lse) = fused_attention::forward([&query, &key, &value])?;
            let [dq, dk, dv] = fused_attention::backward(&dout, [&query, &key, &value], [&out, &lse])?;
            return Ok(vec![out, lse, dq, dk, dv]);
        }
        let each = |heads: &Tensor| -> Result<Tensor, ModelError> {
            Ok(heads
                .f_unsqueeze(2)?
                .f_expand([2, 2, 3, 48, 32], false)?
                .f_reshape([2, 6, 48, 32])?)
        };
        let views = [query.shallow_clone(), each(&key)?, each(&value)?];
        let (out, lse) = composed_attention::forward(&views, None)?;
        let (dq, dk, dv) = composed_attention::backward(&dout, &views, [&out, &lse])?;
        let fold = |heads: &Tensor| -> Result<Tensor, ModelError> {
            Ok(heads
                .f_to_kind(Kind::Float)?
                .f_view([2, 2, 3, 48, 32])?
                .f_sum_dim_intlist(&[2i64][..], false, Kind::Float)?)
        };
        Ok(vec![out, lse, dq, fold(&dk)?, fold(&dv)?])
    };
    Ok(vec![
        compare("product added to a gradient", kind, &add)?,
        compare("attention", kind, &attention)?,
    ])
}
