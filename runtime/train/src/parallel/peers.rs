//! Communication of one thread with the same thread of other ranks, axis by axis. Moves bytes; adds nothing.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::transport::{Axis, Transfer, Transport, TransportError};
use super::{Coordinates, Mesh};

/// One tensor of each rank of a group; those of other ranks may still be in transfer.
#[must_use]
#[derive(Debug)]
pub struct PendingParts {
    parts: Vec<Tensor>,
    transfer: Option<Box<dyn Transfer>>,
}

impl PendingParts {
    /// Tensors that are complete already.
    pub fn complete(parts: Vec<Tensor>) -> Self {
        Self { parts, transfer: None }
    }

    /// Waits for all parts and returns them in the order of ranks.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn wait(self) -> Result<Vec<Tensor>, TransportError> {
        if let Some(transfer) = self.transfer {
            transfer.wait()?;
        }
        Ok(self.parts)
    }
}

/// A rank's thread and its connections to other ranks; a single rank has none and exchanges nothing.
#[derive(Debug)]
pub struct Peers {
    mesh: Mesh,
    at: Coordinates,
    transport: Option<Box<dyn Transport>>,
}

fn torch(error: tch::TchError) -> TransportError {
    TransportError::Other(error.to_string().lines().next().unwrap_or_default().to_owned())
}

fn rows(tensor: &Tensor, range: &Range<usize>) -> Result<Tensor, TransportError> {
    tensor
        .f_narrow(0, range.start as i64, range.len() as i64)
        .map_err(torch)
}

impl Peers {
    /// A single worker.
    pub fn alone() -> Self {
        Self {
            mesh: Mesh::ONE,
            at: Mesh::ONE.coordinates(0),
            transport: None,
        }
    }

    /// The ranks of a mesh, which `transport` connects.
    pub fn new(mesh: Mesh, transport: Box<dyn Transport>) -> Self {
        Self {
            mesh,
            at: mesh.coordinates(transport.rank()),
            transport: Some(transport),
        }
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    pub fn at(&self) -> Coordinates {
        self.at
    }

    /// Starts a transfer; none if there is nothing to move.
    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Option<Box<dyn Transfer>>, TransportError> {
        match &self.transport {
            Some(transport) if !(sends.is_empty() && receives.is_empty()) => {
                Ok(Some(transport.start(axis, sends, receives)?))
            }
            _ => Ok(None),
        }
    }

    fn exchange(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<(), TransportError> {
        match self.start(axis, sends, receives)? {
            Some(transfer) => transfer.wait(),
            None => Ok(()),
        }
    }

    /// The tensor ranks with this rank's data and pipeline coordinates, in order.
    pub fn tensor_group(&self) -> RankGroup<'_> {
        self.group(Axis::Tensor, self.mesh.tensor_ranks(self.at), self.at.tensor)
    }

    /// The data-parallel replicas of this rank, in order.
    pub fn data_group(&self) -> RankGroup<'_> {
        self.group(Axis::Data, self.mesh.data_ranks(self.at), self.at.data)
    }

    fn group(&self, axis: Axis, ranks: Vec<usize>, own: usize) -> RankGroup<'_> {
        RankGroup {
            peers: self,
            axis,
            ranks,
            own,
        }
    }

    /// Starts sending activations to the next pipeline rank.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn send_forward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Forward, self.at.pipeline + 1, Some(tensor), None)
    }

    /// Starts receiving activations from the previous pipeline rank.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn receive_forward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Forward, self.at.pipeline.wrapping_sub(1), None, Some(tensor))
    }

    /// Starts sending gradients to the previous pipeline rank.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn send_backward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Backward, self.at.pipeline.wrapping_sub(1), Some(tensor), None)
    }

    /// Starts receiving gradients from the next pipeline rank.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn receive_backward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Backward, self.at.pipeline + 1, None, Some(tensor))
    }

    fn pipe(
        &self,
        axis: Axis,
        pp_rank: usize,
        send: Option<&Tensor>,
        receive: Option<&Tensor>,
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let Some(transport) = self.transport.as_ref().filter(|_| pp_rank < self.mesh.pipeline) else {
            return Err(TransportError::Other(format!("pipeline rank {pp_rank} does not exist")));
        };
        let rank = self.mesh.on_pipeline_rank(self.at, pp_rank);
        let [sends, receives] = [send, receive].map(|tensor| tensor.map(|tensor| (rank, tensor)));
        transport.start(axis, sends.as_slice(), receives.as_slice())
    }

    /// Exchanges the gradient of a tied embedding between the first and the last pipeline rank: sends `own` and
    /// receives `other`, of the same shape.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn exchange_end_gradients(&self, own: &Tensor, other: &Tensor) -> Result<(), TransportError> {
        let pp_rank = self.mesh.pipeline - 1 - self.at.pipeline;
        let rank = self.mesh.on_pipeline_rank(self.at, pp_rank);
        self.exchange(Axis::World, &[(rank, own)], &[(rank, other)])
    }

    /// All-gather of a few bytes over all ranks, in the order of ranks: along one axis after the other.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn all_gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TransportError> {
        let (mesh, at) = (&self.mesh, self.at);
        let pipeline_ranks = (0..mesh.pipeline)
            .map(|pp_rank| mesh.on_pipeline_rank(at, pp_rank))
            .collect();
        let groups = [
            (mesh.tensor_ranks(at), at.tensor),
            (mesh.data_ranks(at), at.data),
            (pipeline_ranks, at.pipeline),
        ];
        groups.into_iter().try_fold(vec![own.to_vec()], |all, (ranks, own)| {
            self.group(Axis::World, ranks, own).all_gather_lists(all)
        })
    }
}

/// This rank and the ranks that differ from it in one coordinate.
#[derive(Debug)]
pub struct RankGroup<'p> {
    peers: &'p Peers,
    axis: Axis,
    ranks: Vec<usize>,
    /// This rank's index in the group.
    own: usize,
}

impl RankGroup<'_> {
    /// Indices of the other ranks.
    fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.ranks.len()).filter(|&i| i != self.own)
    }

    /// Starts an all-to-all of rows: sends rank `i` its rows of `all` (`by_rank[i]`) and receives this rank's rows from
    /// every rank. It is the sending half of a reduce-scatter; the caller adds the parts in the order of the tree.
    ///
    /// Returns this rank's rows of every rank's tensor, in order. `into` are buffers for those of the other ranks.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn start_all_to_all_rows(
        &self,
        all: &Tensor,
        by_rank: &[Range<usize>],
        into: &[Tensor],
    ) -> Result<PendingParts, TransportError> {
        let slices = by_rank
            .iter()
            .map(|range| rows(all, range))
            .collect::<Result<Vec<_>, _>>()?;
        let sends: Vec<_> = self
            .others()
            .filter(|&i| !by_rank[i].is_empty())
            .map(|i| (self.ranks[i], &slices[i]))
            .collect();
        let receives: Vec<_> = self
            .others()
            .zip(into)
            .filter(|_| !by_rank[self.own].is_empty())
            .map(|(i, into)| (self.ranks[i], into))
            .collect();
        let transfer = self.peers.start(self.axis, &sends, &receives)?;
        let mut received = into.iter().map(Tensor::shallow_clone);
        let part = |i: usize| {
            if i == self.own {
                Some(slices[i].shallow_clone())
            } else {
                received.next()
            }
        };
        let parts = (0..self.ranks.len()).filter_map(part).collect();
        Ok(PendingParts { parts, transfer })
    }

    /// All-gather of rows in place: sends this rank's rows of `all` (`by_rank`) and receives the rows of the other
    /// ranks.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn all_gather_rows(&self, all: &Tensor, by_rank: &[Range<usize>]) -> Result<(), TransportError> {
        if self.ranks.len() == 1 {
            return Ok(());
        }
        let slices = by_rank
            .iter()
            .map(|range| rows(all, range))
            .collect::<Result<Vec<_>, _>>()?;
        let some = |i: usize| !by_rank[i].is_empty();
        let receives: Vec<_> = self
            .others()
            .filter(|&i| some(i))
            .map(|i| (self.ranks[i], &slices[i]))
            .collect();
        let sends: Vec<_> = self
            .others()
            .filter(|_| some(self.own))
            .map(|i| (self.ranks[i], &slices[self.own]))
            .collect();
        self.peers.exchange(self.axis, &sends, &receives)
    }

    /// All-gather of one tensor of the same shape per rank, in order.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn all_gather(&self, own: &Tensor) -> Result<Vec<Tensor>, TransportError> {
        let buffer = |i: usize| {
            if i == self.own {
                Ok(own.shallow_clone())
            } else {
                own.f_empty_like().map_err(torch)
            }
        };
        let all = (0..self.ranks.len()).map(buffer).collect::<Result<Vec<_>, _>>()?;
        let sends: Vec<_> = self.others().map(|i| (self.ranks[i], own)).collect();
        let receives: Vec<_> = self.others().map(|i| (self.ranks[i], &all[i])).collect();
        self.peers.exchange(self.axis, &sends, &receives)?;
        Ok(all)
    }

    /// All-gather of lists of byte strings; all lists have the same length.
    fn all_gather_lists(&self, list: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, TransportError> {
        if self.ranks.len() == 1 {
            return Ok(list);
        }
        let lengths: Vec<i64> = list.iter().map(|bytes| bytes.len() as i64).collect();
        let lengths = self.all_gather(&Tensor::f_from_slice(&lengths).map_err(torch)?)?;
        let lengths = lengths
            .iter()
            .map(|lengths| Vec::<i64>::try_from(lengths).map_err(torch))
            .collect::<Result<Vec<_>, _>>()?;
        let mut total = 0;
        let ranges: Vec<Range<usize>> = lengths
            .iter()
            .map(|lengths| {
                let start = total;
                total += lengths.iter().sum::<i64>() as usize;
                start..total
            })
            .collect();
        let all = Tensor::f_empty([total as i64], (Kind::Uint8, Device::Cpu)).map_err(torch)?;
        let own = Tensor::f_from_slice(&list.concat()).map_err(torch)?;
        rows(&all, &ranges[self.own])?.f_copy_(&own).map_err(torch)?;
        self.all_gather_rows(&all, &ranges)?;
        let all = Vec::<u8>::try_from(&all).map_err(torch)?;
        let mut rest = &all[..];
        let element = |&length: &i64| {
            let (bytes, later) = rest.split_at(length as usize);
            rest = later;
            bytes.to_vec()
        };
        Ok(lengths.iter().flatten().map(element).collect())
    }
}
