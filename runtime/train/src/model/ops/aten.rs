//! The operations with libtorch's operations, for any device: the ATen equivalents of `own`. Shape letters: see
//! `model`.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::{NormStats, Rotary};
use crate::kernels::{AdamWCoefficients, Gelu};
use crate::model::ModelError;
use crate::model::views::Norm;
use crate::parallel::tree_split;

type Done = Result<(), ModelError>;

fn float(tensor: &Tensor) -> Result<Tensor, ModelError> {
    Ok(tensor.f_to_kind(Kind::Float)?)
}

fn put(to: &Tensor, value: &Tensor) -> Done {
    to.shallow_clone().f_copy_(value)?;
    Ok(())
}

fn add_to(to: &Tensor, value: &Tensor) -> Done {
    let _ = to.shallow_clone().f_add_(value)?;
    Ok(())
}

fn rows(tensor: &Tensor, block: &Range<usize>) -> Result<Tensor, ModelError> {
    Ok(tensor.f_narrow(0, block.start as i64, block.len() as i64)?)
}

/// Tree sum in `f32`.
fn tree(parts: &[Tensor]) -> Result<Tensor, ModelError> {
    match parts {
        [] => Err(ModelError::NotHeld("a sum has no terms")),
        [one] => float(one),
        _ => {
            let (left, right) = parts.split_at(tree_split(parts.len()));
            Ok(tree(left)?.f_add(&tree(right)?)?)
        }
    }
}

/// Concatenates the shards of a table.
fn concatenated(shards: &[Tensor]) -> Result<Tensor, ModelError> {
    Ok(match shards {
        [one] => one.shallow_clone(),
        _ => Tensor::f_cat(shards, 0)?,
    })
}

pub fn embed(
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    word_vh: &[Tensor],
    position_sh: Option<&Tensor>,
    out_th: &Tensor,
) -> Done {
    let hidden = out_th.size()[1];
    let table = concatenated(word_vh)?;
    // Ids of other ranks take an arbitrary row.
    let rows = ids_t.f_sub_scalar(first)?.f_clamp(0, table.size()[0] - 1)?;
    let words_th = float(&table.f_index_select(0, &rows)?)?;
    let Some(position_sh) = position_sh else {
        return put(out_th, &words_th);
    };
    let positions_sh = float(&position_sh.f_narrow(0, 0, sequence as i64)?)?;
    let sum = words_th.f_view([-1, sequence as i64, hidden])?.f_add(&positions_sh)?;
    put(out_th, &sum.f_view([-1, hidden])?)
}

pub fn embed_backward(
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    dx_th: &Tensor,
    dword_vh: &[Tensor],
    dposition_sh: Option<&Tensor>,
) -> Done {
    let count: i64 = dword_vh.iter().map(|shard| shard.size()[0]).sum();
    let rows = ids_t.f_sub_scalar(first)?;
    let own = rows.f_ge(0)?.f_logical_and(&rows.f_lt(count)?)?;
    // Ids of other ranks go to an extra row.
    let rows = rows.f_where_self(&own, &ids_t.f_full_like(count)?)?;
    let gradient = Tensor::f_embedding_dense_backward(dx_th, &rows, count + 1, -1, false)?;
    let mut first = 0;
    for shard in dword_vh {
        add_to(shard, &gradient.f_narrow(0, first, shard.size()[0])?)?;
        first += shard.size()[0];
    }
    let Some(dposition_sh) = dposition_sh else {
        return Ok(());
    };
    let sum = dx_th
        .f_view([-1, sequence as i64, dx_th.size()[1]])?
        .f_sum_dim_intlist(&[0i64][..], false, Kind::Float)?;
    add_to(&dposition_sh.f_narrow(0, 0, sequence as i64)?, &sum)
}

pub fn norm_forward(x_th: &Tensor, norm: &Norm, epsilon: f32, out_th: &Tensor, stats: NormStats<'_>) -> Done {
    let weight = float(&norm.weight_h[0])?;
    let Some(bias) = norm.bias_h.first() else {
        let square = x_th.f_square()?.f_mean_dim(&[1i64][..], false, Kind::Float)?;
        put(stats.rstd_t, &square.f_add_scalar(f64::from(epsilon))?.f_rsqrt()?)?;
        return norm_apply(x_th, norm, out_th, stats);
    };
    let hidden = [x_th.size()[1]];
    let (_, mean, rstd) =
        x_th.f_native_layer_norm(&hidden[..], Some(&weight), Some(&float(bias)?), f64::from(epsilon))?;
    put(stats.mean_t, &mean.f_view([-1])?)?;
    put(stats.rstd_t, &rstd.f_view([-1])?)?;
    // The backward pass repeats the output from the statistics, or from the input if it recomputes the layer: the same bits.
    norm_apply(x_th, norm, out_th, stats)
}

/// The normalized rows before weight and bias are applied.
fn normal(x_th: &Tensor, norm: &Norm, stats: NormStats<'_>) -> Result<Tensor, ModelError> {
    let rstd = stats.rstd_t.f_unsqueeze(1)?;
    Ok(if norm.bias_h.is_empty() {
        x_th.f_mul(&rstd)?
    } else {
        x_th.f_sub(&stats.mean_t.f_unsqueeze(1)?)?.f_mul(&rstd)?
    })
}

pub fn norm_apply(x_th: &Tensor, norm: &Norm, out_th: &Tensor, stats: NormStats<'_>) -> Done {
    let value = normal(x_th, norm, stats)?.f_mul(&float(&norm.weight_h[0])?)?;
    match norm.bias_h.first() {
        Some(bias) => put(out_th, &value.f_add(&float(bias)?)?),
        None => put(out_th, &value),
    }
}

pub fn norm_backward(
    dy_th: &Tensor,
    x_th: &Tensor,
    norm: &Norm,
    stats: NormStats<'_>,
    blocks: &[Range<usize>],
    dx_th: &Tensor,
    gradient: &Norm,
) -> Done {
    let normal = normal(x_th, norm, stats)?;
    let g = dy_th.f_mul(&float(&norm.weight_h[0])?)?;
    let mean = |value: &Tensor| value.f_mean_dim(&[1i64][..], true, Kind::Float);
    let projection = normal.f_mul(&mean(&g.f_mul(&normal)?)?)?;
    let centred = if norm.bias_h.is_empty() {
        g.f_sub(&projection)?
    } else {
        g.f_sub(&mean(&g)?)?.f_sub(&projection)?
    };
    add_to(dx_th, &centred.f_mul(&stats.rstd_t.f_unsqueeze(1)?)?)?;
    column_sums(&dy_th.f_mul(&normal)?, blocks, &gradient.weight_h)?;
    if gradient.bias_h.is_empty() {
        return Ok(());
    }
    column_sums(dy_th, blocks, &gradient.bias_h)
}

fn approximation(gelu: Gelu) -> &'static str {
    match gelu {
        Gelu::Erf => "none",
        Gelu::Tanh => "tanh",
    }
}

pub fn gelu_forward(gelu: Gelu, z_tf: &Tensor, bias_f: &Tensor, out_tf: &Tensor) -> Done {
    add_to(z_tf, bias_f)?;
    put(out_tf, &z_tf.f_gelu(approximation(gelu))?)
}

pub fn gelu_backward(gelu: Gelu, z_tf: &Tensor, gradient_tf: &Tensor, out_tf: &Tensor) -> Done {
    put(out_tf, &z_tf.f_gelu(approximation(gelu))?)?;
    put(gradient_tf, &z_tf.f_gelu_backward(gradient_tf, approximation(gelu))?)
}

/// Gates and ups, in `f32`.
fn gate_and_up(z_tu: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
    let width = z_tu.size()[1] / 2;
    Ok((
        float(&z_tu.f_narrow(1, 0, width)?)?,
        float(&z_tu.f_narrow(1, width, width)?)?,
    ))
}

pub fn swiglu_forward(z_tu: &Tensor, out_tf: &Tensor) -> Done {
    let (gate, up) = gate_and_up(z_tu)?;
    put(out_tf, &gate.f_silu()?.f_mul(&up)?)
}

pub fn swiglu_backward(z_tu: &Tensor, gradient_tf: &Tensor, dz_tu: &Tensor, out_tf: &Tensor) -> Done {
    let ((gate, up), d) = (gate_and_up(z_tu)?, float(gradient_tf)?);
    let silu = gate.f_silu()?;
    put(out_tf, &silu.f_mul(&up)?)?;
    let width = gate.size()[1];
    put(&dz_tu.f_narrow(1, 0, width)?, &gate.f_silu_backward(&d.f_mul(&up)?)?)?;
    put(&dz_tu.f_narrow(1, width, width)?, &d.f_mul(&silu)?)
}

pub fn rotate(rows: &Tensor, rotary: &Rotary, sequence: usize, first: usize, heads: usize, inverse: bool) -> Done {
    let rotated = rotary.rotated(rows.size()[1] as usize, first, heads);
    let (s, n, half) = (sequence as i64, heads as i64, rotated.d as i64 / 2);
    let columns = rows.f_narrow(1, first as i64, 2 * half * n)?;
    let all = columns.f_reshape([-1, s, n, 2, half])?;
    let (low, high) = (float(&all.f_select(3, 0)?)?, float(&all.f_select(3, 1)?)?);
    let table = |table: &Tensor| table.f_narrow(0, 0, s)?.f_view([s, 1, half]);
    let (cos, mut sin) = (table(&rotary.cos)?, table(&rotary.sin)?);
    if inverse {
        sin = sin.f_neg()?;
    }
    let rotated_low = low.f_mul(&cos)?.f_sub(&high.f_mul(&sin)?)?;
    let rotated_high = high.f_mul(&cos)?.f_add(&low.f_mul(&sin)?)?;
    let value = Tensor::f_stack(&[rotated_low, rotated_high], 3)?.f_view([-1, 2 * half * n])?;
    put(&columns, &value)
}

pub fn add_residual(partials_th: &[Tensor], bias_h: Option<&Tensor>, residual_th: &Tensor, out_th: &Tensor) -> Done {
    let sum = tree(partials_th)?;
    let sum = match bias_h {
        Some(bias_h) => sum.f_add(&float(bias_h)?)?,
        None => sum,
    };
    put(out_th, &sum.f_add(residual_th)?)
}

pub fn sum_partials(partials: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    let sum = tree(partials)?;
    put(
        out,
        &if let Some(extra) = extra {
            sum.f_add(&float(extra)?)?
        } else {
            sum
        },
    )
}

pub fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]) -> Done {
    for (block, gradient) in blocks.iter().zip(gradients) {
        let sum = rows(values, block)?.f_sum_dim_intlist(&[0i64][..], false, Kind::Float)?;
        add_to(gradient, &sum)?;
    }
    Ok(())
}

pub fn add_partials(partials: &[Tensor], gradient: &Tensor) -> Done {
    add_to(gradient, &tree(partials)?)
}

pub fn accumulate(to: &Tensor, from: &Tensor) -> Done {
    add_to(to, from)
}

pub fn add_tree(first: &Tensor, others: &[Tensor]) -> Done {
    let all: Vec<Tensor> = std::iter::once(first)
        .chain(others)
        .map(Tensor::shallow_clone)
        .collect();
    put(first, &tree(&all)?)
}

pub fn adamw(c: AdamWCoefficients, theta: &Tensor, g: &Tensor, m: &Tensor, v: &Tensor, compute: &Tensor) -> Done {
    let g = g.f_mul_scalar(f64::from(c.scale))?;
    let weighted = |moment: &Tensor, beta: f32, new: &Tensor, rest: f32| {
        let kept = moment.f_mul_scalar(f64::from(beta))?;
        kept.f_add(&new.f_mul_scalar(f64::from(rest))?)
    };
    put(m, &weighted(m, c.beta1, &g, c.one_minus_beta1)?)?;
    put(v, &weighted(v, c.beta2, &g.f_mul(&g)?, c.one_minus_beta2)?)?;
    let root = v.f_sqrt()?.f_div_scalar(f64::from(c.sqrt_correction2))?;
    let change = m.f_div(&root.f_add_scalar(f64::from(c.epsilon))?)?;
    let change = change.f_mul_scalar(f64::from(c.alpha_hat))?;
    put(theta, &theta.f_mul_scalar(f64::from(c.decay))?.f_sub(&change)?)?;
    cast(theta, compute)
}

pub fn fold_heads(dk_ta: &Tensor, dv_ta: &Tensor, heads: usize, out_te: &Tensor) -> Done {
    let d = dk_ta.size()[1] / heads as i64;
    for (gradient, offset) in [(dk_ta, 0), (dv_ta, d)] {
        let sum = gradient
            .f_view([-1, heads as i64, d])?
            .f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?;
        put(&out_te.f_narrow(1, offset, d)?, &sum)?;
    }
    Ok(())
}

pub fn cast(from: &Tensor, to: &Tensor) -> Done {
    if from.data_ptr() == to.data_ptr() {
        return Ok(());
    }
    put(to, from)
}

pub fn row_maxima(logits_rv: &[Tensor], maxima_r: &Tensor) -> Done {
    let by_shard = logits_rv.iter().map(|shard| float(&shard.f_amax(&[1i64][..], false)?));
    let by_shard = by_shard.collect::<Result<Vec<_>, ModelError>>()?;
    put(maxima_r, &Tensor::f_stack(&by_shard, 0)?.f_amax(&[0i64][..], true)?)
}

/// Whether each target is in the shard that starts with id `first`, and its column there, both `[r, 1]`.
fn columns_of(targets_r: &Tensor, first: i64, width: i64) -> Result<(Tensor, Tensor), ModelError> {
    let column = targets_r.f_sub_scalar(first)?;
    let inside = column.f_ge(0)?.f_logical_and(&column.f_lt(width)?)?.f_unsqueeze(1)?;
    Ok((inside, column.f_clamp(0, width - 1)?.f_unsqueeze(1)?))
}

pub fn row_sums(
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    out_2r: &Tensor,
    keep: bool,
) -> Done {
    let maxima_r1 = maxima_r.f_view([-1, 1])?;
    let mut target_logit = maxima_r1.f_full_like(f64::NEG_INFINITY)?;
    let (mut sums, mut first) = (Vec::new(), first);
    for shard in logits_rv {
        let width = shard.size()[1];
        let (inside, column) = columns_of(targets_r, first, width)?;
        let logit = float(&shard.f_gather(1, &column, false)?)?;
        target_logit = logit.f_where_self(&inside, &target_logit)?;
        let exps = float(shard)?.f_sub(&maxima_r1)?.f_exp()?;
        sums.push(exps.f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?);
        if keep {
            put(shard, &exps)?;
        }
        first += width;
    }
    put(
        out_2r,
        &Tensor::f_stack(&[tree(&sums)?, target_logit.f_view([-1])?], 0)?,
    )
}

pub fn finish_loss(
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    sums_2r: &Tensor,
    losses_r: &Tensor,
    gradient: bool,
) -> Done {
    let double = |tensor: &Tensor| tensor.f_view([-1])?.f_to_kind(Kind::Double);
    let row = |at: i64| sums_2r.f_narrow(0, at, 1);
    let loss = double(&row(0)?)?
        .f_log()?
        .f_add(&double(maxima_r)?)?
        .f_sub(&double(&row(1)?)?)?;
    let counts_r = targets_r.f_ge(0)?;
    put(losses_r, &loss.f_where_self(&counts_r, &loss.f_zeros_like()?)?)?;
    if gradient {
        let (sums, mut first) = (row(0)?.f_view([-1, 1])?, first);
        for shard in logits_rv {
            let width = shard.size()[1];
            let columns = Tensor::f_arange(width, (Kind::Int64, shard.device()))?;
            let at_target = columns.f_eq_tensor(&targets_r.f_sub_scalar(first)?.f_unsqueeze(1)?)?;
            let gradient_rv = float(shard)?.f_div(&sums)?.f_sub(&float(&at_target)?)?;
            put(shard, &gradient_rv.f_mul(&float(&counts_r.f_unsqueeze(1)?)?)?)?;
            first += width;
        }
    }
    Ok(())
}
