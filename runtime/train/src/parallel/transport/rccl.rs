//! [`Transport`] over RCCL (or NCCL): bytes between the memories of devices.
//!
//! In: a loaded library, a mesh, a function that exchanges ids. Out: one communicator for each axis on which this rank has
//! peers. Transfers are enqueued on the default stream, which libtorch uses, so they are ordered with libtorch's own work
//! on the tensors. The two directions of a pipeline have their own streams: a pipeline rank sends forward while the next
//! one sends backward, and on one stream each would wait for the other. Three streams are below the four hardware queues
//! that HIP has by default (GPU_MAX_HW_QUEUES), so that none of them waits behind another.
//!
//! Calls return at once if the library supports it (NCCL 2.14 and later) and are then polled: a lost or stopped peer blocks
//! this rank no longer than `transfer_timeout`. After any error every communicator is aborted.
//!
//! Sends and receives of two ranks that wait for each other belong in one [`Transport::start`].
//!
//! The worker does not use this transport yet, since it has no device to run on; its tests do, with a test double.

use std::sync::Arc;
use std::time::Duration;

use rccl_sys::{Communicator, DeviceStream, Error, Library, UniqueId};
use tch::{Device, Tensor};

use self::communicators::{Communicators, RcclTransfer};
use super::{Axis, Transfer, Transport, TransportError};
use crate::parallel::Mesh;

mod communicators;

/// Exchanges the id of a group: publishes a given id under the group's name, or waits for the id that the group's first
/// rank publishes. Returns the id.
pub type ExchangeId<'a> =
    &'a mut dyn FnMut(&str, Option<[u8; UniqueId::BYTES]>) -> Result<[u8; UniqueId::BYTES], String>;

/// Settings with which a rank joins the others.
#[derive(Clone, Debug)]
pub struct RcclOptions {
    pub library: Arc<Library>,
    /// The device of the tensors.
    pub device: Device,
    pub mesh: Mesh,
    pub rank: usize,
    /// How long a rank waits for the others to join; they may have to load libraries first.
    pub join_timeout: Duration,
    /// How long a transfer waits for its peers.
    pub transfer_timeout: Duration,
}

/// Connects the ranks of a mesh through RCCL.
#[derive(Debug)]
pub struct Rccl {
    communicators: Arc<Communicators>,
    /// Ranks of each axis, by their rank in its communicator.
    groups: [Vec<usize>; AXES.len()],
    rank: usize,
    size: usize,
    device: Device,
}

const AXES: [Axis; 5] = [Axis::Tensor, Axis::Forward, Axis::Backward, Axis::Data, Axis::World];

/// The ranks in a rank's group on an axis, including itself.
fn group(mesh: &Mesh, rank: usize, axis: Axis) -> Vec<usize> {
    let at = mesh.coordinates(rank);
    match axis {
        Axis::Tensor => mesh.tensor_ranks(at),
        Axis::Forward | Axis::Backward => (0..mesh.pipeline)
            .map(|pp_rank| mesh.on_pipeline_rank(at, pp_rank))
            .collect(),
        Axis::Data => mesh.data_ranks(at),
        Axis::World => (0..mesh.world()).collect(),
    }
}

impl Rccl {
    /// Joins the other ranks of the mesh, which call this at the same time.
    ///
    /// # Errors
    /// [`TransportError::Join`] with the cause; also if not all ranks join within `join_timeout`.
    pub fn join(options: &RcclOptions, exchange: ExchangeId<'_>) -> Result<Self, TransportError> {
        let groups = AXES.map(|axis| group(&options.mesh, options.rank, axis));
        Ok(Self {
            communicators: Arc::new(Communicators::join(options, &groups, exchange)?),
            groups,
            rank: options.rank,
            size: options.mesh.world(),
            device: options.device,
        })
    }

    /// Fails unless the tensor is contiguous and on this transport's device.
    fn check(&self, tensor: &Tensor) -> Result<(), TransportError> {
        if !tensor.is_contiguous() {
            return Err(TransportError::Strided(tensor.size()));
        }
        let (there, here) = (tensor.device(), self.device);
        if there == here {
            return Ok(());
        }
        Err(TransportError::Other(format!(
            "a transport on {here:?} cannot send a tensor on {there:?}"
        )))
    }

    /// Checks tensors, drops empty ones, and looks up each peer's number in the communicator.
    fn addressed<'a>(
        &self,
        axis: Axis,
        transfers: &[(usize, &'a Tensor)],
    ) -> Result<Vec<(u32, &'a Tensor)>, TransportError> {
        let mut addressed = Vec::new();
        for &(peer, tensor) in transfers {
            self.check(tensor)?;
            let found = self.groups[axis as usize].iter().position(|&rank| rank == peer);
            match found.filter(|_| peer != self.rank) {
                Some(_) if tensor.numel() == 0 => {}
                Some(number) => addressed.push((number as u32, tensor)),
                None => {
                    let own = self.rank;
                    return Err(TransportError::Other(format!(
                        "rank {peer} is not a peer of rank {own} on the {axis:?} axis"
                    )));
                }
            }
        }
        Ok(addressed)
    }

    /// Enqueues calls on the stream of an axis. Returns a transfer that waits for them and keeps the tensors until
    /// then.
    fn launch(
        &self,
        axis: Axis,
        peers: Vec<usize>,
        tensors: Vec<Tensor>,
        calls: impl FnOnce(&Communicator, &DeviceStream) -> Result<(), Error>,
    ) -> Result<RcclTransfer, TransportError> {
        let done = self.communicators.launch(axis, &peers, calls)?;
        Ok(RcclTransfer::new(
            Arc::clone(&self.communicators),
            axis,
            peers,
            done,
            tensors,
        ))
    }
}

impl Transport for Rccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let mut peers: Vec<usize> = sends.iter().chain(receives).map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let (sends, receives) = (self.addressed(axis, sends)?, self.addressed(axis, receives)?);
        let tensors: Vec<Tensor> = sends
            .iter()
            .chain(&receives)
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect();
        if tensors.is_empty() {
            return Ok(Box::new(EmptyTransfer));
        }
        let library = self.communicators.library();
        let transfer = self.launch(axis, peers, tensors, |communicator, stream| {
            library.group(|| {
                for (peer, tensor) in &sends {
                    // SAFETY: the tensor is contiguous and on the device; it is kept until the transfer has completed
                    // or was aborted, and the caller does not write to it before.
                    unsafe { communicator.send(tensor.data_ptr(), bytes(tensor), *peer, stream)? };
                }
                for (peer, tensor) in &receives {
                    // SAFETY: as above; the caller does not read it before.
                    unsafe { communicator.receive(tensor.data_ptr(), bytes(tensor), *peer, stream)? };
                }
                Ok(())
            })
        })?;
        Ok(Box::new(transfer))
    }
}

/// A transfer of no bytes.
#[derive(Debug)]
struct EmptyTransfer;

impl Transfer for EmptyTransfer {
    fn wait(self: Box<Self>) -> Result<(), TransportError> {
        Ok(())
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}
