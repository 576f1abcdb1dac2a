//! Moves bytes between ranks. Never adds.
//!
//! In: tensors and the ranks they go to or come from. Out: the same bytes there. Sums are computed by the caller, in
//! the order of the grid.

#[cfg(test)]
mod channel;
mod checks;
mod gloo;
pub mod rccl;
mod staged;
mod store;

use std::fmt::Debug;
use std::time::Duration;

use tch::Tensor;

#[cfg(test)]
pub use channel::{Channel, channels};
pub use gloo::Gloo;
pub use staged::Staged;
pub use store::RendezvousStore;

/// What a transfer is for. Transfers of different axes are matched separately, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    Tensor,
    /// Activations, to the next pipeline rank.
    Forward,
    /// Gradients, to the previous pipeline rank.
    Backward,
    Data,
    World,
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer's process or connection ended.
    #[error("lost rank {rank} ({cause})")]
    Lost { rank: usize, cause: String },
    /// The peer did not answer within `transfer_timeout`: it is stopped, disconnected, or waits for something else.
    #[error("rank {rank} did not answer for {} s", waited.as_secs_f64())]
    Silent { rank: usize, waited: Duration },
    #[error("cannot join the other workers: {0}")]
    Join(String),
    #[error("cannot send a tensor of shape {0:?}, which is not contiguous")]
    Strided(Vec<i64>),
    #[error("transfer failed: {0}")]
    Other(String),
}

/// A set of transfers in progress. Dropping it before it completes closes the transport.
pub trait Transfer: Debug {
    /// Returns when every tensor has been received, and every sent tensor may be written again.
    ///
    /// # Errors
    /// [`TransportError::Lost`], [`TransportError::Silent`]; after one, every later transfer fails.
    fn wait(self: Box<Self>) -> Result<(), TransportError>;
}

/// Connects the ranks of a mesh. Used by one thread; ranks call it in the same order for each axis.
pub trait Transport: Send + Debug {
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Starts sending and receiving contiguous tensors. Both ends pass tensors of the same number of bytes; empty ones
    /// move nothing. Between two ranks, transfers of one axis and size arrive in the order in which they were started.
    /// Until the transfer has completed, nothing may write to what is sent.
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
}
