//! Causal attention by the fused kernel of libtorch for a device: no scores in memory.
//!
//! In: queries `[b, n, s, d]`, keys and values `[b, g, s, d]`, in `bf16`. Out: the heads' outputs `[b, n, s, d]` and the
//! log-sum-exp of each row's scores `[b, n, s]`. Its backward pass is deterministic, since the worker sets libtorch's
//! switch. `composed_attention` is its reference and computes what it cannot: `f32`, masks, other head dimensions.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::ModelError;

/// The head dimensions of the kernel are multiples of this, up to [`LARGEST_HEAD`].
const HEAD_UNIT: i64 = 8;
const LARGEST_HEAD: i64 = 256;

/// Whether the kernel computes attention of these queries.
pub fn fits(query_bnsd: &Tensor, mask: Option<&Tensor>) -> bool {
    let d = query_bnsd.size()[3];
    query_bnsd.device().is_cuda()
        && mask.is_none()
        && query_bnsd.kind() == Kind::BFloat16
        && d % HEAD_UNIT == 0
        && d <= LARGEST_HEAD
}

fn scale(query_bnsd: &Tensor) -> f64 {
    1.0 / (query_bnsd.size()[3] as f64).sqrt()
}

/// The heads' outputs, and the log-sum-exp of each row in `f32`.
///
/// # Errors
/// [`ModelError`] if memory runs out.
pub fn forward([query, key, value]: [&Tensor; 3]) -> Result<(Tensor, Tensor), ModelError> {
    let [out, lse] = aten_sys::flash_forward(query, key, value, scale(query))?;
    Ok((out, lse))
}

/// The gradients of queries, keys and values, given that of the output; `output` is the result of [`forward`].
///
/// # Errors
/// [`ModelError`] if memory runs out.
pub fn backward(dout: &Tensor, views: [&Tensor; 3], output: [&Tensor; 2]) -> Result<[Tensor; 3], ModelError> {
    Ok(aten_sys::flash_backward(dout, views, output, scale(views[0]))?)
}

/// Keys that one block of the backward kernel takes at a time.
const KEY_BLOCK: i64 = 128;

/// The sequences of each call of [`backward`], which keep the multiprocessors of the device busiest.
///
/// With a fixed order of sums, the kernel computes each of the `b · n` heads in as many blocks as fill the device, and every
/// multiprocessor computes one block at a time: 144 heads on 132 multiprocessors take twice as long as 132. Other
/// divisions of the batch may waste less. The result depends on the shapes and the device only.
pub fn slices(query_bnsd: &Tensor) -> Vec<Range<i64>> {
    let size = query_bnsd.size();
    let [b, n, s] = [size[0], size[1], size[2]];
    match crate::gpu::current().and_then(crate::gpu::Gpu::multiprocessors) {
        Some(multiprocessors) => divide(b, n, s, multiprocessors),
        None => std::iter::once(0..b).collect(),
    }
}

/// Units of time of one call, in the time of a head on one multiprocessor.
fn time(b: i64, n: i64, s: i64, multiprocessors: i64) -> f64 {
    let key_blocks = (s + KEY_BLOCK - 1) / KEY_BLOCK;
    let parts = (multiprocessors + b * n - 1) / (b * n);
    let waves = (parts * b * n + multiprocessors - 1) / multiprocessors;
    let part = (key_blocks + parts - 1) / parts;
    (waves * part) as f64 / key_blocks as f64
}

/// The fastest division of `b` sequences; among equal ones that with the fewest calls.
fn divide(b: i64, n: i64, s: i64, multiprocessors: i64) -> Vec<Range<i64>> {
    // best[i]: time of the first i sequences with the best division, and the sequences of its last call.
    let mut best = vec![(0.0f64, 0i64)];
    for end in 1..=b {
        let options = (1..=end).rev().map(|last| {
            let before = usize::try_from(end - last).unwrap_or(0);
            (best[before].0 + time(last, n, s, multiprocessors), last)
        });
        let fastest = options.fold((f64::INFINITY, end), |fastest, option| {
            // A call more must be worth its overhead.
            if option.0 < fastest.0 * 0.98 { option } else { fastest }
        });
        best.push(fastest);
    }
    let (mut ranges, mut end) = (Vec::new(), b);
    while end > 0 {
        let last = best[usize::try_from(end).unwrap_or(0)].1;
        ranges.push(end - last..end);
        end -= last;
    }
    ranges.reverse();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_divided_where_that_is_faster() {
        // 144 heads are two waves of complete heads; 126 heads in two parts each are two waves of halves.
        assert_eq!(time(16, 9, 2048, 132), 2.0);
        assert_eq!(time(14, 9, 2048, 132), 1.0);
        let total = |ranges: &[Range<i64>]| {
            ranges
                .iter()
                .map(|range| time(range.end - range.start, 9, 2048, 132))
                .sum::<f64>()
        };
        let ranges = divide(16, 9, 2048, 132);
        assert_eq!(total(&ranges), 1.25, "{ranges:?}");
        for b in 1..40 {
            let ranges = divide(b, 9, 2048, 132);
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, b));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(total(&ranges) <= time(b, 9, 2048, 132));
        }
        assert_eq!(divide(4, 32, 2048, 132).len(), 1);
    }
}
