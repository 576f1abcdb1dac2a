//! What one thread of a rank says to the same thread of other ranks, axis by axis. Bytes move; nothing is added here.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::transport::{Axis, Transfer, Transport, TransportError};
use super::{Coordinates, Mesh};

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

    fn exchange(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<(), TransportError> {
        match &self.transport {
            Some(transport) if !(sends.is_empty() && receives.is_empty()) => transport.exchange(axis, sends, receives),
            _ => Ok(()),
        }
    }

    /// Sends each tensor rank its rows of `whole` (`shares`, by tensor rank), and receives this rank's rows from each.
    ///
    /// Returns this rank's rows of every tensor rank's tensor, in their order. `into` are buffers for those of the others.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn scatter_rows(
        &self,
        whole: &Tensor,
        shares: &[Range<usize>],
        into: &[Tensor],
    ) -> Result<Vec<Tensor>, TransportError> {
        self.scatter(
            Axis::Tensor,
            &self.mesh.tensor_ranks(self.at),
            self.at.tensor,
            whole,
            shares,
            into,
        )
    }

    /// Fills the other tensor ranks' rows of `whole` (`shares`, by tensor rank), and sends them this rank's.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn gather_rows(&self, whole: &Tensor, shares: &[Range<usize>]) -> Result<(), TransportError> {
        self.gather(
            Axis::Tensor,
            &self.mesh.tensor_ranks(self.at),
            self.at.tensor,
            whole,
            shares,
        )
    }

    /// As [`Peers::gather_rows`], over the data axis.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn gather_replicas(&self, whole: &Tensor, shares: &[Range<usize>]) -> Result<(), TransportError> {
        self.gather(Axis::Data, &self.mesh.data_ranks(self.at), self.at.data, whole, shares)
    }

    fn gather(
        &self,
        axis: Axis,
        ranks: &[usize],
        own: usize,
        whole: &Tensor,
        shares: &[Range<usize>],
    ) -> Result<(), TransportError> {
        if ranks.len() == 1 {
            return Ok(());
        }
        let slices = shares
            .iter()
            .map(|share| rows(whole, share))
            .collect::<Result<Vec<_>, _>>()?;
        let filled = |i: &usize| *i != own && !shares[*i].is_empty();
        let receives: Vec<_> = (0..ranks.len())
            .filter(filled)
            .map(|i| (ranks[i], &slices[i]))
            .collect();
        let sends: Vec<_> = (0..ranks.len())
            .filter(|&i| i != own && !shares[own].is_empty())
            .map(|i| (ranks[i], &slices[own]))
            .collect();
        self.exchange(axis, &sends, &receives)
    }

    /// Sends each replica its share of `whole`, and receives this replica's from each; results as
    /// [`Peers::scatter_rows`].
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn scatter_replicas(
        &self,
        whole: &Tensor,
        shares: &[Range<usize>],
        into: &[Tensor],
    ) -> Result<Vec<Tensor>, TransportError> {
        self.scatter(
            Axis::Data,
            &self.mesh.data_ranks(self.at),
            self.at.data,
            whole,
            shares,
            into,
        )
    }

    fn scatter(
        &self,
        axis: Axis,
        ranks: &[usize],
        own: usize,
        whole: &Tensor,
        shares: &[Range<usize>],
        into: &[Tensor],
    ) -> Result<Vec<Tensor>, TransportError> {
        let slices = shares
            .iter()
            .map(|share| rows(whole, share))
            .collect::<Result<Vec<_>, _>>()?;
        let others = || (0..ranks.len()).filter(|&i| i != own);
        let sends: Vec<_> = others()
            .filter(|&i| !shares[i].is_empty())
            .map(|i| (ranks[i], &slices[i]))
            .collect();
        let receives: Vec<_> = others()
            .zip(into)
            .filter(|_| !shares[own].is_empty())
            .map(|(i, into)| (ranks[i], into))
            .collect();
        self.exchange(axis, &sends, &receives)?;
        let mut received = into.iter().map(Tensor::shallow_clone);
        let part = |i: usize| {
            if i == own {
                Some(slices[i].shallow_clone())
            } else {
                received.next()
            }
        };
        Ok((0..ranks.len()).filter_map(part).collect())
    }

    /// Shares one tensor of every tensor rank with all of them; all have one shape. In their order.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn share(&self, own: &Tensor) -> Result<Vec<Tensor>, TransportError> {
        self.share_along(Axis::Tensor, &self.mesh.tensor_ranks(self.at), self.at.tensor, own)
    }

    /// As [`Peers::share`], over the data axis.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn share_replicas(&self, own: &Tensor) -> Result<Vec<Tensor>, TransportError> {
        self.share_along(Axis::Data, &self.mesh.data_ranks(self.at), self.at.data, own)
    }

    fn share_along(&self, axis: Axis, ranks: &[usize], at: usize, own: &Tensor) -> Result<Vec<Tensor>, TransportError> {
        let room = |i: usize| {
            if i == at {
                Ok(own.shallow_clone())
            } else {
                own.f_empty_like().map_err(torch)
            }
        };
        let all = (0..ranks.len()).map(room).collect::<Result<Vec<_>, _>>()?;
        let others = |i: &usize| *i != at;
        let sends: Vec<_> = (0..ranks.len()).filter(others).map(|i| (ranks[i], own)).collect();
        let receives: Vec<_> = (0..ranks.len()).filter(others).map(|i| (ranks[i], &all[i])).collect();
        self.exchange(axis, &sends, &receives)?;
        Ok(all)
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
        let Mesh { tensor, data, pipeline } = self.mesh;
        let mut all = vec![own.to_vec()];
        let lines = [
            (tensor, self.at.tensor, self.mesh.tensor_ranks(self.at)),
            (data, self.at.data, self.mesh.data_ranks(self.at)),
            (
                pipeline,
                self.at.pipeline,
                (0..pipeline).map(|stage| self.mesh.at_stage(self.at, stage)).collect(),
            ),
        ];
        for (size, own, ranks) in lines {
            if size > 1 {
                all = self.gather_line(&all, own, &ranks)?;
            }
        }
        Ok(all)
    }

    /// The lists of every rank of a line, one after another.
    fn gather_line(&self, list: &[Vec<u8>], own: usize, ranks: &[usize]) -> Result<Vec<Vec<u8>>, TransportError> {
        let count = list.len();
        let lengths: Vec<i64> = list.iter().map(|bytes| bytes.len() as i64).collect();
        let lengths = Tensor::f_from_slice(&lengths).map_err(torch)?;
        let others: Vec<usize> = (0..ranks.len()).filter(|&i| i != own).collect();
        let theirs = others
            .iter()
            .map(|_| lengths.f_empty_like().map_err(torch))
            .collect::<Result<Vec<_>, _>>()?;
        let sends: Vec<_> = others.iter().map(|&i| (ranks[i], &lengths)).collect();
        let receives: Vec<_> = others.iter().zip(&theirs).map(|(&i, t)| (ranks[i], t)).collect();
        self.exchange(Axis::World, &sends, &receives)?;
        let theirs = theirs
            .iter()
            .map(|lengths| Vec::<i64>::try_from(lengths).map_err(torch))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = Tensor::f_from_slice(&list.concat()).map_err(torch)?;
        let buffers = theirs
            .iter()
            .map(|lengths| {
                let total: i64 = lengths.iter().sum();
                Tensor::f_empty([total], (Kind::Uint8, tch::Device::Cpu)).map_err(torch)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let some = |tensor: &Tensor| tensor.numel() > 0;
        let sends: Vec<_> = others
            .iter()
            .filter(|_| some(&bytes))
            .map(|&i| (ranks[i], &bytes))
            .collect();
        let receives: Vec<_> = others
            .iter()
            .zip(&buffers)
            .filter(|(_, buffer)| some(buffer))
            .map(|(&i, buffer)| (ranks[i], buffer))
            .collect();
        self.exchange(Axis::World, &sends, &receives)?;
        let mut received = theirs.iter().zip(&buffers);
        let mut all = Vec::with_capacity(count * ranks.len());
        for i in 0..ranks.len() {
            if i == own {
                all.extend_from_slice(list);
                continue;
            }
            let Some((lengths, buffer)) = received.next() else {
                continue;
            };
            let buffer = Vec::<u8>::try_from(buffer).map_err(torch)?;
            let mut rest = &buffer[..];
            for &length in lengths {
                let (bytes, later) = rest.split_at(length as usize);
                all.push(bytes.to_vec());
                rest = later;
            }
        }
        Ok(all)
    }
}
