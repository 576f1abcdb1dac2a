//! Checks of every transport before anything moves.

use tch::{Device, Kind, TchError, Tensor};

use super::TransportError;

/// A tensor of a transfer.
#[derive(Debug)]
pub(super) struct PeerBuffer {
    pub peer: usize,
    /// Shape `[length]`, type u8; shares the tensor's memory.
    pub bytes: Tensor,
    pub length: usize,
}

/// Checks the tensors of a transfer. Empty ones are left out, at both ends.
pub(super) fn buffers(
    rank: usize,
    size: usize,
    tensors: &[(usize, &Tensor)],
) -> Result<Vec<PeerBuffer>, TransportError> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (peer, tensor) in tensors {
        if *peer >= size || *peer == rank {
            let text = format!("rank {rank} of {size} cannot exchange tensors with rank {peer}");
            return Err(TransportError::Other(text));
        }
        check(tensor)?;
        if tensor.numel() > 0 {
            // Flattened first: a tensor without dimensions cannot be viewed as bytes.
            let bytes = tensor
                .f_view([-1])
                .and_then(|flat| flat.f_view_dtype(Kind::Uint8))
                .map_err(torch)?;
            let length = bytes.numel();
            buffers.push(PeerBuffer {
                peer: *peer,
                bytes,
                length,
            });
        }
    }
    Ok(buffers)
}

/// Transports move CPU memory: the tensor must be there and contiguous.
fn check(tensor: &Tensor) -> Result<(), TransportError> {
    if tensor.device() != Device::Cpu {
        let text = format!("cannot send a tensor on {:?}", tensor.device());
        return Err(TransportError::Other(text));
    }
    if !tensor.is_contiguous() {
        return Err(TransportError::Strided(tensor.size()));
    }
    Ok(())
}

pub(super) fn torch(error: TchError) -> TransportError {
    TransportError::Other(error.to_string())
}

/// The error of every transfer after a failed one.
pub(super) fn earlier(cause: &str) -> TransportError {
    TransportError::Other(format!("an earlier transfer failed: {cause}"))
}

/// The cause if a transfer was dropped.
pub(super) const DROPPED: &str = "the transfer was dropped before it completed";
