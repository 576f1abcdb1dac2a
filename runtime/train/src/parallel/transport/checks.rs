//! What every transport checks before anything moves.

use tch::{Device, Kind, TchError, Tensor};

use super::TransportError;

/// A tensor of a transfer: the peer, and the tensor's memory.
#[derive(Debug)]
pub(super) struct Part {
    pub peer: usize,
    /// Shape `[length]`, kind u8; the same memory as the tensor's.
    pub bytes: Tensor,
    pub length: usize,
}

/// Looks through the tensors of a transfer. Empty ones are left out: there is nothing to move, at neither end.
pub(super) fn parts(rank: usize, size: usize, tensors: &[(usize, &Tensor)]) -> Result<Vec<Part>, TransportError> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (peer, tensor) in tensors {
        if *peer >= size || *peer == rank {
            let text = format!("rank {rank} of {size} cannot exchange tensors with rank {peer}");
            return Err(TransportError::Other(text));
        }
        check(tensor)?;
        if tensor.numel() > 0 {
            // Flat first: a tensor without dimensions has no bytes to be seen.
            let bytes = tensor
                .f_view([-1])
                .and_then(|flat| flat.f_view_dtype(Kind::Uint8))
                .map_err(torch)?;
            let length = bytes.numel();
            parts.push(Part {
                peer: *peer,
                bytes,
                length,
            });
        }
    }
    Ok(parts)
}

/// Transports move memory as it stands: it must be on the CPU and without gaps.
pub(super) fn check(tensor: &Tensor) -> Result<(), TransportError> {
    if tensor.device() != Device::Cpu {
        let text = format!("a tensor on {:?} cannot be sent from there", tensor.device());
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

/// What is said of transfers after a failed one.
pub(super) fn earlier(cause: &str) -> TransportError {
    TransportError::Other(format!("an earlier one failed: {cause}"))
}

/// Why a transport failed whose transfer nobody waited for.
pub(super) const DROPPED: &str = "it was dropped before its end";
