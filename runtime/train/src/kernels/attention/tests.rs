//! Attention against autograd; bits with every instruction set and for parts of the work.

use std::ops::Range;

use half::bf16;
use tch::{Kind, Tensor};

use super::*;
use crate::kernels::tests::{bits, numbers, stored};

/// One projection that contains queries, keys and values, as in the models.
#[derive(Clone, Copy, Debug)]
struct Projection {
    shape: AttentionShape,
    /// Elements of a row.
    width: usize,
    /// First column and stride between heads: of queries, keys, values.
    columns: [(usize, usize); 3],
}

impl Projection {
    /// All queries, then all keys, then all values.
    fn stacked(shape: AttentionShape) -> Self {
        let (queries, keys) = (shape.heads * shape.d, shape.kv_heads * shape.d);
        Self {
            shape,
            width: queries + 2 * keys + 3,
            columns: [(0, shape.d), (queries + 1, shape.d), (queries + keys + 2, shape.d)],
        }
    }

    /// Head by head: query, key, value.
    fn by_head(shape: AttentionShape) -> Self {
        let d = shape.d;
        assert_eq!(shape.heads, shape.kv_heads);
        Self {
            shape,
            width: 3 * d * shape.heads,
            columns: [(0, 3 * d), (d, 3 * d), (2 * d, 3 * d)],
        }
    }

    fn rows(&self) -> usize {
        self.shape.sequences * self.shape.sequence
    }

    fn heads(&self, part: usize) -> usize {
        if part == 0 {
            self.shape.heads
        } else {
            self.shape.kv_heads
        }
    }

    /// First element and strides of queries (0), keys (1) or values (2).
    fn offset(&self, part: usize) -> (usize, HeadStrides) {
        let (first, head) = self.columns[part];
        let strides = HeadStrides {
            sequence: self.shape.sequence * self.width,
            row: self.width,
            head,
        };
        (first, strides)
    }

    /// Strides of the result and of its gradient.
    fn result(&self) -> HeadStrides {
        let AttentionShape { sequence, heads, d, .. } = self.shape;
        HeadStrides {
            sequence: sequence * heads * d,
            row: heads * d,
            head: d,
        }
    }
}

/// Outputs of attention; the gradients have the layout of the projection.
struct Written<E> {
    out: Vec<E>,
    lse: Vec<f32>,
    gradients: Vec<E>,
}

/// The sequences and key and value heads of one call.
type Call = (Range<usize>, Range<usize>);

/// Runs attention in several calls, each for its own sequences and heads.
fn run<E: Element>(level: Level, projection: Projection, values: &[E], dout: &[E], calls: &[Call]) -> Written<E> {
    let shape = projection.shape;
    let (s, n) = (shape.sequence, shape.heads);
    let mut written = Written {
        out: vec![E::default(); dout.len()],
        lse: vec![0.0; shape.sequences * n * s],
        gradients: vec![E::default(); values.len()],
    };
    let shared = n / shape.kv_heads;
    for (sequences, kv_heads) in calls {
        let call_shape = AttentionShape {
            sequences: sequences.len(),
            heads: kv_heads.len() * shared,
            kv_heads: kv_heads.len(),
            ..shape
        };
        let first_head = kv_heads.start * shared;
        let place = |part| {
            let (first, strides) = projection.offset(part);
            let head = if part == 0 { first_head } else { kv_heads.start };
            (first + strides.at(sequences.start, head, 0), strides)
        };
        let read = |part| {
            let (first, strides) = place(part);
            Heads {
                values: &values[first..],
                strides,
            }
        };
        let strides = projection.result();
        let start = strides.at(sequences.start, first_head, 0);
        let mut lse = vec![0.0; call_shape.sequences * call_shape.heads * s];
        let out = HeadsOut {
            values: &Cell::from_mut(&mut written.out[..]).as_slice_of_cells()[start..],
            strides,
        };
        let [query, key, value] = [read(0), read(1), read(2)];
        attention_forward_at(level, call_shape, query, key, value, &[], out, &mut lse);
        let gradients = Cell::from_mut(&mut written.gradients[..]).as_slice_of_cells();
        let write = |part| {
            let (first, strides) = place(part);
            HeadsOut {
                values: &gradients[first..],
                strides,
            }
        };
        let to = AttentionGradients {
            query: write(0),
            key: write(1),
            value: write(2),
        };
        let output = AttentionOutput {
            out: Heads {
                values: &written.out[start..],
                strides,
            },
            lse: &lse,
        };
        let gradient = Heads {
            values: &dout[start..],
            strides,
        };
        attention_backward_at(level, call_shape, query, key, value, output, gradient, to);
        for (b, sequence) in sequences.clone().enumerate() {
            let at = (sequence * n + first_head) * s;
            let numbers = &lse[b * call_shape.heads * s..][..call_shape.heads * s];
            written.lse[at..at + numbers.len()].copy_from_slice(numbers);
        }
    }
    written
}

fn arguments<E: Element>(projection: Projection) -> (Vec<E>, Vec<E>) {
    let AttentionShape { heads, d, .. } = projection.shape;
    let rows = projection.rows();
    (stored(rows * projection.width, 1), stored(rows * heads * d, 2))
}

fn projections() -> Vec<Projection> {
    let shape = |sequences, sequence, heads, kv_heads, d| AttentionShape {
        sequences,
        sequence,
        heads,
        kv_heads,
        d,
    };
    vec![
        Projection::stacked(shape(3, 20, 4, 1, 16)),
        Projection::stacked(shape(2, BLOCK + 13, 6, 2, 8)),
        Projection::stacked(shape(2, 2 * BLOCK, 4, 4, 32)),
        Projection::by_head(shape(2, 70, 3, 3, 5)),
        Projection::stacked(shape(2, 1, 2, 2, 4)),
    ]
}

/// Result, log-sum-exp, and gradients arranged like the projection, by autograd in `f64`.
fn autograd<E: Element>(projection: Projection, values: &[E], dout: &[E]) -> [Tensor; 3] {
    let AttentionShape {
        sequences,
        sequence,
        heads,
        d,
        ..
    } = projection.shape;
    let [b, s, n, d] = [sequences, sequence, heads, d].map(|size| size as i64);
    let double = |values: &[E]| {
        let values: Vec<f64> = values.iter().map(|value| f64::from(value.load())).collect();
        Tensor::from_slice(&values)
    };
    let all = double(values).set_requires_grad(true);
    let part = |part| {
        let (first, strides) = projection.offset(part);
        let heads = projection.heads(part) as i64;
        let strides = [strides.sequence as i64, strides.head as i64, strides.row as i64, 1];
        let taken = all.as_strided([b, heads, s, d], strides, first as i64);
        taken.repeat_interleave_self_int(n / heads, 1, None)
    };
    let (query, key, value) = (part(0), part(1), part(2));
    let scores = query.matmul(&key.transpose(2, 3)) / (d as f64).sqrt();
    let later = Tensor::ones([s, s], (Kind::Bool, tch::Device::Cpu)).triu(1);
    let scores = scores.masked_fill(&later, f64::NEG_INFINITY);
    let out = scores.softmax(-1, Kind::Double).matmul(&value).transpose(1, 2);
    let dout = double(dout).view([b, s, n, d]);
    (&out * dout).sum(Kind::Double).backward();
    let lse = scores.logsumexp(&[-1i64][..], false);
    [out.detach().reshape([-1]), lse.detach().view([-1]), all.grad()]
}

fn distance<E: Element>(found: &[E], expected: &Tensor) -> f64 {
    let found: Vec<f64> = found.iter().map(|value| f64::from(value.load())).collect();
    let largest = expected.abs().max().double_value(&[]);
    (Tensor::from_slice(&found) - expected).abs().max().double_value(&[]) / largest
}

/// Distance relative to the largest element. f32: sums of up to 128 products. bf16: the result is rounded to 8 bits,
/// and the backward pass uses the rounded result.
fn assert_near<E: Element>(bound: f64) {
    for projection in projections() {
        let (values, dout) = arguments::<E>(projection);
        let shape = projection.shape;
        let complete = [(0..shape.sequences, 0..shape.kv_heads)];
        let written = run(level(), projection, &values, &dout, &complete);
        let [out, lse, gradients] = autograd(projection, &values, &dout);
        for (what, distance) in [
            ("the result", distance(&written.out, &out)),
            ("log-sum-exp", distance(&written.lse, &lse)),
            ("the gradients", distance(&written.gradients, &gradients)),
        ] {
            assert!(distance < bound, "{projection:?}: {what}, {distance:e} off");
        }
    }
}

#[test]
fn attention_matches_autograd() {
    assert_near::<f32>(2e-6);
    assert_near::<bf16>(1e-2);
}

fn assert_same<E: Element>() {
    for projection in projections() {
        let (values, dout) = arguments::<E>(projection);
        let shape = projection.shape;
        let (all, kv_heads) = (0..shape.sequences, 0..shape.kv_heads);
        let by_heads: Vec<Call> = kv_heads.clone().map(|head| (all.clone(), head..head + 1)).collect();
        let by_sequences: Vec<Call> = all.clone().map(|b| (b..b + 1, kv_heads.clone())).collect();
        let complete = vec![(all, kv_heads)];
        let run = |level, calls: &[Call]| {
            let written = run(level, projection, &values, &dout, calls);
            [bits(&[&written.out, &written.gradients]), bits(&[&written.lse[..]])].concat()
        };
        let expected = run(Level::Baseline, &complete);
        for level in [Level::Avx2, Level::Avx512] {
            assert!(run(level, &complete) == expected, "{projection:?} at {level:?}");
        }
        assert!(run(level(), &by_heads) == expected, "{projection:?} by heads");
        assert!(run(level(), &by_sequences) == expected, "{projection:?} by sequences");
    }
}

#[test]
fn attention_is_bitwise_equal_for_every_level_and_division() {
    assert_same::<f32>();
    assert_same::<bf16>();
}

/// Gradients of shared keys and values are the sums, in order, of the gradients by each head.
#[test]
fn shared_heads_add_up_in_order() {
    let shape = AttentionShape {
        sequences: 2,
        sequence: BLOCK + 50,
        heads: 3,
        kv_heads: 1,
        d: 8,
    };
    let projection = Projection::stacked(shape);
    let (values, dout) = arguments::<f32>(projection);
    let complete = run(level(), projection, &values, &dout, &[(0..2, 0..1)]);
    let (queries, keys) = (shape.heads * shape.d, shape.kv_heads * shape.d);
    let mut sum = vec![0.0f32; projection.rows() * 2 * keys];
    for head in 0..shape.heads {
        let alone = Projection {
            shape: AttentionShape { heads: 1, ..shape },
            columns: [(head * shape.d, shape.d), projection.columns[1], projection.columns[2]],
            ..projection
        };
        let dout: Vec<f32> = dout
            .chunks_exact(queries)
            .flat_map(|row| row[head * shape.d..][..shape.d].to_vec())
            .collect();
        let one = run(level(), alone, &values, &dout, &[(0..2, 0..1)]);
        for (row, sum) in one
            .gradients
            .chunks_exact(alone.width)
            .zip(sum.chunks_exact_mut(2 * keys))
        {
            for (part, sum) in [1, 2].into_iter().zip(sum.chunks_exact_mut(keys)) {
                let row = &row[alone.columns[part].0..];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
    for (row, sum) in complete
        .gradients
        .chunks_exact(projection.width)
        .zip(sum.chunks_exact(2 * keys))
    {
        for (part, sum) in [1, 2].into_iter().zip(sum.chunks_exact(keys)) {
            let row = &row[projection.columns[part].0..][..keys];
            assert!(bits(&[row]) == bits(&[sum]), "part {part}");
        }
    }
}

/// One step equals the last row of attention over the complete sequence; its bits do not depend on the level.
#[test]
fn a_step_equals_the_last_row() {
    let (s, heads, d) = (37, 3, 24);
    let shape = AttentionShape {
        sequences: 1,
        sequence: s,
        heads,
        kv_heads: 1,
        d,
    };
    let strides = |heads: usize| HeadStrides {
        sequence: s * heads * d,
        row: heads * d,
        head: d,
    };
    let query = numbers(s * heads * d, 1);
    let [key, value] = [2, 3].map(|seed| numbers(s * d, seed));
    let (mut complete, mut lse) = (vec![0.0f32; query.len()], vec![0.0; heads * s]);
    let out = HeadsOut {
        values: Cell::from_mut(&mut complete[..]).as_slice_of_cells(),
        strides: strides(heads),
    };
    let read = |values, heads| Heads {
        values,
        strides: strides(heads),
    };
    attention_forward(
        shape,
        read(&query[..], heads),
        read(&key, 1),
        read(&value, 1),
        &[],
        out,
        &mut lse,
    );
    // Capacity for more keys than are used.
    let capacity = s + 4;
    let mut columns = vec![f32::NAN; d * capacity];
    for (position, key) in key.chunks_exact(d).enumerate() {
        for (element, key) in key.iter().enumerate() {
            columns[element * capacity + position] = *key;
        }
    }
    let last = &query[(s - 1) * heads * d..];
    let step = |level| {
        let (mut probabilities, mut out) = (vec![0.0; s], vec![0.0f32; heads * d]);
        attention_step::at(level, last, &columns, capacity, &value, d, &mut probabilities, &mut out);
        out
    };
    let out = step(Level::Baseline);
    for (own, complete) in out.iter().zip(&complete[(s - 1) * heads * d..]) {
        assert!((own - complete).abs() < 2e-5, "{own}, not {complete}");
    }
    for level in [Level::Avx2, Level::Avx512] {
        assert!(bits(&[&step(level)]) == bits(&[&out]), "{level:?}");
    }
}
