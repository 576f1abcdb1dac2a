//! Copies of a product's operands in the order in which they are read.
//!
//! A panel contains a few adjacent lines (rows of the left operand, columns of the right one): for each step of the
//! inner dimension one element of each line. bf16 is widened by the copy, which is exact.

use super::{Level, Matrix};
use crate::kernels::{Element, dispatch};

/// How many lines a panel has.
#[derive(Clone, Copy, Debug)]
pub enum Panels {
    /// Of the left operand: `wide`; the remainder in fours and ones.
    Rows { wide: usize },
    /// Of the right operand: `wide`; the remainder is padded to a multiple of `vector` with zeros.
    Columns { wide: usize, vector: usize },
}

impl Panels {
    pub fn rows(level: Level) -> Self {
        Self::Rows {
            wide: super::vector::rows(level),
        }
    }

    pub fn columns(level: Level) -> Self {
        let (wide, vector) = super::vector::columns(level);
        Self::Columns { wide, vector }
    }

    /// Lines of the next panel if `left` lines remain, and the elements it has for each step.
    #[inline(always)]
    pub fn next(self, left: usize) -> (usize, usize) {
        match self {
            Self::Rows { wide } => {
                let lines = if left >= wide {
                    wide
                } else if left >= 4 {
                    4
                } else {
                    1
                };
                (lines, lines)
            }
            Self::Columns { wide, vector } => {
                let lines = left.min(wide);
                (lines, lines.next_multiple_of(vector))
            }
        }
    }

    /// Elements for each step in the panels of `lines` lines.
    pub fn padded(self, lines: usize) -> usize {
        match self {
            Self::Rows { .. } => lines,
            // Full panels are multiples of a vector.
            Self::Columns { vector, .. } => lines.next_multiple_of(vector),
        }
    }
}

/// Steps of the inner dimension that are read from each line at a time: a cache line of `f32`.
const STEPS: usize = 16;

/// Copies `L` lines that are contiguous along the inner dimension to columns `0..L` of a panel.
#[inline(always)]
fn transpose<E: Element, const L: usize>(values: &[E], stride: usize, count: usize, panel: &mut [f32], width: usize) {
    let lines: [&[E]; L] = std::array::from_fn(|i| &values[i * stride..i * stride + count]);
    let mut k = 0;
    while k + 4 <= count {
        let four: [[f32; 4]; L] = std::array::from_fn(|i| std::array::from_fn(|j| lines[i][k + j].load()));
        for j in 0..4 {
            let to = &mut panel[(k + j) * width..(k + j) * width + L];
            for i in 0..L {
                to[i] = four[i][j];
            }
        }
        k += 4;
    }
    for k in k..count {
        for i in 0..L {
            panel[k * width + i] = lines[i][k].load();
        }
    }
}

dispatch! {
/// Copies the rows of `source` to panels, one after the other.
#[allow(dead_code)] // only `at` is called
pub fn pack [E: Element] (source: Matrix<'_, E>, panels: Panels, out: &mut [f32]) {
    let depth = source.columns;
    if depth == 0 {
        return;
    }
    let (mut line, mut out) = (0, out);
    while line < source.rows {
        let (lines, width) = panels.next(source.rows - line);
        let (panel, rest) = out.split_at_mut(width * depth);
        out = rest;
        if source.row_stride == 1 {
            for (k, to) in panel.chunks_exact_mut(width).enumerate() {
                let from = &source.values[line + k * source.column_stride..][..lines];
                let (to, zeros) = to.split_at_mut(lines);
                for i in 0..lines {
                    to[i] = from[i].load();
                }
                zeros.fill(0.0);
            }
        } else {
            for start in (0..depth).step_by(STEPS) {
                let count = STEPS.min(depth - start);
                let steps = &mut panel[start * width..(start + count) * width];
                let from = |i: usize| &source.values[(line + i) * source.row_stride + start..];
                let mut i = 0;
                while i + 4 <= lines {
                    transpose::<E, 4>(from(i), source.row_stride, count, &mut steps[i..], width);
                    i += 4;
                }
                while i < lines {
                    transpose::<E, 1>(from(i), source.row_stride, count, &mut steps[i..], width);
                    i += 1;
                }
                if lines < width {
                    steps.chunks_exact_mut(width).for_each(|step| step[lines..].fill(0.0));
                }
            }
        }
        line += lines;
    }
}
}
