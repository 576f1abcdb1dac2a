//! The worker's state between commands, and the execution of commands.

mod segment;
mod trace;

use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::{ModelFields, Numerics, Precision};
use aurora_runtime::errors::{chain, os_error};
use aurora_runtime::job::{EvalJob, Event, JobFailure, Join, Layout, Recompute, TraceJob, TrainJob};

use super::EventSink;
use super::connect::{ConnectedPeers, connect};
use crate::eval;
use crate::model::{ComputeDevice, Fault, ModelError, Network};
use crate::parallel::Peers;
use crate::parallel::transport::{RendezvousStore, TransportError};
use crate::train::TrainError;
use crate::train::checkpoint::Writer;
use crate::train::thread_pool::ThreadPool;
use crate::train::train_state::{self, TrainState};

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// Answered with `Finished` (now or when all files are written) or `Failed`.
    Done,
    /// The folder of `node` contains a checkpoint at `step`.
    Stopped { node: String, step: u64 },
    /// Stopped with nothing to save.
    Idle,
}

/// The state after the last segment, with that segment's key.
struct HeldState {
    key: String,
    model: ModelFields,
    state: TrainState,
}

pub struct Session {
    events: EventSink,
    writer: Writer,
    pool: Option<ThreadPool>,
    held: Option<HeldState>,
    rank: usize,
    /// Layout of the connected workers, if this one has joined others.
    joined: Option<Layout>,
    /// One per thread; taken while a command is executed.
    peers: Vec<Peers>,
    /// Kept open as long as the workers are connected.
    store: Option<RendezvousStore>,
    /// All workers have agreed to stop.
    agreed: bool,
    fault: Fault,
    device: ComputeDevice,
}

impl Session {
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn new(events: EventSink, fault: Fault, device: ComputeDevice) -> Result<Self, TrainError> {
        Ok(Self {
            events,
            writer: Writer::new()?,
            pool: None,
            held: None,
            rank: 0,
            joined: None,
            peers: Vec::new(),
            store: None,
            agreed: false,
            fault,
            device,
        })
    }

    /// Connects to the other workers.
    pub fn join(&mut self, join: &Join) -> CommandEnd {
        match connect(join, &self.events, self.device) {
            Ok(ConnectedPeers { peers, store }) => {
                self.rank = join.rank as usize;
                self.joined = Some(join.layout.clone());
                self.peers = peers;
                self.store = Some(store);
                self.events.send(&Event::Joined);
                CommandEnd::Done
            }
            Err(error) => self.failed("", &error),
        }
    }

    /// A stop while nothing runs: every worker receives it at the same point of its commands.
    pub fn stop(&mut self) -> CommandEnd {
        self.agreed = true;
        CommandEnd::Idle
    }

    /// Whether a requested stop is to be answered now: by all workers at the same point of their commands.
    pub fn stops(&mut self, requested: bool) -> bool {
        if self.joined.is_none() {
            requested
        } else {
            std::mem::take(&mut self.agreed)
        }
    }

    /// Exchanges with the other workers whether a stop was requested; returns whether any worker received one.
    fn agree(&mut self, stop: &AtomicBool) -> Result<bool, TrainError> {
        let Some(peers) = self.peers.first() else {
            return Ok(stop.load(Ordering::SeqCst));
        };
        let own = [u8::from(stop.load(Ordering::SeqCst))];
        let all = peers.all_gather_bytes(&own)?;
        self.agreed = all.concat().contains(&1);
        Ok(self.agreed)
    }

    /// Waits until the files of every finished segment are written.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// Trains a segment and starts writing its checkpoint.
    pub fn train(&mut self, job: &TrainJob, stop: &AtomicBool) -> CommandEnd {
        self.execute(&job.node, stop, |session| session.segment(job, stop))
    }

    /// Scores sets of documents and writes `scores.json` and `items.jsonl`.
    pub fn evaluate(&mut self, job: &EvalJob, stop: &AtomicBool) -> CommandEnd {
        self.execute(&job.node, stop, |session| session.scores(job, stop))
    }

    /// Repeats steps of a segment and writes a digest of every operation's result.
    pub fn trace(&mut self, trace: &TraceJob, stop: &AtomicBool) -> CommandEnd {
        self.execute(&trace.job.node, stop, |session| session.record(trace, stop))
    }

    /// Executes a command, unless a stop was requested on any worker.
    fn execute(
        &mut self,
        node: &str,
        stop: &AtomicBool,
        work: impl FnOnce(&mut Self) -> Result<CommandEnd, TrainError>,
    ) -> CommandEnd {
        let end = match self.agree(stop) {
            Ok(false) => work(self),
            Ok(true) => Ok(CommandEnd::Idle),
            Err(error) => Err(error),
        };
        end.unwrap_or_else(|error| self.failed(node, &error))
    }

    /// The network of a command on this rank.
    fn network(
        &self,
        model: &ModelFields,
        numerics: &Numerics,
        precision: Precision,
        layout: &Layout,
    ) -> Result<Network, TrainError> {
        let network = train_state::network(model, numerics, precision, layout, self.rank, self.device)?;
        Ok(Network {
            fault: self.fault,
            ..network
        })
    }

    fn failed(&self, node: &str, error: &TrainError) -> CommandEnd {
        let peer = match error {
            TrainError::Model(ModelError::Peers(
                TransportError::Lost { rank, .. } | TransportError::Silent { rank, .. },
            )) => u32::try_from(*rank).ok(),
            _ => None,
        };
        self.events.send(&Event::Failed(JobFailure {
            node: node.to_owned(),
            cause: chain(error),
            os_error: os_error(error),
            peer,
        }));
        CommandEnd::Done
    }

    /// A pool of `threads` threads; the last one if it matches.
    fn take_pool(&mut self, threads: usize) -> Result<ThreadPool, TrainError> {
        match self.pool.take() {
            Some(pool) if pool.threads() == threads => Ok(pool),
            _ => ThreadPool::new(threads),
        }
    }

    /// Takes the threads and their peers for a command.
    fn take(&mut self, layout: &Layout) -> Result<(ThreadPool, Vec<Peers>), TrainError> {
        let threads = layout.threads.max(1) as usize;
        let peers = match &self.joined {
            Some(joined) if joined != layout => {
                return Err(TrainError::Job(
                    "its layout differs from that of the connected workers".to_owned(),
                ));
            }
            Some(_) if self.peers.is_empty() => {
                return Err(TrainError::Job(
                    "the connections to the other workers are lost".to_owned(),
                ));
            }
            Some(_) => std::mem::take(&mut self.peers),
            None if layout.world() > 1 => {
                return Err(TrainError::Job(
                    "it needs several workers, and this one has joined none".to_owned(),
                ));
            }
            None => (0..threads).map(|_| Peers::alone()).collect(),
        };
        Ok((self.take_pool(threads)?, peers))
    }

    fn give_back(&mut self, pool: ThreadPool, peers: Vec<Peers>) {
        self.pool = Some(pool);
        if self.joined.is_some() {
            self.peers = peers;
        }
    }

    fn scores(&mut self, job: &EvalJob, stop: &AtomicBool) -> Result<CommandEnd, TrainError> {
        if let (Some(fields), Some(paths)) = (&job.fields.task, &job.task) {
            return self.task(job, eval::EvalTask::open(job, fields, paths)?, stop);
        }
        let fields = &job.fields;
        let (pool, peers) = self.take(&job.layout)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.layout)?;
        let leads = self.rank == 0;
        if leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: 0,
            });
        }
        let fits = |held: &&HeldState| {
            held.key == job.checkpoint.key
                && held.model == fields.model
                && same_arithmetic(&held.state.network, &network)
        };
        let loaded;
        let state = match self.held.as_ref().filter(fits) {
            Some(held) => &held.state,
            None => {
                let mut new = TrainState::new(network, &fields.model, self.rank, false, false)?;
                new.load_weights(&job.checkpoint.files)?;
                loaded = new;
                &loaded
            }
        };
        let progress = |set: &str, done: u64, total: u64| {
            if leads {
                self.events.send(&Event::EvalProgress {
                    node: job.node.clone(),
                    set: set.to_owned(),
                    done,
                    total,
                });
            }
        };
        let (evaluated, peers) = eval::evaluate(job, state, &pool, peers, stop, progress)?;
        self.give_back(pool, peers);
        let Some(evaluated) = evaluated else {
            self.agreed = true;
            return Ok(CommandEnd::Idle);
        };
        if leads {
            eval::write_items(&eval::document_scores(job, &evaluated)?, &job.out)?;
            eval::write(&evaluated.scores, &job.out)?;
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(CommandEnd::Done)
    }
}

impl Session {
    /// Answers a task's requests. Each worker computes the complete model, and answers its part of the requests.
    fn task(&mut self, job: &EvalJob, task: eval::EvalTask, stop: &AtomicBool) -> Result<CommandEnd, TrainError> {
        let fields = &job.fields;
        let (pool, peers) = self.take(&job.layout)?;
        let alone = Layout::one(job.layout.threads, Recompute::None);
        let network = train_state::network(
            &fields.model,
            &fields.numerics,
            fields.precision,
            &alone,
            0,
            self.device,
        )?;
        let mut complete = TrainState::new(network, &fields.model, 0, false, false)?;
        complete.load_weights(&job.checkpoint.files)?;
        let leads = self.rank == 0;
        if leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: 0,
            });
        }
        let progress = |done: u64, total: u64| {
            if leads {
                self.events.send(&Event::EvalProgress {
                    node: job.node.clone(),
                    set: "requests".to_owned(),
                    done,
                    total,
                });
            }
        };
        let Some(first) = peers.first() else {
            return Err(TrainError::Bug("a worker without threads"));
        };
        let ranks = (self.rank, job.layout.world() as usize);
        let answered = eval::answer(task, &complete, &pool, first, ranks, stop, progress)?;
        self.give_back(pool, peers);
        let Some((scores, items)) = answered else {
            self.agreed = true;
            return Ok(CommandEnd::Idle);
        };
        if leads {
            eval::write_items(&items, &job.out)?;
            // Answers that are judged later have no scores yet.
            if !scores.measures.is_empty() {
                eval::write(&scores, &job.out)?;
            }
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(CommandEnd::Done)
    }
}

/// Whether buffers allocated for `a` can be used for `b`. Lanes and micro-batch size do not affect their shapes.
fn same_arithmetic(a: &Network, b: &Network) -> bool {
    a.parameters == b.parameters && a.kind == b.kind && a.kernels == b.kernels && a.mesh == b.mesh
}
