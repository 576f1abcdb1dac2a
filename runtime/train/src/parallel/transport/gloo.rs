//! Transfers between processes, on one or several hosts, through the Gloo in libtorch.
//!
//! This module keeps two things from Gloo that it does not check. A message longer than the receive buffer ends the
//! process, so the tag of a message contains its length: unequal messages do not match, and both ranks report a peer
//! that does not answer. Gloo treats a strided tensor as contiguous, so strided tensors are refused.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use c10d_sys::{Error, ErrorKind, ProcessGroup, Work};
use tch::{Device, Tensor};

use super::checks::{DROPPED, PeerBuffer, buffers, earlier, torch};
use super::store::{RendezvousStore, join};
use super::{Axis, Transfer, Transport, TransportError};

/// Longer messages are split. A part that moves within `transfer_timeout` shows that the peer is alive. No measurable
/// cost at 64 MiB.
const MAX_MESSAGE: usize = 1 << 24;

/// Tags have 31 bits: the axis, and this many bits for the number of bytes.
const LENGTH_BITS: u32 = 28;
const _: () = assert!(MAX_MESSAGE < 1 << LENGTH_BITS);

/// A tag that no message uses.
const UNUSED_TAG: i32 = 7 << LENGTH_BITS;

/// One rank's end of a full mesh of TCP connections.
///
/// Empty messages are not sent. After an error the connections are closed, so that peers notice at once.
#[derive(Debug)]
pub struct Gloo {
    link: Arc<GlooLink>,
}

#[derive(Debug)]
struct GlooLink {
    rank: usize,
    size: usize,
    transfer_timeout: Duration,
    state: Mutex<GlooState>,
}

#[derive(Debug)]
enum GlooState {
    Open(ProcessGroup),
    Failed(String),
}

impl Gloo {
    /// Connects to the other ranks of the group `name`.
    ///
    /// A process has one group for each thread that communicates. Groups share a store under names that are used once.
    /// `address` is this machine's, as the others reach it. `transfer_timeout` is how long a transfer waits for a peer
    /// without any message, or part of one, completing.
    ///
    /// # Errors
    /// [`TransportError::Join`] with the ranks that did not join.
    pub fn join(
        rank: usize,
        size: usize,
        store: &RendezvousStore,
        name: &str,
        address: IpAddr,
        transfer_timeout: Duration,
    ) -> Result<Self, TransportError> {
        if rank >= size {
            return Err(TransportError::Join(format!("rank {rank} of {size} does not exist")));
        }
        let patience = store.limit();
        let store = store.wait_for_all(name, rank, size)?;
        // Gloo waits five times as long as configured for a peer that does not connect.
        let group = ProcessGroup::new(&store, rank, size, address, patience / 5).map_err(join)?;
        let link = GlooLink {
            rank,
            size,
            transfer_timeout,
            state: Mutex::new(GlooState::Open(group)),
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
        let receives = buffers(link.rank, link.size, receives)?;
        let sends = buffers(link.rank, link.size, sends)?;
        let mut works = Vec::new();
        let mut state = link.state();
        let group = state.open()?;
        // Receives first: a message moves when its receiver is ready.
        let posted = link
            .post(group, ProcessGroup::receive, axis, &receives, &mut works)
            .and_then(|()| link.post(group, ProcessGroup::send, axis, &sends, &mut works));
        if let Err(failure) = posted {
            drop(works);
            *state = GlooState::Failed(failure.to_string());
            return Err(failure);
        }
        drop(state);
        Ok(Box::new(GlooTransfer {
            link: Arc::clone(link),
            works,
        }))
    }
}

#[derive(Debug)]
struct GlooTransfer {
    link: Arc<GlooLink>,
    /// With their peers.
    works: Vec<(usize, Work)>,
}

impl Transfer for GlooTransfer {
    fn wait(mut self: Box<Self>) -> Result<(), TransportError> {
        let works = std::mem::take(&mut self.works);
        self.link.state().open()?;
        for (peer, work) in &works {
            if let Err(error) = work.wait(self.link.transfer_timeout) {
                let mut state = self.link.state();
                let failure = self.link.failure(state.open()?, *peer, &error);
                drop(works);
                *state = GlooState::Failed(failure.to_string());
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
            if let GlooState::Open(_) = *state {
                *state = GlooState::Failed(DROPPED.to_owned());
            }
        }
    }
}

impl GlooState {
    fn open(&self) -> Result<&ProcessGroup, TransportError> {
        match self {
            Self::Open(group) => Ok(group),
            Self::Failed(cause) => Err(earlier(cause)),
        }
    }
}

impl GlooLink {
    fn state(&self) -> MutexGuard<'_, GlooState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts sending or receiving.
    fn post(
        &self,
        group: &ProcessGroup,
        operation: fn(&ProcessGroup, &Tensor, usize, i32) -> Result<Work, Error>,
        axis: Axis,
        buffers: &[PeerBuffer],
        works: &mut Vec<(usize, Work)>,
    ) -> Result<(), TransportError> {
        for PeerBuffer { peer, bytes, length } in buffers {
            for start in (0..*length).step_by(MAX_MESSAGE) {
                let length = MAX_MESSAGE.min(length - start);
                let part = bytes.f_narrow(0, start as i64, length as i64).map_err(torch)?;
                let work = operation(group, &part, *peer, tag(axis, length));
                works.push((*peer, work.map_err(|error| self.failure(group, *peer, &error))?));
            }
        }
        Ok(())
    }

    /// The meaning of a Gloo error in a transfer with `peer`.
    ///
    /// Gloo does not report a message that was in progress when its connection broke (only those that wait to be sent
    /// or received); it runs into `transfer_timeout`. A peer may also be silent because another one was lost. So every
    /// connection is tested, the peer's first: a connection that a time-out did not close returns its error.
    fn failure(&self, group: &ProcessGroup, peer: usize, error: &Error) -> TransportError {
        if error.kind() == ErrorKind::Closed {
            let cause = error.to_string();
            return TransportError::Lost { rank: peer, cause };
        }
        if error.kind() != ErrorKind::Other {
            let byte = Tensor::f_zeros([1], (tch::Kind::Uint8, Device::Cpu));
            let others = (0..self.size).filter(|rank| *rank != self.rank && *rank != peer);
            for rank in std::iter::once(peer).chain(others) {
                if let Ok(byte) = &byte
                    && let Err(error) = group.receive(byte, rank, UNUSED_TAG)
                    && error.kind() == ErrorKind::Closed
                {
                    let cause = error.to_string();
                    return TransportError::Lost { rank, cause };
                }
            }
        }
        match error.kind() {
            ErrorKind::TimedOut => TransportError::Silent {
                rank: peer,
                waited: self.transfer_timeout,
            },
            _ => TransportError::Other(error.to_string()),
        }
    }
}

/// The tag of a message: messages of different axes or lengths do not match.
fn tag(axis: Axis, length: usize) -> i32 {
    let axis = match axis {
        Axis::Tensor => 0,
        Axis::Forward => 1,
        Axis::Backward => 2,
        Axis::Data => 3,
        Axis::World => 4,
    };
    // A length is at most `MAX_MESSAGE`.
    axis << LENGTH_BITS | length as i32
}
