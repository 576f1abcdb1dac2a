//! Every product is its definition, bit for bit: at every level, in every form, whole and in parts.

use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::kernels::tests::{bits, stored};

const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

/// What of a product is stored how.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    depth: usize,
    columns: usize,
    turn_left: bool,
    turn_right: bool,
    /// Elements between the end of a row and the next one, in all three.
    gap: usize,
    finish: usize,
}

/// An operand, the way it is stored.
struct Operand<E> {
    values: Vec<E>,
    rows: usize,
    columns: usize,
    stride: usize,
    turned: bool,
}

impl<E: Element> Operand<E> {
    fn new(rows: usize, columns: usize, gap: usize, turned: bool, seed: u32) -> Self {
        let (rows, columns) = if turned { (columns, rows) } else { (rows, columns) };
        let stride = columns + gap;
        let values = stored(reach(rows, columns, stride), seed);
        Self {
            values,
            rows,
            columns,
            stride,
            turned,
        }
    }

    fn matrix(&self) -> Matrix<'_, E> {
        let matrix = Matrix::new(&self.values, self.rows, self.columns, self.stride);
        if self.turned { matrix.transposed() } else { matrix }
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        let (i, j) = if self.turned { (j, i) } else { (i, j) };
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
    let left = Operand::<A>::new(rows, depth, gap, case.turn_left, 1);
    let right = Operand::<B>::new(depth, columns, gap, case.turn_right, 2);
    let bias = stored::<C>(columns, 3);
    let finish = [Finish::Store, Finish::Bias(&bias), Finish::Add][case.finish];
    let stride = columns + gap;
    let before = stored::<C>(reach(rows, columns, stride), 4);
    let mut expected = before.clone();
    for i in 0..rows {
        for j in 0..columns {
            let mut sum = 0.0f32;
            for k in 0..depth {
                sum = left.at(i, k).mul_add(right.at(k, j), sum);
            }
            let out = &mut expected[i * stride + j];
            *out = C::store(match finish {
                Finish::Store => sum,
                Finish::Bias(bias) => sum + bias[j].load(),
                Finish::Add => out.load() + sum,
            });
        }
    }
    for level in LEVELS {
        let mut out = before.clone();
        product_at(level, left.matrix(), right.matrix(), &mut out, stride, finish);
        assert!(bits(&[&out]) == bits(&[&expected]), "{case:?} at {level:?}");
    }
    let (mut by_rows, mut by_columns) = (before.clone(), before);
    for rows in [0..rows / 3, rows / 3..rows] {
        let at = (rows.start * stride).min(by_rows.len());
        let left = left.matrix().part(&rows, &(0..depth));
        product(left, right.matrix(), &mut by_rows[at..], stride, finish);
    }
    for part in [0..columns / 3, columns / 3..columns] {
        let finish = match finish {
            Finish::Bias(bias) => Finish::Bias(&bias[part.clone()]),
            other => other,
        };
        let at = part.start.min(by_columns.len());
        let right = right.matrix().part(&(0..depth), &part);
        product(left.matrix(), right, &mut by_columns[at..], stride, finish);
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
        (turn_left, turn_right) in any::<(bool, bool)>(),
        gap in 0..5usize,
        finish in 0..3usize,
    ) {
        all_types(Case { rows, depth, columns, turn_left, turn_right, gap, finish });
    }
}

/// Each dimension in turn is longer than a block of it.
#[test]
fn blocks_do_not_change_chains() {
    let long = [
        (BLOCK_ROWS + 29, 3, 5),
        (4, 2 * BLOCK_DEPTH + 39, 9),
        (5, 3, BLOCK_COLUMNS + 45),
    ];
    for (rows, depth, columns) in long {
        for finish in 0..3 {
            for (turn_left, turn_right) in [(false, false), (false, true), (true, false)] {
                all_types(Case {
                    rows,
                    depth,
                    columns,
                    turn_left,
                    turn_right,
                    gap: 1,
                    finish,
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "operands of a product do not fit each other")]
fn operands_have_to_fit() {
    let values = [0.0f32; 12];
    let (left, right) = (Matrix::new(&values, 3, 4, 4), Matrix::new(&values, 3, 4, 4));
    product(left, right, &mut [0.0f32; 12], 4, Finish::Store);
}

fn check_few<E: Element>(rows: usize, depth: usize, columns: usize, gap: usize, with_bias: bool) {
    let (left, right) = (
        Operand::<E>::new(rows, depth, gap, false, 1),
        Operand::<E>::new(columns, depth, gap, false, 2),
    );
    let bias = stored::<E>(columns, 3);
    let bias = with_bias.then_some(&bias[..]);
    let stride = columns + gap;
    let before = stored::<E>(reach(rows, columns, stride), 4);
    let mut expected = before.clone();
    for i in 0..rows {
        for j in 0..columns {
            let mut lanes = [0.0f32; crate::kernels::LANES];
            for k in 0..depth {
                let lane = &mut lanes[k % crate::kernels::LANES];
                *lane = left.at(i, k).mul_add(right.at(j, k), *lane);
            }
            let sum = crate::kernels::join(lanes);
            expected[i * stride + j] = E::store(bias.map_or(sum, |bias| sum + bias[j].load()));
        }
    }
    for level in LEVELS {
        let mut out = before.clone();
        product_of_few_at(level, left.matrix(), right.matrix(), &mut out, stride, bias);
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
