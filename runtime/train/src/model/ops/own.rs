//! The operations by this crate's kernels.

use std::ops::Range;

use tch::Tensor;

use super::{Rotary, Stats, by_kind, kind_of, slices};
use crate::kernels::{self, Gelu};
use crate::model::ModelError;
use crate::model::access::{elements, elements_mut};
use crate::model::views::Norm;
use crate::parallel::tree_by;

type Done = Result<(), ModelError>;

/// The length of a row.
fn width(tensor: &Tensor) -> usize {
    tensor.size().last().copied().unwrap_or(1) as usize
}

/// Adds to each total what `part(i)` sums up in a zeroed buffer of its length.
fn add_by_blocks(totals: &[&Tensor], mut part: impl FnMut(usize, &mut [f32])) -> Done {
    let mut buffer = Vec::new();
    for (i, total) in totals.iter().enumerate() {
        let total = elements_mut::<f32>(total)?;
        buffer.clear();
        buffer.resize(total.len(), 0.0f32);
        part(i, &mut buffer);
        kernels::accumulate(total, &buffer);
    }
    Ok(())
}

pub fn embed(
    ids: &Tensor,
    sequence: usize,
    first: i64,
    word: &[Tensor],
    position: Option<&Tensor>,
    out: &Tensor,
) -> Done {
    by_kind!(word.first().map_or(tch::Kind::Float, kind_of), E => {
        let hidden = width(out);
        let places = position.map(elements::<E>).transpose()?;
        let mut first = first;
        for word in word {
            kernels::embed_rows(elements(ids)?, sequence, first, elements::<E>(word)?, places, hidden, elements_mut(out)?);
            first += word.size()[0];
        }
        Ok(())
    })
}

pub fn embed_backward(
    ids: &Tensor,
    sequence: usize,
    first: i64,
    dx: &Tensor,
    word: &[Tensor],
    position: Option<&Tensor>,
) -> Done {
    let hidden = width(dx);
    let numbers = elements::<f32>(dx)?;
    let mut first = first;
    for word in word {
        kernels::embedding_gradient(elements(ids)?, first, numbers, hidden, elements_mut(word)?);
        first += word.size()[0];
    }
    let Some(position) = position else { return Ok(()) };
    let used = position.f_narrow(0, 0, sequence as i64)?;
    add_by_blocks(&[&used], |_, out| {
        kernels::position_gradient(numbers, sequence, hidden, out)
    })
}

pub fn norm_forward(x: &Tensor, norm: &Norm, epsilon: f32, out: &Tensor, stats: Stats<'_>) -> Done {
    by_kind!(kind_of(out), E => {
        let weight = elements::<E>(&norm.weight[0])?;
        let (x, rstd) = (elements(x)?, elements_mut(stats.rstd)?);
        match norm.bias.first() {
            Some(bias) => kernels::norm_forward::<E>(
                x, weight.len(), epsilon, weight, elements(bias)?, elements_mut(out)?, elements_mut(stats.mean)?, rstd,
            ),
            None => kernels::rms_norm_forward::<E>(x, weight.len(), epsilon, weight, elements_mut(out)?, rstd),
        }
        Ok(())
    })
}

pub fn norm_apply(x: &Tensor, norm: &Norm, out: &Tensor, stats: Stats<'_>) -> Done {
    by_kind!(kind_of(out), E => {
        let weight = elements::<E>(&norm.weight[0])?;
        let (x, rstd) = (elements(x)?, elements(stats.rstd)?);
        match norm.bias.first() {
            Some(bias) => kernels::norm_apply::<E>(
                x, weight.len(), elements(stats.mean)?, rstd, weight, elements(bias)?, elements_mut(out)?,
            ),
            None => kernels::rms_norm_apply::<E>(x, weight.len(), rstd, weight, elements_mut(out)?),
        }
        Ok(())
    })
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
    by_kind!(kind_of(&norm.weight[0]), E => {
        let weight = elements::<E>(&norm.weight[0])?;
        let hidden = weight.len();
        let (dy, x, dx) = (elements::<f32>(dy)?, elements::<f32>(x)?, elements_mut::<f32>(dx)?);
        let rstd = elements::<f32>(stats.rstd)?;
        let mut both = vec![0.0f32; 2 * hidden];
        for (i, block) in blocks.iter().enumerate() {
            let numbers = block.start * hidden..block.end * hidden;
            let (dy, x, dx) = (&dy[numbers.clone()], &x[numbers.clone()], &mut dx[numbers]);
            both.fill(0.0);
            let (dweight, dbias) = both.split_at_mut(hidden);
            match gradient.bias.get(i) {
                Some(bias) => {
                    let mean = &elements::<f32>(stats.mean)?[block.clone()];
                    kernels::norm_backward(dy, x, hidden, mean, &rstd[block.clone()], weight, dx, dweight, dbias);
                    kernels::accumulate(elements_mut(bias)?, dbias);
                }
                None => kernels::rms_norm_backward(dy, x, hidden, &rstd[block.clone()], weight, dx, dweight),
            }
            kernels::accumulate(elements_mut(&gradient.weight[i])?, dweight);
        }
        Ok(())
    })
}

pub fn gelu_forward(gelu: Gelu, z: &Tensor, bias: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(z), E => {
        kernels::gelu_forward::<E>(gelu, elements_mut(z)?, elements(bias)?, elements_mut(out)?);
        Ok(())
    })
}

pub fn gelu_backward(gelu: Gelu, z: &Tensor, gradient: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(z), E => {
        kernels::gelu_backward::<E>(gelu, elements(z)?, elements_mut(gradient)?, elements_mut(out)?);
        Ok(())
    })
}

pub fn swiglu_forward(z: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(z), E => {
        kernels::swiglu_forward::<E>(elements(z)?, width(out), elements_mut(out)?);
        Ok(())
    })
}

pub fn swiglu_backward(z: &Tensor, gradient: &Tensor, dz: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(z), E => {
        let d = elements::<E>(gradient)?;
        kernels::swiglu_backward::<E>(elements(z)?, d, width(out), elements_mut(dz)?, elements_mut(out)?);
        Ok(())
    })
}

pub fn rotate(rows: &Tensor, rotary: &Rotary, sequence: usize, first: usize, heads: usize, inverse: bool) -> Done {
    by_kind!(kind_of(rows), E => {
        let turned = rotary.turned(width(rows), first, heads);
        let (cos, sin) = (elements(&rotary.cos)?, elements(&rotary.sin)?);
        kernels::rotate::<E>(elements_mut(rows)?, turned, sequence, cos, sin, inverse);
        Ok(())
    })
}

pub fn add_residual(parts: &[Tensor], bias: Option<&Tensor>, residual: &Tensor, out: &Tensor) -> Done {
    by_kind!(parts.first().map_or(tch::Kind::Float, kind_of), P => {
        let (parts, width) = (slices::<P>(parts)?, width(out));
        let (residual, out) = (elements(residual)?, elements_mut(out)?);
        let Some(bias) = bias else {
            kernels::add_residual::<P, f32>(&parts, width, None, residual, out);
            return Ok(());
        };
        by_kind!(kind_of(bias), E => {
            kernels::add_residual::<P, E>(&parts, width, Some(elements(bias)?), residual, out);
            Ok(())
        })
    })
}

pub fn sum_partials(parts: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    by_kind!(parts.first().map_or(tch::Kind::Float, kind_of), P => {
        let (parts, out) = (slices::<P>(parts)?, elements_mut(out)?);
        by_kind!(extra.map_or(tch::Kind::Float, kind_of), E => {
            kernels::sum_partials::<P, E>(&parts, extra.map(elements).transpose()?, out);
            Ok(())
        })
    })
}

pub fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradients: &[Tensor]) -> Done {
    by_kind!(kind_of(values), E => {
        let (numbers, width) = (elements::<E>(values)?, width(values));
        let totals: Vec<&Tensor> = gradients.iter().collect();
        add_by_blocks(&totals, |i, out| {
            kernels::column_sums(&numbers[blocks[i].start * width..blocks[i].end * width], out);
        })
    })
}

pub fn add_partials(parts: &[Tensor], gradient: &Tensor) -> Done {
    by_kind!(parts.first().map_or(tch::Kind::Float, kind_of), E => {
        let mut sum = vec![0.0f32; gradient.numel()];
        kernels::sum_partials::<E, f32>(&slices(parts)?, None, &mut sum);
        kernels::accumulate(elements_mut(gradient)?, &sum);
        Ok(())
    })
}

pub fn fold_heads(dk: &Tensor, dv: &Tensor, heads: usize, out: &Tensor) -> Done {
    by_kind!(kind_of(dk), E => {
        let d = width(dk) / heads;
        let numbers = elements_mut::<f32>(out)?;
        kernels::fold_heads::<E>(elements(dk)?, heads, d, numbers, 2 * d, 0);
        kernels::fold_heads::<E>(elements(dv)?, heads, d, numbers, 2 * d, d);
        Ok(())
    })
}

pub fn cast(from: &Tensor, to: &Tensor) -> Done {
    if from.data_ptr() == to.data_ptr() {
        return Ok(());
    }
    by_kind!(kind_of(to), E => {
        kernels::cast::<E>(elements(from)?, elements_mut(to)?);
        Ok(())
    })
}

pub fn row_maxima(logits: &[Tensor], maxima: &Tensor) -> Done {
    by_kind!(logits.first().map_or(tch::Kind::Float, kind_of), E => {
        let maxima = elements_mut::<f32>(maxima)?;
        maxima.fill(f32::NEG_INFINITY);
        for logits in logits {
            kernels::row_maxima(elements::<E>(logits)?, width(logits), maxima);
        }
        Ok(())
    })
}

pub fn row_sums(logits: &[Tensor], targets: &Tensor, first: i64, maxima: &Tensor, out: &Tensor, keep: bool) -> Done {
    by_kind!(logits.first().map_or(tch::Kind::Float, kind_of), E => {
        let (ids, maxima) = (elements::<i64>(targets)?, elements::<f32>(maxima)?);
        let (sums, chosen) = elements_mut::<f32>(out)?.split_at_mut(ids.len());
        chosen.fill(f32::NEG_INFINITY);
        let mut parts = vec![0.0f32; ids.len() * logits.len()];
        let mut first = first;
        for (logits, sums) in logits.iter().zip(parts.chunks_exact_mut(ids.len().max(1))) {
            let (numbers, width) = (elements_mut::<E>(logits)?, width(logits));
            for (row, (&id, chosen)) in ids.iter().zip(&mut *chosen).enumerate() {
                if (first..first + width as i64).contains(&id) {
                    *chosen = kernels::Element::load(numbers[row * width + (id - first) as usize]);
                }
            }
            kernels::row_sums(numbers, width, maxima, sums, keep);
            first += width as i64;
        }
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = tree_by(logits.len(), &|i| parts[i * ids.len() + row]);
        }
        Ok(())
    })
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
    by_kind!(logits.first().map_or(tch::Kind::Float, kind_of), E => {
        let ids = elements::<i64>(targets)?;
        let (sums, chosen) = elements::<f32>(both)?.split_at(ids.len());
        kernels::row_losses(sums, elements(maxima)?, chosen, losses);
        if gradient {
            let mut first = first;
            for logits in logits {
                let places: Vec<i64> = ids.iter().map(|id| id - first).collect();
                kernels::loss_gradient(elements_mut::<E>(logits)?, width(logits), sums, &places);
                first += width(logits) as i64;
            }
        }
        Ok(())
    })
}
