//! Matrix products and attention with this crate's kernels: bitwise identical on every x86-64 processor.
//!
//! The same functions as in `matmul`, and libtorch's attention, for CPU tensors. As for the kernels, bits depend neither on
//! the instruction set nor on how rows, columns, heads or sequences are divided among calls. Shape letters: see `model`.

use std::cell::Cell;
use std::ops::Range;

use tch::Tensor;

use super::ModelError;
use super::host_access::HostAccess;
use super::ops::by_kind;
use crate::kernels::{
    self, AttentionGradients, AttentionOutput, AttentionShape, Element, Epilogue, HeadStrides, Heads, HeadsOut, Matrix,
    Stored,
};

/// Borrows of one kernel call.
fn host_access() -> HostAccess {
    // SAFETY: see "Memory" in `ops`: a kernel call's buffers belong to the calling thread, weights are written between
    // steps only, and the callers below make no other call until the kernel has returned.
    unsafe { HostAccess::new() }
}

/// `out = left · right`.
pub(super) fn matmul(out: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
    by_kind!(left.kind(), E => any_matmul::<E, E>(&host_access(), out, left, right, Epilogue::Store))
}

/// `out = rows · weightᵀ + bias`.
pub(super) fn linear_with_bias(
    out: &Tensor,
    rows: &Tensor,
    weight_oi: &Tensor,
    bias_o: &Tensor,
) -> Result<(), ModelError> {
    let weight_io = weight_oi.f_transpose(0, 1)?;
    by_kind!(rows.kind(), E => {
        if bias_o.numel() as i64 != weight_io.size()[1] {
            return Err(shapes("a bias", &[&weight_io]));
        }
        let host = host_access();
        any_matmul::<E, E>(&host, out, rows, &weight_io, Epilogue::Bias(host.read(bias_o)?))
    })
}

/// `out = rows · weightᵀ (+ bias)`, for a few rows.
pub(super) fn linear_few_rows(
    out: &Tensor,
    rows: &Tensor,
    weight_oi: &Tensor,
    bias_o: Option<&Tensor>,
) -> Result<(), ModelError> {
    match (&rows.size()[..], &weight_oi.size()[..], &out.size()[..]) {
        (&[count, depth], &[columns, inner], to) if depth == inner && to == [count, columns] => {
            by_kind!(rows.kind(), E => {
                let host = host_access();
                let bias = bias_o.map(|bias_o| host.read::<E>(bias_o)).transpose()?;
                if bias.is_some_and(|bias| bias.len() as i64 != columns) {
                    return Err(shapes("a bias", &[weight_oi]));
                }
                let (rows, weight) = (matrix(&host, rows)?, matrix(&host, weight_oi)?);
                kernels::matmul_few_rows(rows, weight, host.write(out)?, columns as usize, bias);
                Ok(())
            })
        }
        _ => Err(shapes("a matrix product", &[out, rows, weight_oi])),
    }
}

/// `gradient += leftᵀ · right`, all rows in one product; `gradient` is `f32`.
pub(super) fn add_matmul(gradient: &Tensor, left: &Tensor, right: &Tensor) -> Result<(), ModelError> {
    let left = left.f_transpose(0, 1)?;
    by_kind!(right.kind(), E => any_matmul::<E, f32>(&host_access(), gradient, &left, right, Epilogue::Add))
}

fn shapes(operation: &str, tensors: &[&Tensor]) -> ModelError {
    ModelError::Shapes {
        operation: operation.to_owned(),
        shapes: tensors.iter().map(|tensor| tensor.size()).collect(),
    }
}

fn any_matmul<E: Element, C: Element>(
    host: &HostAccess,
    out: &Tensor,
    left: &Tensor,
    right: &Tensor,
    epilogue: Epilogue<'_, C>,
) -> Result<(), ModelError> {
    match (&left.size()[..], &right.size()[..], &out.size()[..]) {
        (&[rows, depth], &[inner, columns], to) if depth == inner && to == [rows, columns] => {
            let (left, right) = (matrix::<E>(host, left)?, matrix::<E>(host, right)?);
            kernels::matmul(left, right, host.write(out)?, columns as usize, epilogue);
            Ok(())
        }
        _ => Err(shapes("a matrix product", &[out, left, right])),
    }
}

/// A tensor of two dimensions, one of which is contiguous.
fn matrix<'a, E: Stored>(host: &'a HostAccess, tensor: &'a Tensor) -> Result<Matrix<'a, E>, ModelError> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let [rows, columns] = [size[0] as usize, size[1] as usize];
    let values = host.read_strided(tensor)?;
    if stride[1] == 1 || columns == 1 {
        Ok(Matrix::new(values, rows, columns, stride[0] as usize))
    } else if stride[0] == 1 || rows == 1 {
        Ok(Matrix::new(values, columns, rows, stride[1] as usize).transposed())
    } else {
        Err(ModelError::Strided(size))
    }
}

/// Queries (`[b, s, n, d]`), keys and values (`[b, s, g, d]`), where `g` divides `n`. Elements of a head are contiguous;
/// the three tensors may be parts of the rows of one projection.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryKeyValue<'a> {
    pub query_bsnd: &'a Tensor,
    pub key_bsgd: &'a Tensor,
    pub value_bsgd: &'a Tensor,
}

impl QueryKeyValue<'_> {
    fn shape(&self) -> Result<AttentionShape, ModelError> {
        let all = [self.query_bsnd, self.key_bsgd, self.value_bsgd];
        match all.map(Tensor::size).each_ref().map(Vec::as_slice) {
            [&[b, s, heads, d], &[b2, s2, kv_heads, d2], values]
                if [b, s, d] == [b2, s2, d2]
                    && values == [b, s, kv_heads, d]
                    && kv_heads > 0
                    && heads % kv_heads == 0
                    && all.iter().all(|tensor| tensor.stride()[3] == 1 || d == 1) =>
            {
                Ok(AttentionShape {
                    sequences: b as usize,
                    sequence: s as usize,
                    heads: heads as usize,
                    kv_heads: kv_heads as usize,
                    d: d as usize,
                })
            }
            _ => Err(shapes("attention", &all)),
        }
    }
}

fn strides(tensor: &Tensor) -> HeadStrides {
    let stride = tensor.stride();
    HeadStrides {
        sequence: stride[0] as usize,
        row: stride[1] as usize,
        head: stride[2] as usize,
    }
}

fn heads<'a, E: Stored>(host: &'a HostAccess, tensor: &'a Tensor) -> Result<Heads<'a, E>, ModelError> {
    Ok(Heads {
        values: host.read_strided(tensor)?,
        strides: strides(tensor),
    })
}

fn heads_out<'a, E: Stored>(host: &'a HostAccess, tensor: &'a Tensor) -> Result<HeadsOut<'a, E>, ModelError> {
    Ok(HeadsOut {
        values: host.cells(tensor)?,
        strides: strides(tensor),
    })
}

/// Strides of contiguous rows of `n·d` elements.
fn contiguous_rows(shape: AttentionShape) -> HeadStrides {
    let row = shape.heads * shape.d;
    HeadStrides {
        sequence: shape.sequence * row,
        row,
        head: shape.d,
    }
}

fn check_rows(shape: AttentionShape, rows: &[&Tensor], lse_bns: &Tensor) -> Result<(), ModelError> {
    let count = shape.sequences * shape.sequence * shape.heads;
    if rows.iter().any(|rows| rows.numel() != count * shape.d) || lse_bns.numel() != count {
        let mut all = rows.to_vec();
        all.push(lse_bns);
        return Err(shapes(&format!("attention of {shape:?}"), &all));
    }
    Ok(())
}

/// Causal attention: writes `out_ta` and `lse_bns` (`f32`), the log-sum-exp of each row's scores. A non-empty
/// `excluded` contains a range of earlier positions for each row that the row does not attend to.
///
/// # Errors
/// [`ModelError`] if shapes or element types do not match.
pub(super) fn attention_forward(
    inputs: QueryKeyValue<'_>,
    excluded: &[Range<usize>],
    out_ta: &Tensor,
    lse_bns: &Tensor,
) -> Result<(), ModelError> {
    let shape = inputs.shape()?;
    check_rows(shape, &[out_ta], lse_bns)?;
    by_kind!(inputs.query_bsnd.kind(), E => {
        let host = host_access();
        let out = HeadsOut {
            values: Cell::from_mut(host.write::<E>(out_ta)?).as_slice_of_cells(),
            strides: contiguous_rows(shape),
        };
        let query = heads(&host, inputs.query_bsnd)?;
        let (key, value) = (heads(&host, inputs.key_bsgd)?, heads(&host, inputs.value_bsgd)?);
        kernels::attention_forward(shape, query, key, value, excluded, out, host.write(lse_bns)?);
        Ok(())
    })
}

/// Writes the gradients of queries, keys and values to the tensors of `gradients`, which have the shapes of `inputs`, given
/// `dout_ta`, the gradient of `out_ta`. Gradients of keys and values may be `f32` regardless of the other element types;
/// those of heads that share keys and values are added in order.
///
/// # Errors
/// [`ModelError`] if shapes or element types do not match.
pub(super) fn attention_backward(
    inputs: QueryKeyValue<'_>,
    out_ta: &Tensor,
    lse_bns: &Tensor,
    dout_ta: &Tensor,
    gradients: QueryKeyValue<'_>,
) -> Result<(), ModelError> {
    let shape = inputs.shape()?;
    check_rows(shape, &[out_ta, dout_ta], lse_bns)?;
    if gradients.shape()? != shape {
        let all = [gradients.query_bsnd, gradients.key_bsgd, gradients.value_bsgd];
        return Err(shapes("the gradient of attention", &all));
    }
    by_kind!(inputs.query_bsnd.kind(), E => by_kind!(gradients.key_bsgd.kind(), K => {
        let host = host_access();
        let rows = |values| Heads { values, strides: contiguous_rows(shape) };
        let query = heads::<E>(&host, inputs.query_bsnd)?;
        let (key, value) = (heads(&host, inputs.key_bsgd)?, heads(&host, inputs.value_bsgd)?);
        let output = AttentionOutput { out: rows(host.read(out_ta)?), lse: host.read(lse_bns)? };
        let dout = rows(host.read(dout_ta)?);
        let gradients = AttentionGradients::<E, K> {
            query: heads_out(&host, gradients.query_bsnd)?,
            key: heads_out(&host, gradients.key_bsgd)?,
            value: heads_out(&host, gradients.value_bsgd)?,
        };
        kernels::attention_backward(shape, query, key, value, output, dout, gradients);
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

    /// Distance relative to the largest element: f32 sums in another order; bf16 rounds to 8 bits.
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
            // Columns of wider rows, as in a fused projection.
            let (x, d) = (wide.narrow(1, 0, inner), wide.narrow(1, inner, outer));
            let (weight, bias) = (tensor(&[outer, inner], 2, kind), tensor(&[outer], 3, kind));
            let out = |columns| tensor(&[rows, columns], 4, kind);
            let (projected, biased, back) = (out(outer), out(outer), out(inner));
            matmul(&projected, &x, &weight.tr()).unwrap();
            linear_with_bias(&biased, &x, &weight, &bias).unwrap();
            matmul(&back, &d, &weight).unwrap();
            let gradient = tensor(&[outer, inner], 5, Kind::Float);
            let before = gradient.copy();
            add_matmul(&gradient, &d, &x).unwrap();
            let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
            let [x, d, weight, bias] = [x, d, weight, bias].map(|tensor| double(&tensor));
            assert_near("a projection", &projected, &x.mm(&weight.tr()));
            assert_near("a projection with a bias", &biased, &(x.mm(&weight.tr()) + bias));
            assert_near("a product", &back, &d.mm(&weight));
            assert_near("a sum of products", &gradient, &(double(&before) + d.tr().mm(&x)));
        }
    }

    #[test]
    fn unsuitable_shapes_are_refused() {
        let tensor = |rows, columns| tensor(&[rows, columns], 1, Kind::Float);
        let error_of = |result: Result<(), ModelError>| result.unwrap_err().to_string();
        assert_eq!(
            error_of(matmul(&tensor(3, 4), &tensor(3, 5), &tensor(6, 4))),
            "a matrix product does not support tensors of shapes [[3, 4], [3, 5], [6, 4]]"
        );
        assert_eq!(
            error_of(linear_with_bias(
                &tensor(3, 4),
                &tensor(3, 5),
                &tensor(4, 5),
                &tensor(1, 3)
            )),
            "a bias does not support tensors of shapes [[5, 4]]"
        );
        let sparse = tensor(9, 10).slice(0, None, None, 2).slice(1, None, None, 2);
        assert_eq!(
            error_of(matmul(&tensor(5, 4), &sparse, &tensor(5, 4))),
            "a kernel got a tensor of shape [5, 5] that is not contiguous"
        );
        let heads = |n| tensor(2 * 3 * n, 4).view([2, 3, n, 4]);
        let (query, key) = (heads(3), heads(2));
        let inputs = QueryKeyValue {
            query_bsnd: &query,
            key_bsgd: &key,
            value_bsgd: &key,
        };
        assert_eq!(
            error_of(attention_forward(inputs, &[], &tensor(6, 12), &tensor(6, 3))),
            "attention does not support tensors of shapes [[2, 3, 3, 4], [2, 3, 2, 4], [2, 3, 2, 4]]"
        );
    }

    /// Attention over one fused projection of queries, keys and values.
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
            let query_key_value = |all: &Tensor| [cut(all, 0, n), cut(all, queries, g), cut(all, queries + keys, g)];
            let [query, key, value] = query_key_value(&all);
            let inputs = QueryKeyValue {
                query_bsnd: &query,
                key_bsgd: &key,
                value_bsgd: &value,
            };
            let out = Tensor::zeros([b * s, queries], (kind, Device::Cpu));
            let lse = Tensor::zeros([b, n, s], (Kind::Float, Device::Cpu));
            attention_forward(inputs, &[], &out, &lse).unwrap();

            let transposed = |tensor: &Tensor| tensor.transpose(1, 2);
            let widened = |tensor: &Tensor| transposed(tensor).repeat_interleave_self_int(n / g, 1, None);
            let (q, k, v) = (transposed(&query), widened(&key), widened(&value));
            let (expected, expected_lse) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
                &q, &k, &v, 0.0, true, None, None,
            );
            assert_near("attention", &out.view([b, s, n, d]), &transposed(&expected));
            // libtorch's bf16 exponentials are accurate to 20 bits; the difference disappears in bf16.
            assert_near("log-sum-exp", &lse.to_kind(kind), &expected_lse.view([b, n, s]));

            let gradient = tensor(&[b * s, queries], 2, kind);
            let dall = Tensor::zeros(all.size(), (shared, Device::Cpu));
            let [mut dquery, dkey, dvalue] = query_key_value(&dall);
            if shared != kind {
                dquery = Tensor::zeros(query.size(), (kind, Device::Cpu));
            }
            let gradients = QueryKeyValue {
                query_bsnd: &dquery,
                key_bsgd: &dkey,
                value_bsgd: &dvalue,
            };
            attention_backward(inputs, &out, &lse, &gradient, gradients).unwrap();
            let dout = transposed(&gradient.view([b, s, n, d]));
            let (dq, dk, dv) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
                &dout,
                &q,
                &k,
                &v,
                &expected,
                &expected_lse,
                0.0,
                true,
                None,
                None,
            );
            let folded = |tensor: &Tensor| {
                let by_head = tensor.view([b, g, n / g, s, d]);
                transposed(&by_head.sum_dim_intlist(&[2i64][..], false, Kind::Float))
            };
            // libtorch's kernel rounds the gradient of each head to bf16.
            let near = |what: &str, found: &Tensor, expected: &Tensor| {
                assert_near(what, &found.to_kind(kind), expected);
            };
            near("the queries' gradient", &dquery, &transposed(&dq));
            near("the keys' gradient", &dkey, &folded(&dk));
            near("the values' gradient", &dvalue, &folded(&dv));
        }
    }
}
