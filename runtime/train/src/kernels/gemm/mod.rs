//! Matrix products whose bits depend on nothing but the numbers.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner dimension, in increasing order, from
//! 0; then whatever is added to it, by one addition; then one rounding to the element type. A fused multiply-add rounds
//! once, on every processor, so neither instruction set nor blocking, nor how rows and columns are cut into calls,
//! changes a bit. Between blocks of the inner dimension the chains wait in memory as `f32`, which is what they are.
//!
//! In the order of use: `panels` copies blocks of both operands in the order in which they are read, `tile` multiplies,
//! `finish` adds and rounds.

mod few;
mod panels;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

pub use few::{product_of_few, product_of_few_at};
use panels::{Panels, pack};
use tile::{Size, multiply_panels};

use super::{Element, Level, dispatch, level};

/// Rows and columns of a block of the product, and the inner dimension's share that is multiplied at a time. The
/// copies of both operands then stay in the second-level cache or near it; tuned on Zen 4.
const BLOCK_ROWS: usize = 768;
const BLOCK_COLUMNS: usize = 768;
const BLOCK_DEPTH: usize = 256;

/// A matrix that is read: row-major with any distance between rows, or such a one transposed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, E> {
    values: &'a [E],
    rows: usize,
    columns: usize,
    /// Elements between neighbours of a column, and of a row; one of the two is 1.
    row_step: usize,
    column_step: usize,
}

impl<'a, E> Matrix<'a, E> {
    /// `rows` × `columns` elements; row `i` begins at element `i · stride`.
    ///
    /// # Panics
    /// If `values` ends before the last row does.
    pub fn new(values: &'a [E], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            reach(rows, columns, stride) <= values.len(),
            "a matrix reaches past its numbers"
        );
        Self {
            values,
            rows,
            columns,
            row_step: stride,
            column_step: 1,
        }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }

    /// Row `i` of a matrix that is not transposed.
    pub(super) fn row(self, i: usize) -> &'a [E] {
        let start = if self.columns == 0 { 0 } else { i * self.row_step };
        &self.values[start..][..self.columns]
    }

    /// A part of it; it has numbers of its own only if it is not empty.
    fn part(self, rows: &Range<usize>, columns: &Range<usize>) -> Self {
        let start = rows.start * self.row_step + columns.start * self.column_step;
        Self {
            values: self.values.get(start..).unwrap_or_default(),
            rows: rows.len(),
            columns: columns.len(),
            ..self
        }
    }
}

/// Elements from the first of a matrix to its last.
pub fn reach(rows: usize, columns: usize, stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        0
    } else {
        (rows - 1) * stride + columns
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a, E> {
    /// It replaces what is there.
    Store,
    /// It replaces what is there, after this row was added to each of its rows.
    Bias(&'a [E]),
    /// It is added to what is there.
    Add,
}

/// Writes `left · right` to rows of `out` that begin `stride` elements apart.
///
/// # Panics
/// If the shapes of operands, bias and `out` do not fit each other.
pub fn product<A: Element, B: Element, C: Element>(
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    out: &mut [C],
    stride: usize,
    finish: Finish<'_, C>,
) {
    product_at(level(), left, right, out, stride, finish);
}

/// [`product`] by the instructions of a given level.
pub fn product_at<A: Element, B: Element, C: Element>(
    level: Level,
    left: Matrix<'_, A>,
    right: Matrix<'_, B>,
    out: &mut [C],
    stride: usize,
    finish: Finish<'_, C>,
) {
    let level = level.min(super::level());
    let (rows, depth, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(depth, right.rows, "operands of a product do not fit each other");
    assert!(
        columns <= stride && reach(rows, columns, stride) <= out.len(),
        "a product reaches past its place"
    );
    if let Finish::Bias(bias) = finish {
        assert_eq!(bias.len(), columns, "a bias has one number a column");
    }
    BUFFERS.with_borrow_mut(|buffers| {
        for row in blocks(rows, BLOCK_ROWS) {
            for column in blocks(columns, BLOCK_COLUMNS) {
                let finish = match finish {
                    Finish::Bias(bias) => Finish::Bias(&bias[column.clone()]),
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
                    finish,
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
    finish: Finish<'_, C>,
) {
    // Sums that are the result are taken where they belong.
    if let (Finish::Store, Some(floats)) = (finish, C::as_floats(out)) {
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
    finish_rows::at(level, sums, columns, out, stride, finish);
}

/// The chains of one block, written to rows of `sums`.
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
    let (across, down) = (Panels::rows(level), Panels::columns(level));
    // An empty inner dimension has sums as well.
    for depth in blocks(left.columns.max(1), BLOCK_DEPTH) {
        let depth = depth.start..depth.end.min(left.columns);
        let left_panels = left_panels.take(across.padded(rows) * depth.len());
        pack::at(level, left.part(&(0..rows), &depth), across, left_panels);
        let right_panels = right_panels.take(down.padded(columns) * depth.len());
        pack::at(
            level,
            right.part(&depth, &(0..columns)).transposed(),
            down,
            right_panels,
        );
        let size = Size {
            rows,
            depth: depth.len(),
            columns,
        };
        multiply_panels(level, left_panels, right_panels, size, sums, stride, depth.start == 0);
    }
}

dispatch! {
/// Adds to rows of sums what is to be added, and rounds them once.
#[allow(dead_code)] // only `at` is called
pub fn finish_rows [C: Element] (sums: &[f32], columns: usize, out: &mut [C], stride: usize, finish: Finish<'_, C>) {
    for (sums, out) in sums.chunks_exact(columns).zip(out.chunks_mut(stride)) {
        let out = &mut out[..columns];
        match finish {
            Finish::Store => {
                for j in 0..columns {
                    out[j] = C::store(sums[j]);
                }
            }
            Finish::Bias(bias) => {
                let bias = &bias[..columns];
                for j in 0..columns {
                    out[j] = C::store(sums[j] + bias[j].load());
                }
            }
            Finish::Add => {
                for j in 0..columns {
                    out[j] = C::store(out[j].load() + sums[j]);
                }
            }
        }
    }
}
}

/// `0..length` in blocks of a size, the last one shorter.
pub(super) fn blocks(length: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length)
        .step_by(size)
        .map(move |start| start..length.min(start + size))
}

/// Copies of operands, and sums that wait; kept from call to call, one set a thread.
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
    /// Numbers of any value, from the start of a cache line on.
    fn take(&mut self, length: usize) -> &mut [f32] {
        const LINE: usize = 64;
        if self.0.len() < length + LINE {
            self.0.resize(length + LINE, 0.0);
        }
        let skip = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[skip..skip + length]
    }
}
