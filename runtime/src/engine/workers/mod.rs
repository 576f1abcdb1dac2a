//! Starts a run's workers, relays their events, and stops all of them when one is lost.
//!
//! In: how many workers there are and who starts them. Out: their events with their ranks, and the first cause when one is
//! lost. A worker that dies closes its connection; one that is stopped or cut off sends no more heartbeats, which every
//! worker sends whatever it computes. The cause is the last sign of the lost worker, not the errors of those that waited
//! for it.

mod handle;
mod launch;
mod listener;
mod program;
mod srun;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use aurora_compiler::numerics_class::NumericsClass;

use self::handle::{WorkerHandle, WorkerMessage};
use self::srun::Srun;
use super::{RunError, Stop};
use crate::job::{Event, JobFailure, Join, Layout, Start, WorkerCommand};
use crate::numerics::Fingerprint;

pub use self::launch::{LaunchMethod, WorkerLaunch};
pub use self::listener::{Admission, WorkerListener};
pub use self::program::{LIBRARY_PATH, WorkerProgram};

/// How long the engine waits for an event before it checks the stop flag again.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long failures are collected after the first one.
const SETTLE_TIME: Duration = Duration::from_millis(400);

/// An error that a worker reported as text.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct WorkerFailure {
    pub text: String,
    /// The operating system's error code behind it, if there is one.
    pub os_error: Option<i32>,
}

pub struct WorkerPool {
    workers: Vec<WorkerHandle>,
    messages: Receiver<(usize, WorkerMessage)>,
    heartbeat_timeout: Duration,
    last_check: Instant,
    /// A stop has been passed on.
    stopping: bool,
    /// The last completed step, for messages.
    last_step: Option<String>,
    /// `srun`, which ends its tasks when it ends.
    srun: Option<Srun>,
    pub fingerprint: Fingerprint,
    /// The numerics class of all workers.
    pub class: NumericsClass,
}

impl WorkerPool {
    /// Starts all workers and connects them with each other.
    ///
    /// # Errors
    /// There is no worker program or no libtorch for it; a worker cannot be started, does not connect in time, or has other
    /// numerics than the rest.
    pub fn start(launch: &WorkerLaunch, layout: &Layout, portable: bool, stop: &Stop) -> Result<Self, RunError> {
        let program = launch.program.as_ref().map_err(Clone::clone)?;
        let world = layout.world() as usize;
        let (sender, messages) = channel();
        let (mut workers, srun) = launch.start(program, world, &sender, stop)?;
        // Workers on other hosts reach a worker of this host by the engine's address, not by loopback.
        if let Some(address) = workers.iter().find_map(WorkerHandle::engine_from_other_host) {
            for worker in workers
                .iter_mut()
                .filter(|worker| worker.engine_from_other_host().is_none())
            {
                worker.address = address.to_string();
            }
        }
        let mut pool = Self {
            workers,
            messages,
            heartbeat_timeout: launch.heartbeat_timeout,
            last_check: Instant::now(),
            stopping: false,
            last_step: None,
            srun,
            fingerprint: Fingerprint::default(),
            class: NumericsClass::default(),
        };
        pool.start_devices(launch)?;
        (pool.fingerprint, pool.class) = pool.common_fingerprint(launch.start, portable, stop)?;
        if world > 1 {
            pool.connect(launch, layout, stop)?;
        }
        Ok(pool)
    }

    pub fn world(&self) -> usize {
        self.workers.len()
    }

    /// Sends every worker where it computes.
    fn start_devices(&mut self, launch: &WorkerLaunch) -> Result<(), RunError> {
        for rank in 0..self.workers.len() {
            let is_local = matches!(launch.method, LaunchMethod::Local);
            let start = Start {
                device: launch.device,
                local_rank: u32::try_from(rank).ok().filter(|_| is_local),
            };
            if !self.workers[rank].send(&WorkerCommand::Start(start)) {
                return Err(self.lost_worker(rank));
            }
        }
        Ok(())
    }

    /// Waits until every worker is ready, and checks that all have one numerics class.
    fn common_fingerprint(
        &mut self,
        within: Duration,
        portable: bool,
        stop: &Stop,
    ) -> Result<(Fingerprint, NumericsClass), RunError> {
        let all = self.collect(within, stop, |event| match event {
            Event::Ready { fingerprint } => Some(fingerprint),
            _ => None,
        })?;
        let mut all = all.into_iter();
        let Some((_, first)) = all.next() else {
            return Err(RunError::Worker {
                how: "before it started: the run has no workers".to_owned(),
            });
        };
        let Some(class) = first.class(portable) else {
            return Err(RunError::Worker {
                how: "after a report without a probe of its kernels".to_owned(),
            });
        };
        let described = |rank: usize, fingerprint: &Fingerprint| {
            let class = fingerprint.class(portable);
            let class = class.map_or_else(|| "none".to_owned(), |class| class.to_string());
            let machine = &fingerprint.machine;
            format!(
                "rank {rank} on {} has class {class} ({machine})",
                self.workers[rank].host
            )
        };
        match all.find(|(_, other)| other.class(portable) != Some(class)) {
            None => Ok((first, class)),
            Some((rank, other)) => Err(RunError::Launch {
                text: format!(
                    "the workers have different numerics: {}; {}",
                    described(0, &first),
                    described(rank, &other)
                ),
                help: "start all workers on one kind of processor with one libtorch".to_owned(),
            }),
        }
    }

    /// Connects the workers with each other: rank 0 opens a store, through which the others find each other.
    fn connect(&mut self, launch: &WorkerLaunch, layout: &Layout, stop: &Stop) -> Result<(), RunError> {
        let join = |worker: &WorkerHandle, rank: usize, store: Option<String>| Join {
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            layout: layout.clone(),
            store,
            host: worker.address.clone(),
            transfer_timeout: u32::try_from(launch.transfer_timeout.as_secs()).unwrap_or(u32::MAX),
        };
        let first = WorkerCommand::Join(join(&self.workers[0], 0, None));
        if !self.workers[0].send(&first) {
            return Err(self.lost_worker(0));
        }
        let port = loop {
            match self.event_within(0, launch.start, stop)? {
                (0, Event::RendezvousReady { port }) => break port,
                (rank, Event::Failed(failure)) => return Err(self.first_cause(rank, failure)),
                _ => {}
            }
        };
        let store = format!("{}:{port}", self.workers[0].address);
        for rank in 1..self.workers.len() {
            let order = WorkerCommand::Join(join(&self.workers[rank], rank, Some(store.clone())));
            if !self.workers[rank].send(&order) {
                return Err(self.lost_worker(rank));
            }
        }
        self.collect(launch.start, stop, |event| match event {
            Event::Joined => Some(()),
            _ => None,
        })?;
        Ok(())
    }

    /// Waits until `take` has accepted an event of every worker.
    fn collect<T>(
        &mut self,
        within: Duration,
        stop: &Stop,
        take: impl Fn(Event) -> Option<T>,
    ) -> Result<BTreeMap<usize, T>, RunError> {
        let until = Instant::now() + within;
        let mut values = BTreeMap::new();
        while values.len() < self.workers.len() {
            let missing = (0..).find(|rank| !values.contains_key(rank)).unwrap_or_default();
            let left = until.saturating_duration_since(Instant::now());
            let (rank, event) = self.event_within(missing, left, stop)?;
            if let Event::Failed(failure) = event {
                return Err(self.first_cause(rank, failure));
            }
            if let Some(value) = take(event) {
                values.insert(rank, value);
            }
        }
        Ok(values)
    }

    /// The next event; if none comes within `within`, the worker `missing` is lost.
    fn event_within(&mut self, missing: usize, within: Duration, stop: &Stop) -> Result<(usize, Event), RunError> {
        let until = Instant::now() + within;
        loop {
            if let Some(event) = self.receive(stop)? {
                return Ok(event);
            }
            if Instant::now() >= until {
                return Err(self.lost(missing, "has not started in time".to_owned()));
            }
        }
    }

    /// Sends a command to all workers.
    ///
    /// # Errors
    /// A worker has ended.
    pub fn send(&mut self, command: &WorkerCommand) -> Result<(), RunError> {
        for rank in 0..self.workers.len() {
            if !self.workers[rank].send(command) {
                return Err(self.lost_worker(rank));
            }
        }
        Ok(())
    }

    /// The next event, or `None` if none comes within the poll interval. A requested stop is passed on to all workers once.
    ///
    /// # Errors
    /// A worker is lost or sends an invalid message; [`RunError::Killed`].
    pub fn next_event(&mut self, stop: &Stop) -> Result<Option<(usize, Event)>, RunError> {
        if stop.is_requested() && !stop.is_at_once() && !self.stopping {
            self.stopping = true;
            self.send(&WorkerCommand::Stop)?;
        }
        self.receive(stop)
    }

    /// Whether the workers received a request to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn receive(&mut self, stop: &Stop) -> Result<Option<(usize, Event)>, RunError> {
        if stop.is_at_once() {
            return Err(RunError::Killed);
        }
        let (rank, message) = match self.messages.recv_timeout(POLL_INTERVAL) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return self.check_heartbeats().map(|()| None),
            // The reading threads end with their workers, after they have passed that on.
            Err(RecvTimeoutError::Disconnected) => return Err(self.lost_worker(0)),
        };
        self.workers[rank].last_message = Some(Instant::now());
        match message {
            WorkerMessage::Event(event) => {
                if let Event::Step(step) = &*event {
                    self.last_step = Some(format!("step {} of `{}`", step.step, step.node));
                }
                self.check_heartbeats()?;
                Ok(Some((rank, *event)))
            }
            WorkerMessage::Invalid(cause) => Err(RunError::Worker {
                how: format!("after an invalid message: {cause}"),
            }),
            WorkerMessage::End => Err(self.lost_worker(rank)),
        }
    }

    /// Fails if the last heartbeat of a worker is older than `heartbeat_timeout`. A single worker is exempt: nothing waits
    /// for it.
    fn check_heartbeats(&mut self) -> Result<(), RunError> {
        let now = Instant::now();
        // This process itself was suspended for a while, and has not read what came meanwhile.
        let suspended = now.duration_since(self.last_check) > self.heartbeat_timeout / 2;
        self.last_check = now;
        if suspended {
            let times = self
                .workers
                .iter_mut()
                .filter_map(|worker| worker.last_message.as_mut());
            times.for_each(|time| *time = now);
        }
        let silent = |worker: &WorkerHandle| {
            worker
                .last_message
                .is_some_and(|time| now.duration_since(time) > self.heartbeat_timeout)
        };
        match self.workers.iter().position(silent) {
            Some(rank) if self.workers.len() > 1 => Err(self.lost(
                rank,
                format!("has sent no heartbeat for {} s", self.heartbeat_timeout.as_secs_f64()),
            )),
            _ => Ok(()),
        }
    }

    /// The error for a worker that has closed its output.
    fn lost_worker(&mut self, rank: usize) -> RunError {
        let status = self.workers[rank].exit_status();
        if self.workers.len() == 1 {
            return RunError::Worker {
                how: format!("with {status}"),
            };
        }
        self.lost(rank, format!("has ended ({status})"))
    }

    fn lost(&self, rank: usize, how: String) -> RunError {
        RunError::Lost {
            rank,
            host: self
                .workers
                .get(rank)
                .map_or_else(String::new, |worker| worker.host.clone()),
            how,
            after: self.last_step.clone(),
        }
    }

    /// The first cause of a worker's failure, from all failures within the settle time. A worker's own error comes before
    /// one of a worker that waited for another, and a worker that has ended before those that waited for it.
    pub fn first_cause(&mut self, rank: usize, failure: JobFailure) -> RunError {
        let mut failures = vec![(rank, failure)];
        let until = Instant::now() + SETTLE_TIME;
        while failures.iter().all(|(_, failure)| failure.peer.is_some()) && failures.len() < self.workers.len() {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok((rank, WorkerMessage::End)) => return self.lost_worker(rank),
                Ok((rank, WorkerMessage::Event(event))) => {
                    if let Event::Failed(failure) = *event {
                        failures.push((rank, failure));
                    }
                }
                Ok((_, WorkerMessage::Invalid(_))) => {}
                Err(_) => break,
            }
        }
        if let Some(own) = failures.iter().position(|(_, failure)| failure.peer.is_none()) {
            let (
                rank,
                JobFailure {
                    node, cause, os_error, ..
                },
            ) = failures.swap_remove(own);
            let text = match self.workers.len() {
                1 => cause,
                _ => format!("rank {rank} on {}: {cause}", self.workers[rank].host),
            };
            let source = WorkerFailure { text, os_error }.into();
            return RunError::Node { node, source };
        }
        // The rank that others wait for but that itself waits for no one is the cause.
        let waits = |peer: usize| failures.iter().any(|(rank, _)| *rank == peer);
        let mut peers = failures
            .iter()
            .filter_map(|(_, failure)| failure.peer.map(|peer| peer as usize));
        let (rank, JobFailure { cause, peer, .. }) = &failures[0];
        let first = peers.find(|peer| !waits(*peer)).or(peer.map(|peer| peer as usize));
        self.lost(
            first.unwrap_or(*rank),
            format!("does not answer the others (rank {rank}: {cause})"),
        )
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        // Connections first: workers end by themselves, and `srun` with them.
        self.workers.clear();
        drop(self.srun.take());
    }
}
