//! Transfers between processes, on one host or several, through the Gloo that is part of libtorch.
//!
//! Two things that Gloo does not survive are kept from it. A message that is longer than the memory it is received into
//! ends the process, so the tag of a message holds its length: two that differ never meet, and both ranks see a peer that
//! does not answer. A tensor with gaps is taken for one without, so none gets through.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use c10d_sys::{Error, Group, Kind, Work};
use tch::{Device, Tensor};

use super::checks::{DROPPED, Part, check, earlier, parts, torch};
use super::store::{Store, join};
use super::{Axis, Transfer, Transport, TransportError};

/// Longer messages are cut. A piece that moves within the time limit shows that the peer is alive. Costs nothing that
/// could be measured at 64 MiB.
const PIECE: usize = 1 << 24;

/// Tags are 31 bits: the axis, and this many bits for the number of bytes.
const LENGTH_BITS: u32 = 28;
const _: () = assert!(PIECE < 1 << LENGTH_BITS);

/// A tag that no message has.
const NEVER: i32 = 7 << LENGTH_BITS;

/// One rank's end of a full mesh of TCP connections.
///
/// Messages without bytes are not sent. After an error the connections are closed, so that peers see it at once.
#[derive(Debug)]
pub struct Gloo {
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    rank: usize,
    size: usize,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Group),
    Failed(String),
}

impl Gloo {
    /// Connects to the other ranks of the group `name`.
    ///
    /// Groups share a store, under names that are used once: a process has one group for each thread that communicates.
    /// `address` is this machine's as the others reach it. `limit` is how long a transfer waits for a peer without a
    /// message, or a piece of one, coming to its end.
    ///
    /// # Errors
    /// [`TransportError::Join`], which names the ranks that have not come.
    pub fn join(
        rank: usize,
        size: usize,
        store: &Store,
        name: &str,
        address: IpAddr,
        limit: Duration,
    ) -> Result<Self, TransportError> {
        if rank >= size {
            return Err(TransportError::Join(format!("there is no rank {rank} of {size}")));
        }
        let patience = store.limit();
        let store = store.gather(name, rank, size)?;
        // Gloo waits five times as long as it is told for a peer that does not connect.
        let group = Group::new(&store, rank, size, address, patience / 5).map_err(join)?;
        let link = Link {
            rank,
            size,
            limit,
            state: Mutex::new(State::Open(group)),
        };
        Ok(Self { link: Arc::new(link) })
    }
}

impl Transport for Gloo {
    fn rank(&self) -> usize {
        self.link.rank
    }

    fn size(&self) -> usize {
        self.link.size
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let link = &self.link;
        let receives = parts(link.rank, link.size, receives)?;
        let sends = parts(link.rank, link.size, sends)?;
        let mut works = Vec::new();
        let mut state = link.state();
        let group = state.open()?;
        // Receives first: a message moves once its receiver is ready.
        let posted = link
            .post(group, Group::receive, axis, &receives, &mut works)
            .and_then(|()| link.post(group, Group::send, axis, &sends, &mut works));
        if let Err(failure) = posted {
            drop(works);
            *state = State::Failed(failure.to_string());
            return Err(failure);
        }
        drop(state);
        Ok(Box::new(GlooTransfer {
            link: Arc::clone(link),
            works,
        }))
    }

    /// Under [`Axis::World`] alone, since there is one group; 16-bit floats are added as such at each hop.
    fn sum(&self, axis: Axis, tensor: &Tensor) -> Result<bool, TransportError> {
        if axis != Axis::World {
            return Ok(false);
        }
        check(tensor)?;
        self.agree(tensor)?;
        let mut state = self.link.state();
        let group = state.open()?;
        if let Err(error) = group.sum(tensor, self.link.limit) {
            let failure = self.link.failure(group, None, &error);
            *state = State::Failed(failure.to_string());
            return Err(failure);
        }
        Ok(true)
    }
}

impl Gloo {
    /// Sees to it that neighbours are about to sum the same shape: Gloo's ring moves data between them.
    fn agree(&self, tensor: &Tensor) -> Result<(), TransportError> {
        let (rank, size) = (self.link.rank, self.link.size);
        if size == 1 {
            return Ok(());
        }
        let kind = tensor.f_kind().map_err(torch)?;
        let mine = Tensor::f_from_slice(&[kind as i64, tensor.numel() as i64]).map_err(torch)?;
        let theirs = mine.f_empty_like().map_err(torch)?;
        let previous = (rank + size - 1) % size;
        self.exchange(Axis::World, &[((rank + 1) % size, &mine)], &[(previous, &theirs)])?;
        if mine.f_equal(&theirs).map_err(torch)? {
            return Ok(());
        }
        let text = format!("rank {previous} sums another kind or number of elements than rank {rank}");
        *self.link.state() = State::Failed(text.clone());
        Err(TransportError::Other(text))
    }
}

#[derive(Debug)]
struct GlooTransfer {
    link: Arc<Link>,
    /// With the peer of each.
    works: Vec<(usize, Work)>,
}

impl Transfer for GlooTransfer {
    fn wait(mut self: Box<Self>) -> Result<(), TransportError> {
        let works = std::mem::take(&mut self.works);
        self.link.state().open()?;
        for (peer, work) in &works {
            if let Err(error) = work.wait(self.link.limit) {
                let mut state = self.link.state();
                let failure = self.link.failure(state.open()?, Some(*peer), &error);
                drop(works);
                *state = State::Failed(failure.to_string());
                return Err(failure);
            }
        }
        Ok(())
    }
}

impl Drop for GlooTransfer {
    fn drop(&mut self) {
        if !self.works.is_empty() {
            self.works.clear();
            let mut state = self.link.state();
            if let State::Open(_) = *state {
                *state = State::Failed(DROPPED.to_owned());
            }
        }
    }
}

impl State {
    fn open(&self) -> Result<&Group, TransportError> {
        match self {
            Self::Open(group) => Ok(group),
            Self::Failed(cause) => Err(earlier(cause)),
        }
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts sending or receiving.
    fn post(
        &self,
        group: &Group,
        way: fn(&Group, &Tensor, usize, i32) -> Result<Work, Error>,
        axis: Axis,
        parts: &[Part],
        works: &mut Vec<(usize, Work)>,
    ) -> Result<(), TransportError> {
        for Part { peer, bytes, length } in parts {
            for start in (0..*length).step_by(PIECE) {
                let length = PIECE.min(length - start);
                let piece = bytes.f_narrow(0, start as i64, length as i64).map_err(torch)?;
                let work = way(group, &piece, *peer, tag(axis, length));
                works.push((*peer, work.map_err(|error| self.failure(group, Some(*peer), &error))?));
            }
        }
        Ok(())
    }

    /// What an error of Gloo means, in a transfer with `peer` or with all.
    ///
    /// A message that was on its way when its connection broke is not told (only those that wait to be sent or received
    /// are) and runs into the time limit. And a peer may be silent because another one has gone. So the connections are
    /// asked, the peer's first: one that a time-out has not closed says so.
    fn failure(&self, group: &Group, peer: Option<usize>, error: &Error) -> TransportError {
        if let (Kind::Closed, Some(rank)) = (error.kind(), peer) {
            let cause = error.to_string();
            return TransportError::Gone { rank, cause };
        }
        if error.kind() != Kind::Other {
            let byte = Tensor::f_zeros([1], (tch::Kind::Uint8, Device::Cpu));
            let others = (0..self.size).filter(|rank| *rank != self.rank && Some(*rank) != peer);
            for rank in peer.into_iter().chain(others) {
                if let Ok(byte) = &byte
                    && let Err(error) = group.receive(byte, rank, NEVER)
                    && error.kind() == Kind::Closed
                {
                    let cause = error.to_string();
                    return TransportError::Gone { rank, cause };
                }
            }
        }
        match (error.kind(), peer) {
            (Kind::TimedOut, Some(rank)) => TransportError::Silent {
                rank,
                waited: self.limit,
            },
            _ => TransportError::Other(error.to_string()),
        }
    }
}

/// The tag of a piece: pieces of different axes or lengths never meet.
fn tag(axis: Axis, length: usize) -> i32 {
    let axis = match axis {
        Axis::Tensor => 0,
        Axis::Forward => 1,
        Axis::Backward => 2,
        Axis::Data => 3,
        Axis::World => 4,
    };
    // A length is at most `PIECE`.
    axis << LENGTH_BITS | length as i32
}
