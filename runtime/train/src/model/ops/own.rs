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

/// Adds the tree sum of `count` parts to `total`; `part(i)` fills a zeroed buffer of that length.
fn add_by_blocks(total: &mut [f32], count: usize, mut part: impl FnMut(usize, &mut [f32])) {
    let length = total.len();
    let mut parts = vec![0.0f32; count * length];
    for (i, buffer) in parts.chunks_exact_mut(length.max(1)).enumerate() {
        part(i, buffer);
    }
    let parts: Vec<&[f32]> = parts.chunks_exact(length.max(1)).collect();
    let mut sum = vec![0.0f32; length];
    kernels::sum_partials(&parts, None, &mut sum);
    kernels::accumulate(total, &sum);
}

pub fn embed(ids: &Tensor, sequence: usize, word: &[Tensor], position: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(position), E => {
        let hidden = width(out);
        let mut first = 0;
        for word in word {
            let (rows, places) = (elements::<E>(word)?, elements::<E>(position)?);
            kernels::embed_position_rows(elements(ids)?, sequence, first, rows, places, hidden, elements_mut(out)?);
            first += word.size()[0];
        }
        Ok(())
    })
}

pub fn embed_backward(
    ids: &Tensor,
    sequence: usize,
    dx: &Tensor,
    blocks: &[Range<usize>],
    word: &[Tensor],
    position: &Tensor,
) -> Done {
    let hidden = width(dx);
    let numbers = elements::<f32>(dx)?;
    let mut first = 0;
    for word in word {
        kernels::embedding_gradient(elements(ids)?, first, numbers, hidden, elements_mut(word)?);
        first += word.size()[0];
    }
    let total = &mut elements_mut::<f32>(position)?[..sequence * hidden];
    add_by_blocks(total, blocks.len(), |i, out| {
        let block = blocks[i].clone();
        let rows = &numbers[block.start * hidden..block.end * hidden];
        kernels::position_gradient(rows, block.start, sequence, hidden, out);
    });
    Ok(())
}

pub fn norm_forward(x: &Tensor, norm: &Norm, epsilon: f32, out: &Tensor, stats: Stats<'_>) -> Done {
    by_kind!(kind_of(out), E => {
        kernels::norm_forward::<E>(
            elements(x)?, width(x), epsilon, elements(&norm.weight)?, elements(&norm.bias)?, elements_mut(out)?,
            elements_mut(stats.mean)?, elements_mut(stats.rstd)?,
        );
        Ok(())
    })
}

pub fn norm_apply(x: &Tensor, norm: &Norm, out: &Tensor, stats: Stats<'_>) -> Done {
    by_kind!(kind_of(out), E => {
        let (mean, rstd) = (elements(stats.mean)?, elements(stats.rstd)?);
        let (weight, bias) = (elements(&norm.weight)?, elements(&norm.bias)?);
        kernels::norm_apply::<E>(elements(x)?, width(x), mean, rstd, weight, bias, elements_mut(out)?);
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
    by_kind!(kind_of(&norm.weight), E => {
        let hidden = width(x);
        let (dy, x, dx) = (elements::<f32>(dy)?, elements::<f32>(x)?, elements_mut::<f32>(dx)?);
        let (mean, rstd) = (elements::<f32>(stats.mean)?, elements::<f32>(stats.rstd)?);
        let weight = elements::<E>(&norm.weight)?;
        let mut both = vec![0.0f32; 2 * hidden];
        add_by_blocks(&mut both, blocks.len(), |i, out| {
            let block = blocks[i].clone();
            let numbers = block.start * hidden..block.end * hidden;
            let (dweight, dbias) = out.split_at_mut(hidden);
            kernels::norm_backward(
                &dy[numbers.clone()], &x[numbers.clone()], hidden, &mean[block.clone()], &rstd[block], weight,
                &mut dx[numbers], dweight, dbias,
            );
        });
        kernels::accumulate(elements_mut(&gradient.weight)?, &both[..hidden]);
        kernels::accumulate(elements_mut(&gradient.bias)?, &both[hidden..]);
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

pub fn rms_norm_forward(x: &Tensor, weight: &Tensor, epsilon: f32, out: &Tensor, rstd: &Tensor) -> Done {
    by_kind!(kind_of(out), E => {
        let numbers = elements_mut(rstd)?;
        kernels::rms_norm_forward::<E>(
            elements(x)?, width(x), epsilon, elements(weight)?, elements_mut(out)?, numbers,
        );
        Ok(())
    })
}

pub fn rms_norm_apply(x: &Tensor, weight: &Tensor, out: &Tensor, rstd: &Tensor) -> Done {
    by_kind!(kind_of(out), E => {
        kernels::rms_norm_apply::<E>(elements(x)?, width(x), elements(rstd)?, elements(weight)?, elements_mut(out)?);
        Ok(())
    })
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
    by_kind!(kind_of(weight), E => {
        let hidden = width(x);
        let (dy, x, dx) = (elements::<f32>(dy)?, elements::<f32>(x)?, elements_mut::<f32>(dx)?);
        let (rstd, weight) = (elements::<f32>(rstd)?, elements::<E>(weight)?);
        add_by_blocks(elements_mut(gradient)?, blocks.len(), |i, dweight| {
            let block = blocks[i].clone();
            let numbers = block.start * hidden..block.end * hidden;
            kernels::rms_norm_backward(
                &dy[numbers.clone()], &x[numbers.clone()], hidden, &rstd[block], weight, &mut dx[numbers], dweight,
            );
        });
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

pub fn add_residual(parts: &[Tensor], bias: &Tensor, residual: &Tensor, out: &Tensor) -> Done {
    by_kind!(kind_of(bias), E => {
        kernels::add_residual::<E>(&slices(parts)?, elements(bias)?, elements(residual)?, elements_mut(out)?);
        Ok(())
    })
}

pub fn sum_partials(parts: &[Tensor], extra: Option<&Tensor>, out: &Tensor) -> Done {
    by_kind!(parts.first().map_or(tch::Kind::Float, kind_of), E => {
        kernels::sum_partials::<E>(&slices(parts)?, extra.map(elements).transpose()?, elements_mut(out)?);
        Ok(())
    })
}

pub fn column_sums(values: &Tensor, blocks: &[Range<usize>], gradient: &Tensor) -> Done {
    by_kind!(kind_of(values), E => {
        let (numbers, total) = (elements::<E>(values)?, elements_mut::<f32>(gradient)?);
        let width = total.len();
        add_by_blocks(total, blocks.len(), |i, out| {
            kernels::column_sums(&numbers[blocks[i].start * width..blocks[i].end * width], out);
        });
        Ok(())
    })
}

pub fn add_partials(parts: &[Tensor], gradient: &Tensor) -> Done {
    by_kind!(parts.first().map_or(tch::Kind::Float, kind_of), E => {
        let mut sum = vec![0.0f32; gradient.numel()];
        kernels::sum_partials::<E>(&slices(parts)?, None, &mut sum);
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

pub fn softmax_loss(logits: &[Tensor], targets: &Tensor, losses: &mut [f64], gradient: bool) -> Done {
    by_kind!(logits.first().map_or(tch::Kind::Float, kind_of), E => {
        let rows = losses.len();
        let ids = elements::<i64>(targets)?;
        let mut maxima = vec![f32::NEG_INFINITY; rows];
        let mut chosen = vec![0.0f32; rows];
        let mut first = 0i64;
        for logits in logits {
            let (numbers, width) = (elements::<E>(logits)?, width(logits));
            kernels::row_maxima(numbers, width, &mut maxima);
            for (row, (&id, chosen)) in ids.iter().zip(&mut chosen).enumerate() {
                if (first..first + width as i64).contains(&id) {
                    *chosen = kernels::Element::load(numbers[row * width + (id - first) as usize]);
                }
            }
            first += width as i64;
        }
        let mut parts = vec![0.0f32; rows * logits.len()];
        for (logits, sums) in logits.iter().zip(parts.chunks_exact_mut(rows.max(1))) {
            kernels::row_sums(elements_mut::<E>(logits)?, width(logits), &maxima, sums, gradient);
        }
        let sums: Vec<f32> = (0..rows).map(|row| tree_by(logits.len(), &|i| parts[i * rows + row])).collect();
        kernels::row_losses(&sums, &maxima, &chosen, losses);
        if gradient {
            let mut first = 0i64;
            for logits in logits {
                let places: Vec<i64> = ids.iter().map(|id| id - first).collect();
                kernels::loss_gradient(elements_mut::<E>(logits)?, width(logits), &sums, &places);
                first += width(logits) as i64;
            }
        }
        Ok(())
    })
}
