//! The vendors of devices, and functions of their libraries.

use libloading::os::unix::Library;

use super::GpuError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Cuda,
    Rocm,
}

/// A function of a library, or of one that it depends on.
///
/// # Safety
/// `F` is its type.
pub unsafe fn function<F: Copy>(library: &Library, name: &'static str) -> Result<F, GpuError> {
    // SAFETY: the caller's promise.
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    match found {
        Ok(symbol) => Ok(*symbol),
        Err(error) => Err(GpuError::Library {
            name: name.to_owned(),
            cause: error.to_string(),
        }),
    }
}
