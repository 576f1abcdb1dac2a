//! Where a rank computes, and the only copies between the host's memory and a device's.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor};

use super::ModelError;

/// Where a rank's tensors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeDevice {
    #[default]
    Cpu,
    /// A device of CUDA or ROCm, by its index in this process; libtorch has the same name for both.
    Gpu(usize),
    /// The code for devices on this processor, for tests: tensors are in the host's memory, and `HostAccess`
    /// refuses all of them.
    Simulated,
}

/// Set once a worker computes on [`ComputeDevice::Simulated`]; never cleared.
static IS_SIMULATED: AtomicBool = AtomicBool::new(false);

impl ComputeDevice {
    /// libtorch's name of the device.
    pub fn tensors(self) -> Device {
        match self {
            Self::Cpu | Self::Simulated => Device::Cpu,
            Self::Gpu(index) => Device::Cuda(index),
        }
    }

    /// Whether kernels of this crate, which read and write the host's memory, can compute here.
    pub fn is_host(self) -> bool {
        self == Self::Cpu
    }

    /// Makes host access to tensors an error in this process if the device is simulated.
    pub fn refuse_host_access(self) {
        if self == Self::Simulated {
            IS_SIMULATED.store(true, Ordering::SeqCst);
        }
    }
}

/// Whether a tensor is in memory that the host must not access directly.
pub(super) fn is_on_device(tensor: &Tensor) -> bool {
    tensor.device() != Device::Cpu || IS_SIMULATED.load(Ordering::Relaxed)
}

/// Copies a tensor's elements to the host, in order. Waits until they are computed.
///
/// # Errors
/// [`ModelError::Torch`] if the element type differs or memory runs out.
pub fn to_host<E: tch::kind::Element + Copy>(tensor: &Tensor) -> Result<Vec<E>, ModelError>
where
    Vec<E>: for<'a> TryFrom<&'a Tensor, Error = tch::TchError>,
{
    let flat = tensor.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?;
    Ok(Vec::try_from(&flat)?)
}

/// Copies numbers to a new tensor of one dimension on a device.
///
/// # Errors
/// [`ModelError::Torch`] if memory runs out.
pub fn to_device<E: tch::kind::Element>(values: &[E], device: Device) -> Result<Tensor, ModelError> {
    Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
}
