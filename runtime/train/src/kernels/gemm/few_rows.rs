//! Products with few rows: the right operand, which is much larger, is read once and in place.
//!
//! Every element is the tree sum of sixteen interleaved chains of fused multiply-adds over the inner dimension, each
//! starting from 0 and in increasing order; then one addition of a bias; then one rounding. This is a different sum
//! from that of [`super::matmul`]; it does not depend on the instruction set or on other rows either.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;

use super::vector::Vector;
use super::{BUFFERS, Buffers, Element, Level, Matrix, blocks, extent, level};
use crate::kernels::{ACCUMULATORS, sum_accumulators};

/// Columns whose sums are buffered before they are written: rows of `out` often start a power of two apart, so writing
/// them alternately would evict each other's cache lines.
const COLUMNS: usize = 64;

/// Writes `left · rightᵀ (+ bias)` to rows of `out` that start `stride` elements apart.
///
/// # Panics
/// If an operand is transposed, or the shapes of operands, bias and `out` do not match.
pub fn matmul_few_rows<E: Element>(
    left: Matrix<'_, E>,
    right: Matrix<'_, E>,
    out: &mut [E],
    stride: usize,
    bias: Option<&[E]>,
) {
    matmul_few_rows_at(level(), left, right, out, stride, bias);
}

/// [`matmul_few_rows`] with a given instruction set.
pub fn matmul_few_rows_at<E: Element>(
    level: Level,
    left: Matrix<'_, E>,
    right: Matrix<'_, E>,
    out: &mut [E],
    stride: usize,
    bias: Option<&[E]>,
) {
    let columns = right.rows;
    assert!(
        left.columns == right.columns && left.column_stride == 1 && right.column_stride == 1,
        "the operands of a product do not match"
    );
    assert!(
        columns <= stride && extent(left.rows, columns, stride) <= out.len(),
        "a product exceeds its output"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == columns),
        "a bias has one element per column"
    );
    let operands = Operands {
        left,
        right,
        stride,
        bias,
    };
    // Outside of the functions that are compiled for a level: a closure inside them would not be.
    BUFFERS.with_borrow_mut(|buffers| match level.min(super::level()) {
        // SAFETY: `level()` has detected these instruction sets. Wider vectors are slower here: sums across their
        // elements take longer, and tiles do not fit the registers.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { avx2(operands, buffers, out) },
        _ => run::<[f32; 4], E, 2, 2, 4>(operands, buffers, out),
    });
}

#[derive(Clone, Copy)]
struct Operands<'a, E> {
    left: Matrix<'a, E>,
    right: Matrix<'a, E>,
    stride: usize,
    bias: Option<&'a [E]>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<E: Element>(operands: Operands<'_, E>, buffers: &mut Buffers, out: &mut [E]) {
    run::<__m256, E, 3, 2, 2>(operands, buffers, out);
}

/// Computes tiles of up to `R` rows and `C` columns; sixteen accumulators are `L` vectors.
#[inline(always)]
fn run<V: Vector, E: Element, const R: usize, const C: usize, const L: usize>(
    operands: Operands<'_, E>,
    buffers: &mut Buffers,
    out: &mut [E],
) {
    let (rows, columns, depth) = (operands.left.rows, operands.right.rows, operands.left.columns);
    // Zero padding of a row adds nothing.
    let padded = depth.next_multiple_of(ACCUMULATORS);
    let wide_left = buffers.left.take(rows * padded);
    for row in 0..rows {
        widen(operands.left.row(row), &mut wide_left[row * padded..][..padded]);
    }
    let wide_right = buffers.right.take(C * padded);
    let sums = buffers.sums.take(rows * COLUMNS);
    for block in blocks(columns, COLUMNS) {
        for column in block.clone().step_by(C) {
            let count = C.min(block.end - column);
            let mut right: [&[f32]; C] = [&[]; C];
            let mut scratch = wide_right.chunks_exact_mut(padded.max(1));
            for (i, right) in right.iter_mut().enumerate() {
                let own = operands.right.row(column + i.min(count - 1));
                *right = match E::floats(own) {
                    Some(own) if own.len() == padded => own,
                    _ => {
                        let wide = scratch.next().unwrap_or_default();
                        widen(own, wide);
                        wide
                    }
                };
            }
            let mut row = 0;
            while row < rows {
                let left = &wide_left[row * padded..];
                let mut tile_sums = [[0.0f32; C]; R];
                let tile_rows = if rows - row >= R {
                    tile::<V, R, C, L>(left, right, padded, &mut tile_sums);
                    R
                } else {
                    tile::<V, 1, C, L>(left, right, padded, &mut tile_sums);
                    1
                };
                for (i, own) in tile_sums[..tile_rows].iter().enumerate() {
                    sums[(row + i) * COLUMNS + column - block.start..][..count].copy_from_slice(&own[..count]);
                }
                row += tile_rows;
            }
        }
        for (row, sums) in sums.chunks_exact(COLUMNS).enumerate() {
            let out = &mut out[row * operands.stride + block.start..][..block.len()];
            let bias = operands.bias.map(|bias| &bias[block.clone()]);
            for j in 0..out.len() {
                out[j] = E::store(bias.map_or(sums[j], |bias| sums[j] + bias[j].load()));
            }
        }
    }
}

#[inline(always)]
fn widen<E: Element>(from: &[E], to: &mut [f32]) {
    let (own, rest) = to.split_at_mut(from.len());
    for (to, from) in own.iter_mut().zip(from) {
        *to = from.load();
    }
    rest.fill(0.0);
}

/// The sums of `R` adjacent rows of `left` with the rows of `right`, which all have `depth` elements.
#[inline(always)]
fn tile<V: Vector, const R: usize, const C: usize, const L: usize>(
    left: &[f32],
    right: [&[f32]; C],
    depth: usize,
    sums: &mut [[f32; C]],
) {
    let left: [&[f32]; R] = std::array::from_fn(|r| &left[r * depth..][..depth]);
    let right = right.map(|row| &row[..depth]);
    let mut chains = [[[V::zero(); L]; C]; R];
    let mut k = 0;
    while k < depth {
        for l in 0..L {
            let at = k + l * V::COUNT;
            let right: [V; C] = std::array::from_fn(|c| V::load(&right[c][at..]));
            for r in 0..R {
                let left = V::load(&left[r][at..]);
                for c in 0..C {
                    chains[r][c][l] = left.mul_add(right[c], chains[r][c][l]);
                }
            }
        }
        k += ACCUMULATORS;
    }
    for r in 0..R {
        for c in 0..C {
            let mut accumulators = [0.0f32; ACCUMULATORS];
            for l in 0..L {
                chains[r][c][l].store(&mut accumulators[l * V::COUNT..]);
            }
            sums[r][c] = sum_accumulators(accumulators);
        }
    }
}
