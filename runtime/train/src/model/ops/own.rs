//! The operations with this crate's kernels. Shape letters: see `model`.

use std::ops::Range;

use tch::Tensor;

use super::{NormStats, Rotary, by_kind};
use crate::kernels::{self, AdamWCoefficients, Element, Gelu};
use crate::model::ModelError;
use crate::model::host_access::HostAccess;
use crate::model::views::Norm;
use crate::parallel::tree_by;

type Done = Result<(), ModelError>;

/// The length of a row.
fn width(tensor: &Tensor) -> usize {
    tensor.size().last().copied().unwrap_or(1) as usize
}

fn read_all<'a, E: Element>(host: &'a HostAccess, tensors: &'a [Tensor]) -> Result<Vec<&'a [E]>, ModelError> {
    tensors.iter().map(|tensor| host.read::<E>(tensor)).collect()
}

/// Adds to each total what `term(i)` writes to a zeroed buffer of its length.
fn add_by_blocks(host: &HostAccess, totals: &[&Tensor], mut term: impl FnMut(usize, &mut [f32])) -> Done {
    let mut buffer = Vec::new();
    for (i, total) in totals.iter().enumerate() {
        let total = host.write::<f32>(total)?;
        buffer.clear();
        buffer.resize(total.len(), 0.0f32);
        term(i, &mut buffer);
        kernels::accumulate(total, &buffer);
    }
    Ok(())
}

pub fn embed(
    host: &HostAccess,
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    word_vh: &[Tensor],
    position_sh: Option<&Tensor>,
    out_th: &Tensor,
) -> Done {
    by_kind!(word_vh.first().map_or(tch::Kind::Float, Tensor::kind), E => {
        let hidden = width(out_th);
        let position_sh = position_sh.map(|position_sh| host.read::<E>(position_sh)).transpose()?;
        let (ids_t, out_th) = (host.read(ids_t)?, host.write(out_th)?);
        let mut first = first;
        for shard_vh in word_vh {
            kernels::embed_rows(ids_t, sequence, first, host.read::<E>(shard_vh)?, position_sh, hidden, out_th);
            first += shard_vh.size()[0];
        }
        Ok(())
    })
}

pub fn embed_backward(
    host: &HostAccess,
    ids_t: &Tensor,
    sequence: usize,
    first: i64,
    dx_th: &Tensor,
    dword_vh: &[Tensor],
    dposition_sh: Option<&Tensor>,
) -> Done {
    let hidden = width(dx_th);
    let (ids_t, dx_th) = (host.read(ids_t)?, host.read::<f32>(dx_th)?);
    let mut first = first;
    for shard_vh in dword_vh {
        kernels::embedding_gradient(ids_t, first, dx_th, hidden, host.write(shard_vh)?);
        first += shard_vh.size()[0];
    }
    let Some(dposition_sh) = dposition_sh else {
        return Ok(());
    };
    let used_sh = dposition_sh.f_narrow(0, 0, sequence as i64)?;
    add_by_blocks(host, &[&used_sh], |_, out_sh| {
        kernels::position_gradient(dx_th, sequence, hidden, out_sh);
    })
}

pub fn norm_forward(
    host: &HostAccess,
    x_th: &Tensor,
    norm: &Norm,
    epsilon: f32,
    out_th: &Tensor,
    stats: NormStats<'_>,
) -> Done {
    by_kind!(out_th.kind(), E => {
        let weight_h = host.read::<E>(&norm.weight_h[0])?;
        let hidden = weight_h.len();
        let (x_th, out_th, rstd_t) = (host.read(x_th)?, host.write(out_th)?, host.write(stats.rstd_t)?);
        match norm.bias_h.first() {
            Some(bias_h) => {
                let (bias_h, mean_t) = (host.read(bias_h)?, host.write(stats.mean_t)?);
                kernels::norm_forward::<E>(x_th, hidden, epsilon, weight_h, bias_h, out_th, mean_t, rstd_t);
            }
            None => kernels::rms_norm_forward::<E>(x_th, hidden, epsilon, weight_h, out_th, rstd_t),
        }
        Ok(())
    })
}

pub fn norm_apply(host: &HostAccess, x_th: &Tensor, norm: &Norm, out_th: &Tensor, stats: NormStats<'_>) -> Done {
    by_kind!(out_th.kind(), E => {
        let weight_h = host.read::<E>(&norm.weight_h[0])?;
        let hidden = weight_h.len();
        let (x_th, out_th, rstd_t) = (host.read(x_th)?, host.write(out_th)?, host.read(stats.rstd_t)?);
        match norm.bias_h.first() {
            Some(bias_h) => {
                let (bias_h, mean_t) = (host.read(bias_h)?, host.read(stats.mean_t)?);
                kernels::norm_apply::<E>(x_th, hidden, mean_t, rstd_t, weight_h, bias_h, out_th);
            }
            None => kernels::rms_norm_apply::<E>(x_th, hidden, rstd_t, weight_h, out_th),
        }
        Ok(())
    })
}

#[allow(clippy::too_many_arguments)]
pub fn norm_backward(
    host: &HostAccess,
    dy_th: &Tensor,
    x_th: &Tensor,
    norm: &Norm,
    stats: NormStats<'_>,
    blocks: &[Range<usize>],
    dx_th: &Tensor,
    gradient: &Norm,
) -> Done {
    by_kind!(norm.weight_h[0].kind(), E => {
        let weight_h = host.read::<E>(&norm.weight_h[0])?;
        let hidden = weight_h.len();
        let (dy_th, x_th, dx_th) = (host.read::<f32>(dy_th)?, host.read::<f32>(x_th)?, host.write::<f32>(dx_th)?);
        let rstd_t = host.read::<f32>(stats.rstd_t)?;
        let mean_t = if gradient.bias_h.is_empty() { &[] } else { host.read::<f32>(stats.mean_t)? };
        let mut both = vec![0.0f32; 2 * hidden];
        for (i, block) in blocks.iter().enumerate() {
            let elements = block.start * hidden..block.end * hidden;
            let (dy_th, x_th) = (&dy_th[elements.clone()], &x_th[elements.clone()]);
            let (dx_th, rstd_t) = (&mut dx_th[elements], &rstd_t[block.clone()]);
            both.fill(0.0);
            let (dweight_h, dbias_h) = both.split_at_mut(hidden);
            match gradient.bias_h.get(i) {
                Some(total_h) => {
                    let mean_t = &mean_t[block.clone()];
                    kernels::norm_backward(
                        dy_th, x_th, hidden, mean_t, rstd_t, weight_h, dx_th, dweight_h, dbias_h,
                    );
                    kernels::accumulate(host.write(total_h)?, dbias_h);
                }
                None => kernels::rms_norm_backward(dy_th, x_th, hidden, rstd_t, weight_h, dx_th, dweight_h),
            }
            kernels::accumulate(host.write(&gradient.weight_h[i])?, dweight_h);
        }
        Ok(())
    })
}

pub fn gelu_forward(host: &HostAccess, gelu: Gelu, z_tf: &Tensor, bias_f: &Tensor, out_tf: &Tensor) -> Done {
    by_kind!(z_tf.kind(), E => {
        kernels::gelu_forward::<E>(gelu, host.write(z_tf)?, host.read(bias_f)?, host.write(out_tf)?);
        Ok(())
    })
}

pub fn gelu_backward(host: &HostAccess, gelu: Gelu, z_tf: &Tensor, gradient_tf: &Tensor, out_tf: &Tensor) -> Done {
    by_kind!(z_tf.kind(), E => {
        kernels::gelu_backward::<E>(gelu, host.read(z_tf)?, host.write(gradient_tf)?, host.write(out_tf)?);
        Ok(())
    })
}

pub fn swiglu_forward(host: &HostAccess, z_tu: &Tensor, out_tf: &Tensor) -> Done {
    by_kind!(z_tu.kind(), E => {
        kernels::swiglu_forward::<E>(host.read(z_tu)?, width(out_tf), host.write(out_tf)?);
        Ok(())
    })
}

pub fn swiglu_backward(
    host: &HostAccess,
    z_tu: &Tensor,
    gradient_tf: &Tensor,
    dz_tu: &Tensor,
    out_tf: &Tensor,
) -> Done {
    by_kind!(z_tu.kind(), E => {
        let (z, gradient) = (host.read::<E>(z_tu)?, host.read::<E>(gradient_tf)?);
        kernels::swiglu_backward::<E>(z, gradient, width(out_tf), host.write(dz_tu)?, host.write(out_tf)?);
        Ok(())
    })
}

pub fn rotate(
    host: &HostAccess,
    rows: &Tensor,
    rotary: &Rotary,
    sequence: usize,
    first: usize,
    heads: usize,
    inverse: bool,
) -> Done {
    by_kind!(rows.kind(), E => {
        let rotated = rotary.rotated(width(rows), first, heads);
        let (cos, sin) = (host.read(&rotary.cos)?, host.read(&rotary.sin)?);
        kernels::rotate::<E>(host.write(rows)?, rotated, sequence, cos, sin, inverse);
        Ok(())
    })
}

pub fn add_residual(
    host: &HostAccess,
    partials_th: &[Tensor],
    bias_h: Option<&Tensor>,
    residual_th: &Tensor,
    out_th: &Tensor,
) -> Done {
    by_kind!(partials_th.first().map_or(tch::Kind::Float, Tensor::kind), P => {
        let (partials, width) = (read_all::<P>(host, partials_th)?, width(out_th));
        let (residual, out) = (host.read(residual_th)?, host.write(out_th)?);
        let Some(bias_h) = bias_h else {
            kernels::add_residual::<P, f32>(&partials, width, None, residual, out);
            return Ok(());
        };
        by_kind!(bias_h.kind(), E => {
            kernels::add_residual::<P, E>(&partials, width, Some(host.read(bias_h)?), residual, out);
            Ok(())
        })
    })
}

pub fn sum_partials(host: &HostAccess, partials: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    by_kind!(partials.first().map_or(tch::Kind::Float, Tensor::kind), P => {
        let (partials, out) = (read_all::<P>(host, partials)?, host.write(out)?);
        by_kind!(extra.map_or(tch::Kind::Float, Tensor::kind), E => {
            let extra = extra.map(|extra| host.read(extra)).transpose()?;
            kernels::sum_partials::<P, E>(&partials, extra, out);
            Ok(())
        })
    })
}

pub fn column_sums(host: &HostAccess, values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]) -> Done {
    by_kind!(values.kind(), E => {
        let (elements, width) = (host.read::<E>(values)?, width(values));
        let totals: Vec<&Tensor> = gradients.iter().collect();
        add_by_blocks(host, &totals, |i, out| {
            kernels::column_sums(&elements[blocks[i].start * width..blocks[i].end * width], out);
        })
    })
}

pub fn add_partials(host: &HostAccess, partials: &[Tensor], gradient: &Tensor) -> Done {
    by_kind!(partials.first().map_or(tch::Kind::Float, Tensor::kind), E => {
        let mut sum = vec![0.0f32; gradient.numel()];
        kernels::sum_partials::<E, f32>(&read_all(host, partials)?, None, &mut sum);
        kernels::accumulate(host.write(gradient)?, &sum);
        Ok(())
    })
}

pub fn accumulate(host: &HostAccess, to: &Tensor, from: &Tensor) -> Done {
    kernels::accumulate(host.write::<f32>(to)?, host.read::<f32>(from)?);
    Ok(())
}

pub fn add_tree(host: &HostAccess, first: &Tensor, others: &[Tensor]) -> Done {
    kernels::tree_into(host.write(first)?, &read_all::<f32>(host, others)?);
    Ok(())
}

pub fn adamw(
    host: &HostAccess,
    coefficients: AdamWCoefficients,
    theta: &Tensor,
    g: &Tensor,
    m: &Tensor,
    v: &Tensor,
    compute: &Tensor,
) -> Done {
    let (g, theta) = (host.read::<f32>(g)?, host.write::<f32>(theta)?);
    let (m, v) = (host.write::<f32>(m)?, host.write::<f32>(v)?);
    if compute.kind() == tch::Kind::BFloat16 {
        kernels::adamw(coefficients, theta, g, m, v, Some(host.write::<half::bf16>(compute)?));
    } else {
        kernels::adamw::<f32>(coefficients, theta, g, m, v, None);
    }
    Ok(())
}

pub fn fold_heads(host: &HostAccess, dk_ta: &Tensor, dv_ta: &Tensor, heads: usize, out_te: &Tensor) -> Done {
    by_kind!(dk_ta.kind(), E => {
        let d = width(dk_ta) / heads;
        let out = host.write::<f32>(out_te)?;
        kernels::fold_heads::<E>(host.read(dk_ta)?, heads, d, out, 2 * d, 0);
        kernels::fold_heads::<E>(host.read(dv_ta)?, heads, d, out, 2 * d, d);
        Ok(())
    })
}

pub fn cast(host: &HostAccess, from: &Tensor, to: &Tensor) -> Done {
    if from.data_ptr() == to.data_ptr() {
        return Ok(());
    }
    by_kind!(to.kind(), E => {
        kernels::cast::<E>(host.read(from)?, host.write(to)?);
        Ok(())
    })
}

pub fn row_maxima(host: &HostAccess, logits_rv: &[Tensor], maxima_r: &Tensor) -> Done {
    by_kind!(logits_rv.first().map_or(tch::Kind::Float, Tensor::kind), E => {
        let maxima_r = host.write::<f32>(maxima_r)?;
        maxima_r.fill(f32::NEG_INFINITY);
        for shard_rv in logits_rv {
            kernels::row_maxima(host.read::<E>(shard_rv)?, width(shard_rv), maxima_r);
        }
        Ok(())
    })
}

pub fn row_sums(
    host: &HostAccess,
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    out_2r: &Tensor,
    keep: bool,
) -> Done {
    by_kind!(logits_rv.first().map_or(tch::Kind::Float, Tensor::kind), E => {
        let (ids, maxima) = (host.read::<i64>(targets_r)?, host.read::<f32>(maxima_r)?);
        let (sums, target_logits) = host.write::<f32>(out_2r)?.split_at_mut(ids.len());
        target_logits.fill(f32::NEG_INFINITY);
        let mut shard_sums = vec![0.0f32; ids.len() * logits_rv.len()];
        let mut first = first;
        for (shard_rv, sums) in logits_rv.iter().zip(shard_sums.chunks_exact_mut(ids.len().max(1))) {
            let (logits, width) = (host.write::<E>(shard_rv)?, width(shard_rv));
            for (row, (&id, target_logit)) in ids.iter().zip(&mut *target_logits).enumerate() {
                if (first..first + width as i64).contains(&id) {
                    *target_logit = logits[row * width + (id - first) as usize].load();
                }
            }
            kernels::row_sums(logits, width, maxima, sums, keep);
            first += width as i64;
        }
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = tree_by(logits_rv.len(), &|i| shard_sums[i * ids.len() + row]);
        }
        Ok(())
    })
}

#[allow(clippy::too_many_arguments)]
pub fn finish_loss(
    host: &HostAccess,
    logits_rv: &[Tensor],
    targets_r: &Tensor,
    first: i64,
    maxima_r: &Tensor,
    sums_2r: &Tensor,
    losses_r: &Tensor,
    gradient: bool,
) -> Done {
    by_kind!(logits_rv.first().map_or(tch::Kind::Float, Tensor::kind), E => {
        let ids = host.read::<i64>(targets_r)?;
        let (sums, target_logits) = host.read::<f32>(sums_2r)?.split_at(ids.len());
        let losses = host.write(losses_r)?;
        kernels::row_losses(sums, host.read(maxima_r)?, target_logits, losses);
        let masked = || ids.iter().enumerate().filter(|(_, id)| **id < 0).map(|(row, _)| row);
        for row in masked() {
            losses[row] = 0.0;
        }
        if gradient {
            let mut first = first;
            for shard_rv in logits_rv {
                let columns: Vec<i64> = ids.iter().map(|id| id - first).collect();
                let (gradient_rv, width) = (host.write::<E>(shard_rv)?, width(shard_rv));
                kernels::loss_gradient(gradient_rv, width, sums, &columns);
                for row in masked() {
                    gradient_rv[row * width..(row + 1) * width].fill(E::default());
                }
                first += width as i64;
            }
        }
        Ok(())
    })
}
