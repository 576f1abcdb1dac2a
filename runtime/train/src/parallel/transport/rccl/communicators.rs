//! Communicators, streams and transfers in progress, and what happens after an error.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rccl_sys::{Communicator, DeviceEvent, DeviceStream, Error, Library, Progress, UniqueId};
use tch::{Device, Tensor};

use super::{AXES, ExchangeId, RcclOptions};
use crate::parallel::transport::{Axis, Transfer, TransportError};

/// State that a transport shares with its transfers.
#[derive(Debug)]
pub(super) struct Communicators {
    library: Arc<Library>,
    device: Device,
    transfer_timeout: Duration,
    state: Mutex<RcclState>,
}

#[derive(Debug)]
struct RcclState {
    /// By axis; none if this rank has no peers there, and empty after an error.
    communicators: Vec<Option<AxisCommunicator>>,
    default: DeviceStream,
    /// Marks the end of libtorch's work so far, for streams other than the default one.
    ready: DeviceEvent,
    /// The first error, after which nothing works.
    broken: Option<String>,
}

/// Communicator of one axis.
#[derive(Debug)]
pub(super) struct AxisCommunicator {
    communicator: Communicator,
    /// Its own stream; the default stream without one.
    stream: Option<DeviceStream>,
}

/// Failure of a call or of the work that it started.
enum CallFailure {
    Library(Error),
    /// The time limit passed.
    Late(Duration),
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// Polls until `poll` returns true.
fn until(limit: Duration, mut poll: impl FnMut() -> Result<bool, Error>) -> Result<(), CallFailure> {
    let since = Instant::now();
    let mut polls = 0u32;
    loop {
        // Measured before polling, so that the last poll is after the limit.
        let waited = since.elapsed();
        if poll()? {
            return Ok(());
        }
        if waited >= limit {
            return Err(CallFailure::Late(waited));
        }
        // Most transfers take less than a millisecond: poll again at once, then yield the core.
        polls += 1;
        if polls < 256 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn is_settled(communicator: &Communicator) -> Result<bool, Error> {
    communicator.progress().map(|progress| progress == Progress::Done)
}

impl AxisCommunicator {
    /// Joins the ranks of one axis.
    pub(super) fn join(
        options: &RcclOptions,
        axis: Axis,
        ranks: &[usize],
        exchange: ExchangeId<'_>,
    ) -> Result<Self, TransportError> {
        let failed = |cause: String| TransportError::Join(format!("{axis:?} axis, {}: {cause}", these(ranks)));
        let failed_call = |error: Error| failed(error.to_string());
        let library = &options.library;
        let own = match ranks[0] == options.rank {
            true => Some(library.unique_id().map_err(failed_call)?.to_bytes()),
            false => None,
        };
        let name = format!("rccl/{axis:?}/{}", ranks[0]);
        let id = UniqueId::from_bytes(exchange(&name, own).map_err(failed)?);
        let number = ranks.iter().take_while(|&&rank| rank != options.rank).count();
        let communicator = Communicator::join(library, id, ranks.len() as u32, number as u32).map_err(failed_call)?;
        until(options.join_timeout, || is_settled(&communicator)).map_err(|failure| match failure {
            CallFailure::Library(error) => failed_call(error),
            CallFailure::Late(waited) => failed(format!("not all ranks joined within {} s", waited.as_secs_f32())),
        })?;
        let stream = match axis {
            Axis::Forward | Axis::Backward => Some(DeviceStream::new(library).map_err(failed_call)?),
            Axis::Tensor | Axis::Data | Axis::World => None,
        };
        Ok(Self { communicator, stream })
    }
}

impl Communicators {
    /// Joins the ranks of every axis that has more than this one.
    pub(super) fn join(
        options: &RcclOptions,
        groups: &[Vec<usize>; AXES.len()],
        exchange: ExchangeId<'_>,
    ) -> Result<Self, TransportError> {
        let failed_call = |error: Error| TransportError::Join(error.to_string());
        let (library, device) = (&options.library, options.device);
        // Before other ranks wait for this rank's ids: without a device there are none.
        library.device_count().map_err(failed_call)?;
        use_device(library, device).map_err(failed_call)?;
        let mut communicators = Vec::new();
        for (axis, ranks) in AXES.into_iter().zip(groups) {
            communicators.push(match ranks.len() {
                1 => None,
                _ => Some(AxisCommunicator::join(options, axis, ranks, exchange)?),
            });
        }
        let state = RcclState {
            communicators,
            default: DeviceStream::default_of(library),
            ready: DeviceEvent::new(library).map_err(failed_call)?,
            broken: None,
        };
        Ok(Self {
            library: Arc::clone(library),
            device,
            transfer_timeout: options.transfer_timeout,
            state: Mutex::new(state),
        })
    }

    pub(super) fn library(&self) -> &Library {
        &self.library
    }

    /// Locks the state. A thread that panicked while it held the lock left it as it was between two calls.
    fn lock(&self) -> MutexGuard<'_, RcclState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls on the communicator and the stream of an axis, and returns the event that follows them.
    pub(super) fn launch(
        &self,
        axis: Axis,
        peers: &[usize],
        calls: impl FnOnce(&Communicator, &DeviceStream) -> Result<(), Error>,
    ) -> Result<DeviceEvent, TransportError> {
        let mut state = self.lock();
        let made = state.channel(axis)?.launch(self, calls);
        made.map_err(|failure| state.fail(peers, failure))
    }

    /// Waits for an event on the stream of an axis.
    fn wait(&self, axis: Axis, peers: &[usize], done: &DeviceEvent) -> Result<(), TransportError> {
        let mut state = self.lock();
        let communicator = &state.channel(axis)?.axis_communicator.communicator;
        // The communicator reports errors of the network and of peers, the event those of the device.
        let waited = until(self.transfer_timeout, || {
            Ok(is_settled(communicator)? && done.is_done()?)
        });
        waited.map_err(|failure| state.fail(peers, failure))
    }
}

/// A communicator with the default stream and the shared event.
struct AxisChannel<'a> {
    axis_communicator: &'a AxisCommunicator,
    default: &'a DeviceStream,
    ready: &'a DeviceEvent,
}

impl AxisChannel<'_> {
    fn launch(
        &self,
        communicators: &Communicators,
        calls: impl FnOnce(&Communicator, &DeviceStream) -> Result<(), Error>,
    ) -> Result<DeviceEvent, CallFailure> {
        use_device(&communicators.library, communicators.device)?;
        let communicator = &self.axis_communicator.communicator;
        let stream = self.axis_communicator.stream.as_ref().unwrap_or(self.default);
        if self.axis_communicator.stream.is_some() {
            self.ready.record(self.default)?;
            stream.wait_for(self.ready)?;
        }
        calls(communicator, stream)?;
        // Before this, nothing else may be enqueued on the stream.
        until(communicators.transfer_timeout, || is_settled(communicator))?;
        let done = DeviceEvent::new(&communicators.library)?;
        done.record(stream)?;
        Ok(done)
    }
}

impl RcclState {
    fn channel(&self, axis: Axis) -> Result<AxisChannel<'_>, TransportError> {
        if let Some(broken) = &self.broken {
            return Err(TransportError::Other(format!(
                "closed after an earlier error: {broken}"
            )));
        }
        match self.communicators.get(axis as usize) {
            Some(Some(axis_communicator)) => Ok(AxisChannel {
                axis_communicator,
                default: &self.default,
                ready: &self.ready,
            }),
            _ => Err(TransportError::Other(format!("rank has no peers on the {axis:?} axis"))),
        }
    }

    /// Aborts everything and returns the error with the peers.
    fn fail(&mut self, peers: &[usize], failure: CallFailure) -> TransportError {
        let error = match (failure, peers) {
            (CallFailure::Late(waited), &[rank]) => TransportError::Silent { rank, waited },
            (CallFailure::Late(waited), _) => {
                let waited = waited.as_secs_f32();
                TransportError::Other(format!("one of {} did not answer for {waited} s", these(peers)))
            }
            (CallFailure::Library(error), &[rank]) if error.is_remote() => TransportError::Lost {
                rank,
                cause: error.to_string(),
            },
            (CallFailure::Library(error), _) if error.is_remote() => {
                TransportError::Other(format!("lost one of {} ({error})", these(peers)))
            }
            (CallFailure::Library(error), _) => TransportError::Other(format!("with {}: {error}", these(peers))),
        };
        self.abort(match &error {
            TransportError::Other(cause) => cause.clone(),
            error => error.to_string(),
        });
        error
    }

    /// Ends transfers in progress. All communicators at once: one may wait for work that is queued behind another's.
    fn abort(&mut self, cause: String) {
        self.broken.get_or_insert(cause);
        std::thread::scope(|scope| {
            for axis_communicator in self.communicators.drain(..).flatten() {
                scope.spawn(|| drop(axis_communicator));
            }
        });
    }
}

impl Drop for Communicators {
    /// Finalizes the communicators in the order in which they were joined; aborts if that takes too long.
    fn drop(&mut self) {
        let deadline = Instant::now() + self.transfer_timeout;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut finalize = || -> Result<(), CallFailure> {
            for axis_communicator in state.communicators.iter_mut().filter_map(Option::take) {
                axis_communicator.communicator.finalize()?;
                let left = deadline.saturating_duration_since(Instant::now());
                until(left, || is_settled(&axis_communicator.communicator))?;
                axis_communicator.communicator.destroy()?;
            }
            Ok(())
        };
        if finalize().is_err() {
            state.abort("the peers did not finalize their communicators".to_owned());
        }
    }
}

/// Sets the calling thread's device; a test double has one device in host memory.
fn use_device(library: &Library, device: Device) -> Result<(), Error> {
    let index = if let Device::Cuda(index) = device { index } else { 0 };
    library.use_device(index as u32)
}

/// "rank 3", "ranks 1, 2".
fn these(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// Enqueued transfers.
#[derive(Debug)]
pub(super) struct RcclTransfer {
    communicators: Arc<Communicators>,
    axis: Axis,
    peers: Vec<usize>,
    done: DeviceEvent,
    /// Kept until the device has finished with them.
    tensors: Vec<Tensor>,
}

impl RcclTransfer {
    pub(super) fn new(
        communicators: Arc<Communicators>,
        axis: Axis,
        peers: Vec<usize>,
        done: DeviceEvent,
        tensors: Vec<Tensor>,
    ) -> Self {
        Self {
            communicators,
            axis,
            peers,
            done,
            tensors,
        }
    }
}

impl Transfer for RcclTransfer {
    fn wait(mut self: Box<Self>) -> Result<(), TransportError> {
        let waited = self.communicators.wait(self.axis, &self.peers, &self.done);
        // Completed or aborted: either way the device has finished with them.
        self.tensors.clear();
        waited
    }
}

impl Drop for RcclTransfer {
    /// If nothing waited for the transfer, the tensors may still be in use: everything is aborted.
    fn drop(&mut self) {
        if !self.tensors.is_empty() {
            let mut state = self.communicators.lock();
            state.abort("a transfer was dropped before it completed".to_owned());
        }
    }
}
