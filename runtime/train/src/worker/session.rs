//! What the worker holds from one order to the next, and how it carries an order out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use aurora_compiler::fields::{ModelFields, OptimizerState};
use aurora_runtime::checkpoint::TRAIL;
use aurora_runtime::job::{EvalJob, Event, Start, Step, TrailStep, TrainJob};

use super::{Events, chain};
use crate::eval;
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
}

impl Session {
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn new(events: Events) -> Result<Self, TrainError> {
        Ok(Self {
            events,
            writer: Writer::new()?,
            team: None,
            held: None,
        })
    }

    /// Waits until every finished segment stands in its folder.
    pub fn settle(&self) {
        self.writer.settle();
    }

    /// Trains a segment and has its checkpoint written.
    pub fn train(&mut self, job: &TrainJob, stop: &Arc<AtomicBool>) -> Ended {
        if stop.load(Ordering::SeqCst) {
            return Ended::Idle;
        }
        match self.segment(job, stop) {
            Ok(ended) => ended,
            Err(error) => self.failed(&job.node, &error),
        }
    }

    /// Scores sets of documents and writes `scores.json`.
    pub fn evaluate(&mut self, job: &EvalJob, stop: &Arc<AtomicBool>) -> Ended {
        if stop.load(Ordering::SeqCst) {
            return Ended::Idle;
        }
        match self.scores(job, stop) {
            Ok(ended) => ended,
            Err(error) => self.failed(&job.node, &error),
        }
    }

    fn failed(&self, node: &str, error: &TrainError) -> Ended {
        self.events.send(&Event::Failed {
            node: node.to_owned(),
            cause: chain(error),
        });
        Ended::Done
    }

    /// A team of so many threads; the last one if it fits.
    fn take_team(&mut self, threads: u32) -> Result<Team, TrainError> {
        let threads = threads.max(1) as usize;
        match self.team.take() {
            Some(team) if team.threads() == threads => Ok(team),
            _ => Team::new(threads),
        }
    }

    fn segment(&mut self, job: &TrainJob, stop: &Arc<AtomicBool>) -> Result<Ended, TrainError> {
        let fields = &job.fields;
        check(fields)?;
        let team = self.take_team(job.placement.threads)?;
        let network = state::network(&fields.model, &fields.numerics, fields.precision, team.threads())?;
        let batches = Batches::new(job, network.grid.micro_batch)?;
        let (state, first, mut trail) = self.start(job, network)?;
        let mut trainer = Trainer::new(
            state,
            &team,
            &fields.optimizer,
            fields.sequence as usize,
            job.placement.recompute,
        )?;
        self.events.send(&Event::Started {
            node: job.node.clone(),
            step: first,
        });
        for step in first..fields.last_step {
            let began = Instant::now();
            let batch = batches.batch(step)?;
            let learning_rate = rate(&fields.schedule, step);
            let not_finite = |what: &'static str, value: f64| {
                let batch = batches.describe(&batch.samples);
                TrainError::NotFinite {
                    what,
                    step: step + 1,
                    value,
                    batch,
                }
            };
            let outcome = trainer.step(&team, &batch, &fields.optimizer, learning_rate, stop, not_finite)?;
            let Some(outcome) = outcome else {
                return self.partial(job, trainer.state, first, step, &trail);
            };
            let done = step + 1;
            // Not at the end of a segment: the trail of a stage is the same wherever the stage was cut.
            let digested = done.is_multiple_of(INTERVAL);
            trail.push(&TrailStep {
                step: done,
                batch: batch.digest,
                loss: bits(outcome.loss),
                grad_norm: bits(outcome.grad_norm),
                learning_rate: bits(learning_rate),
                groups: if digested {
                    trainer.state.digests()?
                } else {
                    Default::default()
                },
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
            if stop.load(Ordering::SeqCst) && done < fields.last_step {
                return self.partial(job, trainer.state, first, done, &trail);
            }
        }
        let state = trainer.state;
        let snapshot = Snapshot::take(&state, fields.last_step, &trail)?;
        let (events, node) = (self.events.clone(), job.node.clone());
        let report = move |result: Result<(), _>| {
            events.send(&match result {
                Ok(()) => Event::Finished { node },
                Err(error) => Event::Failed {
                    node,
                    cause: chain(&error),
                },
            });
        };
        self.writer.write(snapshot, job.out.clone(), Box::new(report));
        self.held = Some(Held {
            key: job.key.clone(),
            model: fields.model.clone(),
            state,
        });
        self.team = Some(team);
        Ok(Ended::Done)
    }

    /// The checkpoint of an interrupted segment; none if no step was done since it was taken up.
    fn partial(&self, job: &TrainJob, state: State, first: u64, done: u64, trail: &Trail) -> Result<Ended, TrainError> {
        if done == first {
            return Ok(Ended::Idle);
        }
        Snapshot::take(&state, done, trail)?.write(&job.out)?;
        Ok(Ended::Stopped {
            node: job.node.clone(),
            step: done,
        })
    }

    /// The state that a segment starts from, its first step that is not done, and the trail so far.
    fn start(&mut self, job: &TrainJob, network: crate::model::Network) -> Result<(State, u64, Trail), TrainError> {
        let fields = &job.fields;
        let reset = fields.optimizer_state == OptimizerState::Reset;
        if let Some(held) = self.held.take_if(|held| held.key == job.start.key) {
            let mut state = if held.model != fields.model {
                return Err(TrainError::Unfit("the segment before trained another model".to_owned()));
            } else if same_arithmetic(&held.state.network, &network) && held.state.moments[0].numel() > 0 {
                State { network, ..held.state }
            } else {
                held.state.moved_to(network, &fields.model, true)?
            };
            if reset {
                state.reset_moments()?;
            }
            return Ok((state, fields.first_step, Trail::default()));
        }
        // Before new buffers are made: what is held is of no use to this segment.
        self.held = None;
        let files = &job.start.files;
        let mut state = State::new(network, &fields.model, true)?;
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

    fn scores(&mut self, job: &EvalJob, stop: &Arc<AtomicBool>) -> Result<Ended, TrainError> {
        let fields = &job.fields;
        let team = self.take_team(job.placement.threads)?;
        let network = state::network(&fields.model, &fields.numerics, fields.precision, team.threads())?;
        self.events.send(&Event::Started {
            node: job.node.clone(),
            step: 0,
        });
        let held = self
            .held
            .as_ref()
            .filter(|held| held.key == job.checkpoint.key && held.model == fields.model);
        let loaded;
        let state = match held {
            Some(held) if same_arithmetic(&held.state.network, &network) => &held.state,
            Some(held) => {
                loaded = held.state.moved_to(network, &fields.model, false)?;
                &loaded
            }
            None => {
                loaded = load(&fields.model, network, &job.checkpoint)?;
                &loaded
            }
        };
        let (events, node) = (self.events.clone(), job.node.clone());
        let progress = |set: &str, tokens: u64, of: u64| {
            events.send(&Event::EvalProgress {
                node: node.clone(),
                set: set.to_owned(),
                tokens,
                of,
            });
        };
        let Some(scores) = eval::evaluate(job, state, &team, stop, progress)? else {
            return Ok(Ended::Idle);
        };
        eval::write(&scores, &job.out)?;
        self.events.send(&Event::Finished { node: job.node.clone() });
        self.team = Some(team);
        Ok(Ended::Done)
    }
}

fn load(model: &ModelFields, network: crate::model::Network, start: &Start) -> Result<State, TrainError> {
    let mut state = State::new(network, model, false)?;
    state.load_weights(&start.files)?;
    Ok(state)
}

/// Whether buffers of one serve the other; lanes and micro-batches don't matter to them.
fn same_arithmetic(a: &crate::model::Network, b: &crate::model::Network) -> bool {
    a.layout == b.layout && a.kind == b.kind && a.kernels == b.kernels && a.grid.tensor == b.grid.tensor
}
