//! Communicators, streams and what is under way on them; what happens when something fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rccl_sys::{Communicator, Error, Event, Library, Progress, Stream, UniqueId};
use tch::{Device, Tensor};

use super::{AXES, Joining, ShareId};
use crate::parallel::transport::{Axis, Transfer, TransportError};

/// What a transport shares with its transfers.
#[derive(Debug)]
pub(super) struct Lanes {
    library: Arc<Library>,
    device: Device,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By axis; none where this rank has no peers, and none at all once something has failed.
    lanes: Vec<Option<Lane>>,
    default: Stream,
    /// The end of libtorch's work so far, for streams beside the default one.
    ready: Event,
    /// Why nothing works any more.
    broken: Option<String>,
}

/// The way to the peers of one axis.
#[derive(Debug)]
pub(super) struct Lane {
    communicator: Communicator,
    /// Its own stream; without one, the default.
    stream: Option<Stream>,
}

/// What went wrong with calls or with what they began.
enum Trouble {
    Said(Error),
    /// Nothing happened for so long.
    Late(Duration),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

/// Looks until there is something to see.
fn until(limit: Duration, mut look: impl FnMut() -> Result<bool, Error>) -> Result<(), Trouble> {
    let since = Instant::now();
    let mut looks = 0u32;
    loop {
        // Taken before the look, so that the last look comes after the limit.
        let waited = since.elapsed();
        if look()? {
            return Ok(());
        }
        if waited >= limit {
            return Err(Trouble::Late(waited));
        }
        // Most transfers take less than a millisecond: look again at once, then leave the core to others.
        looks += 1;
        if looks < 256 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn is_settled(communicator: &Communicator) -> Result<bool, Error> {
    communicator.progress().map(|progress| progress == Progress::Done)
}

impl Lane {
    /// Joins the ranks of one axis.
    pub(super) fn join(
        joining: &Joining,
        axis: Axis,
        ranks: &[usize],
        share: ShareId<'_>,
    ) -> Result<Self, TransportError> {
        let failed = |cause: String| TransportError::Join(format!("{axis:?} axis, {}: {cause}", these(ranks)));
        let said = |error: Error| failed(error.to_string());
        let library = &joining.library;
        let own = match ranks[0] == joining.rank {
            true => Some(library.unique_id().map_err(said)?.to_bytes()),
            false => None,
        };
        let name = format!("rccl/{axis:?}/{}", ranks[0]);
        let id = UniqueId::from_bytes(share(&name, own).map_err(failed)?);
        let number = ranks.iter().take_while(|&&rank| rank != joining.rank).count();
        let communicator = Communicator::join(library, id, ranks.len() as u32, number as u32).map_err(said)?;
        until(joining.join_limit, || is_settled(&communicator)).map_err(|trouble| match trouble {
            Trouble::Said(error) => said(error),
            Trouble::Late(waited) => failed(format!("not all have come within {} s", waited.as_secs_f32())),
        })?;
        let stream = match axis {
            Axis::Forward | Axis::Backward => Some(Stream::new(library).map_err(said)?),
            Axis::Tensor | Axis::Data | Axis::World => None,
        };
        Ok(Self { communicator, stream })
    }
}

impl Lanes {
    /// Joins the ranks of every axis that has more than this one.
    pub(super) fn join(
        joining: &Joining,
        groups: &[Vec<usize>; AXES.len()],
        share: ShareId<'_>,
    ) -> Result<Self, TransportError> {
        let said = |error: Error| TransportError::Join(error.to_string());
        let (library, device) = (&joining.library, joining.device);
        // Before anybody waits for this rank's ids: without a device there will be none.
        library.device_count().map_err(said)?;
        use_device(library, device).map_err(said)?;
        let mut lanes = Vec::new();
        for (axis, ranks) in AXES.into_iter().zip(groups) {
            lanes.push(match ranks.len() {
                1 => None,
                _ => Some(Lane::join(joining, axis, ranks, share)?),
            });
        }
        let state = State {
            lanes,
            default: Stream::default_of(library),
            ready: Event::new(library).map_err(said)?,
            broken: None,
        };
        Ok(Self {
            library: Arc::clone(library),
            device,
            limit: joining.limit,
            state: Mutex::new(state),
        })
    }

    pub(super) fn library(&self) -> &Library {
        &self.library
    }

    /// The state, broken or not. A thread that has panicked with it has left it as it was between two calls.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls on the communicator and the stream of an axis, and gives the event that comes after them.
    pub(super) fn launch(
        &self,
        axis: Axis,
        peers: &[usize],
        calls: impl FnOnce(&Communicator, &Stream) -> Result<(), Error>,
    ) -> Result<Event, TransportError> {
        let mut state = self.lock();
        let made = state.lane(axis)?.launch(self, calls);
        made.map_err(|trouble| state.fail(peers, trouble))
    }

    /// Waits for an event on the stream of an axis.
    fn wait(&self, axis: Axis, peers: &[usize], done: &Event) -> Result<(), TransportError> {
        let mut state = self.lock();
        let communicator = &state.lane(axis)?.lane.communicator;
        // Errors of the network and of peers are told by the communicator, those of the device by the event.
        let waited = until(self.limit, || Ok(is_settled(communicator)? && done.is_done()?));
        waited.map_err(|trouble| state.fail(peers, trouble))
    }
}

/// A lane with what it shares with others.
struct Open<'a> {
    lane: &'a Lane,
    default: &'a Stream,
    ready: &'a Event,
}

impl Open<'_> {
    fn launch(
        &self,
        lanes: &Lanes,
        calls: impl FnOnce(&Communicator, &Stream) -> Result<(), Error>,
    ) -> Result<Event, Trouble> {
        use_device(&lanes.library, lanes.device)?;
        let communicator = &self.lane.communicator;
        let stream = self.lane.stream.as_ref().unwrap_or(self.default);
        if self.lane.stream.is_some() {
            self.ready.record(self.default)?;
            stream.wait_for(self.ready)?;
        }
        calls(communicator, stream)?;
        // Before this nothing else may be put on the stream.
        until(lanes.limit, || is_settled(communicator))?;
        let done = Event::new(&lanes.library)?;
        done.record(stream)?;
        Ok(done)
    }
}

impl State {
    fn lane(&self, axis: Axis) -> Result<Open<'_>, TransportError> {
        if let Some(broken) = &self.broken {
            return Err(TransportError::Other(format!(
                "closed after an earlier error: {broken}"
            )));
        }
        match self.lanes.get(axis as usize) {
            Some(Some(lane)) => Ok(Open {
                lane,
                default: &self.default,
                ready: &self.ready,
            }),
            _ => Err(TransportError::Other(format!(
                "there are no peers on the {axis:?} axis"
            ))),
        }
    }

    /// Aborts everything and says what happened with whom.
    fn fail(&mut self, peers: &[usize], trouble: Trouble) -> TransportError {
        let error = match (trouble, peers) {
            (Trouble::Late(waited), &[rank]) => TransportError::Silent { rank, waited },
            (Trouble::Late(waited), _) => {
                let waited = waited.as_secs_f32();
                TransportError::Other(format!("one of {} has not answered for {waited} s", these(peers)))
            }
            (Trouble::Said(error), &[rank]) if error.is_remote() => TransportError::Gone {
                rank,
                cause: error.to_string(),
            },
            (Trouble::Said(error), _) if error.is_remote() => {
                TransportError::Other(format!("one of {} has gone ({error})", these(peers)))
            }
            (Trouble::Said(error), _) => TransportError::Other(format!("with {}: {error}", these(peers))),
        };
        self.abort(match &error {
            TransportError::Other(cause) => cause.clone(),
            error => error.to_string(),
        });
        error
    }

    /// Ends what is under way. All communicators at once: one may wait for work that is queued behind another's.
    fn abort(&mut self, cause: String) {
        self.broken.get_or_insert(cause);
        std::thread::scope(|scope| {
            for lane in self.lanes.drain(..).flatten() {
                scope.spawn(|| drop(lane));
            }
        });
    }
}

impl Drop for Lanes {
    /// Takes leave of the peers, each communicator in the order in which it was joined; aborts where that takes too long.
    fn drop(&mut self) {
        let deadline = Instant::now() + self.limit;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut leave = || -> Result<(), Trouble> {
            for lane in state.lanes.iter_mut().filter_map(Option::take) {
                lane.communicator.finalize()?;
                let left = deadline.saturating_duration_since(Instant::now());
                until(left, || is_settled(&lane.communicator))?;
                lane.communicator.destroy()?;
            }
            Ok(())
        };
        if leave().is_err() {
            state.abort("the peers have not taken leave".to_owned());
        }
    }
}

/// The device is the calling thread's; a test double has its one device in the host's memory.
fn use_device(library: &Library, device: Device) -> Result<(), Error> {
    let index = if let Device::Cuda(index) = device { index } else { 0 };
    library.use_device(index as u32)
}

/// "rank 3", "ranks 1, 2".
fn these(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// Transfers that have been launched.
#[derive(Debug)]
pub(super) struct UnderWay {
    lanes: Arc<Lanes>,
    axis: Axis,
    peers: Vec<usize>,
    done: Event,
    /// Kept until the device has done with them.
    tensors: Vec<Tensor>,
}

impl UnderWay {
    pub(super) fn new(lanes: Arc<Lanes>, axis: Axis, peers: Vec<usize>, done: Event, tensors: Vec<Tensor>) -> Self {
        Self {
            lanes,
            axis,
            peers,
            done,
            tensors,
        }
    }
}

impl Transfer for UnderWay {
    fn wait(mut self: Box<Self>) -> Result<(), TransportError> {
        let waited = self.lanes.wait(self.axis, &self.peers, &self.done);
        // Arrived or aborted: either way the device has done with them.
        self.tensors.clear();
        waited
    }
}

impl Drop for UnderWay {
    /// Without having been waited for, the tensors may still be in use: everything is aborted.
    fn drop(&mut self) {
        if !self.tensors.is_empty() {
            let mut state = self.lanes.lock();
            state.abort("a transfer was dropped before it was waited for".to_owned());
        }
    }
}
