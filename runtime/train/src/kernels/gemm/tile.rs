//! Multiplies panels: the sums of a tile stay in registers along the inner dimension.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use super::Level;
use super::panels::Panels;
use super::vector::Vector;

/// Dimensions of a block in panels.
#[derive(Clone, Copy, Debug)]
pub struct PanelSize {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

/// Where a tile's sums are: rows `stride` apart, of which `columns` are used.
struct TileTarget<'a> {
    sums: &'a mut [f32],
    stride: usize,
    columns: usize,
}

/// Continues the chains of a tile along its panels: from 0 if they are the first, otherwise from `target`.
#[inline(always)]
fn tile<V: Vector, const R: usize, const C: usize>(left: &[f32], right: &[f32], target: TileTarget<'_>, first: bool) {
    let TileTarget { sums, stride, columns } = target;
    let mut chains = [[V::zero(); C]; R];
    let full = columns == C * V::COUNT;
    // Tiles at the right edge have full width here, and their own width in memory.
    let mut edge = [[0.0f32; 32]; R];
    if !first {
        for i in 0..R {
            if full {
                for c in 0..C {
                    chains[i][c] = V::load(&sums[i * stride + c * V::COUNT..]);
                }
            } else {
                edge[i][..columns].copy_from_slice(&sums[i * stride..i * stride + columns]);
                for c in 0..C {
                    chains[i][c] = V::load(&edge[i][c * V::COUNT..]);
                }
            }
        }
    }
    for (left, right) in left.as_chunks::<R>().0.iter().zip(right.chunks_exact(C * V::COUNT)) {
        let right: [V; C] = std::array::from_fn(|c| V::load(&right[c * V::COUNT..]));
        for i in 0..R {
            let left = V::splat(left[i]);
            for c in 0..C {
                chains[i][c] = left.mul_add(right[c], chains[i][c]);
            }
        }
    }
    for i in 0..R {
        if full {
            for c in 0..C {
                chains[i][c].store(&mut sums[i * stride + c * V::COUNT..]);
            }
        } else {
            for c in 0..C {
                chains[i][c].store(&mut edge[i][c * V::COUNT..]);
            }
            sums[i * stride..i * stride + columns].copy_from_slice(&edge[i][..columns]);
        }
    }
}

#[inline(always)]
fn tiles<V: Vector>(left: &[f32], right: &[f32], size: PanelSize, sums: &mut [f32], stride: usize, first: bool) {
    let right_layout = Panels::Columns {
        wide: V::VECTORS * V::COUNT,
        vector: V::COUNT,
    };
    let left_layout = Panels::Rows { wide: V::ROWS };
    let (mut column, mut right) = (0, right);
    while column < size.columns {
        let (columns, width) = right_layout.next(size.columns - column);
        let (right_panel, right_rest) = right.split_at(width * size.depth);
        let (mut row, mut left) = (0, left);
        while row < size.rows {
            let (rows, _) = left_layout.next(size.rows - row);
            let (left_panel, left_rest) = left.split_at(rows * size.depth);
            let target = TileTarget {
                sums: &mut sums[row * stride + column..],
                stride,
                columns,
            };
            match (rows, width > V::COUNT) {
                (12, true) if V::ROWS == 12 => tile::<V, 12, 2>(left_panel, right_panel, target, first),
                (12, false) if V::ROWS == 12 => tile::<V, 12, 1>(left_panel, right_panel, target, first),
                (6, true) if V::ROWS == 6 => tile::<V, 6, 2>(left_panel, right_panel, target, first),
                (6, false) if V::ROWS == 6 => tile::<V, 6, 1>(left_panel, right_panel, target, first),
                (4, true) => tile::<V, 4, 2>(left_panel, right_panel, target, first),
                (4, false) => tile::<V, 4, 1>(left_panel, right_panel, target, first),
                (_, true) => tile::<V, 1, 2>(left_panel, right_panel, target, first),
                (_, false) => tile::<V, 1, 1>(left_panel, right_panel, target, first),
            }
            row += rows;
            left = left_rest;
        }
        column += columns;
        right = right_rest;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn avx512(left: &[f32], right: &[f32], size: PanelSize, sums: &mut [f32], stride: usize, first: bool) {
    tiles::<__m512>(left, right, size, sums, stride, first);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(left: &[f32], right: &[f32], size: PanelSize, sums: &mut [f32], stride: usize, first: bool) {
    tiles::<__m256>(left, right, size, sums, stride, first);
}

/// Continues the chains of a block along its panels, which were packed for the same level: from 0 if they are the
/// `first`, otherwise from `sums`.
pub fn multiply_panels(
    level: Level,
    left: &[f32],
    right: &[f32],
    size: PanelSize,
    sums: &mut [f32],
    stride: usize,
    first: bool,
) {
    match level {
        // SAFETY: `matmul_at` has checked that this processor has the level.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(left, right, size, sums, stride, first) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(left, right, size, sums, stride, first) },
        _ => tiles::<[f32; 4]>(left, right, size, sums, stride, first),
    }
}
