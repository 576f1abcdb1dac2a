//! Checks on a device, before training, that every matrix product and attention of the job repeats its bits: in the middle of
//! a larger buffer and alone. Libraries choose a kernel by shape, and some kernels add in an order that changes.
//!
//! In: a network and the shape of its micro-batches. Out: nothing, or an error with the name of what does not repeat. A
//! worker checks each shape once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tch::{Kind, Tensor};

use super::workspace::HEAD_ROWS;
use super::{Kernels, ModelError, Network, fused_attention};

/// Elements before a tensor in the larger buffer: 256 bytes or more, as every shard's buffer is aligned.
const BEFORE: i64 = 128;

/// A linear layer of one shard: rows, inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Product {
    layer: &'static str,
    rows: i64,
    inputs: i64,
    outputs: i64,
}

/// What this process has checked, as text.
static CHECKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Network {
    /// Checks the products and the attention of micro-batches of `sequences` × `sequence` tokens.
    ///
    /// # Errors
    /// [`ModelError::NotRepeated`], [`ModelError::Torch`].
    pub fn probe_shapes(&self, sequences: usize, sequence: usize) -> Result<(), ModelError> {
        if self.kernels != Kernels::Device {
            return Ok(());
        }
        for product in self.products((sequences * sequence) as i64) {
            self.once(format!("{product:?} {:?}", self.kind), || self.probe_product(product))?;
        }
        let shape = &self.parameters.shape;
        let heads = [sequences, shape.shard_heads(), sequence, shape.head_size].map(|size| size as i64);
        self.once(format!("attention {heads:?} {:?}", self.kind), || {
            self.probe_attention(heads)
        })
    }

    /// Runs a check that this process has not made yet.
    fn once(&self, name: String, check: impl FnOnce() -> Result<(), ModelError>) -> Result<(), ModelError> {
        let is_checked = |name: &String| CHECKED.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        if !is_checked(&name) {
            check()?;
            CHECKED.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
        Ok(())
    }

    /// The linear layers of one shard.
    fn products(&self, rows: i64) -> Vec<Product> {
        let shape = &self.parameters.shape;
        let hidden = shape.hidden as i64;
        let layer = |layer, rows, inputs: usize, outputs: usize| Product {
            layer,
            rows,
            inputs: inputs as i64,
            outputs: outputs as i64,
        };
        let width = shape.feed_forward / shape.tensor;
        let mut products = vec![
            layer("query", rows, shape.hidden, shape.projected()),
            layer(
                "attention output",
                rows,
                shape.shard_heads() * shape.head_size,
                shape.hidden,
            ),
            layer("up", rows, shape.hidden, shape.up()),
            layer("down", rows, width, shape.hidden),
        ];
        if self.parameters.holding.last {
            products.push(Product {
                layer: "output",
                rows: rows.min(HEAD_ROWS as i64),
                inputs: hidden,
                outputs: (shape.vocabulary / shape.tensor) as i64,
            });
        }
        products
    }

    /// Numbers near ±1 that depend on their index and `seed` only.
    fn numbers(&self, rows: i64, columns: i64, seed: f64) -> Result<Tensor, ModelError> {
        let index = Tensor::f_arange(rows * columns, (Kind::Float, self.device))?;
        let numbers = index.f_remainder(8191.0)?.f_mul_scalar(0.7 + seed)?.f_sin()?;
        Ok(numbers.f_to_kind(self.kind)?.f_view([rows, columns])?)
    }

    /// The same numbers in the middle of a larger buffer.
    fn within(&self, numbers: &Tensor) -> Result<Tensor, ModelError> {
        let count = numbers.numel() as i64;
        let buffer = Tensor::f_zeros([count + 2 * BEFORE], (numbers.kind(), self.device))?;
        let view = buffer.f_narrow(0, BEFORE, count)?.f_view(numbers.size().as_slice())?;
        view.shallow_clone().f_copy_(numbers)?;
        Ok(view)
    }

    /// Forward and both backward products of a layer.
    fn probe_product(&self, product: Product) -> Result<(), ModelError> {
        let Product {
            layer,
            rows,
            inputs,
            outputs,
        } = product;
        let (x, weight) = (self.numbers(rows, inputs, 0.1)?, self.numbers(outputs, inputs, 0.2)?);
        let dy = self.numbers(rows, outputs, 0.3)?;
        let run = |[x, weight, dy]: [&Tensor; 3]| -> Result<[Tensor; 3], ModelError> {
            let new = |rows: i64, columns: i64, kind: Kind| Tensor::f_zeros([rows, columns], (kind, self.device));
            let (out, dx) = (new(rows, outputs, self.kind)?, new(rows, inputs, self.kind)?);
            let gradient = new(outputs, inputs, Kind::Float)?;
            self.kernels.linear(&out, x, weight)?;
            self.kernels.matmul(&dx, dy, weight)?;
            self.kernels.add_matmul(&gradient, dy, x)?;
            Ok([out, dx, gradient])
        };
        let alone = run([&x, &weight, &dy])?;
        let within = run([&self.within(&x)?, &self.within(&weight)?, &self.within(&dy)?])?;
        for ((what, alone), within) in ["forward", "input's gradient", "weight's gradient"]
            .iter()
            .zip(&alone)
            .zip(&within)
        {
            let name = || {
                format!(
                    "product `{layer}` ({what}, {rows} × {inputs} × {outputs}, {:?})",
                    self.kind
                )
            };
            same(name, alone, within)?;
        }
        Ok(())
    }

    /// Forward and backward pass of fused attention of queries `[b, n, s, d]`.
    fn probe_attention(&self, [b, n, s, d]: [i64; 4]) -> Result<(), ModelError> {
        let heads =
            |seed: f64| -> Result<Tensor, ModelError> { Ok(self.numbers(b * s, n * d, seed)?.f_view([b, s, n, d])?) };
        let (query, key, value) = (heads(0.1)?, heads(0.2)?, heads(0.3)?);
        if !fused_attention::fits(&query.f_transpose(1, 2)?, None) {
            return Ok(());
        }
        let run = |views: [&Tensor; 3]| -> Result<Vec<Tensor>, ModelError> {
            let [query, key, value] = views.map(|heads| heads.f_transpose(1, 2));
            let views = [&query?, &key?, &value?];
            let (out, lse) = fused_attention::forward(views)?;
            let mut results = Vec::new();
            for slice in fused_attention::slices(views[0]) {
                let cut = |tensor: &Tensor| tensor.f_narrow(0, slice.start, slice.end - slice.start);
                let [query, key, value] = views.map(cut);
                let output = [&cut(&out)?, &cut(&lse)?];
                results.extend(fused_attention::backward(output[0], [&query?, &key?, &value?], output)?);
            }
            results.extend([out, lse]);
            Ok(results)
        };
        let alone = run([&query, &key, &value])?;
        let within = run([&self.within(&query)?, &self.within(&key)?, &self.within(&value)?])?;
        for (alone, within) in alone.iter().zip(&within) {
            same(
                || format!("attention ({b} × {n} × {s} × {d}, {:?})", self.kind),
                alone,
                within,
            )?;
        }
        Ok(())
    }
}

/// Fails if two results differ in a bit.
fn same(name: impl FnOnce() -> String, alone: &Tensor, within: &Tensor) -> Result<(), ModelError> {
    if alone.f_equal(within)? {
        return Ok(());
    }
    Err(ModelError::NotRepeated(name()))
}

#[cfg(test)]
mod tests {
    use aurora_compiler::fields::Activation;

    use super::*;
    use crate::model::tests::{model, network};

    #[test]
    fn every_layer_is_checked_once() {
        let _guard = tch::no_grad_guard();
        for kind in [Kind::Float, Kind::BFloat16] {
            let network = network(&model(4, 1, Activation::GeluTanh), 2, Kernels::Device, kind);
            network.probe_shapes(3, 20).unwrap();
            let checked = CHECKED.lock().unwrap().clone();
            for layer in ["query", "attention output", "up", "down", "output"] {
                let is_checked =
                    |text: &String| text.contains(&format!("\"{layer}\"")) && text.ends_with(&format!("{kind:?}"));
                assert!(checked.iter().any(is_checked), "{layer}: {checked:?}");
            }
            network.probe_shapes(3, 20).unwrap();
            assert_eq!(*CHECKED.lock().unwrap(), checked);
        }
    }

    #[test]
    fn a_result_that_differs_is_named() {
        let one = Tensor::from_slice(&[1.0f32, 2.0]);
        assert!(same(String::new, &one, &one.copy()).is_ok());
        let error = same(|| "product `up` (forward)".to_owned(), &one, &(&one + 1e-6)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this device does not repeat the bits of the product `up` (forward): its results could not be repeated"
        );
    }
}
