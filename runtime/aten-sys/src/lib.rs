//! What Aurora needs of libtorch on a device and tch does not bind: fused attention, the switches of fixed arithmetic, the
//! current stream, memory figures.
//!
//! In and out: tensors of tch, indices of devices. Not here: kernels, and which operation uses what (`aurora-train`).

mod raw;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

use tch::Tensor;

/// An error of libtorch: the first line of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Calls a function of the shim.
fn attempt(call: impl FnOnce(raw::ErrorText) -> c_int) -> Result<(), Error> {
    let mut bytes = [0u8; 2048];
    let text = raw::ErrorText {
        bytes: bytes.as_mut_ptr().cast::<c_char>(),
        capacity: bytes.len(),
    };
    if call(text) == 0 {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&bytes).map_or_else(|_| String::new(), |text| text.to_string_lossy().into());
    Err(Error(text.lines().next().unwrap_or_default().trim().to_owned()))
}

/// Takes over new tensors of the shim.
///
/// # Safety
/// `fill` writes a new tensor to each place, or returns an error.
unsafe fn new_tensors<const N: usize>(
    fill: impl FnOnce(&mut [*mut c_void; N], raw::ErrorText) -> c_int,
) -> Result<[Tensor; N], Error> {
    let mut raw = [std::ptr::null_mut(); N];
    attempt(|error| fill(&mut raw, error))?;
    // SAFETY: the caller's promise.
    Ok(raw.map(|pointer| unsafe { Tensor::from_ptr(pointer.cast()) }))
}

fn pointer(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

/// Causal attention by the fused kernel of a device: the heads' outputs `[b, n, s, d]` and the log-sum-exp of each row's
/// scores `[b, n, s]`. Queries are `[b, n, s, d]`, keys and values `[b, g, s, d]` with `g` a divisor of `n`; their last
/// dimension is contiguous and a multiple of 8, at most 256; half precision.
///
/// # Errors
/// [`Error`] if there is no such kernel, or memory runs out.
pub fn flash_forward(query: &Tensor, key: &Tensor, value: &Tensor, scale: f64) -> Result<[Tensor; 2], Error> {
    // SAFETY: the tensors are alive, and the shim fills both places unless it fails.
    unsafe {
        new_tensors(|[out, lse], error| {
            raw::aten_flash_forward(pointer(query), pointer(key), pointer(value), scale, out, lse, error)
        })
    }
}

/// The gradients of queries, keys and values of [`flash_forward`], whose results are `out` and `lse`.
///
/// # Errors
/// As [`flash_forward`].
pub fn flash_backward(
    dout: &Tensor,
    [query, key, value]: [&Tensor; 3],
    [out, lse]: [&Tensor; 2],
    scale: f64,
) -> Result<[Tensor; 3], Error> {
    // SAFETY: the tensors are alive, and the shim fills all places unless it fails.
    unsafe {
        new_tensors(|[dquery, dkey, dvalue], error| {
            raw::aten_flash_backward(
                pointer(dout),
                pointer(query),
                pointer(key),
                pointer(value),
                pointer(out),
                pointer(lse),
                scale,
                dquery,
                dkey,
                dvalue,
                error,
            )
        })
    }
}

/// Makes libtorch's operations repeat their bits in this process, and use no lower precision than their arguments have.
/// The environment has to set `CUBLAS_WORKSPACE_CONFIG=:4096:8` and, for ROCm, `ROCBLAS_DEFAULT_ATOMICS_MODE=0` before
/// the first matrix product.
///
/// # Errors
/// [`Error`] if libtorch refuses.
pub fn fix_arithmetic() -> Result<(), Error> {
    // SAFETY: no arguments.
    attempt(|error| unsafe { raw::aten_fix_arithmetic(error) })
}

/// The stream that libtorch's operations on a device use now: a `cudaStream_t` or `hipStream_t`.
///
/// # Errors
/// [`Error`] if there is no such device.
pub fn current_stream(device: usize) -> Result<*mut c_void, Error> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: the shim writes the handle.
    attempt(|error| unsafe { raw::aten_stream(index(device), &mut stream, error) })?;
    Ok(stream)
}

/// Bytes of this process on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Of tensors, now.
    pub allocated: u64,
    /// Of tensors, at most at any time.
    pub peak_allocated: u64,
    /// Taken from the device, now.
    pub reserved: u64,
    /// Taken from the device, at most at any time.
    pub peak_reserved: u64,
}

/// What libtorch's allocator holds on a device.
///
/// # Errors
/// [`Error`] if there is no such device.
pub fn device_memory(device: usize) -> Result<DeviceMemory, Error> {
    let mut figures = [0i64; 4];
    // SAFETY: the shim writes four figures.
    attempt(|error| unsafe { raw::aten_memory(index(device), figures.as_mut_ptr(), error) })?;
    let [allocated, peak_allocated, reserved, peak_reserved] = figures.map(|figure| u64::try_from(figure).unwrap_or(0));
    Ok(DeviceMemory {
        allocated,
        peak_allocated,
        reserved,
        peak_reserved,
    })
}

fn index(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switches_can_be_set_without_a_device() {
        assert_eq!(fix_arithmetic(), Ok(()));
    }

    #[test]
    fn a_machine_without_devices_is_an_error() {
        // With a libtorch for CPUs there is no such part, with another one there may be no device.
        if tch::Cuda::device_count() == 0 {
            assert!(!current_stream(0).unwrap_err().to_string().is_empty());
            assert!(!device_memory(0).unwrap_err().to_string().is_empty());
        }
    }

    #[test]
    fn fused_attention_needs_a_device() {
        let heads = Tensor::zeros([1, 2, 8, 8], (tch::Kind::BFloat16, tch::Device::Cpu));
        let error = flash_forward(&heads, &heads, &heads, 1.0).unwrap_err();
        assert!(
            error.to_string().contains("_scaled_dot_product_flash_attention"),
            "{error}"
        );
    }
}
