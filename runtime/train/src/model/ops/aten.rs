//! The same operations out of libtorch's, for any device.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::{Rotary, Stats};
use crate::kernels::Gelu;
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
        [] => Err(ModelError::Unfit("a sum of nothing".to_owned())),
        [one] => float(one),
        _ => {
            let (left, right) = parts.split_at(tree_split(parts.len()));
            Ok(tree(left)?.f_add(&tree(right)?)?)
        }
    }
}

/// The shards of a table as one.
fn whole(shards: &[Tensor]) -> Result<Tensor, ModelError> {
    Ok(match shards {
        [one] => one.shallow_clone(),
        _ => Tensor::f_cat(shards, 0)?,
    })
}

pub fn embed(
    ids: &Tensor,
    sequence: usize,
    first: i64,
    word: &[Tensor],
    position: Option<&Tensor>,
    out: &Tensor,
) -> Done {
    let hidden = out.size()[1];
    let table = whole(word)?;
    // An id of another rank's takes any row.
    let places = ids.f_sub_scalar(first)?.f_clamp(0, table.size()[0] - 1)?;
    let words = float(&table.f_index_select(0, &places)?)?;
    let Some(position) = position else {
        return put(out, &words);
    };
    let places = float(&position.f_narrow(0, 0, sequence as i64)?)?;
    let sum = words.f_view([-1, sequence as i64, hidden])?.f_add(&places)?;
    put(out, &sum.f_view([-1, hidden])?)
}

pub fn embed_backward(
    ids: &Tensor,
    sequence: usize,
    first: i64,
    dx: &Tensor,
    word: &[Tensor],
    position: Option<&Tensor>,
) -> Done {
    let count: i64 = word.iter().map(|shard| shard.size()[0]).sum();
    let places = ids.f_sub_scalar(first)?;
    let own = places.f_ge(0)?.f_logical_and(&places.f_lt(count)?)?;
    // What belongs to another rank goes to a row of its own.
    let places = places.f_where_self(&own, &ids.f_full_like(count)?)?;
    let gradient = Tensor::f_embedding_dense_backward(dx, &places, count + 1, -1, false)?;
    let mut first = 0;
    for shard in word {
        add_to(shard, &gradient.f_narrow(0, first, shard.size()[0])?)?;
        first += shard.size()[0];
    }
    let Some(position) = position else { return Ok(()) };
    let sum = dx
        .f_view([-1, sequence as i64, dx.size()[1]])?
        .f_sum_dim_intlist(&[0i64][..], false, Kind::Float)?;
    add_to(&position.f_narrow(0, 0, sequence as i64)?, &sum)
}

pub fn norm_forward(x: &Tensor, norm: &Norm, epsilon: f32, out: &Tensor, stats: Stats<'_>) -> Done {
    let weight = float(&norm.weight[0])?;
    let Some(bias) = norm.bias.first() else {
        let square = x.f_square()?.f_mean_dim(&[1i64][..], false, Kind::Float)?;
        put(stats.rstd, &square.f_add_scalar(f64::from(epsilon))?.f_rsqrt()?)?;
        return norm_apply(x, norm, out, stats);
    };
    let hidden = [x.size()[1]];
    let (value, mean, rstd) =
        x.f_native_layer_norm(&hidden[..], Some(&weight), Some(&float(bias)?), f64::from(epsilon))?;
    put(out, &value)?;
    put(stats.mean, &mean.f_view([-1])?)?;
    put(stats.rstd, &rstd.f_view([-1])?)
}

/// The rows before weight and bias.
fn normal(x: &Tensor, norm: &Norm, stats: Stats<'_>) -> Result<Tensor, ModelError> {
    let rstd = stats.rstd.f_unsqueeze(1)?;
    Ok(if norm.bias.is_empty() {
        x.f_mul(&rstd)?
    } else {
        x.f_sub(&stats.mean.f_unsqueeze(1)?)?.f_mul(&rstd)?
    })
}

pub fn norm_apply(x: &Tensor, norm: &Norm, out: &Tensor, stats: Stats<'_>) -> Done {
    let value = normal(x, norm, stats)?.f_mul(&float(&norm.weight[0])?)?;
    match norm.bias.first() {
        Some(bias) => put(out, &value.f_add(&float(bias)?)?),
        None => put(out, &value),
    }
}

pub fn norm_backward(
    dy: &Tensor,
    x: &Tensor,
    norm: &Norm,
    stats: Stats<'_>,
    blocks: &[Range<usize>],
    dx: &Tensor,
    gradient: &Norm,
) -> Done {
    let normal = normal(x, norm, stats)?;
    let g = dy.f_mul(&float(&norm.weight[0])?)?;
    let mean = |value: &Tensor| value.f_mean_dim(&[1i64][..], true, Kind::Float);
    let along = normal.f_mul(&mean(&g.f_mul(&normal)?)?)?;
    let centred = if norm.bias.is_empty() {
        g.f_sub(&along)?
    } else {
        g.f_sub(&mean(&g)?)?.f_sub(&along)?
    };
    add_to(dx, &centred.f_mul(&stats.rstd.f_unsqueeze(1)?)?)?;
    column_sums(&dy.f_mul(&normal)?, blocks, &gradient.weight)?;
    if gradient.bias.is_empty() {
        return Ok(());
    }
    column_sums(dy, blocks, &gradient.bias)
}

fn form(gelu: Gelu) -> &'static str {
    match gelu {
        Gelu::Erf => "none",
        Gelu::Tanh => "tanh",
    }
}

pub fn gelu_forward(gelu: Gelu, z: &Tensor, bias: &Tensor, out: &Tensor) -> Done {
    add_to(z, bias)?;
    put(out, &z.f_gelu(form(gelu))?)
}

pub fn gelu_backward(gelu: Gelu, z: &Tensor, gradient: &Tensor, out: &Tensor) -> Done {
    put(out, &z.f_gelu(form(gelu))?)?;
    put(gradient, &z.f_gelu_backward(gradient, form(gelu))?)
}

/// Gates and ups in `f32`.
fn halves(z: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
    let width = z.size()[1] / 2;
    Ok((float(&z.f_narrow(1, 0, width)?)?, float(&z.f_narrow(1, width, width)?)?))
}

pub fn swiglu_forward(z: &Tensor, out: &Tensor) -> Done {
    let (gate, up) = halves(z)?;
    put(out, &gate.f_silu()?.f_mul(&up)?)
}

pub fn swiglu_backward(z: &Tensor, gradient: &Tensor, dz: &Tensor, out: &Tensor) -> Done {
    let ((gate, up), d) = (halves(z)?, float(gradient)?);
    let silu = gate.f_silu()?;
    put(out, &silu.f_mul(&up)?)?;
    let width = gate.size()[1];
    put(&dz.f_narrow(1, 0, width)?, &gate.f_silu_backward(&d.f_mul(&up)?)?)?;
    put(&dz.f_narrow(1, width, width)?, &d.f_mul(&silu)?)
}

pub fn rotate(rows: &Tensor, rotary: &Rotary, sequence: usize, first: usize, heads: usize, inverse: bool) -> Done {
    let turned = rotary.turned(rows.size()[1] as usize, first, heads);
    let (s, n, half) = (sequence as i64, heads as i64, turned.d as i64 / 2);
    let columns = rows.f_narrow(1, first as i64, 2 * half * n)?;
    let all = columns.f_reshape([-1, s, n, 2, half])?;
    let (low, high) = (float(&all.f_select(3, 0)?)?, float(&all.f_select(3, 1)?)?);
    let table = |table: &Tensor| table.f_narrow(0, 0, s)?.f_view([s, 1, half]);
    let (cos, mut sin) = (table(&rotary.cos)?, table(&rotary.sin)?);
    if inverse {
        sin = sin.f_neg()?;
    }
    let turned_low = low.f_mul(&cos)?.f_sub(&high.f_mul(&sin)?)?;
    let turned_high = high.f_mul(&cos)?.f_add(&low.f_mul(&sin)?)?;
    let value = Tensor::f_stack(&[turned_low, turned_high], 3)?.f_view([-1, 2 * half * n])?;
    put(&columns, &value)
}

pub fn add_residual(parts: &[Tensor], bias: Option<&Tensor>, residual: &Tensor, out: &Tensor) -> Done {
    let sum = tree(parts)?;
    let sum = match bias {
        Some(bias) => sum.f_add(&float(bias)?)?,
        None => sum,
    };
    put(out, &sum.f_add(residual)?)
}

pub fn sum_partials(parts: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    let sum = tree(parts)?;
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

pub fn add_partials(parts: &[Tensor], gradient: &Tensor) -> Done {
    add_to(gradient, &tree(parts)?)
}

pub fn fold_heads(dk: &Tensor, dv: &Tensor, heads: usize, out: &Tensor) -> Done {
    let d = dk.size()[1] / heads as i64;
    for (part, offset) in [(dk, 0), (dv, d)] {
        let sum = part
            .f_view([-1, heads as i64, d])?
            .f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?;
        put(&out.f_narrow(1, offset, d)?, &sum)?;
    }
    Ok(())
}

pub fn cast(from: &Tensor, to: &Tensor) -> Done {
    if from.data_ptr() == to.data_ptr() {
        return Ok(());
    }
    put(to, from)
}

pub fn row_maxima(logits: &[Tensor], maxima: &Tensor) -> Done {
    let each = logits.iter().map(|shard| float(&shard.f_amax(&[1i64][..], false)?));
    let each = each.collect::<Result<Vec<_>, ModelError>>()?;
    put(maxima, &Tensor::f_stack(&each, 0)?.f_amax(&[0i64][..], true)?)
}

/// Where each target stands in a shard that begins with id `first`: whether it does, and its place, both `[t, 1]`.
fn places(targets: &Tensor, first: i64, width: i64) -> Result<(Tensor, Tensor), ModelError> {
    let place = targets.f_sub_scalar(first)?;
    let inside = place.f_ge(0)?.f_logical_and(&place.f_lt(width)?)?.f_unsqueeze(1)?;
    Ok((inside, place.f_clamp(0, width - 1)?.f_unsqueeze(1)?))
}

pub fn row_sums(logits: &[Tensor], targets: &Tensor, first: i64, maxima: &Tensor, out: &Tensor, keep: bool) -> Done {
    let column = maxima.f_view([-1, 1])?;
    let mut chosen = column.f_full_like(f64::NEG_INFINITY)?;
    let (mut sums, mut first) = (Vec::new(), first);
    for shard in logits {
        let width = shard.size()[1];
        let (inside, place) = places(targets, first, width)?;
        let logit = float(&shard.f_gather(1, &place, false)?)?;
        chosen = logit.f_where_self(&inside, &chosen)?;
        let power = float(shard)?.f_sub(&column)?.f_exp()?;
        sums.push(power.f_sum_dim_intlist(&[1i64][..], false, Kind::Float)?);
        if keep {
            put(shard, &power)?;
        }
        first += width;
    }
    put(out, &Tensor::f_stack(&[tree(&sums)?, chosen.f_view([-1])?], 0)?)
}

pub fn finish_loss(
    logits: &[Tensor],
    targets: &Tensor,
    first: i64,
    maxima: &Tensor,
    both: &Tensor,
    losses: &mut [f64],
    gradient: bool,
) -> Done {
    let double = |tensor: &Tensor| tensor.f_view([-1])?.f_to_kind(Kind::Double);
    let line = |at: i64| both.f_narrow(0, at, 1);
    let loss = double(&line(0)?)?
        .f_log()?
        .f_add(&double(maxima)?)?
        .f_sub(&double(&line(1)?)?)?;
    let values = Vec::<f64>::try_from(&loss.f_to_device(tch::Device::Cpu)?)?;
    losses.copy_from_slice(&values);
    if gradient {
        let (sums, mut first) = (line(0)?.f_view([-1, 1])?, first);
        for shard in logits {
            let (inside, place) = places(targets, first, shard.size()[1])?;
            let mut share = float(shard)?.f_div(&sums)?;
            let one = inside.f_to_kind(Kind::Float)?.f_neg()?;
            put(shard, &share.f_scatter_add_(1, &place, &one)?)?;
            first += shard.size()[1];
        }
    }
    Ok(())
}
