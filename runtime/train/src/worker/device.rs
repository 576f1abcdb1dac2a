//! The device of this worker: the one with the index of its local rank.

use aurora_runtime::job::{Start, WorkerDevice};
use aurora_runtime::launch::{EnvironmentError, identity};

use super::device_libraries::{self, DeviceLibraries};
use crate::gpu::{self, GpuError};
use crate::model::ComputeDevice;

/// Variables that make the vendors' libraries repeat their bits; they are read at their first matrix product.
const FIXED: [(&str, &str); 3] = [
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    ("ROCBLAS_DEFAULT_ATOMICS_MODE", "0"),
    ("PYTORCH_TUNABLEOP_ENABLED", "0"),
];

/// Variables by which a launcher gives each worker one device of its own.
const OWN_DEVICE: [&str; 3] = ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"];

/// Why a worker has no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error("the layout is for devices, and this worker cannot use any: {0}")]
    NoLibrary(String),
    #[error("the worker with local rank {local_rank} has no device: libtorch finds {found} on this machine")]
    TooFew { local_rank: usize, found: usize },
    #[error("libtorch cannot use device {index}: {cause}")]
    Unusable { index: usize, cause: String },
    #[error("this worker cannot use its own kernels on device {index}")]
    Kernels {
        index: usize,
        #[source]
        cause: GpuError,
    },
}

/// Prepares the first device of this machine, for programs other than the worker. Must be called before any other thread
/// is started.
///
/// # Errors
/// [`DeviceError`] if there is none.
pub fn first_device() -> Result<ComputeDevice, DeviceError> {
    fix_environment();
    gpu(Some(0), false, &device_libraries::load())
}

/// Sets the variables that make the vendors' libraries repeat their bits. Must be called before any other thread is started.
pub fn fix_environment() {
    for (name, value) in FIXED {
        // SAFETY: no other thread reads the environment yet.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Where this worker computes. It is the first call that asks libtorch for devices.
///
/// # Errors
/// [`DeviceError`] if there is no device for this worker.
pub fn choose(start: Start, libraries: &DeviceLibraries) -> Result<ComputeDevice, DeviceError> {
    match start.device {
        WorkerDevice::Cpu => Ok(ComputeDevice::Cpu),
        WorkerDevice::Simulated => simulated(),
        WorkerDevice::Gpu => gpu(start.local_rank, false, libraries),
        WorkerDevice::SharedGpu => gpu(start.local_rank, true, libraries),
    }
}

/// For tests: a folder with a double of a device's driver, which runs the kernels on the processor.
const TEST_KERNELS: &str = "AURORA_TEST_KERNELS";

fn simulated() -> Result<ComputeDevice, DeviceError> {
    let device = ComputeDevice::Simulated;
    if let Some(folder) = std::env::var_os(TEST_KERNELS) {
        gpu::load(folder.as_ref(), None).map_err(|cause| DeviceError::Kernels { index: 0, cause })?;
    }
    Ok(device)
}

/// The device with an index, for its test; a simulated one if a test names its kernels.
///
/// # Errors
/// [`DeviceError`] if there is no such device.
pub fn to_test(index: u32, libraries: &DeviceLibraries) -> Result<ComputeDevice, DeviceError> {
    if std::env::var_os(TEST_KERNELS).is_some() {
        return simulated();
    }
    gpu(Some(index), false, libraries)
}

fn gpu(local_rank: Option<u32>, is_shared: bool, libraries: &DeviceLibraries) -> Result<ComputeDevice, DeviceError> {
    let DeviceLibraries::Loaded(library) = libraries else {
        return Err(DeviceError::NoLibrary(libraries.to_string()));
    };
    let local_rank = match local_rank {
        Some(rank) => rank as usize,
        None => identity(&|name| std::env::var(name).ok())?.map_or(0, |identity| identity.local_rank),
    };
    let found = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    let has_own = found == 1 && OWN_DEVICE.iter().any(|name| std::env::var_os(name).is_some());
    let index = match local_rank {
        _ if has_own => 0,
        rank if is_shared => rank % found.max(1),
        rank => rank,
    };
    let device = ComputeDevice::Gpu(index);
    // The error of a first tensor has the reason why a device cannot be used: no driver, another architecture, no memory.
    let first = tch::Tensor::f_zeros([1], (tch::Kind::Float, device.tensors()));
    match first {
        _ if index >= found && found > 0 => Err(DeviceError::TooFew { local_rank, found }),
        Err(error) => Err(DeviceError::Unusable {
            index,
            cause: error.to_string().lines().next().unwrap_or_default().to_owned(),
        }),
        Ok(_) => {
            let cannot = |cause: GpuError| DeviceError::Kernels { index, cause };
            aten_sys::fix_arithmetic().map_err(|error| cannot(error.into()))?;
            gpu::load(library.parent().unwrap_or(library), Some(index)).map_err(cannot)?;
            Ok(device)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libtorch_for_cpus_is_named_as_the_reason() {
        let start = Start {
            device: WorkerDevice::Gpu,
            local_rank: Some(0),
        };
        let error = choose(start, &DeviceLibraries::NotPresent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the layout is for devices, and this worker cannot use any: this libtorch computes on CPUs only"
        );
        let start = Start {
            device: WorkerDevice::Cpu,
            local_rank: None,
        };
        assert_eq!(choose(start, &DeviceLibraries::NotPresent).unwrap(), ComputeDevice::Cpu);
    }
}
