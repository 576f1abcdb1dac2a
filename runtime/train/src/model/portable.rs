//! Matrix products and attention by this crate's kernels: the same bits on every x86-64 processor.
//!
//! The functions of `product` and the attention of libtorch, for CPU tensors. What goes for the kernels goes for these:
//! bits depend neither on the instruction set nor on how rows, columns, heads or sequences are cut into calls.

use std::cell::Cell;
use std::ops::Range;

use tch::Tensor;

use super::ModelError;
use super::access::{cells, elements, elements_mut, spread};
use super::ops::by_kind;
use crate::kernels::{
    self, Attended, Attention, AttentionGradients, Element, Finish, Heads, HeadsOut, Matrix, Steps, Stored,
};

/// `out = left · right`.
pub(super) fn multiply(out: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
    by_kind!(left.kind(), E => product::<E, E>(out, left, right, Finish::Store))
}

/// `out = rows · weightᵀ + bias`.
pub(super) fn project_with_bias(out: &Tensor, rows: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<(), ModelError> {
    let weight = weight.f_transpose(0, 1)?;
    by_kind!(rows.kind(), E => {
        let bias = elements::<E>(bias)?;
        if bias.len() as i64 != weight.size()[1] {
            return Err(unfit("a bias", &[&weight]));
        }
        product::<E, E>(out, rows, &weight, Finish::Bias(bias))
    })
}

/// `out = rows · weightᵀ (+ bias)`, for a few rows.
pub(super) fn project_few(
    out: &Tensor,
    rows: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(), ModelError> {
    match (&rows.size()[..], &weight.size()[..], &out.size()[..]) {
        (&[count, depth], &[columns, inner], to) if depth == inner && to == [count, columns] => {
            by_kind!(rows.kind(), E => {
                let bias = bias.map(elements::<E>).transpose()?;
                if bias.is_some_and(|bias| bias.len() as i64 != columns) {
                    return Err(unfit("a bias", &[weight]));
                }
                kernels::product_of_few(matrix(rows)?, matrix(weight)?, elements_mut(out)?, columns as usize, bias);
                Ok(())
            })
        }
        _ => Err(unfit("a product", &[out, rows, weight])),
    }
}

/// `gradient += leftᵀ · right`, all rows in one product; the gradient is `f32`.
pub(super) fn add_product(gradient: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
    let left = left.f_transpose(0, 1)?;
    by_kind!(right.kind(), E => product::<E, f32>(gradient, &left, right, Finish::Add))
}

fn unfit(what: &str, tensors: &[&Tensor]) -> ModelError {
    let shapes: Vec<_> = tensors.iter().map(|tensor| tensor.size()).collect();
    ModelError::Unfit(format!("{what} does not fit tensors of shapes {shapes:?}"))
}

fn product<E: Element, C: Element>(
    out: &Tensor,
    left: &Tensor,
    right: &Tensor,
    finish: Finish<'_, C>,
) -> Result<(), ModelError> {
    match (&left.size()[..], &right.size()[..], &out.size()[..]) {
        (&[rows, depth], &[inner, columns], to) if depth == inner && to == [rows, columns] => {
            let (left, right) = (matrix::<E>(left)?, matrix::<E>(right)?);
            kernels::product(left, right, elements_mut(out)?, columns as usize, finish);
            Ok(())
        }
        _ => Err(unfit("a product", &[out, left, right])),
    }
}

/// A tensor of two dimensions, one of which has no gaps.
fn matrix<E: Stored>(tensor: &Tensor) -> Result<Matrix<'_, E>, ModelError> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let [rows, columns] = [size[0] as usize, size[1] as usize];
    let values = spread(tensor)?;
    if stride[1] == 1 || columns == 1 {
        Ok(Matrix::new(values, rows, columns, stride[0] as usize))
    } else if stride[0] == 1 || rows == 1 {
        Ok(Matrix::new(values, columns, rows, stride[1] as usize).transposed())
    } else {
        Err(ModelError::Strided(size))
    }
}

/// Queries, keys and values, each `[b, s, heads, d]` with the elements of a head side by side; they may stand in the
/// rows of one projection. Keys and values have as many heads as divide those of the queries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projected<'a> {
    pub query: &'a Tensor,
    pub key: &'a Tensor,
    pub value: &'a Tensor,
}

impl Projected<'_> {
    fn sizes(&self) -> Result<Attention, ModelError> {
        let all = [self.query, self.key, self.value];
        match (&self.query.size()[..], &self.key.size()[..], &self.value.size()[..]) {
            (&[b, s, heads, d], &[b2, s2, kv_heads, d2], values)
                if [b, s, d] == [b2, s2, d2]
                    && values == [b, s, kv_heads, d]
                    && kv_heads > 0
                    && heads % kv_heads == 0
                    && all.iter().all(|part| part.stride()[3] == 1 || d == 1) =>
            {
                Ok(Attention {
                    sequences: b as usize,
                    sequence: s as usize,
                    heads: heads as usize,
                    kv_heads: kv_heads as usize,
                    d: d as usize,
                })
            }
            _ => Err(unfit("attention", &all)),
        }
    }
}

fn steps(tensor: &Tensor) -> Steps {
    let stride = tensor.stride();
    Steps {
        sequence: stride[0] as usize,
        row: stride[1] as usize,
        head: stride[2] as usize,
    }
}

fn heads<E: Stored>(tensor: &Tensor) -> Result<Heads<'_, E>, ModelError> {
    Ok(Heads {
        values: spread(tensor)?,
        steps: steps(tensor),
    })
}

fn heads_out<E: Stored>(tensor: &Tensor) -> Result<HeadsOut<'_, E>, ModelError> {
    Ok(HeadsOut {
        values: cells(tensor)?,
        steps: steps(tensor),
    })
}

/// Rows of `n·d` elements as heads.
fn whole_rows(sizes: Attention) -> Steps {
    let row = sizes.heads * sizes.d;
    Steps {
        sequence: sizes.sequence * row,
        row,
        head: sizes.d,
    }
}

fn check_rows(sizes: Attention, rows: &[&Tensor], logs: &Tensor) -> Result<(), ModelError> {
    let count = sizes.sequences * sizes.sequence * sizes.heads;
    if rows.iter().any(|rows| rows.numel() != count * sizes.d) || logs.numel() != count {
        let mut all = rows.to_vec();
        all.push(logs);
        return Err(unfit(&format!("attention of {sizes:?}"), &all));
    }
    Ok(())
}

/// Causal attention: fills `out` (`[t, n·d]`) and `logs` (`f32`, `[b, n, s]`), the logarithms of the sums of powers. What a
/// row does not see besides what comes after it stands in `hidden`, if in anything, a range a row.
///
/// # Errors
/// [`ModelError`] if shapes or kinds do not fit each other.
pub(super) fn attention_forward(
    projected: Projected<'_>,
    hidden: &[Range<usize>],
    out: &Tensor,
    logs: &Tensor,
) -> Result<(), ModelError> {
    let sizes = projected.sizes()?;
    check_rows(sizes, &[out], logs)?;
    by_kind!(projected.query.kind(), E => {
        let out = HeadsOut { values: Cell::from_mut(elements_mut::<E>(out)?).as_slice_of_cells(), steps: whole_rows(sizes) };
        let [query, key, value] = [heads(projected.query)?, heads(projected.key)?, heads(projected.value)?];
        kernels::attention_forward(sizes, query, key, value, hidden, out, elements_mut(logs)?);
        Ok(())
    })
}

/// Writes the gradients of queries, keys and values to the tensors of `to`, shaped as those of `projected`. `gradient`
/// is that of `out`. Gradients of keys and values may be `f32` whatever the others are; heads that share them are added
/// up in order.
///
/// # Errors
/// [`ModelError`] if shapes or kinds do not fit each other.
pub(super) fn attention_backward(
    projected: Projected<'_>,
    out: &Tensor,
    logs: &Tensor,
    gradient: &Tensor,
    to: Projected<'_>,
) -> Result<(), ModelError> {
    let sizes = projected.sizes()?;
    check_rows(sizes, &[out, gradient], logs)?;
    if to.sizes()? != sizes {
        return Err(unfit("a gradient of attention", &[to.query, to.key, to.value]));
    }
    by_kind!(projected.query.kind(), E => by_kind!(to.key.kind(), K => {
        let rows = |values| Heads { values, steps: whole_rows(sizes) };
        let [query, key, value] = [heads::<E>(projected.query)?, heads(projected.key)?, heads(projected.value)?];
        let attended = Attended { out: rows(elements(out)?), logs: elements(logs)? };
        let gradient = rows(elements(gradient)?);
        let to = AttentionGradients::<E, K> {
            query: heads_out(to.query)?,
            key: heads_out(to.key)?,
            value: heads_out(to.value)?,
        };
        kernels::attention_backward(sizes, query, key, value, attended, gradient, to);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::tests::numbers;

    fn tensor(shape: &[i64], seed: u64, kind: Kind) -> Tensor {
        let count: i64 = shape.iter().product();
        Tensor::from_slice(&numbers(count as usize, seed, 1.0))
            .view(shape)
            .to_kind(kind)
    }

    /// Against the largest number: f32 sums in another order; bf16 rounds to 8 bits.
    fn assert_near(what: &str, found: &Tensor, expected: &Tensor) {
        let bound = if found.kind() == Kind::Float { 3e-6 } else { 1e-2 };
        assert_eq!(found.size(), expected.size(), "{what}");
        let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
        let largest = expected.abs().max().double_value(&[]);
        let distance = (found - expected).abs().max().double_value(&[]) / largest;
        assert!(largest > 0.0 && distance < bound, "{what} is {distance:e} off");
    }

    #[test]
    fn products_are_those_of_libtorch() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (rows, inner, outer) = (37, 50, 70);
            let wide = tensor(&[rows, inner + outer], 1, kind);
            // Columns of wider rows, as the parts of a fused projection are.
            let (x, d) = (wide.narrow(1, 0, inner), wide.narrow(1, inner, outer));
            let (weight, bias) = (tensor(&[outer, inner], 2, kind), tensor(&[outer], 3, kind));
            let out = |columns| tensor(&[rows, columns], 4, kind);
            let (projected, biased, back) = (out(outer), out(outer), out(inner));
            multiply(&projected, &x, &weight.tr()).unwrap();
            project_with_bias(&biased, &x, &weight, &bias).unwrap();
            multiply(&back, &d, &weight).unwrap();
            let gradient = tensor(&[outer, inner], 5, Kind::Float);
            let before = gradient.copy();
            add_product(&gradient, &d, &x).unwrap();
            let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
            let [x, d, weight, bias] = [x, d, weight, bias].map(|tensor| double(&tensor));
            assert_near("a projection", &projected, &x.mm(&weight.tr()));
            assert_near("a projection with a bias", &biased, &(x.mm(&weight.tr()) + bias));
            assert_near("a product", &back, &d.mm(&weight));
            assert_near("a sum of products", &gradient, &(double(&before) + d.tr().mm(&x)));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let tensor = |rows, columns| tensor(&[rows, columns], 1, Kind::Float);
        let said = |result: Result<(), ModelError>| result.unwrap_err().to_string();
        assert_eq!(
            said(multiply(&tensor(3, 4), &tensor(3, 5), &tensor(6, 4))),
            "a product does not fit tensors of shapes [[3, 4], [3, 5], [6, 4]]"
        );
        assert_eq!(
            said(project_with_bias(
                &tensor(3, 4),
                &tensor(3, 5),
                &tensor(4, 5),
                &tensor(1, 3)
            )),
            "a bias does not fit tensors of shapes [[5, 4]]"
        );
        let sparse = tensor(9, 10).slice(0, None, None, 2).slice(1, None, None, 2);
        assert_eq!(
            said(multiply(&tensor(5, 4), &sparse, &tensor(5, 4))),
            "a kernel was given a tensor of shape [5, 5] that is not contiguous"
        );
        let heads = |n| tensor(2 * 3 * n, 4).view([2, 3, n, 4]);
        let (query, key) = (heads(3), heads(2));
        let projected = Projected {
            query: &query,
            key: &key,
            value: &key,
        };
        assert_eq!(
            said(attention_forward(projected, &[], &tensor(6, 12), &tensor(6, 3))),
            "attention does not fit tensors of shapes [[2, 3, 3, 4], [2, 3, 2, 4], [2, 3, 2, 4]]"
        );
    }

    /// A projection of queries, keys and values, and what attention makes of it.
    #[test]
    fn attention_is_that_of_libtorch() {
        let (b, s, n, g, d) = (2, 75, 6, 2, 16);
        for (kind, shared) in [
            (Kind::Float, Kind::Float),
            (Kind::BFloat16, Kind::BFloat16),
            (Kind::BFloat16, Kind::Float),
        ] {
            let (queries, keys) = (n * d, g * d);
            let all = tensor(&[b * s, queries + 2 * keys], 1, kind);
            let cut = |all: &Tensor, first, heads| all.narrow(1, first, heads * d).unflatten(1, [heads, d]);
            let cut = |all: &Tensor, first, heads| cut(all, first, heads).unflatten(0, [b, s]);
            let parts = |all: &Tensor| [cut(all, 0, n), cut(all, queries, g), cut(all, queries + keys, g)];
            let [query, key, value] = parts(&all);
            let projected = Projected {
                query: &query,
                key: &key,
                value: &value,
            };
            let out = Tensor::zeros([b * s, queries], (kind, Device::Cpu));
            let logs = Tensor::zeros([b, n, s], (Kind::Float, Device::Cpu));
            attention_forward(projected, &[], &out, &logs).unwrap();

            let turned = |tensor: &Tensor| tensor.transpose(1, 2);
            let widened = |tensor: &Tensor| turned(tensor).repeat_interleave_self_int(n / g, 1, None);
            let (q, k, v) = (turned(&query), widened(&key), widened(&value));
            let (expected, expected_logs) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
                &q, &k, &v, 0.0, true, None, None,
            );
            assert_near("attention", &out.view([b, s, n, d]), &turned(&expected));
            // For bf16 libtorch's exponentials are good to 20 bits; in bf16 the difference does not show.
            assert_near("the logarithms", &logs.to_kind(kind), &expected_logs.view([b, n, s]));

            let gradient = tensor(&[b * s, queries], 2, kind);
            let dall = Tensor::zeros(all.size(), (shared, Device::Cpu));
            let [mut dquery, dkey, dvalue] = parts(&dall);
            if shared != kind {
                dquery = Tensor::zeros(query.size(), (kind, Device::Cpu));
            }
            let to = Projected {
                query: &dquery,
                key: &dkey,
                value: &dvalue,
            };
            attention_backward(projected, &out, &logs, &gradient, to).unwrap();
            let dout = turned(&gradient.view([b, s, n, d]));
            let (dq, dk, dv) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
                &dout,
                &q,
                &k,
                &v,
                &expected,
                &expected_logs,
                0.0,
                true,
                None,
                None,
            );
            let folded = |tensor: &Tensor| {
                let by_head = tensor.view([b, g, n / g, s, d]);
                turned(&by_head.sum_dim_intlist(&[2i64][..], false, Kind::Float))
            };
            // The kernel that this is held against rounds the gradient of each head to bf16.
            let near = |what: &str, found: &Tensor, expected: &Tensor| {
                assert_near(what, &found.to_kind(kind), expected);
            };
            near("the queries' gradient", &dquery, &turned(&dq));
            near("the keys' gradient", &dkey, &folded(&dk));
            near("the values' gradient", &dvalue, &folded(&dv));
        }
    }
}
