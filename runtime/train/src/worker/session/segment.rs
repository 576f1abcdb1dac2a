//! The steps of a segment, from its initial state to its checkpoint.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aurora_compiler::fields::OptimizerState;
use aurora_runtime::checkpoint::STEP_LOG;
use aurora_runtime::errors::{chain, os_error};
use aurora_runtime::job::{Event, JobFailure, StepLogLine, StepMetrics, TrainJob};

use super::{CommandEnd, HeldState, Session, same_arithmetic};
use crate::model::Network;
use crate::train::TrainError;
use crate::train::batch::StepBatches;
use crate::train::checkpoint::{Snapshot, read_state, read_text};
use crate::train::schedule::rate;
use crate::train::step::{StepResult, Trainer};
use crate::train::step_log::{INTERVAL, StepLog, bits};
use crate::train::thread_pool::ThreadPool;
use crate::train::train_state::{TrainState, check};

/// A segment that runs on this rank.
pub(super) struct Segment<'j> {
    job: &'j TrainJob,
    batches: StepBatches,
    pool: ThreadPool,
    pub(super) trainer: Trainer,
    /// This rank reads every sample and keeps the step log.
    leads: bool,
}

/// Results of a step.
pub(super) struct SegmentStep {
    pub(super) outcome: StepResult,
    pub(super) learning_rate: f64,
    /// Samples by component of the data order.
    samples: Vec<u64>,
    /// On the rank that keeps the step log.
    pub(super) line: Option<StepLogLine>,
}

impl Segment<'_> {
    /// Runs the step after `step` completed steps of the training stage.
    pub(super) fn step(&mut self, step: u64, stop: &AtomicBool) -> Result<SegmentStep, TrainError> {
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
        let (pool, optimizer) = (&self.pool, &fields.optimizer);
        let outcome = self
            .trainer
            .step(pool, &mut batch, optimizer, learning_rate, stop, not_finite)?;
        // Not at the end of a segment: the step log of a stage is the same for any division into segments.
        let groups = if done.is_multiple_of(INTERVAL) {
            group_digests(&self.trainer)?
        } else {
            BTreeMap::new()
        };
        let line = batch.digest.map(|batch| StepLogLine {
            step: done,
            batch,
            loss: bits(outcome.loss),
            grad_norm: bits(outcome.grad_norm),
            learning_rate: bits(learning_rate),
            groups,
        });
        Ok(SegmentStep {
            outcome,
            learning_rate,
            samples,
            line,
        })
    }
}

impl Session {
    /// Prepares a segment: returns its first step that is not done, and the step log so far.
    pub(super) fn begin<'j>(&mut self, job: &'j TrainJob) -> Result<(Segment<'j>, u64, StepLog), TrainError> {
        let fields = &job.fields;
        check(fields)?;
        let (pool, peers) = self.take(&job.layout)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.layout)?;
        let batches = StepBatches::new(job, network.grid.micro_batch)?;
        let (state, first, step_log) = self.start(job, network)?;
        let trainer = Trainer::new(
            state,
            peers,
            &fields.optimizer,
            fields.sequence as usize,
            batches.count(),
            job.layout.recompute,
        )?;
        let segment = Segment {
            job,
            batches,
            pool,
            trainer,
            leads: self.rank == 0,
        };
        Ok((segment, first, step_log))
    }

    /// Takes threads and peers back, and returns the state.
    pub(super) fn end(&mut self, segment: Segment<'_>) -> TrainState {
        let (state, peers) = segment.trainer.into_parts();
        self.give_back(segment.pool, peers);
        state
    }

    pub(super) fn segment(&mut self, job: &TrainJob, stop: &AtomicBool) -> Result<CommandEnd, TrainError> {
        let (mut segment, first, mut step_log) = self.begin(job)?;
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
                step_log.push(line);
                self.events.send(&Event::Step(StepMetrics {
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
                return self.partial(job, &state, step + 1, &step_log);
            }
        }
        let state = self.end(segment);
        let snapshot = Snapshot::take(&state, last, (self.rank == 0).then_some(&step_log))?;
        let (events, node) = (self.events.clone(), job.node.clone());
        let report = move |result: Result<(), _>| {
            events.send(&match result {
                Ok(()) => Event::Finished { node },
                Err(error) => Event::Failed(JobFailure {
                    node,
                    cause: chain(&error),
                    os_error: os_error(&error),
                    peer: None,
                }),
            });
        };
        self.writer.write(snapshot, job.out.clone(), Box::new(report));
        self.held = Some(HeldState {
            key: job.key.clone(),
            model: job.fields.model.clone(),
            state,
        });
        Ok(CommandEnd::Done)
    }

    /// Writes the checkpoint of an interrupted segment.
    fn partial(
        &self,
        job: &TrainJob,
        state: &TrainState,
        done: u64,
        step_log: &StepLog,
    ) -> Result<CommandEnd, TrainError> {
        Snapshot::take(state, done, (self.rank == 0).then_some(step_log))?.write(&job.out)?;
        Ok(CommandEnd::Stopped {
            node: job.node.clone(),
            step: done,
        })
    }

    /// The initial state of a segment, its first step that is not done, and the step log so far.
    fn start(&mut self, job: &TrainJob, network: Network) -> Result<(TrainState, u64, StepLog), TrainError> {
        let fields = &job.fields;
        let reset = job.optimizer_state == OptimizerState::Reset;
        if let Some(held) = self.held.take_if(|held| held.key == job.start.key) {
            if held.model != fields.model || !same_arithmetic(&held.state.network, &network) {
                return Err(TrainError::Job("the previous segment trained another model".to_owned()));
            }
            let mut state = TrainState { network, ..held.state };
            if reset {
                state.reset_moments()?;
            }
            return Ok((state, job.first_step, StepLog::default()));
        }
        // Freed before new buffers are allocated: this segment does not use it.
        self.held = None;
        let files = &job.start.files;
        let distributed = job.layout.distributed_optimizer && job.layout.data > 1;
        let mut state = TrainState::new(network, &fields.model, self.rank, true, distributed)?;
        state.load_weights(files)?;
        if job.start.key == job.key {
            let at = read_state(files)?;
            if at.step <= job.first_step || at.step >= fields.last_step {
                let problem = format!(
                    "step {} is not within the segment {}..{}",
                    at.step, job.first_step, fields.last_step
                );
                return Err(TrainError::State {
                    file: aurora_runtime::checkpoint::STATE,
                    problem,
                });
            }
            state.load_moments(files)?;
            state.updates = at.updates;
            let step_log = StepLog::resume(&read_text(files, STEP_LOG)?, job.first_step, at.step)?;
            return Ok((state, at.step, step_log));
        }
        if !reset {
            state.load_moments(files)?;
            state.updates = read_state(files)?.updates;
        }
        Ok((state, job.first_step, StepLog::default()))
    }
}

/// Digests of all ranks' weights by group.
fn group_digests(trainer: &Trainer) -> Result<BTreeMap<String, String>, TrainError> {
    let mut bytes = Vec::new();
    for (number, digest) in trainer.state.digests()? {
        bytes.extend_from_slice(&(number as u64).to_le_bytes());
        bytes.extend_from_slice(digest.as_bytes());
    }
    let all = trainer.peers()?.all_gather_bytes(&bytes)?.concat();
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
