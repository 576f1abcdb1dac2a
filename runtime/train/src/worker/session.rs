//! What the worker holds from one order to the next, and how it carries an order out.

mod trace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use aurora_compiler::fields::{ModelFields, Numerics, OptimizerState, Precision};
use aurora_runtime::checkpoint::TRAIL;
use aurora_runtime::job::{EvalJob, Event, Join, Placement, Step, TraceJob, TrailStep, TrainJob};
use aurora_runtime::trace::Operation;

use super::connect::{Met, connect};
use super::{Events, chain};
use crate::eval;
use crate::model::{ModelError, Network};
use crate::parallel::Peers;
use crate::parallel::transport::{Store, TransportError};
use crate::train::batch::Batches;
use crate::train::checkpoint::{Snapshot, Writer, read_state, read_text};
use crate::train::schedule::rate;
use crate::train::state::{self, State};
use crate::train::step::Trainer;
use crate::train::team::Team;
use crate::train::trail::{INTERVAL, Trail, bits};
use crate::train::{TrainError, state::check};

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
        let all = peers.gather_world(&own).map_err(ModelError::from)?;
        self.agreed = all.concat().contains(&1);
        Ok(self.agreed)
    }

    /// Waits until every finished segment stands in its folder.
    pub fn settle(&self) {
        self.writer.settle();
    }

    /// Trains a segment and has its checkpoint written.
    pub fn train(&mut self, job: &TrainJob, stop: &AtomicBool) -> Ended {
        let ended = match self.agree(stop) {
            Ok(false) => self.segment(job, stop),
            Ok(true) => Ok(Ended::Idle),
            Err(error) => Err(error),
        };
        match ended {
            Ok(ended) => ended,
            Err(error) => self.failed(&job.node, &error),
        }
    }

    /// Scores sets of documents and writes `scores.json`.
    pub fn evaluate(&mut self, job: &EvalJob, stop: &AtomicBool) -> Ended {
        let ended = match self.agree(stop) {
            Ok(false) => self.scores(job, stop),
            Ok(true) => Ok(Ended::Idle),
            Err(error) => Err(error),
        };
        match ended {
            Ok(ended) => ended,
            Err(error) => self.failed(&job.node, &error),
        }
    }

    /// Repeats steps of a segment and writes what every operation gave.
    pub fn trace(&mut self, trace: &TraceJob, stop: &AtomicBool) -> Ended {
        let ended = match self.agree(stop) {
            Ok(false) => self.record(trace, stop),
            Ok(true) => Ok(Ended::Idle),
            Err(error) => Err(error),
        };
        match ended {
            Ok(ended) => ended,
            Err(error) => self.failed(&trace.job.node, &error),
        }
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

    fn segment(&mut self, job: &TrainJob, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let fields = &job.fields;
        check(fields)?;
        let (team, peers) = self.take(&job.placement)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.placement)?;
        let batches = Batches::new(job, network.grid.micro_batch)?;
        let (state, first, mut trail) = self.start(job, network)?;
        let leads = self.rank == 0;
        let mut trainer = Trainer::new(
            state,
            peers,
            &fields.optimizer,
            fields.sequence as usize,
            batches.count(),
            job.placement.recompute,
        )?;
        if leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: first,
            });
        }
        for step in first..fields.last_step {
            let began = Instant::now();
            let (network, replica) = (&trainer.state.network, trainer.peers()?.at().data);
            let mut batch = batches.batch(step, |index| Trainer::reads(network, replica, index), leads)?;
            let learning_rate = rate(&fields.schedule, step);
            let samples = batch.samples.clone();
            let not_finite = |what: &'static str, value: f64| TrainError::NotFinite {
                what,
                step: step + 1,
                value,
                batch: batches.describe(&samples),
            };
            let outcome = trainer.step(&team, &mut batch, &fields.optimizer, learning_rate, stop, not_finite)?;
            let done = step + 1;
            // Not at the end of a segment: the trail of a stage is the same wherever the stage was cut.
            let groups = if done.is_multiple_of(INTERVAL) {
                group_digests(&trainer)?
            } else {
                BTreeMap::new()
            };
            if let Some(digest) = batch.digest {
                trail.push(&TrailStep {
                    step: done,
                    batch: digest,
                    loss: bits(outcome.loss),
                    grad_norm: bits(outcome.grad_norm),
                    learning_rate: bits(learning_rate),
                    groups,
                });
                self.events.send(&Event::Step(Step {
                    node: job.node.clone(),
                    step: done,
                    loss: outcome.loss,
                    grad_norm: outcome.grad_norm,
                    learning_rate,
                    samples: batch.samples,
                    seconds: began.elapsed().as_secs_f64(),
                }));
            }
            if outcome.stop && done < fields.last_step {
                let (state, peers) = trainer.into_parts();
                self.give_back(team, peers);
                self.agreed = true;
                return self.partial(job, &state, done, &trail);
            }
        }
        let (state, peers) = trainer.into_parts();
        let snapshot = Snapshot::take(&state, fields.last_step, leads.then_some(&trail))?;
        let (events, node) = (self.events.clone(), job.node.clone());
        let report = move |result: Result<(), _>| {
            events.send(&match result {
                Ok(()) => Event::Finished { node },
                Err(error) => Event::Failed {
                    node,
                    cause: chain(&error),
                    peer: None,
                },
            });
        };
        self.writer.write(snapshot, job.out.clone(), Box::new(report));
        self.held = Some(Held {
            key: job.key.clone(),
            model: fields.model.clone(),
            state,
        });
        self.give_back(team, peers);
        Ok(Ended::Done)
    }

    /// The checkpoint of an interrupted segment.
    fn partial(&self, job: &TrainJob, state: &State, done: u64, trail: &Trail) -> Result<Ended, TrainError> {
        Snapshot::take(state, done, (self.rank == 0).then_some(trail))?.write(&job.out)?;
        Ok(Ended::Stopped {
            node: job.node.clone(),
            step: done,
        })
    }

    /// The state that a segment starts from, its first step that is not done, and the trail so far.
    fn start(&mut self, job: &TrainJob, network: Network) -> Result<(State, u64, Trail), TrainError> {
        let fields = &job.fields;
        let reset = fields.optimizer_state == OptimizerState::Reset;
        if let Some(held) = self.held.take_if(|held| held.key == job.start.key) {
            if held.model != fields.model || !same_arithmetic(&held.state.network, &network) {
                return Err(TrainError::Unfit("the segment before trained another model".to_owned()));
            }
            let mut state = State { network, ..held.state };
            if reset {
                state.reset_moments()?;
            }
            return Ok((state, fields.first_step, Trail::default()));
        }
        // Before new buffers are made: what is held is of no use to this segment.
        self.held = None;
        let files = &job.start.files;
        let distributed = job.placement.distributed_optimizer && job.placement.data > 1;
        let mut state = State::new(network, &fields.model, self.rank, true, distributed)?;
        state.load_weights(files)?;
        if job.start.key == job.key {
            let at = read_state(files)?;
            if at.step <= fields.first_step || at.step >= fields.last_step {
                let cause = format!(
                    "step {} of a segment {}..{}",
                    at.step, fields.first_step, fields.last_step
                );
                return Err(TrainError::State {
                    file: aurora_runtime::checkpoint::STATE,
                    cause,
                });
            }
            state.load_moments(files)?;
            state.updates = at.updates;
            let trail = Trail::resume(&read_text(files, TRAIL)?, fields.first_step, at.step)?;
            return Ok((state, at.step, trail));
        }
        if !reset {
            state.load_moments(files)?;
            state.updates = read_state(files)?.updates;
        }
        Ok((state, fields.first_step, Trail::default()))
    }

    fn scores(&mut self, job: &EvalJob, stop: &AtomicBool) -> Result<Ended, TrainError> {
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
        let (scores, peers) = eval::evaluate(job, state, &team, peers, stop, progress)?;
        self.give_back(team, peers);
        let Some(scores) = scores else {
            self.agreed = true;
            return Ok(Ended::Idle);
        };
        if leads {
            eval::write(&scores, &job.out)?;
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(Ended::Done)
    }
}

/// The digests of all ranks' weights, by group.
fn group_digests(trainer: &Trainer) -> Result<BTreeMap<String, String>, TrainError> {
    let mut bytes = Vec::new();
    for (number, digest) in trainer.state.digests()? {
        bytes.extend_from_slice(&(number as u64).to_le_bytes());
        bytes.extend_from_slice(digest.as_bytes());
    }
    let all = trainer
        .peers()?
        .gather_world(&bytes)
        .map_err(ModelError::from)?
        .concat();
    let chunk = |bytes: &[u8]| -> Option<(usize, blake3::Hash)> {
        let (number, digest) = bytes.split_first_chunk::<8>()?;
        let digest: [u8; 32] = digest.try_into().ok()?;
        Some((
            usize::try_from(u64::from_le_bytes(*number)).ok()?,
            blake3::Hash::from_bytes(digest),
        ))
    };
    let chunks: Vec<_> = all.chunks(8 + 32).filter_map(chunk).collect();
    Ok(trainer.state.group_digests(&chunks))
}

/// Whether buffers of one serve the other; lanes and micro-batches don't matter to them.
fn same_arithmetic(a: &Network, b: &Network) -> bool {
    a.layout == b.layout && a.kind == b.kind && a.kernels == b.kernels && a.mesh == b.mesh
}
