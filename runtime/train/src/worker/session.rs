//! What the worker holds from one order to the next, and how it carries an order out.

mod segment;
mod trace;

use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::{ModelFields, Numerics, Precision};
use aurora_runtime::job::{EvalJob, Event, Join, Placement, Recompute, TraceJob, TrainJob};
use aurora_runtime::trace::Operation;

use super::connect::{Met, connect};
use super::{Events, chain};
use crate::eval;
use crate::model::{ModelError, Network};
use crate::parallel::Peers;
use crate::parallel::transport::{Store, TransportError};
use crate::train::TrainError;
use crate::train::checkpoint::Writer;
use crate::train::state::{self, State};
use crate::train::team::Team;

/// How an order ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Answered with `Finished` (now or when all is written) or `Failed`.
    Done,
    /// A checkpoint at `step` stands in the folder of `node`.
    Stopped { node: String, step: u64 },
    /// Stopped with nothing to save.
    Idle,
}

/// The state after the last segment, by that segment's key.
struct Held {
    key: String,
    model: ModelFields,
    state: State,
}

pub struct Session {
    events: Events,
    writer: Writer,
    team: Option<Team>,
    held: Option<Held>,
    rank: usize,
    /// How the workers that this one has joined are placed.
    joined: Option<Placement>,
    /// One a thread; taken while an order is carried out.
    peers: Vec<Peers>,
    /// Open as long as the workers know each other.
    store: Option<Store>,
    /// All workers have agreed to stop.
    agreed: bool,
    /// The sum that is added in another order, in tests.
    fault: Option<Operation>,
}

impl Session {
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn new(events: Events, fault: Option<Operation>) -> Result<Self, TrainError> {
        Ok(Self {
            events,
            writer: Writer::new()?,
            team: None,
            held: None,
            rank: 0,
            joined: None,
            peers: Vec::new(),
            store: None,
            agreed: false,
            fault,
        })
    }

    /// Connects with the other workers.
    pub fn join(&mut self, join: &Join) -> Ended {
        match connect(join, &self.events) {
            Ok(Met { peers, store }) => {
                self.rank = join.rank as usize;
                self.joined = Some(join.placement.clone());
                self.peers = peers;
                self.store = Some(store);
                self.events.send(&Event::Joined);
                Ended::Done
            }
            Err(error) => self.failed("", &error),
        }
    }

    /// A stop with nothing under way: every worker gets it at the same place of its orders.
    pub fn stop(&mut self) -> Ended {
        self.agreed = true;
        Ended::Idle
    }

    /// Whether a stop that was asked for is to be answered now: by all workers at the same place of their orders.
    pub fn stops(&mut self, asked: bool) -> bool {
        if self.joined.is_none() {
            asked
        } else {
            std::mem::take(&mut self.agreed)
        }
    }

    /// Tells the others whether a stop was asked for; whether one was anywhere.
    fn agree(&mut self, stop: &AtomicBool) -> Result<bool, TrainError> {
        let Some(peers) = self.peers.first() else {
            return Ok(stop.load(Ordering::SeqCst));
        };
        let own = [u8::from(stop.load(Ordering::SeqCst))];
        let all = peers.gather_world(&own)?;
        self.agreed = all.concat().contains(&1);
        Ok(self.agreed)
    }

    /// Waits until every finished segment stands in its folder.
    pub fn settle(&self) {
        self.writer.settle();
    }

    /// Trains a segment and has its checkpoint written.
    pub fn train(&mut self, job: &TrainJob, stop: &AtomicBool) -> Ended {
        self.carry_out(&job.node, stop, |session| session.segment(job, stop))
    }

    /// Scores sets of documents and writes `scores.json` and `items.jsonl`.
    pub fn evaluate(&mut self, job: &EvalJob, stop: &AtomicBool) -> Ended {
        self.carry_out(&job.node, stop, |session| session.scores(job, stop))
    }

    /// Repeats steps of a segment and writes what every operation gave.
    pub fn trace(&mut self, trace: &TraceJob, stop: &AtomicBool) -> Ended {
        self.carry_out(&trace.job.node, stop, |session| session.record(trace, stop))
    }

    /// Does an order's work, unless a stop was asked for anywhere.
    fn carry_out(
        &mut self,
        node: &str,
        stop: &AtomicBool,
        work: impl FnOnce(&mut Self) -> Result<Ended, TrainError>,
    ) -> Ended {
        let ended = match self.agree(stop) {
            Ok(false) => work(self),
            Ok(true) => Ok(Ended::Idle),
            Err(error) => Err(error),
        };
        ended.unwrap_or_else(|error| self.failed(node, &error))
    }

    /// What an order computes with on this rank.
    fn network(
        &self,
        model: &ModelFields,
        numerics: &Numerics,
        precision: Precision,
        placement: &Placement,
    ) -> Result<Network, TrainError> {
        let network = state::network(model, numerics, precision, placement, self.rank)?;
        Ok(Network {
            fault: self.fault,
            ..network
        })
    }

    fn failed(&self, node: &str, error: &TrainError) -> Ended {
        let peer = match error {
            TrainError::Model(ModelError::Peers(
                TransportError::Gone { rank, .. } | TransportError::Silent { rank, .. },
            )) => u32::try_from(*rank).ok(),
            _ => None,
        };
        self.events.send(&Event::Failed {
            node: node.to_owned(),
            cause: chain(error),
            peer,
        });
        Ended::Done
    }

    /// A team of so many threads; the last one if it fits.
    fn take_team(&mut self, threads: usize) -> Result<Team, TrainError> {
        match self.team.take() {
            Some(team) if team.threads() == threads => Ok(team),
            _ => Team::new(threads),
        }
    }

    /// The threads and their peers for an order.
    fn take(&mut self, placement: &Placement) -> Result<(Team, Vec<Peers>), TrainError> {
        let threads = placement.threads.max(1) as usize;
        let peers = match &self.joined {
            Some(joined) if joined != placement => {
                return Err(TrainError::Unfit(
                    "an order for workers placed in another way".to_owned(),
                ));
            }
            Some(_) if self.peers.is_empty() => {
                return Err(TrainError::Unfit("the workers have lost each other".to_owned()));
            }
            Some(_) => std::mem::take(&mut self.peers),
            None if placement.world() > 1 => {
                return Err(TrainError::Unfit(
                    "an order for several workers, and this one has joined none".to_owned(),
                ));
            }
            None => (0..threads).map(|_| Peers::alone()).collect(),
        };
        Ok((self.take_team(threads)?, peers))
    }

    fn give_back(&mut self, team: Team, peers: Vec<Peers>) {
        self.team = Some(team);
        if self.joined.is_some() {
            self.peers = peers;
        }
    }

    fn scores(&mut self, job: &EvalJob, stop: &AtomicBool) -> Result<Ended, TrainError> {
        if let (Some(fields), Some(paths)) = (&job.fields.task, &job.task) {
            return self.task(job, eval::Task::open(job, fields, paths)?, stop);
        }
        let fields = &job.fields;
        let (team, peers) = self.take(&job.placement)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.placement)?;
        let leads = self.rank == 0;
        if leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: 0,
            });
        }
        let fits = |held: &&Held| {
            held.key == job.checkpoint.key
                && held.model == fields.model
                && same_arithmetic(&held.state.network, &network)
        };
        let loaded;
        let state = match self.held.as_ref().filter(fits) {
            Some(held) => &held.state,
            None => {
                let mut new = State::new(network, &fields.model, self.rank, false, false)?;
                new.load_weights(&job.checkpoint.files)?;
                loaded = new;
                &loaded
            }
        };
        let progress = |set: &str, tokens: u64, of: u64| {
            if leads {
                self.events.send(&Event::EvalProgress {
                    node: job.node.clone(),
                    set: set.to_owned(),
                    tokens,
                    of,
                });
            }
        };
        let (evaluated, peers) = eval::evaluate(job, state, &team, peers, stop, progress)?;
        self.give_back(team, peers);
        let Some(evaluated) = evaluated else {
            self.agreed = true;
            return Ok(Ended::Idle);
        };
        if leads {
            eval::write_items(&eval::documents(job, &evaluated)?, &job.out)?;
            eval::write(&evaluated.scores, &job.out)?;
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(Ended::Done)
    }
}

impl Session {
    /// Answers a task's questions. Each worker computes the whole model, and answers its share of the requests.
    fn task(&mut self, job: &EvalJob, task: eval::Task, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let fields = &job.fields;
        let (team, peers) = self.take(&job.placement)?;
        let alone = Placement::one(job.placement.threads, Recompute::None);
        let network = state::network(&fields.model, &fields.numerics, fields.precision, &alone, 0)?;
        let mut whole = State::new(network, &fields.model, 0, false, false)?;
        whole.load_weights(&job.checkpoint.files)?;
        let leads = self.rank == 0;
        if leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: 0,
            });
        }
        let progress = |done: u64, of: u64| {
            if leads {
                self.events.send(&Event::EvalProgress {
                    node: job.node.clone(),
                    set: "requests".to_owned(),
                    tokens: done,
                    of,
                });
            }
        };
        let Some(first) = peers.first() else {
            return Err(TrainError::Unfit("a worker without threads".to_owned()));
        };
        let ranks = (self.rank, job.placement.world() as usize);
        let answered = eval::answer(task, &whole, &team, first, ranks, stop, progress)?;
        self.give_back(team, peers);
        let Some((scores, items)) = answered else {
            self.agreed = true;
            return Ok(Ended::Idle);
        };
        if leads {
            eval::write_items(&items, &job.out)?;
            // Answers that are judged have no scores yet.
            if !scores.measures.is_empty() {
                eval::write(&scores, &job.out)?;
            }
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(Ended::Done)
    }
}

/// Whether buffers of one serve the other; lanes and micro-batches don't matter to them.
fn same_arithmetic(a: &Network, b: &Network) -> bool {
    a.layout == b.layout && a.kind == b.kind && a.kernels == b.kernels && a.mesh == b.mesh
}
