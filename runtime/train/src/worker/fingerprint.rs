//! What the bits of a run depend on: library, processor, and the results of kernel calls.

use aurora_runtime::numerics::{Fingerprint, MachineDescription};
use c10d_sys::LibtorchRelease;
use tch::{Kind, Tensor};

use crate::gpu;
use crate::kernels;
use crate::model::{ComputeDevice, ModelError, composed_attention, fused_attention, to_host};

/// Matrix products whose bits distinguish kernels: rows, inner dimension, columns.
const PRODUCTS: [[i64; 3]; 5] = [
    [64, 64, 64],
    [128, 192, 256],
    [96, 512, 64],
    [200, 384, 130],
    [33, 1024, 48],
];

/// What the bits of this worker's results depend on, on its device.
///
/// # Errors
/// [`ModelError::Torch`] if libtorch does not run.
pub fn fingerprint(device: ComputeDevice) -> Result<Fingerprint, ModelError> {
    let name = match device {
        ComputeDevice::Cpu => None,
        ComputeDevice::Gpu(_) => Some(match gpu::current() {
            Some(gpu) => gpu.description()?,
            None => "gpu".to_owned(),
        }),
        ComputeDevice::Simulated => Some("simulated device".to_owned()),
    };
    Ok(Fingerprint {
        machine: MachineDescription::here(&LibtorchRelease::loaded().to_string(), name),
        probe: if device.is_host() {
            probe()?
        } else {
            device_probe(device)?
        },
        portable: portable(),
    })
}

/// BLAKE3 over the digests of this crate's own kernels.
fn portable() -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, digest) in kernels::probe() {
        hasher.update(name.as_bytes());
        hasher.update(digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Values from a fixed generator: libtorch's own depend on the processor.
fn numbers(count: i64, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(next).collect()
}

fn matrix(rows: i64, columns: i64, seed: u32, kind: Kind) -> Result<Tensor, ModelError> {
    let tensor = Tensor::f_from_slice(&numbers(rows * columns, seed))?;
    Ok(tensor.f_view([rows, columns])?.f_to_kind(kind)?)
}

/// BLAKE3 of the results of a fixed set of a device's kernel calls: products and attention.
fn device_probe(device: ComputeDevice) -> Result<String, ModelError> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |tensor: &Tensor| -> Result<(), ModelError> {
        for value in to_host::<f32>(&tensor.f_to_kind(Kind::Float)?)? {
            hasher.update(&value.to_bits().to_le_bytes());
        }
        Ok(())
    };
    let at = |rows, columns, seed, kind| -> Result<Tensor, ModelError> {
        Ok(matrix(rows, columns, seed, kind)?.f_to_device(device.tensors())?)
    };
    for kind in [Kind::Float, Kind::BFloat16] {
        for [m, k, n] in PRODUCTS {
            let (left, right) = (at(m, k, 1, kind)?, at(n, k, 2, kind)?);
            add(&left.f_mm(&right.f_transpose(0, 1)?)?)?;
            let (tall, wide) = (at(k, m, 3, kind)?, at(k, n, 4, kind)?);
            add(&tall.f_transpose(0, 1)?.f_mm(&wide)?)?;
        }
        let heads = |seed| Ok::<_, ModelError>(at(2 * 3 * 48, 32, seed, kind)?.f_view([2, 3, 48, 32])?);
        let views = [heads(5)?, heads(6)?, heads(7)?];
        let (out, lse) = composed_attention::forward(&views, None)?;
        let (dquery, dkey, dvalue) = composed_attention::backward(&out, &views, [&out, &lse])?;
        for tensor in [out, lse, dquery, dkey, dvalue] {
            add(&tensor)?;
        }
        if fused_attention::fits(&views[0], None) {
            let (out, lse) = fused_attention::forward(views.each_ref())?;
            let gradients = fused_attention::backward(&out, views.each_ref(), [&out, &lse])?;
            for tensor in gradients.into_iter().chain([out, lse]) {
                add(&tensor)?;
            }
        }
    }
    // Own kernels give the same bits if the same compiler translated the same source for the same architecture.
    if let Some(gpu) = gpu::current() {
        hasher.update(gpu.kernels_digest()?.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// BLAKE3 of the results of a fixed set of kernel calls.
fn probe() -> Result<String, ModelError> {
    let _guard = tch::no_grad_guard();
    let mut hasher = blake3::Hasher::new();
    let mut add = |tensor: &Tensor| -> Result<(), ModelError> {
        let flat = tensor.f_contiguous()?.f_to_kind(Kind::Float)?;
        for value in Vec::<f32>::try_from(&flat.f_view([-1])?)? {
            hasher.update(&value.to_bits().to_le_bytes());
        }
        Ok(())
    };
    for kind in [Kind::Float, Kind::BFloat16] {
        for [m, k, n] in PRODUCTS {
            let (left, right) = (matrix(m, k, 1, kind)?, matrix(n, k, 2, kind)?);
            add(&left.f_mm(&right.f_transpose(0, 1)?)?)?;
            add(&right.f_mm(&left.f_transpose(0, 1)?)?)?;
            let (tall, wide) = (matrix(k, m, 3, kind)?, matrix(k, n, 4, kind)?);
            add(&tall.f_transpose(0, 1)?.f_mm(&wide)?)?;
        }
        let heads = |seed: u32| {
            matrix(2 * 48 * 3, 32, seed, kind)?
                .f_view([2, 3, 48, 32])
                .map_err(ModelError::from)
        };
        let (query, key, value) = (heads(5)?, heads(6)?, heads(7)?);
        let (out, lse) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
            &query, &key, &value, 0.0, true, None, None,
        )?;
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
            &value, &query, &key, &value, &out, &lse, 0.0, true, None, None,
        )?;
        for tensor in [out, lse, dq, dk, dv] {
            add(&tensor)?;
        }
    }
    let mut own = numbers(4096, 8);
    let mut out = vec![0.0f32; own.len()];
    kernels::gelu_forward(kernels::Gelu::Tanh, &mut own, &numbers(64, 9), &mut out);
    let (mut mean, mut rstd, mut normed) = (vec![0.0; 64], vec![0.0; 64], vec![0.0f32; own.len()]);
    let (weight, bias) = (numbers(64, 10), numbers(64, 11));
    kernels::norm_forward(&out, 64, 1e-5, &weight, &bias, &mut normed, &mut mean, &mut rstd);
    add(&Tensor::f_from_slice(&normed)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Level;

    /// A command looks a machine's class up by this description, without a worker.
    #[test]
    fn the_described_instruction_set_is_the_one_of_the_kernels() {
        let described = MachineDescription::here("", None).cpu_capability;
        let level = match kernels::level() {
            Level::Avx512 => "avx512",
            Level::Avx2 => "avx2",
            Level::Baseline => "baseline",
        };
        assert_eq!(described, level);
    }

    /// Locks and messages name one version: the one of `aurora` and the one of the worker that is built with it are equal.
    #[test]
    fn the_version_is_the_one_that_aurora_expects() {
        let expected = aurora_runtime::libtorch::BUILT_FOR;
        assert_eq!(LibtorchRelease::built_for().to_string(), expected);
        assert_eq!(LibtorchRelease::loaded().to_string(), expected);
    }
}
