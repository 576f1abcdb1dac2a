//! Errors while tensors are computed.

use std::ops::Range;

use tch::{Device, Kind, TchError};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch's message without its stack trace.
    #[error("libtorch: {0}")]
    Torch(String),
    #[error(
        "out of memory: `recompute = full`, more tensor or pipeline ranks, or `distributed_optimizer` need less, and \
         `aurora plan` states how much ({0})"
    )]
    OutOfMemory(String),
    #[error("a kernel got a tensor of {found:?} elements, expected {expected:?}")]
    Kind { found: Kind, expected: Kind },
    #[error("a kernel got a tensor of shape {0:?} that is not contiguous")]
    Strided(Vec<i64>),
    #[error("the host cannot access the memory of a tensor on a device ({0:?})")]
    Device(Device),
    #[error("elements {range:?} exceed a tensor of {length} elements")]
    OutOfRange { range: Range<usize>, length: usize },
    #[error("a kernel would write to memory that another of its arguments uses")]
    Aliased,
    /// A kernel's arguments do not match in shape.
    #[error("{operation} does not support tensors of shapes {shapes:?}")]
    Shapes { operation: String, shapes: Vec<Vec<i64>> },
    /// The model cannot be computed on this logical grid.
    #[error("{0}")]
    Grid(String),
    /// A request exceeds what the model or its buffers hold.
    #[error("{0}")]
    Size(String),
    #[error("this device does not repeat the bits of the {0}: its results could not be repeated")]
    NotRepeated(String),
    /// This rank lacks what the operation needs.
    #[error("{0}")]
    NotHeld(&'static str),
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
    #[error(transparent)]
    Aten(#[from] aten_sys::Error),
    #[error(transparent)]
    Peers(#[from] crate::parallel::transport::TransportError),
}

impl From<TchError> for ModelError {
    fn from(error: TchError) -> Self {
        let text = error.to_string();
        if text.contains("out of memory") {
            return Self::OutOfMemory(text.lines().next().unwrap_or_default().to_owned());
        }
        Self::Torch(text.lines().next().unwrap_or_default().to_owned())
    }
}
