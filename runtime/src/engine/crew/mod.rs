//! The workers of a run: started together, heard together, gone together.
//!
//! In: how many there are and who starts them. Out: their events with their ranks, and the first cause when one is lost.
//! A worker that dies closes its connection, one that is stopped or cut off falls silent: every worker says that it lives,
//! whatever it computes. The last sign of a lost worker, not the complaints of those that waited for it, is the cause.

mod meet;
mod member;
mod srun;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use self::meet::Arrival;
pub use self::meet::Meeting;
use self::member::{Member, Said};
use self::srun::Srun;
use super::{RunError, Stop};
use crate::job::{Event, Fingerprint, Join, Placement, WorkerCommand};

/// Who starts the workers, and where.
#[derive(Clone, Debug)]
pub enum Launch {
    /// This process, on this machine.
    Local,
    /// `srun`, in the allocation that this process runs in; these are its arguments up to the worker's.
    Srun(Vec<String>),
    /// torchrun, which has started this process as rank 0 and one for each of the others: they come to the meeting, which
    /// is open from the start, as preparing the data may take long. They come once: who is lost is not started anew.
    Torchrun { host: String, meeting: Arc<Meeting> },
}

/// How workers are started and watched.
#[derive(Clone, Debug)]
pub struct Launching {
    pub launch: Launch,
    pub program: Utf8PathBuf,
    /// Folder for each worker's log.
    pub logs: Option<Utf8PathBuf>,
    /// A worker that has not been heard for so long is lost.
    pub silence: Duration,
    /// How long all workers may take to start.
    pub start: Duration,
    /// How long a worker waits for another in a transfer before it takes it for lost.
    pub transfer: Duration,
}

/// How long the engine waits for an event before it looks at the stop flag again.
const LOOK: Duration = Duration::from_millis(100);

/// How long complaints are collected once something has gone wrong.
const AFTERMATH: Duration = Duration::from_millis(400);

pub struct Crew {
    members: Vec<Member>,
    heard: Receiver<(usize, Said)>,
    silence: Duration,
    looked: Instant,
    /// A stop has been passed on.
    stopping: bool,
    /// The last step that was done, in words.
    last_step: Option<String>,
    /// `srun`, which ends its tasks when it ends.
    launcher: Option<Srun>,
    pub fingerprint: Fingerprint,
}

impl Crew {
    /// Starts all workers and connects them with each other.
    ///
    /// # Errors
    /// One cannot be started, does not come in time, or has other numerics than the rest.
    pub fn start(how: &Launching, placement: &Placement, portable: bool, stop: &Stop) -> Result<Self, RunError> {
        if !how.program.is_file() {
            let path = how.program.clone();
            return Err(RunError::NoWorker { path });
        }
        let world = placement.world() as usize;
        let (sender, heard) = channel();
        let mut launcher = None;
        let mut members: Vec<Member> = match &how.launch {
            Launch::Local => (0..world)
                .map(|rank| Member::start(&how.program, "127.0.0.1", rank, how.log(rank), &sender))
                .collect::<Result<_, _>>()?,
            Launch::Srun(arguments) => {
                let meeting = Meeting::open(0, token())?;
                launcher = Some(Srun::start(arguments, how, &meeting)?);
                arrivals(&meeting, 0..world, how, &sender, stop, launcher.as_mut())?
            }
            Launch::Torchrun { host, meeting } => {
                let mut members = vec![Member::start(&how.program, host, 0, how.log(0), &sender)?];
                members.extend(arrivals(meeting, 1..world, how, &sender, stop, None)?);
                members
            }
        };
        // Others reach a worker of this host where they reach the engine, not by loopback.
        if let Some(address) = members.iter().find_map(Member::engine_from_afar) {
            for member in members.iter_mut().filter(|member| member.engine_from_afar().is_none()) {
                member.address = address.to_string();
            }
        }
        let mut crew = Self {
            members,
            heard,
            silence: how.silence,
            looked: Instant::now(),
            stopping: false,
            last_step: None,
            launcher,
            fingerprint: Fingerprint::default(),
        };
        crew.fingerprint = crew.agree(how.start, portable, stop)?;
        if world > 1 {
            crew.join(how, placement, stop)?;
        }
        Ok(crew)
    }

    pub fn world(&self) -> usize {
        self.members.len()
    }

    /// Every worker is ready, and all have the same numerics.
    fn agree(&mut self, within: Duration, portable: bool, stop: &Stop) -> Result<Fingerprint, RunError> {
        let all = self.collect(within, stop, |event| match event {
            Event::Ready { fingerprint } => Some(fingerprint),
            _ => None,
        })?;
        let mut all = all.into_iter();
        let Some((_, first)) = all.next() else {
            return Err(RunError::Worker {
                how: "before it began: there is none".to_owned(),
            });
        };
        let own = first.text(portable);
        match all.find(|(_, other)| other.text(portable) != own) {
            None => Ok(first),
            Some((rank, other)) => Err(RunError::Launch {
                cause: format!(
                    "the workers have other numerics: rank 0 on {} has {own}; rank {rank} on {} has {}",
                    self.members[0].host,
                    self.members[rank].host,
                    other.text(portable)
                ),
                help: "start all workers on one kind of processor with one libtorch".to_owned(),
            }),
        }
    }

    /// Connects the workers: rank 0 opens a store, the others find each other through it.
    fn join(&mut self, how: &Launching, placement: &Placement, stop: &Stop) -> Result<(), RunError> {
        let join = |member: &Member, rank: usize, store: Option<String>| Join {
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            placement: placement.clone(),
            store,
            host: member.address.clone(),
            timeout: u32::try_from(how.transfer.as_secs()).unwrap_or(u32::MAX),
        };
        let first = WorkerCommand::Join(join(&self.members[0], 0, None));
        if !self.members[0].send(&first) {
            return Err(self.gone(0));
        }
        let port = loop {
            match self.next(0, how.start, stop)? {
                (0, Event::StoreReady { port }) => break port,
                (rank, event) => self.refuse_failure(rank, event)?,
            }
        };
        let store = format!("{}:{port}", self.members[0].address);
        for rank in 1..self.members.len() {
            let order = WorkerCommand::Join(join(&self.members[rank], rank, Some(store.clone())));
            if !self.members[rank].send(&order) {
                return Err(self.gone(rank));
            }
        }
        self.collect(how.start, stop, |event| match event {
            Event::Joined => Some(()),
            _ => None,
        })?;
        Ok(())
    }

    /// Waits until every worker has said what `take` takes.
    fn collect<T>(
        &mut self,
        within: Duration,
        stop: &Stop,
        take: impl Fn(Event) -> Option<T>,
    ) -> Result<BTreeMap<usize, T>, RunError> {
        let until = Instant::now() + within;
        let mut found = BTreeMap::new();
        while found.len() < self.members.len() {
            let missing = (0..).find(|rank| !found.contains_key(rank)).unwrap_or_default();
            let left = until.saturating_duration_since(Instant::now());
            let (rank, event) = self.next(missing, left, stop)?;
            if matches!(event, Event::Failed { .. }) {
                self.refuse_failure(rank, event)?;
            } else if let Some(value) = take(event) {
                found.insert(rank, value);
            }
        }
        Ok(found)
    }

    /// The next event, which must come within `within`; if none does, `missing` is lost.
    fn next(&mut self, missing: usize, within: Duration, stop: &Stop) -> Result<(usize, Event), RunError> {
        let until = Instant::now() + within;
        loop {
            if let Some(heard) = self.listen(stop)? {
                return Ok(heard);
            }
            if Instant::now() >= until {
                return Err(self.lost(missing, "has not started in time".to_owned()));
            }
        }
    }

    fn refuse_failure(&mut self, rank: usize, event: Event) -> Result<(), RunError> {
        match event {
            Event::Failed { node, cause, peer } => Err(self.first_cause(rank, node, cause, peer)),
            _ => Ok(()),
        }
    }

    /// Sends an order to all workers.
    ///
    /// # Errors
    /// One has ended.
    pub fn send(&mut self, order: &WorkerCommand) -> Result<(), RunError> {
        for rank in 0..self.members.len() {
            if !self.members[rank].send(order) {
                return Err(self.gone(rank));
            }
        }
        Ok(())
    }

    /// The next event, or nothing within a moment. A stop that is asked for is passed on to all workers, once.
    ///
    /// # Errors
    /// A worker is lost, or says something that is not an event; [`RunError::Killed`].
    pub fn hear(&mut self, stop: &Stop) -> Result<Option<(usize, Event)>, RunError> {
        if stop.asked() && !stop.at_once() && !self.stopping {
            self.stopping = true;
            self.send(&WorkerCommand::Stop)?;
        }
        self.listen(stop)
    }

    /// Whether the workers have been asked to stop.
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    fn listen(&mut self, stop: &Stop) -> Result<Option<(usize, Event)>, RunError> {
        if stop.at_once() {
            return Err(RunError::Killed);
        }
        let (rank, said) = match self.heard.recv_timeout(LOOK) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => return self.look().map(|()| None),
            // The readers are gone with the last worker, after they have said so.
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone(0)),
        };
        self.members[rank].last_heard = Some(Instant::now());
        match said {
            Said::Event(event) => {
                if let Event::Step(step) = &*event {
                    self.last_step = Some(format!("step {} of `{}`", step.step, step.node));
                }
                self.look()?;
                Ok(Some((rank, *event)))
            }
            Said::Garbled(cause) => Err(RunError::Worker {
                how: format!("after saying {cause}"),
            }),
            Said::End => Err(self.gone(rank)),
        }
    }

    /// Whether a worker has fallen silent that had begun to say that it lives. Alone it may: nobody waits for it.
    fn look(&mut self) -> Result<(), RunError> {
        let now = Instant::now();
        // This process itself was stopped for a while, and has not read what has come since.
        let slept = now.duration_since(self.looked) > self.silence / 2;
        self.looked = now;
        if slept {
            for heard in self.members.iter_mut().filter_map(|member| member.last_heard.as_mut()) {
                *heard = now;
            }
        }
        let silent = |member: &Member| {
            member
                .last_heard
                .is_some_and(|heard| now.duration_since(heard) > self.silence)
        };
        match self.members.iter().position(silent) {
            Some(rank) if self.members.len() > 1 => {
                Err(self.lost(rank, format!("has not been heard for {} s", self.silence.as_secs_f64())))
            }
            _ => Ok(()),
        }
    }

    /// What to say about a worker that has closed its output.
    fn gone(&mut self, rank: usize) -> RunError {
        let how = self.members[rank].how_it_ended();
        if self.members.len() == 1 {
            return RunError::Worker {
                how: format!("with {how}"),
            };
        }
        self.lost(rank, format!("has ended ({how})"))
    }

    fn lost(&self, rank: usize, how: String) -> RunError {
        RunError::Lost {
            rank,
            host: self
                .members
                .get(rank)
                .map_or_else(String::new, |member| member.host.clone()),
            how,
            after: self.last_step.clone(),
        }
    }

    /// A worker has failed: what all of them say within a moment tells the first cause. A failure of its own comes before
    /// one that was waited for, and a worker that has ended before those that waited for it.
    pub fn first_cause(&mut self, rank: usize, node: String, cause: String, peer: Option<u32>) -> RunError {
        let mut complaints = vec![(rank, node, cause, peer)];
        let until = Instant::now() + AFTERMATH;
        while complaints.iter().all(|(.., peer)| peer.is_some()) && complaints.len() < self.members.len() {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((rank, Said::End)) => return self.gone(rank),
                Ok((rank, Said::Event(event))) => {
                    if let Event::Failed { node, cause, peer } = *event {
                        complaints.push((rank, node, cause, peer));
                    }
                }
                Ok((_, Said::Garbled(_))) => {}
                Err(_) => break,
            }
        }
        if let Some((rank, node, cause, _)) = complaints.iter().find(|(.., peer)| peer.is_none()) {
            let place = if self.members.len() == 1 {
                String::new()
            } else {
                format!("rank {rank} on {}: ", self.members[*rank].host)
            };
            return RunError::Node {
                node: node.clone(),
                cause: format!("{place}{cause}"),
            };
        }
        // Somebody is waited for who does not wait for anybody.
        let waits = |rank: usize| complaints.iter().any(|(own, ..)| *own == rank);
        let blamed = |(.., peer): &(usize, String, String, Option<u32>)| peer.map(|peer| peer as usize);
        let first = complaints.iter().filter_map(blamed).find(|rank| !waits(*rank));
        let (rank, _, cause, peer) = &complaints[0];
        let lost = first.or(peer.map(|peer| peer as usize)).unwrap_or(*rank);
        self.lost(lost, format!("does not answer the others (rank {rank}: {cause})"))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Connections first: workers end by themselves, and `srun` with them.
        self.members.clear();
        drop(self.launcher.take());
    }
}

impl Launching {
    fn log(&self, rank: usize) -> Option<Utf8PathBuf> {
        self.logs.as_ref().map(|logs| logs.join(format!("rank-{rank}.log")))
    }
}

/// What lets a worker in: nobody who has not been told it can guess it.
fn token() -> String {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the system's random numbers.
    let word = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// Lets the workers of these ranks in.
fn arrivals(
    meeting: &Meeting,
    ranks: std::ops::Range<usize>,
    how: &Launching,
    said: &Sender<(usize, Said)>,
    stop: &Stop,
    mut launcher: Option<&mut Srun>,
) -> Result<Vec<Member>, RunError> {
    let until = Instant::now() + how.start;
    let mut found: BTreeMap<usize, Member> = BTreeMap::new();
    let failed = |cause: String| RunError::Launch {
        cause,
        help: "see the workers' logs in the folder of the run".to_owned(),
    };
    while found.len() < ranks.len() {
        if stop.at_once() {
            return Err(RunError::Killed);
        }
        if let Some(how) = launcher.as_mut().and_then(|launcher| launcher.ended()) {
            return Err(failed(format!(
                "`srun` ended before all workers came, with {}",
                how.trim_end()
            )));
        }
        if Instant::now() > until {
            let missing: Vec<String> = ranks
                .clone()
                .filter(|rank| !found.contains_key(rank))
                .map(|r| r.to_string())
                .collect();
            let (missing, seconds) = (missing.join(", "), how.start.as_secs());
            return Err(failed(format!("rank {missing} did not come within {seconds} s")));
        }
        let Some(arrival) = meeting.arrival(Duration::from_millis(100)) else {
            continue;
        };
        let Arrival {
            stream,
            read,
            hello,
            address,
        } = arrival;
        let rank = hello.rank as usize;
        if hello.world as usize != ranks.end || !ranks.contains(&rank) || found.contains_key(&rank) {
            let (world, expected) = (hello.world, ranks.end);
            return Err(failed(format!(
                "a worker came as rank {rank} of {world}, and there are to be {expected}"
            )));
        }
        let own = address.ip().to_string();
        let host = format!("{} ({own})", hello.host);
        let member =
            Member::connected(stream, read, host, own, rank, said).map_err(|error| failed(error.to_string()))?;
        found.insert(rank, member);
    }
    Ok(found.into_values().collect())
}
