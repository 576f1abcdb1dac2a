//! The operations with this crate's kernels on a device. What the kernels do not cover (widths that are not a multiple of
//! 4, sums of other than 1, 2, 4, 8 or 16 parts, strided tensors) is left to `aten`; that depends on shapes only. Shape
//! letters: see `model`.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::{HeadColumns, NormStats, Rotary, UpdateChunk, aten};
use crate::gpu::{Arguments, Gpu, Grid, MAX_PARTS};
use crate::kernels::{AdamWCoefficients, Gelu};
use crate::model::ModelError;
use crate::model::views::Norm;

type Done = Result<(), ModelError>;

/// Rows of a column sum that one thread adds.
const COLUMN_ROWS: i64 = 64;
/// Rows of a block of a norm's backward pass; as in `kernels.cu`.
const NORM_ROWS: usize = 32;
/// Threads of a block of a column sum.
const COLUMN_THREADS: u32 = 64;

/// The number by which kernels know an element type; none for types that they do not have.
fn code(kind: Kind) -> Option<i32> {
    match kind {
        Kind::Float => Some(1),
        Kind::BFloat16 => Some(2),
        _ => None,
    }
}

/// Rows and columns of a matrix.
fn dimensions(tensor: &Tensor) -> (i64, i64) {
    let size = tensor.size();
    (size.first().copied().unwrap_or(0), size.get(1).copied().unwrap_or(1))
}

fn count(tensor: &Tensor) -> i64 {
    tensor.numel() as i64
}

/// Whether a kernel can add these parts, and their element type's number.
fn parts_code(parts: &[Tensor]) -> Option<i32> {
    let kind = parts.first()?.kind();
    let fit = parts.len() <= MAX_PARTS && parts.len().is_power_of_two();
    let same = parts.iter().all(|part| part.kind() == kind && part.is_contiguous());
    (fit && same).then(|| code(kind)).flatten()
}

/// The number of an optional tensor's element type, 0 without one.
fn optional_code(tensor: Option<&Tensor>) -> i32 {
    tensor.and_then(|tensor| code(tensor.kind())).unwrap_or(0)
}

/// Shards of a table: all have the same rows.
fn is_table(shards: &[Tensor]) -> bool {
    shards.len() <= MAX_PARTS && shards.iter().all(Tensor::is_contiguous)
}

pub fn embed(
    gpu: &Gpu,
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    word_vh: &[Tensor],
    position_sh: Option<&Tensor>,
    out_th: &Tensor,
) -> Done {
    let Some(word) = word_vh.first().filter(|_| is_table(word_vh)) else {
        return aten::embed(ids_t, sequence, first, word_vh, position_sh, out_th);
    };
    let (rows, hidden) = dimensions(out_th);
    let arguments = Arguments::default()
        .tensor(ids_t)
        .long(rows)
        .long(sequence as i64)
        .long(first)
        .parts(word_vh)
        .long(word.size()[0])
        .int(word_vh.len() as i32)
        .optional(position_sh)
        .tensor(out_th)
        .long(hidden);
    Ok(gpu.launch(word.kind(), "embed", Grid::rows(rows as u64), &arguments)?)
}

pub fn embed_backward(
    gpu: &Gpu,
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    dx_th: &Tensor,
    dword_vh: &[Tensor],
    dposition_sh: Option<&Tensor>,
) -> Done {
    let Some(word) = dword_vh.first().filter(|_| is_table(dword_vh)) else {
        return aten::embed_backward(ids_t, sequence, first, dx_th, dword_vh, dposition_sh);
    };
    let (rows, hidden) = dimensions(dx_th);
    let (sorted_t, order_t) = ids_t.f_sort_stable(true, 0, false)?;
    let arguments = Arguments::default()
        .tensor(&sorted_t)
        .tensor(&order_t)
        .long(rows)
        .long(first)
        .tensor(dx_th)
        .parts(dword_vh)
        .long(word.size()[0])
        .int(dword_vh.len() as i32)
        .long(hidden);
    gpu.launch(Kind::Float, "embed_backward", Grid::blocks(rows as u64), &arguments)?;
    let Some(dposition_sh) = dposition_sh else {
        return Ok(());
    };
    let sequence = sequence as i64;
    let arguments = Arguments::default()
        .tensor(dx_th)
        .long(rows / sequence)
        .long(sequence)
        .long(hidden)
        .tensor(dposition_sh);
    let grid = Grid::fours((sequence * hidden) as u64);
    Ok(gpu.launch(Kind::Float, "position_backward", grid, &arguments)?)
}

pub fn norm_forward(
    gpu: &Gpu,
    x_th: &Tensor,
    norm: &Norm,
    epsilon: f32,
    out_th: &Tensor,
    stats: NormStats<'_>,
) -> Done {
    let (rows, hidden) = dimensions(x_th);
    let arguments = Arguments::default()
        .tensor(x_th)
        .long(rows)
        .long(hidden)
        .float(epsilon)
        .tensor(&norm.weight_h[0])
        .optional(norm.bias_h.first())
        .tensor(stats.mean_t)
        .tensor(stats.rstd_t)
        .tensor(out_th);
    Ok(gpu.launch(out_th.kind(), "norm_forward", Grid::rows(rows as u64), &arguments)?)
}

pub fn norm_apply(gpu: &Gpu, x_th: &Tensor, norm: &Norm, out_th: &Tensor, stats: NormStats<'_>) -> Done {
    let (rows, hidden) = dimensions(x_th);
    let arguments = Arguments::default()
        .tensor(x_th)
        .long(rows)
        .long(hidden)
        .tensor(&norm.weight_h[0])
        .optional(norm.bias_h.first())
        .tensor(stats.mean_t)
        .tensor(stats.rstd_t)
        .tensor(out_th);
    Ok(gpu.launch(out_th.kind(), "norm_apply", Grid::rows(rows as u64), &arguments)?)
}

#[allow(clippy::too_many_arguments)] // as the operation has
pub fn norm_backward(
    gpu: &Gpu,
    dy_th: &Tensor,
    x_th: &Tensor,
    norm: &Norm,
    stats: NormStats<'_>,
    blocks: &[Range<usize>],
    dx_th: &Tensor,
    gradient: &Norm,
) -> Done {
    let (_, hidden) = dimensions(x_th);
    let weight_h = &norm.weight_h[0];
    for (at, block) in blocks.iter().enumerate() {
        let (rows, chunks) = (block.len() as i64, block.len().div_ceil(NORM_ROWS) as i64);
        let cut = |tensor: &Tensor| tensor.f_narrow(0, block.start as i64, rows);
        let partials = || Tensor::f_empty([chunks, hidden], (Kind::Float, x_th.device()));
        let weight_partials = partials()?;
        let bias_partials = gradient.bias_h.get(at).map(|_| partials()).transpose()?;
        let mean_t = bias_partials.as_ref().map(|_| cut(stats.mean_t)).transpose()?;
        let arguments = Arguments::default()
            .tensor(&cut(dy_th)?)
            .int(optional_code(Some(dy_th)))
            .tensor(&cut(x_th)?)
            .long(rows)
            .long(hidden)
            .tensor(weight_h)
            .optional(mean_t.as_ref())
            .tensor(&cut(stats.rstd_t)?)
            .tensor(&cut(dx_th)?)
            .tensor(&weight_partials)
            .optional(bias_partials.as_ref());
        gpu.launch(
            weight_h.kind(),
            "norm_backward",
            Grid::blocks(chunks as u64),
            &arguments,
        )?;
        add_chunks(gpu, &weight_partials, &gradient.weight_h[at])?;
        if let (Some(partials), Some(gradient_h)) = (&bias_partials, gradient.bias_h.get(at)) {
            add_chunks(gpu, partials, gradient_h)?;
        }
    }
    Ok(())
}

/// Adds the sum of the rows of `values` to `gradient`: rows by [`COLUMN_ROWS`], then these sums.
fn add_columns(gpu: &Gpu, values: &Tensor, gradient: &Tensor) -> Done {
    let (rows, columns) = dimensions(values);
    let chunks = (rows as u64).div_ceil(COLUMN_ROWS as u64);
    let partials = Tensor::f_empty([chunks as i64, columns], (Kind::Float, values.device()))?;
    let arguments = Arguments::default()
        .tensor(values)
        .int(optional_code(Some(values)))
        .long(rows)
        .long(columns)
        .long(COLUMN_ROWS)
        .tensor(&partials);
    let grid = Grid::lines(columns as u64, chunks, COLUMN_THREADS);
    gpu.launch(Kind::Float, "column_partials", grid, &arguments)?;
    add_chunks(gpu, &partials, gradient)
}

/// Adds the sum of the rows of `partials` to `gradient`.
fn add_chunks(gpu: &Gpu, partials: &Tensor, gradient: &Tensor) -> Done {
    let (chunks, columns) = dimensions(partials);
    let arguments = Arguments::default()
        .tensor(partials)
        .long(chunks)
        .long(columns)
        .tensor(gradient);
    Ok(gpu.launch(Kind::Float, "add_columns", Grid::columns(columns as u64), &arguments)?)
}

fn form(gelu: Gelu) -> i32 {
    match gelu {
        Gelu::Erf => 0,
        Gelu::Tanh => 1,
    }
}

pub fn gelu_forward(gpu: &Gpu, gelu: Gelu, z_tf: &Tensor, bias_f: &Tensor, out_tf: &Tensor) -> Done {
    let (_, width) = dimensions(z_tf);
    if width % 4 != 0 {
        return aten::gelu_forward(gelu, z_tf, bias_f, out_tf);
    }
    let arguments = Arguments::default()
        .int(form(gelu))
        .tensor(z_tf)
        .long(count(z_tf))
        .long(width)
        .tensor(bias_f)
        .tensor(out_tf);
    Ok(gpu.launch(z_tf.kind(), "gelu_forward", Grid::fours(count(z_tf) as u64), &arguments)?)
}

pub fn gelu_backward(gpu: &Gpu, gelu: Gelu, z_tf: &Tensor, gradient_tf: &Tensor, out_tf: &Tensor) -> Done {
    let arguments = Arguments::default()
        .int(form(gelu))
        .tensor(z_tf)
        .long(count(z_tf))
        .tensor(gradient_tf)
        .tensor(out_tf);
    Ok(gpu.launch(
        z_tf.kind(),
        "gelu_backward",
        Grid::fours(count(z_tf) as u64),
        &arguments,
    )?)
}

/// One thread for eight columns of a row.
fn by_row(rows: i64, width: i64) -> Grid {
    Grid::threads(rows as u64 * (width as u64).div_ceil(8))
}

pub fn swiglu_forward(gpu: &Gpu, z_tu: &Tensor, out_tf: &Tensor) -> Done {
    let (rows, width) = dimensions(out_tf);
    let arguments = Arguments::default().tensor(z_tu).long(rows).long(width).tensor(out_tf);
    Ok(gpu.launch(z_tu.kind(), "swiglu_forward", by_row(rows, width), &arguments)?)
}

pub fn swiglu_backward(gpu: &Gpu, z_tu: &Tensor, gradient_tf: &Tensor, dz_tu: &Tensor, out_tf: &Tensor) -> Done {
    let (rows, width) = dimensions(out_tf);
    let arguments = Arguments::default()
        .tensor(z_tu)
        .tensor(gradient_tf)
        .long(rows)
        .long(width)
        .tensor(dz_tu)
        .tensor(out_tf);
    Ok(gpu.launch(z_tu.kind(), "swiglu_backward", by_row(rows, width), &arguments)?)
}

pub fn rotate(
    gpu: &Gpu,
    rows: &Tensor,
    rotary: &Rotary,
    sequence: usize,
    first: usize,
    heads: usize,
    inverse: bool,
) -> Done {
    if !rows.is_contiguous() {
        return aten::rotate(rows, rotary, sequence, first, heads, inverse);
    }
    let (count, width) = dimensions(rows);
    let half = rotary.cos.size()[1];
    let columns = rows.f_narrow(1, first as i64, 2 * half * heads as i64)?;
    let fours = count * heads as i64 * (half + 3).div_euclid(4);
    let arguments = Arguments::default()
        .tensor(&columns)
        .long(width)
        .long(count)
        .long(heads as i64)
        .long(half)
        .long(sequence as i64)
        .tensor(&rotary.cos)
        .tensor(&rotary.sin)
        .float(if inverse { -1.0 } else { 1.0 });
    Ok(gpu.launch(rows.kind(), "rotate", Grid::threads(fours as u64), &arguments)?)
}

pub fn add_residual(
    gpu: &Gpu,
    partials_th: &[Tensor],
    bias_h: Option<&Tensor>,
    residual_th: &Tensor,
    out_th: &Tensor,
) -> Done {
    let (_, hidden) = dimensions(out_th);
    let Some(kind) = parts_code(partials_th).filter(|_| hidden % 4 == 0) else {
        return aten::add_residual(partials_th, bias_h, residual_th, out_th);
    };
    let arguments = Arguments::default()
        .parts(partials_th)
        .int(partials_th.len() as i32)
        .int(kind)
        .optional(bias_h)
        .int(optional_code(bias_h))
        .long(count(out_th))
        .long(hidden)
        .tensor(residual_th)
        .tensor(out_th);
    Ok(gpu.launch(
        Kind::Float,
        "add_residual",
        Grid::fours(count(out_th) as u64),
        &arguments,
    )?)
}

/// `out = (out, if `add`, +) tree sum of the parts (+ extra)`; false if no kernel can.
fn sum_parts(gpu: &Gpu, parts: &[Tensor], extra: Option<&Tensor>, add: bool, out: &Tensor) -> Result<bool, ModelError> {
    let dense = out.is_contiguous() && extra.is_none_or(Tensor::is_contiguous) && out.kind() == Kind::Float;
    let Some(kind) = parts_code(parts).filter(|_| dense) else {
        return Ok(false);
    };
    let arguments = Arguments::default()
        .parts(parts)
        .int(parts.len() as i32)
        .int(kind)
        .optional(extra)
        .int(optional_code(extra))
        .long(count(out))
        .int(i32::from(add))
        .tensor(out);
    gpu.launch(Kind::Float, "sum_parts", Grid::fours(count(out) as u64), &arguments)?;
    Ok(true)
}

pub fn sum_partials(gpu: &Gpu, partials: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    if sum_parts(gpu, partials, extra, false, out)? {
        return Ok(());
    }
    aten::sum_partials(partials, extra, out)
}

pub fn column_sums(gpu: &Gpu, values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]) -> Done {
    for (block, gradient) in blocks.iter().zip(gradients) {
        let rows = values.f_narrow(0, block.start as i64, block.len() as i64)?;
        add_columns(gpu, &rows, gradient)?;
    }
    Ok(())
}

pub fn add_partials(gpu: &Gpu, partials: &[Tensor], gradient: &Tensor) -> Done {
    if sum_parts(gpu, partials, None, true, gradient)? {
        return Ok(());
    }
    aten::add_partials(partials, gradient)
}

pub fn accumulate(gpu: &Gpu, to: &Tensor, from: &Tensor) -> Done {
    add_partials(gpu, std::slice::from_ref(from), to)
}

pub fn add_tree(gpu: &Gpu, first: &Tensor, others: &[Tensor]) -> Done {
    let all: Vec<Tensor> = std::iter::once(first)
        .chain(others)
        .map(Tensor::shallow_clone)
        .collect();
    if sum_parts(gpu, &all, None, false, first)? {
        return Ok(());
    }
    aten::add_tree(first, others)
}

pub fn fold_heads(gpu: &Gpu, dk_ta: &Tensor, dv_ta: &Tensor, heads: usize, out_te: &Tensor) -> Done {
    let (rows, width) = dimensions(dk_ta);
    let arguments = Arguments::default()
        .tensor(dk_ta)
        .tensor(dv_ta)
        .long(rows)
        .long(heads as i64)
        .long(width / heads as i64)
        .tensor(out_te);
    Ok(gpu.launch(
        dk_ta.kind(),
        "fold_heads",
        Grid::threads(count(out_te) as u64),
        &arguments,
    )?)
}

pub fn cast(gpu: &Gpu, from: &Tensor, to: &Tensor) -> Done {
    if from.data_ptr() == to.data_ptr() {
        return Ok(());
    }
    let dense = from.is_contiguous() && to.is_contiguous();
    let (Some(from_code), Some(to_code), true) = (code(from.kind()), code(to.kind()), dense) else {
        return aten::cast(from, to);
    };
    let arguments = Arguments::default()
        .tensor(from)
        .int(from_code)
        .tensor(to)
        .int(to_code)
        .long(count(to));
    Ok(gpu.launch(Kind::Float, "cast", Grid::fours(count(to) as u64), &arguments)?)
}

pub fn row_maxima(gpu: &Gpu, logits_rv: &[Tensor], maxima_r: &Tensor) -> Done {
    for (at, shard) in logits_rv.iter().enumerate() {
        let (rows, width) = dimensions(shard);
        let arguments = Arguments::default()
            .tensor(shard)
            .long(width)
            .tensor(maxima_r)
            .int(i32::from(at > 0));
        gpu.launch(shard.kind(), "row_maxima", Grid::blocks(rows as u64), &arguments)?;
    }
    Ok(())
}

/// The logits stay: the gradient is computed from them again, in `f32`.
pub fn row_sums(
    gpu: &Gpu,
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    out_2r: &Tensor,
    _keep: bool,
) -> Done {
    let (sums_r, target_logits_r) = (out_2r.f_select(0, 0)?, out_2r.f_select(0, 1)?);
    let mut first = first;
    let mut by_shard = Vec::with_capacity(logits_rv.len());
    for (at, shard) in logits_rv.iter().enumerate() {
        let (rows, width) = dimensions(shard);
        let own_r = if logits_rv.len() == 1 {
            sums_r.shallow_clone()
        } else {
            sums_r.f_empty_like()?
        };
        let arguments = Arguments::default()
            .tensor(shard)
            .long(width)
            .tensor(targets_r)
            .long(first)
            .tensor(maxima_r)
            .tensor(&own_r)
            .tensor(&target_logits_r)
            .int(i32::from(at == 0));
        gpu.launch(shard.kind(), "row_sums", Grid::blocks(rows as u64), &arguments)?;
        by_shard.push(own_r);
        first += width;
    }
    if by_shard.len() == 1 {
        return Ok(());
    }
    sum_partials(gpu, &by_shard, None, &sums_r)
}

#[allow(clippy::too_many_arguments)] // as the operation has
pub fn finish_loss(
    gpu: &Gpu,
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    sums_2r: &Tensor,
    losses_r: &Tensor,
    gradient: bool,
) -> Done {
    let (sums_r, target_logits_r) = (sums_2r.f_select(0, 0)?, sums_2r.f_select(0, 1)?);
    let arguments = Arguments::default()
        .tensor(maxima_r)
        .tensor(&sums_r)
        .tensor(&target_logits_r)
        .tensor(targets_r)
        .long(count(losses_r))
        .tensor(losses_r);
    gpu.launch(
        Kind::Float,
        "row_losses",
        Grid::threads(count(losses_r) as u64),
        &arguments,
    )?;
    let mut first = first;
    for shard in logits_rv.iter().filter(|_| gradient) {
        let (rows, width) = dimensions(shard);
        let arguments = Arguments::default()
            .tensor(shard)
            .long(width)
            .tensor(targets_r)
            .long(first)
            .tensor(maxima_r)
            .tensor(&sums_r);
        gpu.launch(shard.kind(), "loss_gradient", Grid::blocks(rows as u64), &arguments)?;
        first += width;
    }
    Ok(())
}

/// Losses and their gradient for a vocabulary that is not divided.
pub fn whole_loss(gpu: &Gpu, logits_rv: &Tensor, targets_r: &Tensor, losses_r: &Tensor, gradient: bool) -> Done {
    let (rows, width) = dimensions(logits_rv);
    let arguments = Arguments::default()
        .tensor(logits_rv)
        .long(width)
        .tensor(targets_r)
        .tensor(losses_r)
        .int(i32::from(gradient));
    Ok(gpu.launch(logits_rv.kind(), "row_loss", Grid::blocks(rows as u64), &arguments)?)
}

/// Writes the gradients of heads, each `[rows, heads, d]`, to their columns in the rows of `to`; queries and keys are
/// rotated back.
pub fn pack_heads(
    gpu: &Gpu,
    [dq, dk, dv]: [&Tensor; 3],
    rotary: Option<&Rotary>,
    sequence: usize,
    [q, k, v]: [HeadColumns; 3],
    to: &Tensor,
) -> Done {
    let (rows, width) = dimensions(to);
    let size = |heads: &Tensor| heads.size()[1];
    let half = dq.size()[2] / 2;
    let fours = rows * (size(dq) + 2 * size(dk)) * (half + 3).div_euclid(4);
    let place = |arguments: Arguments, of: HeadColumns| arguments.longs([of.first, of.step]);
    let arguments = Arguments::default()
        .tensor(dq)
        .tensor(dk)
        .tensor(dv)
        .long(rows)
        .long(size(dq))
        .long(size(dk))
        .long(half)
        .long(sequence as i64)
        .optional(rotary.map(|rotary| &rotary.cos))
        .optional(rotary.map(|rotary| &rotary.sin));
    let arguments = [q, k, v].into_iter().fold(arguments, place).tensor(to).long(width);
    Ok(gpu.launch(to.kind(), "pack_heads", Grid::threads(fours as u64), &arguments)?)
}

/// All chunks at once; `table` has their numbers.
pub fn adamw_chunks(
    gpu: &Gpu,
    c: AdamWCoefficients,
    chunks: &[UpdateChunk],
    table: &Tensor,
    [theta, g, m, v, compute]: [&Tensor; 5],
) -> Done {
    let longest = chunks.iter().map(|chunk| chunk.range.len()).max().unwrap_or(0);
    let arguments = Arguments::default()
        .tensor(table)
        .float(c.scale)
        .float(c.beta1)
        .float(c.beta2)
        .float(c.one_minus_beta1)
        .float(c.one_minus_beta2)
        .float(c.epsilon)
        .float(c.alpha_hat)
        .float(c.sqrt_correction2)
        .float(c.decay)
        .tensor(theta)
        .tensor(g)
        .tensor(m)
        .tensor(v)
        .tensor(compute);
    let grid = Grid::lines(longest as u64, chunks.len() as u64, 256);
    Ok(gpu.launch(compute.kind(), "adamw", grid, &arguments)?)
}

/// The sum of the squares of each range of a buffer: `f64`. `starts` and `lengths` are on the device.
pub fn sum_squares(gpu: &Gpu, buffer: &Tensor, [starts, lengths]: [&Tensor; 2]) -> Result<Tensor, ModelError> {
    let sums = Tensor::f_empty([count(starts)], (Kind::Double, buffer.device()))?;
    let arguments = Arguments::default()
        .tensor(buffer)
        .tensor(starts)
        .tensor(lengths)
        .tensor(&sums);
    gpu.launch(
        Kind::Float,
        "sum_squares",
        Grid::blocks(count(starts) as u64),
        &arguments,
    )?;
    Ok(sums)
}
