//! A segment's steps, from the state that it starts from to the checkpoint that it leaves.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aurora_compiler::fields::OptimizerState;
use aurora_runtime::checkpoint::TRAIL;
use aurora_runtime::job::{Event, Step, TrailStep, TrainJob};

use super::{Ended, Held, Session, same_arithmetic};
use crate::model::Network;
use crate::train::TrainError;
use crate::train::batch::Batches;
use crate::train::checkpoint::{Snapshot, read_state, read_text};
use crate::train::schedule::rate;
use crate::train::state::{State, check};
use crate::train::step::{Outcome, Trainer};
use crate::train::team::Team;
use crate::train::trail::{INTERVAL, Trail, bits};
use crate::worker::chain;

/// A segment under way on this rank.
pub(super) struct Segment<'j> {
    job: &'j TrainJob,
    batches: Batches,
    team: Team,
    pub(super) trainer: Trainer,
    /// This rank reads every sample, and keeps the trail.
    leads: bool,
}

/// What a step did.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) learning_rate: f64,
    /// Samples by component of the order.
    samples: Vec<u64>,
    /// On the rank that keeps the trail.
    pub(super) line: Option<TrailStep>,
}

impl Segment<'_> {
    /// The step after `step` steps of the stage.
    pub(super) fn step(&mut self, step: u64, stop: &AtomicBool) -> Result<Done, TrainError> {
        let fields = &self.job.fields;
        let (network, replica) = (&self.trainer.state.network, self.trainer.peers()?.at().data);
        let reads = |index| Trainer::reads(network, replica, index);
        let mut batch = self.batches.batch(step, reads, self.leads)?;
        let learning_rate = rate(&fields.schedule, step);
        let (done, batches, samples) = (step + 1, &self.batches, batch.samples.clone());
        let not_finite = |what: &'static str, value: f64| TrainError::NotFinite {
            what,
            step: done,
            value,
            batch: batches.describe(&samples),
        };
        let (team, optimizer) = (&self.team, &fields.optimizer);
        let outcome = self
            .trainer
            .step(team, &mut batch, optimizer, learning_rate, stop, not_finite)?;
        // Not at the end of a segment: the trail of a stage is the same wherever the stage was cut.
        let groups = if done.is_multiple_of(INTERVAL) {
            group_digests(&self.trainer)?
        } else {
            BTreeMap::new()
        };
        let line = batch.digest.map(|batch| TrailStep {
            step: done,
            batch,
            loss: bits(outcome.loss),
            grad_norm: bits(outcome.grad_norm),
            learning_rate: bits(learning_rate),
            groups,
        });
        Ok(Done {
            outcome,
            learning_rate,
            samples,
            line,
        })
    }
}

impl Session {
    /// Makes a segment's steps ready: from its first that is not done, with the trail so far.
    pub(super) fn begin<'j>(&mut self, job: &'j TrainJob) -> Result<(Segment<'j>, u64, Trail), TrainError> {
        let fields = &job.fields;
        check(fields)?;
        let (team, peers) = self.take(&job.placement)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.placement)?;
        let batches = Batches::new(job, network.grid.micro_batch)?;
        let (state, first, trail) = self.start(job, network)?;
        let trainer = Trainer::new(
            state,
            peers,
            &fields.optimizer,
            fields.sequence as usize,
            batches.count(),
            job.placement.recompute,
        )?;
        let segment = Segment {
            job,
            batches,
            team,
            trainer,
            leads: self.rank == 0,
        };
        Ok((segment, first, trail))
    }

    /// Takes threads and peers back, and leaves the state.
    pub(super) fn end(&mut self, segment: Segment<'_>) -> State {
        let (state, peers) = segment.trainer.into_parts();
        self.give_back(segment.team, peers);
        state
    }

    pub(super) fn segment(&mut self, job: &TrainJob, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let (mut segment, first, mut trail) = self.begin(job)?;
        let last = job.fields.last_step;
        if segment.leads {
            self.events.send(&Event::Started {
                node: job.node.clone(),
                step: first,
            });
        }
        for step in first..last {
            let began = Instant::now();
            let done = segment.step(step, stop)?;
            if let Some(line) = &done.line {
                trail.push(line);
                self.events.send(&Event::Step(Step {
                    node: job.node.clone(),
                    step: line.step,
                    loss: done.outcome.loss,
                    grad_norm: done.outcome.grad_norm,
                    learning_rate: done.learning_rate,
                    samples: done.samples,
                    seconds: began.elapsed().as_secs_f64(),
                }));
            }
            if done.outcome.stop && step + 1 < last {
                let state = self.end(segment);
                self.agreed = true;
                return self.partial(job, &state, step + 1, &trail);
            }
        }
        let state = self.end(segment);
        let snapshot = Snapshot::take(&state, last, (self.rank == 0).then_some(&trail))?;
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
            model: job.fields.model.clone(),
            state,
        });
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
        let reset = job.optimizer_state == OptimizerState::Reset;
        if let Some(held) = self.held.take_if(|held| held.key == job.start.key) {
            if held.model != fields.model || !same_arithmetic(&held.state.network, &network) {
                return Err(TrainError::Unfit("the segment before trained another model".to_owned()));
            }
            let mut state = State { network, ..held.state };
            if reset {
                state.reset_moments()?;
            }
            return Ok((state, job.first_step, Trail::default()));
        }
        // Before new buffers are made: what is held is of no use to this segment.
        self.held = None;
        let files = &job.start.files;
        let distributed = job.placement.distributed_optimizer && job.placement.data > 1;
        let mut state = State::new(network, &fields.model, self.rank, true, distributed)?;
        state.load_weights(files)?;
        if job.start.key == job.key {
            let at = read_state(files)?;
            if at.step <= job.first_step || at.step >= fields.last_step {
                let cause = format!("step {} of a segment {}..{}", at.step, job.first_step, fields.last_step);
                return Err(TrainError::State {
                    file: aurora_runtime::checkpoint::STATE,
                    cause,
                });
            }
            state.load_moments(files)?;
            state.updates = at.updates;
            let trail = Trail::resume(&read_text(files, TRAIL)?, job.first_step, at.step)?;
            return Ok((state, at.step, trail));
        }
        if !reset {
            state.load_moments(files)?;
            state.updates = read_state(files)?.updates;
        }
        Ok((state, job.first_step, Trail::default()))
    }
}

/// The digests of all ranks' weights, by group.
fn group_digests(trainer: &Trainer) -> Result<BTreeMap<String, String>, TrainError> {
    let mut bytes = Vec::new();
    for (number, digest) in trainer.state.digests()? {
        bytes.extend_from_slice(&(number as u64).to_le_bytes());
        bytes.extend_from_slice(digest.as_bytes());
    }
    let all = trainer.peers()?.gather_world(&bytes)?.concat();
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
