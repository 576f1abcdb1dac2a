//! Transfers of a device's tensors through the host's memory, over a transport that moves only that.
//!
//! In: tensors on any device. Out: the same bytes in the peers' tensors. Slower than a transport between devices, and
//! available everywhere: several ranks can share one device, and no library of its vendor is needed.

use tch::{Device, Tensor};

use super::checks::torch;
use super::{Axis, Transfer, Transport, TransportError};

/// A transport whose tensors are copied to the host before they are sent, and to the device after they have arrived.
#[derive(Debug)]
pub struct Staged<T> {
    host: T,
}

impl<T: Transport> Staged<T> {
    pub fn new(host: T) -> Self {
        Self { host }
    }
}

impl<T: Transport> Transport for Staged<T> {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn size(&self) -> usize {
        self.host.size()
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let strided = sends.iter().chain(receives).find(|(_, tensor)| !tensor.is_contiguous());
        if let Some((_, tensor)) = strided {
            return Err(TransportError::Strided(tensor.size()));
        }
        // A copy also of what is on the host already: the caller's memory is never given to the other transport.
        let sent = sends
            .iter()
            .map(|(peer, tensor)| Ok((*peer, tensor.f_to_device_(Device::Cpu, tensor.kind(), false, true)?)))
            .collect::<Result<Vec<(usize, Tensor)>, tch::TchError>>()
            .map_err(torch)?;
        let received = receives
            .iter()
            .map(|(peer, tensor)| {
                let buffer = Tensor::f_empty(tensor.size(), (tensor.kind(), Device::Cpu))?;
                Ok((*peer, buffer, tensor.shallow_clone()))
            })
            .collect::<Result<Vec<(usize, Tensor, Tensor)>, tch::TchError>>()
            .map_err(torch)?;
        let sends: Vec<_> = sent.iter().map(|(peer, tensor)| (*peer, tensor)).collect();
        let receives: Vec<_> = received.iter().map(|(peer, buffer, _)| (*peer, buffer)).collect();
        let transfer = self.host.start(axis, &sends, &receives)?;
        Ok(Box::new(StagedTransfer {
            transfer,
            received: received
                .into_iter()
                .map(|(_, buffer, tensor)| (buffer, tensor))
                .collect(),
            _sent: sent,
        }))
    }
}

#[derive(Debug)]
struct StagedTransfer {
    transfer: Box<dyn Transfer>,
    /// Each host buffer, and the tensor that it is copied to.
    received: Vec<(Tensor, Tensor)>,
    /// Kept until they have been sent.
    _sent: Vec<(usize, Tensor)>,
}

impl Transfer for StagedTransfer {
    fn wait(self: Box<Self>) -> Result<(), TransportError> {
        let Self {
            transfer,
            received,
            _sent,
        } = *self;
        transfer.wait()?;
        for (buffer, mut tensor) in received {
            tensor.f_copy_(&buffer).map_err(torch)?;
        }
        Ok(())
    }
}
