//! Products of a few rows: the right operand, which is much larger, is read once and where it stands.
//!
//! Every element is the tree sum of sixteen interleaved chains of fused multiply-adds over the inner dimension, each from 0
//! and in increasing order; then a bias, by one addition; then one rounding. That is another sum than [`super::product`]'s;
//! it depends as little on the instruction set and on the rows beside it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;

use super::tile::Vector;
use super::{BUFFERS, Buffers, Element, Level, Matrix, blocks, level, reach};
use crate::kernels::{LANES, join};

/// Columns whose sums wait side by side until they are written: rows of `out` often begin a power of two apart, where each
/// drives the others from the cache.
const COLUMNS: usize = 64;

/// Writes `left · rightᵀ (+ bias)` to rows of `out` that begin `stride` elements apart.
///
/// # Panics
/// If an operand is transposed, or the shapes of operands, bias and `out` do not fit each other.
pub fn product_of_few<E: Element>(
    left: Matrix<'_, E>,
    right: Matrix<'_, E>,
    out: &mut [E],
    stride: usize,
    bias: Option<&[E]>,
) {
    product_of_few_at(level(), left, right, out, stride, bias);
}

/// [`product_of_few`] by the instructions of a given level.
pub fn product_of_few_at<E: Element>(
    level: Level,
    left: Matrix<'_, E>,
    right: Matrix<'_, E>,
    out: &mut [E],
    stride: usize,
    bias: Option<&[E]>,
) {
    let columns = right.rows;
    assert!(
        left.columns == right.columns && left.column_step == 1 && right.column_step == 1,
        "operands of a product do not fit each other"
    );
    assert!(
        columns <= stride && reach(left.rows, columns, stride) <= out.len(),
        "a product reaches past its place"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == columns),
        "a bias has one number a column"
    );
    let work = Work {
        left,
        right,
        stride,
        bias,
    };
    // Not inside of what is compiled for a level: a closure there would not be.
    BUFFERS.with_borrow_mut(|buffers| match level.min(super::level()) {
        // SAFETY: `level()` has found these instruction sets on this machine. Wider vectors are slower here: sums across
        // their lanes take longer, and tiles are too large for what the compiler keeps in registers.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { avx2(work, buffers, out) },
        _ => run::<[f32; 4], E, 2, 2, 4>(work, buffers, out),
    });
}

#[derive(Clone, Copy)]
struct Work<'a, E> {
    left: Matrix<'a, E>,
    right: Matrix<'a, E>,
    stride: usize,
    bias: Option<&'a [E]>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<E: Element>(work: Work<'_, E>, buffers: &mut Buffers, out: &mut [E]) {
    run::<__m256, E, 3, 2, 2>(work, buffers, out);
}

/// In tiles of `R` rows and `C` columns at most; sixteen lanes are `L` vectors.
#[inline(always)]
fn run<V: Vector, E: Element, const R: usize, const C: usize, const L: usize>(
    work: Work<'_, E>,
    buffers: &mut Buffers,
    out: &mut [E],
) {
    let (rows, columns, depth) = (work.left.rows, work.right.rows, work.left.columns);
    // Zeros behind a row add nothing.
    let padded = depth.next_multiple_of(LANES);
    let wide_left = buffers.left.take(rows * padded);
    for row in 0..rows {
        widen(work.left.row(row), &mut wide_left[row * padded..][..padded]);
    }
    let wide_right = buffers.right.take(C * padded);
    let sums = buffers.sums.take(rows * COLUMNS);
    for block in blocks(columns, COLUMNS) {
        for column in block.clone().step_by(C) {
            let many = C.min(block.end - column);
            let mut right: [&[f32]; C] = [&[]; C];
            let mut scratch = wide_right.chunks_exact_mut(padded.max(1));
            for (i, right) in right.iter_mut().enumerate() {
                let own = work.right.row(column + i.min(many - 1));
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
                let some = if rows - row >= R {
                    tile::<V, R, C, L>(left, right, padded, &mut tile_sums);
                    R
                } else {
                    tile::<V, 1, C, L>(left, right, padded, &mut tile_sums);
                    1
                };
                for (i, own) in tile_sums[..some].iter().enumerate() {
                    sums[(row + i) * COLUMNS + column - block.start..][..many].copy_from_slice(&own[..many]);
                }
                row += some;
            }
        }
        for (row, sums) in sums.chunks_exact(COLUMNS).enumerate() {
            let out = &mut out[row * work.stride + block.start..][..block.len()];
            let bias = work.bias.map(|bias| &bias[block.clone()]);
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

/// The sums of `R` neighbouring rows of `left` with the rows of `right`, all of `depth` numbers.
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
        k += LANES;
    }
    for r in 0..R {
        for c in 0..C {
            let mut lanes = [0.0f32; LANES];
            for l in 0..L {
                chains[r][c][l].store(&mut lanes[l * V::COUNT..]);
            }
            sums[r][c] = join(lanes);
        }
    }
}
