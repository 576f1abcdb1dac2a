//! [`Transport`] over RCCL (or NCCL): bytes between the memories of devices.
//!
//! In: a loaded library, a mesh, a way to hand ids round. Out: one communicator for each axis on which this rank has
//! peers. Everything is put on the default stream, which libtorch uses, so that it is ordered with libtorch's own work on
//! the tensors. The two directions of a pipeline have streams of their own beside it: a stage sends forward while the next
//! one sends backward, and on one stream each would wait for the other. Three streams stay below the four hardware queues
//! that HIP has by default (GPU_MAX_HW_QUEUES), so that none of them waits behind another after all.
//!
//! Calls come back at once where the library can do that (NCCL 2.14 and later), and are then asked after: no peer that has
//! gone or stands still holds this rank for longer than the time limit. After any error every communicator is aborted.
//!
//! Sends and receives of two ranks that wait for one another belong into one [`Transport::start`].

use std::sync::Arc;
use std::time::Duration;

use rccl_sys::{Communicator, DataType, Error, Library, Stream, UniqueId};
use tch::{Device, Kind, Tensor};

use self::lanes::{Lanes, UnderWay};
use super::{Axis, Transfer, Transport, TransportError};
use crate::parallel::Mesh;

mod lanes;

/// Hands the id of a group round: given an id, publishes it under the group's name; given none, waits for what the group's
/// first rank has published. Gives the id.
pub type ShareId<'a> = &'a mut dyn FnMut(&str, Option<[u8; UniqueId::BYTES]>) -> Result<[u8; UniqueId::BYTES], String>;

/// What a rank needs to join the others.
#[derive(Clone, Debug)]
pub struct Joining {
    pub library: Arc<Library>,
    /// Where the tensors are.
    pub device: Device,
    pub mesh: Mesh,
    pub rank: usize,
    /// How long a rank waits for the others to come; they may have to load much before.
    pub join_limit: Duration,
    /// How long a rank waits for its peers once they have joined, each time.
    pub limit: Duration,
}

/// Connects the ranks of a mesh through RCCL.
#[derive(Debug)]
pub struct Rccl {
    lanes: Arc<Lanes>,
    /// Ranks of each axis, by their rank in its communicator.
    groups: [Vec<usize>; AXES.len()],
    rank: usize,
    size: usize,
    device: Device,
}

const AXES: [Axis; 5] = [Axis::Tensor, Axis::Forward, Axis::Backward, Axis::Data, Axis::World];

/// The ranks that a rank meets on an axis, itself among them.
fn group(mesh: &Mesh, rank: usize, axis: Axis) -> Vec<usize> {
    let at = mesh.coordinates(rank);
    match axis {
        Axis::Tensor => mesh.tensor_ranks(at),
        Axis::Forward | Axis::Backward => (0..mesh.pipeline).map(|stage| mesh.at_stage(at, stage)).collect(),
        Axis::Data => mesh.data_ranks(at),
        Axis::World => (0..mesh.world()).collect(),
    }
}

impl Rccl {
    /// Joins the other ranks of the mesh; all call this at the same time.
    ///
    /// # Errors
    /// [`TransportError::Join`] with the cause; also where not all ranks have come within their limit.
    pub fn join(joining: &Joining, share: ShareId<'_>) -> Result<Self, TransportError> {
        let groups = AXES.map(|axis| group(&joining.mesh, joining.rank, axis));
        Ok(Self {
            lanes: Arc::new(Lanes::join(joining, &groups, share)?),
            groups,
            rank: joining.rank,
            size: joining.mesh.world(),
            device: joining.device,
        })
    }

    /// What can be sent as it stands: without gaps, and where this transport's device reaches it.
    fn check(&self, tensor: &Tensor) -> Result<(), TransportError> {
        if !tensor.is_contiguous() {
            return Err(TransportError::Strided(tensor.size()));
        }
        let (there, here) = (tensor.device(), self.device);
        if there == here {
            return Ok(());
        }
        Err(TransportError::Other(format!(
            "a tensor on {there:?} does not go through a transport on {here:?}"
        )))
    }

    /// Checks tensors, drops empty ones, and finds each one's peer in the communicator.
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
                        "rank {peer} is no peer of rank {own} on the {axis:?} axis"
                    )));
                }
            }
        }
        Ok(addressed)
    }

    /// Puts calls on the stream of an axis. Gives what waits for them, and keeps the tensors until then.
    fn launch(
        &self,
        axis: Axis,
        peers: Vec<usize>,
        tensors: Vec<Tensor>,
        calls: impl FnOnce(&Communicator, &Stream) -> Result<(), Error>,
    ) -> Result<UnderWay, TransportError> {
        let done = self.lanes.launch(axis, &peers, calls)?;
        Ok(UnderWay::new(Arc::clone(&self.lanes), axis, peers, done, tensors))
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
            return Ok(Box::new(Nothing));
        }
        let library = self.lanes.library();
        let under_way = self.launch(axis, peers, tensors, |communicator, stream| {
            library.group(|| {
                for (peer, tensor) in &sends {
                    // SAFETY: the tensor is whole and on the device; it is kept until the transfer has been waited for or
                    // aborted, and the caller does not write to it before.
                    unsafe { communicator.send(tensor.data_ptr(), bytes(tensor), *peer, stream)? };
                }
                for (peer, tensor) in &receives {
                    // SAFETY: as above; the caller does not read from it before.
                    unsafe { communicator.receive(tensor.data_ptr(), bytes(tensor), *peer, stream)? };
                }
                Ok(())
            })
        })?;
        Ok(Box::new(under_way))
    }

    /// The sum in RCCL's own order, which depends on the number of ranks and on the machine.
    fn sum(&self, axis: Axis, tensor: &Tensor) -> Result<bool, TransportError> {
        self.check(tensor)?;
        let kind = data_type(tensor.kind())?;
        let peers: Vec<usize> = self.groups[axis as usize]
            .iter()
            .copied()
            .filter(|&rank| rank != self.rank)
            .collect();
        if peers.is_empty() || tensor.numel() == 0 {
            return Ok(true);
        }
        let under_way = self.launch(axis, peers, vec![tensor.shallow_clone()], |communicator, stream| {
            // SAFETY: as in `start`.
            unsafe { communicator.sum(tensor.data_ptr(), tensor.numel(), kind, stream) }
        })?;
        Box::new(under_way).wait()?;
        Ok(true)
    }
}

/// A transfer of no bytes.
#[derive(Debug)]
struct Nothing;

impl Transfer for Nothing {
    fn wait(self: Box<Self>) -> Result<(), TransportError> {
        Ok(())
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn data_type(kind: Kind) -> Result<DataType, TransportError> {
    Ok(match kind {
        Kind::Int8 => DataType::I8,
        Kind::Uint8 => DataType::U8,
        Kind::Int => DataType::I32,
        Kind::Int64 => DataType::I64,
        Kind::Half => DataType::F16,
        Kind::Float => DataType::F32,
        Kind::Double => DataType::F64,
        Kind::BFloat16 => DataType::Bf16,
        other => return Err(TransportError::Other(format!("RCCL takes no sum of {other:?}"))),
    })
}
