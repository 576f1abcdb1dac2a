//! Matrix products whose bits depend on the operands only.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner dimension, in increasing order,
//! starting from 0; then one addition of whatever is added to it; then one rounding to the element type. A fused
//! multiply-add rounds once, on every processor, so neither instruction set, nor blocking, nor the division of rows and
//! columns among calls changes a bit. Between blocks of the inner dimension the intermediate sums are stored as `f32`,
//! which is exact.
//!
//! In the order of use: `panels` copies blocks of both operands in the order in which they are read, `tile` multiplies,
//! `apply_epilogue` adds and rounds.

mod few_rows;
mod panels;
#[cfg(test)]
mod tests;
mod tile;
mod vector;

use std::cell::RefCell;
use std::ops::Range;

pub use few_rows::{matmul_few_rows, matmul_few_rows_at};
use panels::{Panels, pack};
use tile::{PanelSize, multiply_panels};

use super::{Element, Level, dispatch, level};

/// Rows and columns of a block of the product, and the part of the inner dimension that is multiplied at a time. The
/// copies of both operands then stay in or near the second-level cache; tuned on Zen 4.
const BLOCK_ROWS: usize = 768;
const BLOCK_COLUMNS: usize = 768;
const BLOCK_DEPTH: usize = 256;

/// A read-only matrix: row-major with any row stride, or the transpose of one.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, E> {
    values: &'a [E],
    rows: usize,
    columns: usize,
    /// Strides between rows and between columns; one of them is 1.
    row_stride: usize,
    column_stride: usize,
}

impl<'a, E> Matrix<'a, E> {
    /// `rows` × `columns` elements; row `i` starts at element `i · stride`.
    ///
    /// # Panics
    /// If `values` ends before the last row.
    pub fn new(values: &'a [E], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            extent(rows, columns, stride) <= values.len(),
            "a matrix exceeds its values"
        );
        Self {
            values,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The transpose, without a copy.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Row `i` of a matrix that is not transposed.
    pub(super) fn row(self, i: usize) -> &'a [E] {
        let start = if self.columns == 0 { 0 } else { i * self.row_stride };
        &self.values[start..][..self.columns]
    }

    /// A part of the matrix; possibly empty.
    fn part(self, rows: &Range<usize>, columns: &Range<usize>) -> Self {
        let start = rows.start * self.row_stride + columns.start * self.column_stride;
        Self {
            values: self.values.get(start..).unwrap_or_default(),
            rows: rows.len(),
            columns: columns.len(),
            ..self
        }
    }
}

/// Elements from the first to the last of a matrix.
pub fn extent(rows: usize, columns: usize, stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        0
    } else {
        (rows - 1) * stride + columns
    }
}

/// What happens to a product.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a, E> {
    /// Replaces the output.
    Store,
    /// Replaces the output, after this row was added to each of its rows.
    Bias(&'a [E]),
    /// Is added to the output.
    Add,
}

/// Writes `left · right` to rows of `out` that start `stride` elements apart.
///
/// # Panics
/// If the shapes of operands, bias and `out` do not match.
pub fn matmul<A: Element, B: Element, C: Element>(
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    out: &mut [C],
    stride: usize,
    epilogue: Epilogue<'_, C>,
) {
    matmul_at(level(), left, right, out, stride, epilogue);
}

/// [`matmul`] with a given instruction set.
pub fn matmul_at<A: Element, B: Element, C: Element>(
    level: Level,
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    out: &mut [C],
    stride: usize,
    epilogue: Epilogue<'_, C>,
) {
    let level = level.min(super::level());
    let (rows, depth, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(depth, right.rows, "the operands of a product do not match");
    assert!(
        columns <= stride && extent(rows, columns, stride) <= out.len(),
        "a product exceeds its output"
    );
    if let Epilogue::Bias(bias) = epilogue {
        assert_eq!(bias.len(), columns, "a bias has one element per column");
    }
    BUFFERS.with_borrow_mut(|buffers| {
        for row in blocks(rows, BLOCK_ROWS) {
            for column in blocks(columns, BLOCK_COLUMNS) {
                let epilogue = match epilogue {
                    Epilogue::Bias(bias) => Epilogue::Bias(&bias[column.clone()]),
                    other => other,
                };
                let out = &mut out[row.start * stride + column.start..];
                block(
                    level,
                    buffers,
                    left.part(&row, &(0..depth)),
                    right.part(&(0..depth), &column),
                    out,
                    stride,
                    epilogue,
                );
            }
        }
    });
}

/// One block of rows and columns of a product.
fn block<A: Element, B: Element, C: Element>(
    level: Level,
    buffers: &mut Buffers,
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    out: &mut [C],
    stride: usize,
    epilogue: Epilogue<'_, C>,
) {
    // Sums that are the result are computed in place.
    if let (Epilogue::Store, Some(floats)) = (epilogue, C::as_floats(out)) {
        sum_block(
            level,
            &mut buffers.left,
            &mut buffers.right,
            left,
            right,
            floats,
            stride,
        );
        return;
    }
    let columns = right.columns;
    let sums = buffers.sums.take(left.rows * columns);
    sum_block(level, &mut buffers.left, &mut buffers.right, left, right, sums, columns);
    apply_epilogue::at(level, sums, columns, out, stride, epilogue);
}

/// Computes the chains of one block in rows of `sums`.
fn sum_block<A: Element, B: Element>(
    level: Level,
    left_panels: &mut Scratch,
    right_panels: &mut Scratch,
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    sums: &mut [f32],
    stride: usize,
) {
    let (rows, columns) = (left.rows, right.columns);
    let (left_layout, right_layout) = (Panels::rows(level), Panels::columns(level));
    // An empty inner dimension has sums (0) too.
    for depth in blocks(left.columns.max(1), BLOCK_DEPTH) {
        let depth = depth.start..depth.end.min(left.columns);
        let left_panels = left_panels.take(left_layout.padded(rows) * depth.len());
        pack::at(level, left.part(&(0..rows), &depth), left_layout, left_panels);
        let right_panels = right_panels.take(right_layout.padded(columns) * depth.len());
        pack::at(
            level,
            right.part(&depth, &(0..columns)).transposed(),
            right_layout,
            right_panels,
        );
        let size = PanelSize {
            rows,
            depth: depth.len(),
            columns,
        };
        multiply_panels(level, left_panels, right_panels, size, sums, stride, depth.start == 0);
    }
}

dispatch! {
/// Applies the epilogue to rows of sums and rounds them once.
#[allow(dead_code)] // only `at` is called
pub fn apply_epilogue [C: Element] (sums: &[f32], columns: usize, out: &mut [C], stride: usize, epilogue: Epilogue<'_, C>) {
    for (sums, out) in sums.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        let out = &mut out[..columns];
        match epilogue {
            Epilogue::Store => {
                for j in 0..columns {
                    out[j] = C::store(sums[j]);
                }
            }
            Epilogue::Bias(bias) => {
                let bias = &bias[..columns];
                for j in 0..columns {
                    out[j] = C::store(sums[j] + bias[j].load());
                }
            }
            Epilogue::Add => {
                for j in 0..columns {
                    out[j] = C::store(out[j].load() + sums[j]);
                }
            }
        }
    }
}
}

/// `0..length` in blocks of `size`, the last one shorter.
pub(super) fn blocks(length: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length)
        .step_by(size)
        .map(move |start| start..length.min(start + size))
}

/// Copies of operands and intermediate sums; reused by later calls, one set per thread.
#[derive(Default)]
struct Buffers {
    left: Scratch,
    right: Scratch,
    sums: Scratch,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

#[derive(Default)]
struct Scratch(Vec<f32>);

impl Scratch {
    /// Scratch with arbitrary contents, aligned to a cache line.
    fn take(&mut self, length: usize) -> &mut [f32] {
        const LINE: usize = 64;
        if self.0.len() < length + LINE {
            self.0.resize(length + LINE, 0.0);
        }
        let skip = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[skip..skip + length]
    }
}
