//! Every product equals its definition bit for bit: with every instruction set, for every arrangement, and divided into
//! parts.

use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::kernels::tests::{bits, stored};

const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

/// How the matrices of a product are stored.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    depth: usize,
    columns: usize,
    transpose_left: bool,
    transpose_right: bool,
    /// Gap between rows, in all three matrices.
    gap: usize,
    epilogue: usize,
}

/// A stored operand.
struct Operand<E> {
    values: Vec<E>,
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl<E: Element> Operand<E> {
    fn new(rows: usize, columns: usize, gap: usize, transposed: bool, seed: u32) -> Self {
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        let stride = columns + gap;
        let values = stored(extent(rows, columns, stride), seed);
        Self {
            values,
            rows,
            columns,
            stride,
            transposed,
        }
    }

    fn matrix(&self) -> Matrix<'_, E> {
        let matrix = Matrix::new(&self.values, self.rows, self.columns, self.stride);
        if self.transposed { matrix.transposed() } else { matrix }
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        let (i, j) = if self.transposed { (j, i) } else { (i, j) };
        self.values[i * self.stride + j].load()
    }
}

fn check<A: Element, B: Element, C: Element>(case: Case) {
    let Case {
        rows,
        depth,
        columns,
        gap,
        ..
    } = case;
    let left = Operand::<A>::new(rows, depth, gap, case.transpose_left, 1);
    let right = Operand::<B>::new(depth, columns, gap, case.transpose_right, 2);
    let bias = stored::<C>(columns, 3);
    let epilogue = [Epilogue::Store, Epilogue::Bias(&bias), Epilogue::Add][case.epilogue];
    let stride = columns + gap;
    let before = stored::<C>(extent(rows, columns, stride), 4);
    let mut expected = before.clone();
    for i in 0..rows {
        for j in 0..columns {
            let mut sum = 0.0f32;
            for k in 0..depth {
                sum = left.at(i, k).mul_add(right.at(k, j), sum);
            }
            let out = &mut expected[i * stride + j];
            *out = C::store(match epilogue {
                Epilogue::Store => sum,
                Epilogue::Bias(bias) => sum + bias[j].load(),
                Epilogue::Add => out.load() + sum,
            });
        }
    }
    for level in LEVELS {
        let mut out = before.clone();
        matmul_at(level, left.matrix(), right.matrix(), &mut out, stride, epilogue);
        assert!(bits(&[&out]) == bits(&[&expected]), "{case:?} at {level:?}");
    }
    let (mut by_rows, mut by_columns) = (before.clone(), before);
    for rows in [0..rows / 3, rows / 3..rows] {
        let at = (rows.start * stride).min(by_rows.len());
        let left = left.matrix().part(&rows, &(0..depth));
        matmul(left, right.matrix(), &mut by_rows[at..], stride, epilogue);
    }
    for part in [0..columns / 3, columns / 3..columns] {
        let epilogue = match epilogue {
            Epilogue::Bias(bias) => Epilogue::Bias(&bias[part.clone()]),
            other => other,
        };
        let at = part.start.min(by_columns.len());
        let right = right.matrix().part(&(0..depth), &part);
        matmul(left.matrix(), right, &mut by_columns[at..], stride, epilogue);
    }
    assert!(bits(&[&by_rows]) == bits(&[&expected]), "{case:?} by rows");
    assert!(bits(&[&by_columns]) == bits(&[&expected]), "{case:?} by columns");
}

fn all_types(case: Case) {
    check::<f32, f32, f32>(case);
    check::<bf16, bf16, bf16>(case);
    check::<bf16, bf16, f32>(case);
    check::<f32, bf16, bf16>(case);
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(1), Just(7), Just(33), Just(130), 1..70usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn products_are_chains_of_fused_multiply_adds(
        (rows, depth, columns) in (size(), size(), size()),
        (transpose_left, transpose_right) in any::<(bool, bool)>(),
        gap in 0..5usize,
        epilogue in 0..3usize,
    ) {
        all_types(Case { rows, depth, columns, transpose_left, transpose_right, gap, epilogue });
    }
}

/// One dimension at a time is longer than a block.
#[test]
fn blocks_do_not_change_chains() {
    let long = [
        (BLOCK_ROWS + 29, 3, 5),
        (4, 2 * BLOCK_DEPTH + 39, 9),
        (5, 3, BLOCK_COLUMNS + 45),
    ];
    for (rows, depth, columns) in long {
        for epilogue in 0..3 {
            for (transpose_left, transpose_right) in [(false, false), (false, true), (true, false)] {
                all_types(Case {
                    rows,
                    depth,
                    columns,
                    transpose_left,
                    transpose_right,
                    gap: 1,
                    epilogue,
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "the operands of a product do not match")]
fn operands_have_to_match() {
    let values = [0.0f32; 12];
    let (left, right) = (Matrix::new(&values, 3, 4, 4), Matrix::new(&values, 3, 4, 4));
    matmul(left, right, &mut [0.0f32; 12], 4, Epilogue::Store);
}

fn check_few<E: Element>(rows: usize, depth: usize, columns: usize, gap: usize, with_bias: bool) {
    let (left, right) = (
        Operand::<E>::new(rows, depth, gap, false, 1),
        Operand::<E>::new(columns, depth, gap, false, 2),
    );
    let bias = stored::<E>(columns, 3);
    let bias = with_bias.then_some(&bias[..]);
    let stride = columns + gap;
    let before = stored::<E>(extent(rows, columns, stride), 4);
    let mut expected = before.clone();
    for i in 0..rows {
        for j in 0..columns {
            let mut accumulators = [0.0f32; crate::kernels::ACCUMULATORS];
            for k in 0..depth {
                let accumulator = &mut accumulators[k % crate::kernels::ACCUMULATORS];
                *accumulator = left.at(i, k).mul_add(right.at(j, k), *accumulator);
            }
            let sum = crate::kernels::sum_accumulators(accumulators);
            expected[i * stride + j] = E::store(bias.map_or(sum, |bias| sum + bias[j].load()));
        }
    }
    for level in LEVELS {
        let mut out = before.clone();
        matmul_few_rows_at(level, left.matrix(), right.matrix(), &mut out, stride, bias);
        assert!(
            bits(&[&out]) == bits(&[&expected]),
            "{rows} x {depth} x {columns}, {gap}, {with_bias}, {level:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn products_of_a_few_rows_are_sixteen_chains_each(
        (rows, depth, columns) in (0..11usize, size(), size()),
        gap in 0..5usize,
        with_bias in any::<bool>(),
    ) {
        check_few::<f32>(rows, depth, columns, gap, with_bias);
        check_few::<bf16>(rows, depth, columns, gap, with_bias);
    }
}
