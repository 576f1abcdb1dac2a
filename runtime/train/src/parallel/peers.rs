//! What one thread of a rank says to the same thread of other ranks, axis by axis. Bytes move; nothing is added here.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::transport::{Axis, Transfer, Transport, TransportError};
use super::{Coordinates, Mesh};

/// One tensor of each rank of a line, of which the other ranks' may still be on their way.
#[must_use]
#[derive(Debug)]
pub struct Arriving {
    parts: Vec<Tensor>,
    transfer: Option<Box<dyn Transfer>>,
}

impl Arriving {
    /// What is here already.
    pub fn here(parts: Vec<Tensor>) -> Self {
        Self { parts, transfer: None }
    }

    /// All parts, in the order of ranks.
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

/// A rank's thread and its peers; a rank alone has none and exchanges nothing.
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
    /// One worker.
    pub fn alone() -> Self {
        Self {
            mesh: Mesh::ONE,
            at: Mesh::ONE.coordinates(0),
            transport: None,
        }
    }

    /// The ranks of a mesh; `transport` connects as many.
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

    /// Nothing, if there is nothing to move.
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

    /// The tensor ranks of this rank's replica and stage, in their order.
    pub fn tensor_group(&self) -> Group<'_> {
        self.group(Axis::Tensor, self.mesh.tensor_ranks(self.at), self.at.tensor)
    }

    /// The replicas of what this rank holds, in their order.
    pub fn data_group(&self) -> Group<'_> {
        self.group(Axis::Data, self.mesh.data_ranks(self.at), self.at.data)
    }

    fn group(&self, axis: Axis, ranks: Vec<usize>, own: usize) -> Group<'_> {
        Group {
            peers: self,
            axis,
            ranks,
            own,
        }
    }

    /// Starts sending activations to the next pipeline stage.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn send_forward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Forward, self.at.pipeline + 1, Some(tensor), None)
    }

    /// Starts receiving activations from the stage before.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn receive_forward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Forward, self.at.pipeline.wrapping_sub(1), None, Some(tensor))
    }

    /// Starts sending gradients to the stage before.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn send_backward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Backward, self.at.pipeline.wrapping_sub(1), Some(tensor), None)
    }

    /// Starts receiving gradients from the next stage.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn receive_backward(&self, tensor: &Tensor) -> Result<Box<dyn Transfer>, TransportError> {
        self.pipe(Axis::Backward, self.at.pipeline + 1, None, Some(tensor))
    }

    fn pipe(
        &self,
        axis: Axis,
        stage: usize,
        send: Option<&Tensor>,
        receive: Option<&Tensor>,
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let Some(transport) = self.transport.as_ref().filter(|_| stage < self.mesh.pipeline) else {
            return Err(TransportError::Other("there is no such pipeline stage".to_owned()));
        };
        let rank = self.mesh.at_stage(self.at, stage);
        let [sends, receives] = [send, receive].map(|tensor| tensor.map(|tensor| (rank, tensor)));
        transport.start(axis, sends.as_slice(), receives.as_slice())
    }

    /// Trades a tensor of one shape with the same place of the pipeline's other end: first with last.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn trade_ends(&self, own: &Tensor, other: &Tensor) -> Result<(), TransportError> {
        let stage = self.mesh.pipeline - 1 - self.at.pipeline;
        let rank = self.mesh.at_stage(self.at, stage);
        self.exchange(Axis::World, &[(rank, own)], &[(rank, other)])
    }

    /// Brings a few bytes of every rank to all, in the order of ranks: along one axis after another.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn gather_world(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TransportError> {
        let (mesh, at) = (&self.mesh, self.at);
        let stages = (0..mesh.pipeline).map(|stage| mesh.at_stage(at, stage)).collect();
        let groups = [
            (mesh.tensor_ranks(at), at.tensor),
            (mesh.data_ranks(at), at.data),
            (stages, at.pipeline),
        ];
        groups.into_iter().try_fold(vec![own.to_vec()], |all, (ranks, own)| {
            self.group(Axis::World, ranks, own).gather_lists(all)
        })
    }
}

/// This rank and those that differ from it in one coordinate alone.
#[derive(Debug)]
pub struct Group<'p> {
    peers: &'p Peers,
    axis: Axis,
    ranks: Vec<usize>,
    /// This rank's place in the group.
    own: usize,
}

impl Group<'_> {
    /// Places of the others.
    fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.ranks.len()).filter(|&i| i != self.own)
    }

    /// Starts sending each rank its rows of `whole` (`shares`, by place in the group), and receiving this rank's rows from
    /// each.
    ///
    /// Gives this rank's rows of every rank's tensor, in their order. `into` are buffers for those of the others.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn scatter(
        &self,
        whole: &Tensor,
        shares: &[Range<usize>],
        into: &[Tensor],
    ) -> Result<Arriving, TransportError> {
        let slices = shares
            .iter()
            .map(|share| rows(whole, share))
            .collect::<Result<Vec<_>, _>>()?;
        let sends: Vec<_> = self
            .others()
            .filter(|&i| !shares[i].is_empty())
            .map(|i| (self.ranks[i], &slices[i]))
            .collect();
        let receives: Vec<_> = self
            .others()
            .zip(into)
            .filter(|_| !shares[self.own].is_empty())
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
        Ok(Arriving { parts, transfer })
    }

    /// Fills the other ranks' rows of `whole` (`shares`, by place in the group), and sends them this rank's.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn gather(&self, whole: &Tensor, shares: &[Range<usize>]) -> Result<(), TransportError> {
        if self.ranks.len() == 1 {
            return Ok(());
        }
        let slices = shares
            .iter()
            .map(|share| rows(whole, share))
            .collect::<Result<Vec<_>, _>>()?;
        let some = |i: usize| !shares[i].is_empty();
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

    /// Shares one tensor of every rank with all of them; all have one shape. In their order.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn share(&self, own: &Tensor) -> Result<Vec<Tensor>, TransportError> {
        let room = |i: usize| {
            if i == self.own {
                Ok(own.shallow_clone())
            } else {
                own.f_empty_like().map_err(torch)
            }
        };
        let all = (0..self.ranks.len()).map(room).collect::<Result<Vec<_>, _>>()?;
        let sends: Vec<_> = self.others().map(|i| (self.ranks[i], own)).collect();
        let receives: Vec<_> = self.others().map(|i| (self.ranks[i], &all[i])).collect();
        self.peers.exchange(self.axis, &sends, &receives)?;
        Ok(all)
    }

    /// The lists of all ranks, one after another; all are equally long, whatever their elements.
    fn gather_lists(&self, list: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, TransportError> {
        if self.ranks.len() == 1 {
            return Ok(list);
        }
        let lengths: Vec<i64> = list.iter().map(|bytes| bytes.len() as i64).collect();
        let lengths = self.share(&Tensor::f_from_slice(&lengths).map_err(torch)?)?;
        let lengths = lengths
            .iter()
            .map(|lengths| Vec::<i64>::try_from(lengths).map_err(torch))
            .collect::<Result<Vec<_>, _>>()?;
        let mut total = 0;
        let shares: Vec<Range<usize>> = lengths
            .iter()
            .map(|lengths| {
                let start = total;
                total += lengths.iter().sum::<i64>() as usize;
                start..total
            })
            .collect();
        let whole = Tensor::f_empty([total as i64], (Kind::Uint8, Device::Cpu)).map_err(torch)?;
        let own = Tensor::f_from_slice(&list.concat()).map_err(torch)?;
        rows(&whole, &shares[self.own])?.f_copy_(&own).map_err(torch)?;
        self.gather(&whole, &shares)?;
        let whole = Vec::<u8>::try_from(&whole).map_err(torch)?;
        let mut rest = &whole[..];
        let element = |&length: &i64| {
            let (bytes, later) = rest.split_at(length as usize);
            rest = later;
            bytes.to_vec()
        };
        Ok(lengths.iter().flatten().map(element).collect())
    }
}
