//! Moves bytes between ranks. Never adds.
//!
//! In: tensors and the ranks they go to or come from. Out: the same bytes there. Sums are the caller's, in the order of
//! the grid; only `native` numerics may ask a transport for a sum of its own ([`Transport::sum`]).

mod channel;
mod checks;
mod gloo;
pub mod rccl;
mod store;

use std::fmt::Debug;
use std::time::Duration;

use tch::Tensor;

pub use channel::{Channel, channels};
pub use gloo::Gloo;
pub use store::Store;

/// What a transfer is for. Transfers of different axes never meet, whatever their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    Tensor,
    /// Activations on their way to the next pipeline stage.
    Forward,
    /// Gradients on their way to the stage before.
    Backward,
    Data,
    World,
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer's process has ended, or its connection has.
    #[error("rank {rank} has gone ({cause})")]
    Gone { rank: usize, cause: String },
    /// The peer is stopped, cut off, or waits for something else.
    #[error("rank {rank} has not answered for {} s", waited.as_secs_f64())]
    Silent { rank: usize, waited: Duration },
    #[error("cannot join the other workers: {0}")]
    Join(String),
    #[error("a tensor of shape {0:?} has gaps and cannot be sent as it stands")]
    Strided(Vec<i64>),
    #[error("transfer failed: {0}")]
    Other(String),
}

/// A set of transfers under way. Dropping it without waiting leaves the transport unusable.
pub trait Transfer: Debug {
    /// Returns when every tensor to be received is there and every tensor sent may be written again.
    ///
    /// # Errors
    /// [`TransportError::Gone`], [`TransportError::Silent`]; after one, every later transfer fails.
    fn wait(self: Box<Self>) -> Result<(), TransportError>;
}

/// Connects the ranks of a mesh. One thread uses it; ranks call it in the same order, axis by axis.
pub trait Transport: Send + Debug {
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Starts sending and receiving whole contiguous tensors. Both ends name tensors of the same number of bytes, of which
    /// empty ones move nothing; between two ranks, transfers of one axis and one size arrive in the order in which they
    /// were started. Until the transfer has ended, nobody may write what is sent.
    ///
    /// # Errors
    /// [`TransportError`].
    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError>;

    /// [`Transport::start`] and [`Transfer::wait`].
    ///
    /// # Errors
    /// [`TransportError`].
    fn exchange(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<(), TransportError> {
        self.start(axis, sends, receives)?.wait()
    }

    /// Replaces `tensor` by its sum over the ranks of this rank's group on `axis`, in the transport's own order.
    /// `false` if the transport has no sum of its own.
    ///
    /// # Errors
    /// [`TransportError`].
    fn sum(&self, axis: Axis, tensor: &Tensor) -> Result<bool, TransportError> {
        let _ = (axis, tensor);
        Ok(false)
    }
}
