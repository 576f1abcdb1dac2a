//! Times this crate's attention and libtorch's, forward and backward, on one thread, in milliseconds.

use std::cell::Cell;
use std::time::Instant;

use aurora_train::kernels::{
    AttentionGradients, AttentionOutput, AttentionShape, Element, HeadStrides, Heads, HeadsOut, attention_backward,
    attention_forward,
};
use half::bf16;
use tch::{Device, Kind, TchError, Tensor};

/// Milliseconds of the fastest of several runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e3
}

fn numbers<E: Element>(count: usize) -> Vec<E> {
    (0..count)
        .map(|i| E::store(((i * 7919 % 1009) as f32 - 504.0) / 504.0))
        .collect()
}

fn ours<E: Element>(shape: AttentionShape) -> (f64, f64) {
    let strides = |heads: usize| HeadStrides {
        sequence: shape.sequence * heads * shape.d,
        row: heads * shape.d,
        head: shape.d,
    };
    let count = |heads: usize| shape.sequences * strides(heads).sequence;
    let (n, g) = (shape.heads, shape.kv_heads);
    let [query, key, value, dout] = [n, g, g, n].map(|heads| (numbers::<E>(count(heads)), strides(heads)));
    let [query, key, value, dout] = [&query, &key, &value, &dout].map(|(values, strides)| Heads {
        values,
        strides: *strides,
    });
    let mut lse = vec![0.0; count(n) / shape.d];
    let mut out = numbers::<E>(count(n));
    let forward = fastest(|| {
        let values = Cell::from_mut(&mut out[..]).as_slice_of_cells();
        let out = HeadsOut {
            values,
            strides: strides(n),
        };
        attention_forward(shape, query, key, value, &[], out, &mut lse);
    });
    let mut gradients = [n, g, g].map(|heads| (numbers::<E>(count(heads)), strides(heads)));
    let [query_out, key_out, value_out] = gradients.each_mut().map(|(values, strides)| HeadsOut {
        values: Cell::from_mut(&mut values[..]).as_slice_of_cells(),
        strides: *strides,
    });
    let output = AttentionOutput {
        out: Heads {
            values: &out,
            strides: strides(n),
        },
        lse: &lse,
    };
    let to = AttentionGradients {
        query: query_out,
        key: key_out,
        value: value_out,
    };
    let backward = fastest(|| attention_backward(shape, query, key, value, output, dout, to));
    (forward, backward)
}

fn theirs(kind: Kind, shape: AttentionShape) -> Result<(f64, f64), TchError> {
    let (b, s, d) = (shape.sequences as i64, shape.sequence as i64, shape.d as i64);
    let random = |heads: usize| {
        let values = Tensor::f_randn([b, s, heads as i64, d], (Kind::Float, Device::Cpu))?;
        values.f_to_kind(kind)?.f_transpose(1, 2)
    };
    let shared = (shape.heads / shape.kv_heads) as i64;
    let widened = || random(shape.kv_heads)?.f_repeat_interleave_self_int(shared, 1, None);
    let (query, dout, key, value) = (random(shape.heads)?, random(shape.heads)?, widened()?, widened()?);
    let attend = || {
        Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
            &query, &key, &value, 0.0, true, None, None,
        )
    };
    let (out, lse) = attend()?;
    let forward = fastest(|| {
        let _ = attend();
    });
    let backward = fastest(|| {
        let _ = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
            &dout, &query, &key, &value, &out, &lse, 0.0, true, None, None,
        );
    });
    Ok((forward, backward))
}

fn main() -> Result<(), TchError> {
    tch::set_num_threads(1);
    println!("sequences x positions, heads, kv heads, head size: ours, libtorch's, ratio of speeds");
    for (sequences, sequence, heads, kv_heads, d) in [
        (4, 512, 8, 1, 64),
        (4, 512, 8, 8, 64),
        (32, 128, 4, 1, 32),
        (1, 2048, 8, 2, 64),
        (4, 512, 4, 2, 128),
    ] {
        let shape = AttentionShape {
            sequences,
            sequence,
            heads,
            kv_heads,
            d,
        };
        for (kind, ours) in [(Kind::Float, ours::<f32>(shape)), (Kind::BFloat16, ours::<bf16>(shape))] {
            let theirs = theirs(kind, shape)?;
            println!(
                "{sequences:>2} x {sequence:>4}, {heads}, {kv_heads}, {d:>3} {kind:?}\tforward {:6.1} {:6.1} {:4.2}\tbackward {:6.1} {:6.1} {:4.2}",
                ours.0,
                theirs.0,
                theirs.0 / ours.0,
                ours.1,
                theirs.1,
                theirs.1 / ours.1
            );
        }
    }
    Ok(())
}
