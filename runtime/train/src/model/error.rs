//! What can go wrong while tensors are computed.

use tch::{Kind, TchError};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch's message without its stack trace.
    #[error("libtorch: {0}")]
    Torch(String),
    #[error("a kernel was given {found:?} numbers, not {expected:?}")]
    Kind { found: Kind, expected: Kind },
    #[error("a kernel was given a tensor of shape {0:?} that is not contiguous")]
    Strided(Vec<i64>),
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Peers(#[from] crate::parallel::transport::TransportError),
}

impl From<TchError> for ModelError {
    fn from(error: TchError) -> Self {
        let text = error.to_string();
        Self::Torch(text.lines().next().unwrap_or_default().to_owned())
    }
}
