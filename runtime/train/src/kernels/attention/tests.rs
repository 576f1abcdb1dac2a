//! Attention against autograd, and its bits at every level and in parts.

use std::ops::Range;

use half::bf16;
use tch::{Kind, Tensor};

use super::*;
use crate::kernels::tests::{bits, numbers, stored};

/// One projection that queries, keys and values stand in, as in the models.
#[derive(Clone, Copy, Debug)]
struct Projection {
    sizes: Attention,
    /// Elements of a row.
    width: usize,
    /// Column of the first head and elements between heads: of queries, keys, values.
    columns: [(usize, usize); 3],
}

impl Projection {
    /// All queries, then all keys, then all values.
    fn in_turn(sizes: Attention) -> Self {
        let (queries, keys) = (sizes.heads * sizes.d, sizes.kv_heads * sizes.d);
        Self {
            sizes,
            width: queries + 2 * keys + 3,
            columns: [(0, sizes.d), (queries + 1, sizes.d), (queries + keys + 2, sizes.d)],
        }
    }

    /// Head by head: query, key, value.
    fn by_head(sizes: Attention) -> Self {
        let d = sizes.d;
        assert_eq!(sizes.heads, sizes.kv_heads);
        Self {
            sizes,
            width: 3 * d * sizes.heads,
            columns: [(0, 3 * d), (d, 3 * d), (2 * d, 3 * d)],
        }
    }

    fn rows(&self) -> usize {
        self.sizes.sequences * self.sizes.sequence
    }

    fn heads(&self, part: usize) -> usize {
        if part == 0 {
            self.sizes.heads
        } else {
            self.sizes.kv_heads
        }
    }

    /// First element and steps of queries (0), keys (1) or values (2).
    fn place(&self, part: usize) -> (usize, Steps) {
        let (first, head) = self.columns[part];
        let steps = Steps {
            sequence: self.sizes.sequence * self.width,
            row: self.width,
            head,
        };
        (first, steps)
    }

    /// Steps of the result and of its gradient.
    fn result(&self) -> Steps {
        let Attention { sequence, heads, d, .. } = self.sizes;
        Steps {
            sequence: sequence * heads * d,
            row: heads * d,
            head: d,
        }
    }
}

/// What an attention writes; gradients of queries, keys and values in rows like theirs.
struct Written<E> {
    out: Vec<E>,
    logs: Vec<f32>,
    gradients: Vec<E>,
}

/// Which sequences and which kv heads stand in one call.
type Cut = (Range<usize>, Range<usize>);

/// Runs attention cut by cut; every cut reads and writes its own places.
fn run<E: Element>(level: Level, projection: Projection, values: &[E], dout: &[E], cuts: &[Cut]) -> Written<E> {
    let sizes = projection.sizes;
    let (s, n) = (sizes.sequence, sizes.heads);
    let mut written = Written {
        out: vec![E::default(); dout.len()],
        logs: vec![0.0; sizes.sequences * n * s],
        gradients: vec![E::default(); values.len()],
    };
    let shared = n / sizes.kv_heads;
    for (sequences, kv_heads) in cuts {
        let cut = Attention {
            sequences: sequences.len(),
            heads: kv_heads.len() * shared,
            kv_heads: kv_heads.len(),
            ..sizes
        };
        let first_head = kv_heads.start * shared;
        let place = |part| {
            let (first, steps) = projection.place(part);
            let head = if part == 0 { first_head } else { kv_heads.start };
            (first + steps.at(sequences.start, head, 0), steps)
        };
        let read = |part| {
            let (first, steps) = place(part);
            Heads {
                values: &values[first..],
                steps,
            }
        };
        let steps = projection.result();
        let start = steps.at(sequences.start, first_head, 0);
        let mut logs = vec![0.0; cut.sequences * cut.heads * s];
        let out = HeadsOut {
            values: &Cell::from_mut(&mut written.out[..]).as_slice_of_cells()[start..],
            steps,
        };
        let [query, key, value] = [read(0), read(1), read(2)];
        attention_forward_at(level, cut, query, key, value, &[], out, &mut logs);
        let gradients = Cell::from_mut(&mut written.gradients[..]).as_slice_of_cells();
        let write = |part| {
            let (first, steps) = place(part);
            HeadsOut {
                values: &gradients[first..],
                steps,
            }
        };
        let to = AttentionGradients {
            query: write(0),
            key: write(1),
            value: write(2),
        };
        let attended = Attended {
            out: Heads {
                values: &written.out[start..],
                steps,
            },
            logs: &logs,
        };
        let gradient = Heads {
            values: &dout[start..],
            steps,
        };
        attention_backward_at(level, cut, query, key, value, attended, gradient, to);
        for (b, sequence) in sequences.clone().enumerate() {
            let at = (sequence * n + first_head) * s;
            let numbers = &logs[b * cut.heads * s..][..cut.heads * s];
            written.logs[at..at + numbers.len()].copy_from_slice(numbers);
        }
    }
    written
}

fn arguments<E: Element>(projection: Projection) -> (Vec<E>, Vec<E>) {
    let Attention { heads, d, .. } = projection.sizes;
    let rows = projection.rows();
    (stored(rows * projection.width, 1), stored(rows * heads * d, 2))
}

fn projections() -> Vec<Projection> {
    let sizes = |sequences, sequence, heads, kv_heads, d| Attention {
        sequences,
        sequence,
        heads,
        kv_heads,
        d,
    };
    vec![
        Projection::in_turn(sizes(3, 20, 4, 1, 16)),
        Projection::in_turn(sizes(2, BLOCK + 13, 6, 2, 8)),
        Projection::in_turn(sizes(2, 2 * BLOCK, 4, 4, 32)),
        Projection::by_head(sizes(2, 70, 3, 3, 5)),
        Projection::in_turn(sizes(2, 1, 2, 2, 4)),
    ]
}

/// Result, logarithms of sums, and gradients in the rows of the projection, by autograd in `f64`.
fn autograd<E: Element>(projection: Projection, values: &[E], dout: &[E]) -> [Tensor; 3] {
    let Attention {
        sequences,
        sequence,
        heads,
        d,
        ..
    } = projection.sizes;
    let [b, s, n, d] = [sequences, sequence, heads, d].map(|size| size as i64);
    let double = |values: &[E]| {
        let values: Vec<f64> = values.iter().map(|value| f64::from(value.load())).collect();
        Tensor::from_slice(&values)
    };
    let all = double(values).set_requires_grad(true);
    let part = |part| {
        let (first, steps) = projection.place(part);
        let heads = projection.heads(part) as i64;
        let strides = [steps.sequence as i64, steps.head as i64, steps.row as i64, 1];
        let taken = all.as_strided([b, heads, s, d], strides, first as i64);
        taken.repeat_interleave_self_int(n / heads, 1, None)
    };
    let (query, key, value) = (part(0), part(1), part(2));
    let scores = query.matmul(&key.transpose(2, 3)) / (d as f64).sqrt();
    let hidden = Tensor::ones([s, s], (Kind::Bool, tch::Device::Cpu)).triu(1);
    let scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
    let out = scores.softmax(-1, Kind::Double).matmul(&value).transpose(1, 2);
    let dout = double(dout).view([b, s, n, d]);
    (&out * dout).sum(Kind::Double).backward();
    let logs = scores.logsumexp(&[-1i64][..], false);
    [out.detach().reshape([-1]), logs.detach().view([-1]), all.grad()]
}

fn distance<E: Element>(found: &[E], expected: &Tensor) -> f64 {
    let found: Vec<f64> = found.iter().map(|value| f64::from(value.load())).collect();
    let largest = expected.abs().max().double_value(&[]);
    (Tensor::from_slice(&found) - expected).abs().max().double_value(&[]) / largest
}

/// Against the largest number of each result. f32: sums of up to 128 products. bf16: the result is rounded to 8 bits,
/// and so is what the backward takes for it.
fn assert_near<E: Element>(bound: f64) {
    for projection in projections() {
        let (values, dout) = arguments::<E>(projection);
        let sizes = projection.sizes;
        let whole = [(0..sizes.sequences, 0..sizes.kv_heads)];
        let written = run(level(), projection, &values, &dout, &whole);
        let [out, logs, gradients] = autograd(projection, &values, &dout);
        for (what, distance) in [
            ("the result", distance(&written.out, &out)),
            ("the logarithms", distance(&written.logs, &logs)),
            ("the gradients", distance(&written.gradients, &gradients)),
        ] {
            assert!(distance < bound, "{projection:?}: {what}, {distance:e} off");
        }
    }
}

#[test]
fn attention_is_that_of_autograd() {
    assert_near::<f32>(2e-6);
    assert_near::<bf16>(1e-2);
}

fn assert_same<E: Element>() {
    for projection in projections() {
        let (values, dout) = arguments::<E>(projection);
        let sizes = projection.sizes;
        let (all, kv_heads) = (0..sizes.sequences, 0..sizes.kv_heads);
        let by_heads: Vec<Cut> = kv_heads.clone().map(|head| (all.clone(), head..head + 1)).collect();
        let by_sequences: Vec<Cut> = all.clone().map(|b| (b..b + 1, kv_heads.clone())).collect();
        let whole = vec![(all, kv_heads)];
        let run = |level, cuts: &[Cut]| {
            let written = run(level, projection, &values, &dout, cuts);
            [bits(&[&written.out, &written.gradients]), bits(&[&written.logs[..]])].concat()
        };
        let expected = run(Level::Baseline, &whole);
        for level in [Level::Avx2, Level::Avx512] {
            assert!(run(level, &whole) == expected, "{projection:?} at {level:?}");
        }
        assert!(run(level(), &by_heads) == expected, "{projection:?} by heads");
        assert!(run(level(), &by_sequences) == expected, "{projection:?} by sequences");
    }
}

#[test]
fn attention_has_the_same_bits_at_every_level_and_in_parts() {
    assert_same::<f32>();
    assert_same::<bf16>();
}

/// Heads that share keys and values: their gradients are the sums, in order, of those of each head alone.
#[test]
fn shared_heads_add_up_in_order() {
    let sizes = Attention {
        sequences: 2,
        sequence: BLOCK + 50,
        heads: 3,
        kv_heads: 1,
        d: 8,
    };
    let projection = Projection::in_turn(sizes);
    let (values, dout) = arguments::<f32>(projection);
    let whole = run(level(), projection, &values, &dout, &[(0..2, 0..1)]);
    let (queries, keys) = (sizes.heads * sizes.d, sizes.kv_heads * sizes.d);
    let mut sum = vec![0.0f32; projection.rows() * 2 * keys];
    for head in 0..sizes.heads {
        let alone = Projection {
            sizes: Attention { heads: 1, ..sizes },
            columns: [(head * sizes.d, sizes.d), projection.columns[1], projection.columns[2]],
            ..projection
        };
        let dout: Vec<f32> = dout
            .chunks_exact(queries)
            .flat_map(|row| row[head * sizes.d..][..sizes.d].to_vec())
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
    for (row, sum) in whole
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

/// A step is the last row of the attention of its whole sequence; its bits are those of every level.
#[test]
fn a_step_is_the_last_row() {
    let (s, heads, d) = (37, 3, 24);
    let sizes = Attention {
        sequences: 1,
        sequence: s,
        heads,
        kv_heads: 1,
        d,
    };
    let steps = |heads: usize| Steps {
        sequence: s * heads * d,
        row: heads * d,
        head: d,
    };
    let query = numbers(s * heads * d, 1);
    let [key, value] = [2, 3].map(|seed| numbers(s * d, seed));
    let (mut whole, mut logs) = (vec![0.0f32; query.len()], vec![0.0; heads * s]);
    let out = HeadsOut {
        values: Cell::from_mut(&mut whole[..]).as_slice_of_cells(),
        steps: steps(heads),
    };
    let read = |values, heads| Heads {
        values,
        steps: steps(heads),
    };
    attention_forward(
        sizes,
        read(&query[..], heads),
        read(&key, 1),
        read(&value, 1),
        &[],
        out,
        &mut logs,
    );
    // Room for more keys than are read.
    let room = s + 4;
    let mut columns = vec![f32::NAN; d * room];
    for (position, key) in key.chunks_exact(d).enumerate() {
        for (element, key) in key.iter().enumerate() {
            columns[element * room + position] = *key;
        }
    }
    let last = &query[(s - 1) * heads * d..];
    let step = |level| {
        let (mut shares, mut out) = (vec![0.0; s], vec![0.0f32; heads * d]);
        attention_step::at(level, last, &columns, room, &value, d, &mut shares, &mut out);
        out
    };
    let out = step(Level::Baseline);
    for (own, whole) in out.iter().zip(&whole[(s - 1) * heads * d..]) {
        assert!((own - whole).abs() < 2e-5, "{own}, not {whole}");
    }
    for level in [Level::Avx2, Level::Avx512] {
        assert!(bits(&[&step(level)]) == bits(&[&out]), "{level:?}");
    }
}
