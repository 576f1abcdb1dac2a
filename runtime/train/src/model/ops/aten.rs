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

/// `out[t, h] = table[index]` for a table in shards of its rows.
fn whole(shards: &[Tensor]) -> Result<Tensor, ModelError> {
    Ok(match shards {
        [one] => one.shallow_clone(),
        _ => Tensor::f_cat(shards, 0)?,
    })
}

pub fn embed(ids: &Tensor, sequence: usize, word: &[Tensor], position: &Tensor, out: &Tensor) -> Done {
    let hidden = out.size()[1];
    let words = float(&whole(word)?.f_index_select(0, ids)?)?;
    let places = float(&position.f_narrow(0, 0, sequence as i64)?)?;
    let sum = words.f_view([-1, sequence as i64, hidden])?.f_add(&places)?;
    put(out, &sum.f_view([-1, hidden])?)
}

pub fn embed_backward(
    ids: &Tensor,
    sequence: usize,
    dx: &Tensor,
    blocks: &[Range<usize>],
    word: &[Tensor],
    position: &Tensor,
) -> Done {
    let count: i64 = word.iter().map(|shard| shard.size()[0]).sum();
    let gradient = Tensor::f_embedding_dense_backward(dx, ids, count, -1, false)?;
    let mut first = 0;
    for shard in word {
        add_to(shard, &gradient.f_narrow(0, first, shard.size()[0])?)?;
        first += shard.size()[0];
    }
    let parts = blocks.iter().map(|block| {
        let places: Vec<i64> = block.clone().map(|row| (row % sequence) as i64).collect();
        let places = Tensor::f_from_slice(&places)?.f_to_device(dx.device())?;
        let zeros = Tensor::f_zeros([sequence as i64, dx.size()[1]], (Kind::Float, dx.device()))?;
        Ok(zeros.f_index_add(0, &places, &rows(dx, block)?)?)
    });
    let sum = tree(&parts.collect::<Result<Vec<_>, ModelError>>()?)?;
    add_to(&position.f_narrow(0, 0, sequence as i64)?, &sum)
}

pub fn norm_forward(x: &Tensor, norm: &Norm, epsilon: f32, out: &Tensor, stats: Stats<'_>) -> Done {
    let (weight, bias) = (float(&norm.weight)?, float(&norm.bias)?);
    let hidden = [x.size()[1]];
    let (value, mean, rstd) = x.f_native_layer_norm(&hidden[..], Some(&weight), Some(&bias), f64::from(epsilon))?;
    put(out, &value)?;
    put(stats.mean, &mean.f_view([-1])?)?;
    put(stats.rstd, &rstd.f_view([-1])?)
}

fn normal(x: &Tensor, stats: Stats<'_>) -> Result<Tensor, ModelError> {
    Ok(x.f_sub(&stats.mean.f_unsqueeze(1)?)?
        .f_mul(&stats.rstd.f_unsqueeze(1)?)?)
}

pub fn norm_apply(x: &Tensor, norm: &Norm, out: &Tensor, stats: Stats<'_>) -> Done {
    let value = normal(x, stats)?
        .f_mul(&float(&norm.weight)?)?
        .f_add(&float(&norm.bias)?)?;
    put(out, &value)
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
    let normal = normal(x, stats)?;
    let g = dy.f_mul(&float(&norm.weight)?)?;
    let mean = |value: &Tensor| value.f_mean_dim(&[1i64][..], true, Kind::Float);
    let centred = g.f_sub(&mean(&g)?)?.f_sub(&normal.f_mul(&mean(&g.f_mul(&normal)?)?)?)?;
    add_to(dx, &centred.f_mul(&stats.rstd.f_unsqueeze(1)?)?)?;
    column_sums(&dy.f_mul(&normal)?, blocks, &gradient.weight)?;
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

pub fn rms_norm_forward(x: &Tensor, weight: &Tensor, epsilon: f32, out: &Tensor, rstd: &Tensor) -> Done {
    let square = x.f_mul(x)?.f_mean_dim(&[1i64][..], false, Kind::Float)?;
    put(rstd, &square.f_add_scalar(f64::from(epsilon))?.f_rsqrt()?)?;
    rms_norm_apply(x, weight, out, rstd)
}

pub fn rms_norm_apply(x: &Tensor, weight: &Tensor, out: &Tensor, rstd: &Tensor) -> Done {
    put(out, &x.f_mul(&rstd.f_unsqueeze(1)?)?.f_mul(&float(weight)?)?)
}

pub fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    blocks: &[Range<usize>],
    dx: &Tensor,
    gradient: &Tensor,
) -> Done {
    let rstd = rstd.f_unsqueeze(1)?;
    let normal = x.f_mul(&rstd)?;
    let g = dy.f_mul(&float(weight)?)?;
    let mean = g.f_mul(&normal)?.f_mean_dim(&[1i64][..], true, Kind::Float)?;
    add_to(dx, &g.f_sub(&normal.f_mul(&mean)?)?.f_mul(&rstd)?)?;
    column_sums(&dy.f_mul(&normal)?, blocks, gradient)
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

pub fn add_residual(parts: &[Tensor], bias: &Tensor, residual: &Tensor, out: &Tensor) -> Done {
    put(out, &tree(parts)?.f_add(&float(bias)?)?.f_add(residual)?)
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

pub fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradient: &Tensor) -> Done {
    let parts = blocks.iter().map(|block| {
        let rows = rows(values, block)?;
        Ok(rows.f_sum_dim_intlist(&[0i64][..], false, Kind::Float)?)
    });
    add_to(gradient, &tree(&parts.collect::<Result<Vec<_>, ModelError>>()?)?)
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

pub fn softmax_loss(logits: &[Tensor], targets: &Tensor, losses: &mut [f64], gradient: bool) -> Done {
    let maxima = logits.iter().map(|shard| float(&shard.f_amax(&[1i64][..], true)?));
    let maxima = maxima.collect::<Result<Vec<_>, ModelError>>()?;
    let mut maximum = maxima[0].shallow_clone();
    for other in &maxima[1..] {
        maximum = maximum.f_maximum(other)?;
    }
    let (mut powers, mut sums) = (Vec::new(), Vec::new());
    let mut target = Tensor::f_zeros_like(&maximum)?;
    let mut first = 0;
    let mut owned = Vec::new();
    for shard in logits {
        let width = shard.size()[1];
        let place = targets.f_sub_scalar(first)?;
        let inside = place.f_ge(0)?.f_logical_and(&place.f_lt(width)?)?.f_unsqueeze(1)?;
        let place = place.f_clamp(0, width - 1)?.f_unsqueeze(1)?;
        let logit = float(&shard.f_gather(1, &place, false)?)?;
        target = target.f_add(&logit.f_mul(&inside)?)?;
        let power = float(shard)?.f_sub(&maximum)?.f_exp()?;
        sums.push(power.f_sum_dim_intlist(&[1i64][..], true, Kind::Float)?);
        powers.push(power);
        owned.push((inside, place));
        first += width;
    }
    let sum = tree(&sums)?;
    let double = |tensor: &Tensor| tensor.f_to_kind(Kind::Double);
    let loss = double(&sum)?
        .f_log()?
        .f_add(&double(&maximum)?)?
        .f_sub(&double(&target)?)?
        .f_view([-1])?;
    let values = Vec::<f64>::try_from(&loss.f_to_device(tch::Device::Cpu)?)?;
    losses.copy_from_slice(&values);
    if gradient {
        for ((shard, power), (inside, place)) in logits.iter().zip(powers).zip(owned) {
            let mut share = power.f_div(&sum)?;
            let one = inside.f_to_kind(Kind::Float)?.f_neg()?;
            put(shard, &share.f_scatter_add_(1, &place, &one)?)?;
        }
    }
    Ok(())
}
