//! Train and eval nodes, which workers compute.
//!
//! All missing segments are queued at once, so that the workers continue from one to the next with their state in memory
//! while the previous checkpoint is still being written, hashed and published.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::time::Instant;

use aurora_compiler::fields::OptimizerState;
use aurora_compiler::graph::{NodeId, NodeKind, Role};
use camino::{Utf8Path, Utf8PathBuf};

use super::workers::WorkerPool;
use super::{Outcome, Run, RunError, RunEvent};
use crate::checkpoint::STEP_LOG;
use crate::data::tokenizer::{TokenizerMeta, TokensMeta};
use crate::errors::chain;
use crate::job::{
    EvalJob, EvalSetPaths, Event, Files, Layout, NodeFiles, StepLogLine, TaskPaths, TokenPaths, TrainJob, WorkerCommand,
};
use crate::store::Scratch;
use crate::store::lock::{Attempt, Held};

/// A node that the workers have been given and not finished.
struct InFlightNode {
    id: NodeId,
    out: Utf8PathBuf,
    since: Instant,
    /// Workers that have finished it.
    finished: usize,
    _held: Held,
}

/// The work of one worker pool; a restart begins another session.
struct Session<'r, 'a> {
    run: &'r Run<'a>,
    pool: WorkerPool,
    layout: Layout,
    /// Describes the workers' machine.
    made_on: String,
    in_flight: BTreeMap<String, InFlightNode>,
    scratch: Scratch,
}

impl Run<'_> {
    /// Trains and evaluates on `pool`; starts new workers if one is lost, as often as the options allow.
    pub(super) fn worker_nodes(
        &self,
        pool: WorkerPool,
        training: &[NodeId],
        evals: &[NodeId],
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        let mut layout = self.workers.layout.clone();
        let mut left = self.workers.restarts;
        let mut started = Some(pool);
        loop {
            let lost = match self.with_workers(started.take(), &layout, training, evals, outcome) {
                Err(lost @ (RunError::Lost { .. } | RunError::NotStarted { .. }))
                    if left > 0 && !self.stop.is_requested() =>
                {
                    lost
                }
                ended => return ended,
            };
            left -= 1;
            if self.workers.fewer {
                layout = fewer(&layout);
            }
            let (world, text) = (layout.world(), chain(&lost));
            let text = format!("{text}; resuming from the last checkpoint with {world} workers ({left} restarts left)");
            self.observer.on_event(RunEvent::Restart { text: &text });
        }
    }

    /// Starts workers, and records the class that they report.
    pub(super) fn start_workers(&self, layout: &Layout) -> Result<WorkerPool, RunError> {
        self.check_stop()?;
        let pool = WorkerPool::start(&self.workers.launch, layout, self.workers.portable, self.stop)?;
        // The next command looks the class up by what it knows without a worker, which names devices less exactly, and names
        // this machine even if the workers are on others.
        let machines = self.workers.launch.machine().into_iter();
        for machine in machines.chain([pool.fingerprint.machine.clone()]) {
            self.results.store.learn_classes(&machine, &pool.fingerprint)?;
        }
        Ok(pool)
    }

    fn with_workers(
        &self,
        started: Option<WorkerPool>,
        layout: &Layout,
        training: &[NodeId],
        evals: &[NodeId],
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        let pool = match started {
            Some(pool) => pool,
            None => self.start_workers(layout)?,
        };
        if self.results.class != Some(pool.class) {
            return Err(RunError::Launch {
                text: format!("the new workers have another numerics class, {}", pool.class),
                help: "run the same command again: it continues with the results of that class".to_owned(),
            });
        }
        self.observer.on_event(RunEvent::WorkersReady {
            fingerprint: &pool.fingerprint,
            layout,
        });
        outcome.fingerprint = Some(pool.fingerprint.clone());
        let mut session = Session {
            run: self,
            layout: layout.clone(),
            made_on: pool.fingerprint.description(self.workers.portable),
            pool,
            in_flight: BTreeMap::new(),
            scratch: self.results.store.scratch()?,
        };
        for &id in training {
            session.queue_train(id, outcome)?;
        }
        session.finish_nodes(outcome)?;
        // Two evals with one key: the second finds the result of the first.
        let mut waiting = evals.to_vec();
        while !waiting.is_empty() {
            let mut keys = BTreeSet::new();
            let (now, later) = waiting
                .into_iter()
                .partition(|id| keys.insert(self.results.keyed.key(*id)));
            waiting = later;
            for id in now {
                session.queue_eval(id, outcome)?;
            }
            session.finish_nodes(outcome)?;
        }
        Ok(())
    }
}

impl Run<'_> {
    /// The job of a train node that starts from `start`.
    pub(super) fn train_job(
        &self,
        id: NodeId,
        start: NodeFiles,
        layout: &Layout,
        out: &Utf8Path,
    ) -> Result<TrainJob, RunError> {
        let fields = self.results.train_fields(id)?.clone();
        let (first_step, optimizer_state) = match self.results.input(id, &Role::ResumesFrom) {
            Some(before) => (self.results.train_fields(before)?.last_step, OptimizerState::Keep),
            None => (0, fields.optimizer_state),
        };
        let order = self.results.required_input(id, &Role::Order)?;
        let order = self.results.order_fields(order)?.clone();
        let mut tokens = Vec::new();
        for component in &order.components {
            let nodes = self.results.inputs(id, &Role::Tokens(component.name.clone()));
            let paths = nodes.into_iter().map(|node| self.token_paths(node));
            tokens.push(paths.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(TrainJob {
            node: self.results.node(id).name().to_owned(),
            key: self.results.keyed.key(id).to_hex(),
            fields,
            first_step,
            optimizer_state,
            start,
            order,
            tokens,
            layout: layout.clone(),
            out: out.to_owned(),
        })
    }

    fn token_paths(&self, node: NodeId) -> Result<TokenPaths, RunError> {
        let files = self.results.files(node)?;
        match (files.get("tokens.bin"), files.get("tokens.idx")) {
            (Some(bin), Some(idx)) => Ok(TokenPaths {
                bin: bin.clone(),
                idx: idx.clone(),
                mask: files.get("tokens.mask").cloned(),
            }),
            _ => Err(self.fail(node, "its result has no tokens")),
        }
    }
}

/// A layout with half of the workers: halves data, else pipeline, else tensor parallelism. The result has the same bits.
fn fewer(layout: &Layout) -> Layout {
    let mut fewer = layout.clone();
    for degree in [&mut fewer.data, &mut fewer.pipeline, &mut fewer.tensor] {
        if *degree > 1 {
            *degree /= 2;
            break;
        }
    }
    fewer
}

impl Session<'_, '_> {
    fn folder(&self, id: NodeId) -> Result<Utf8PathBuf, RunError> {
        let path = self.scratch.path().join(self.run.results.keyed.key(id).to_hex());
        fs::create_dir(&path).map_err(|error| self.run.fail(id, error))?;
        Ok(path)
    }

    /// Gives a node to the workers.
    fn submit(&mut self, id: NodeId, out: Utf8PathBuf, held: Held, command: &WorkerCommand) -> Result<(), RunError> {
        let name = self.run.results.node(id).name().to_owned();
        self.pool.send(command)?;
        self.in_flight.insert(
            name,
            InFlightNode {
                id,
                out,
                since: Instant::now(),
                finished: 0,
                _held: held,
            },
        );
        Ok(())
    }

    /// Locks a result for the workers. If another process has locked it, first finishes and releases what this run has
    /// locked: the other process may be waiting for it.
    fn hold(&mut self, id: NodeId, outcome: &mut Outcome) -> Result<Held, RunError> {
        let run = self.run;
        if let Attempt::Locked(held) = run.results.store.try_hold(run.results.known_id(id)?)? {
            return Ok(held);
        }
        self.finish_nodes(outcome)?;
        run.hold(id, || match self.pool.next_event(run.stop)? {
            Some((rank, Event::Failed(failure))) => Err(self.pool.first_cause(rank, failure)),
            _ => Ok(()),
        })
    }

    /// Whether a node with this node's key is with the workers: it has no files yet, but they have its state in memory.
    fn is_in_flight(&self, id: NodeId) -> bool {
        let keyed = self.run.results.keyed;
        let mut in_flight = self.in_flight.values();
        in_flight.any(|other| keyed.key(other.id) == keyed.key(id))
    }

    fn queue_train(&mut self, id: NodeId, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        let results = &run.results;
        let key = results.keyed.key(id);
        // Two nodes with one key.
        if self.is_in_flight(id) {
            return Ok(());
        }
        let known = results.known_id(id)?;
        let held = self.hold(id, outcome)?;
        if results.is_built(id)? {
            return Ok(());
        }
        let before = results.input(id, &Role::ResumesFrom);
        let stage_start = results.required_input(id, &Role::Start)?;
        let from = before.unwrap_or(stage_start);
        if !self.is_in_flight(from) && !self.is_in_flight(stage_start) && run.reuse(id, outcome)? {
            return Ok(());
        }
        let start = match results.store.partial(known)? {
            Some(partial) => {
                let step = partial.step.unwrap_or_default();
                run.observer.on_event(RunEvent::Resumed {
                    node: results.node(id).name(),
                    step,
                });
                NodeFiles {
                    key: key.to_hex(),
                    files: results.store.files(&partial)?,
                }
            }
            None => NodeFiles {
                key: results.keyed.key(from).to_hex(),
                // A segment that is still being trained has no files yet: the worker continues from its memory.
                files: if self.is_in_flight(from) {
                    Files::new()
                } else {
                    results.files(from)?
                },
            },
        };
        let out = self.folder(id)?;
        let job = run.train_job(id, start, &self.layout, &out)?;
        self.submit(id, out, held, &WorkerCommand::Train(Box::new(job)))
    }

    fn queue_eval(&mut self, id: NodeId, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        let results = &run.results;
        let held = self.hold(id, outcome)?;
        if results.is_built(id)? || run.reuse(id, outcome)? {
            return Ok(());
        }
        let checkpoint = results.required_input(id, &Role::Checkpoint)?;
        let mut sets = Vec::new();
        for node in results.inputs(id, &Role::Set) {
            let meta: TokensMeta = results.json(node, "meta.json")?;
            sets.push(EvalSetPaths {
                files: vec![run.token_paths(node)?],
                documents: run.token_documents(node)?,
                bytes: meta.bytes,
                end_of_document: meta.end_of_document_id,
            });
        }
        let out = self.folder(id)?;
        let job = EvalJob {
            node: results.node(id).name().to_owned(),
            key: results.keyed.key(id).to_hex(),
            fields: results.eval_fields(id)?.clone(),
            checkpoint: NodeFiles {
                key: results.keyed.key(checkpoint).to_hex(),
                files: results.files(checkpoint)?,
            },
            sets,
            task: self.task_paths(id)?,
            layout: self.layout.clone(),
            out: out.clone(),
        };
        self.submit(id, out, held, &WorkerCommand::Eval(Box::new(job)))
    }

    /// The files of a task's items, and the tokenizer.
    fn task_paths(&self, id: NodeId) -> Result<Option<TaskPaths>, RunError> {
        let results = &self.run.results;
        let Some(tokenizer) = results.input(id, &Role::Tokenizer) else {
            return Ok(None);
        };
        let meta: TokenizerMeta = results.json(tokenizer, "meta.json")?;
        Ok(Some(TaskPaths {
            files: results.item_files(id)?,
            tokenizer: results.file(tokenizer, "tokenizer.json")?,
            end_of_document: meta.end_of_document_id,
        }))
    }

    /// Handles events until all nodes in flight are finished.
    fn finish_nodes(&mut self, outcome: &mut Outcome) -> Result<(), RunError> {
        let mut stopped_at = None;
        let mut stopped = 0;
        while !self.in_flight.is_empty() {
            let Some((rank, event)) = self.pool.next_event(self.run.stop)? else {
                continue;
            };
            match event {
                // All workers answer a stop: either all have saved a checkpoint, or none had anything to save.
                Event::Idle => stopped += 1,
                Event::Stopped { node, step } => {
                    stopped += 1;
                    stopped_at = Some((node, step));
                }
                Event::Failed(failure) => return Err(self.pool.first_cause(rank, failure)),
                event => self.on_event(event, outcome)?,
            }
            if stopped == self.pool.world() {
                if let Some((node, step)) = &stopped_at {
                    self.save_partial(node, *step)?;
                }
                break;
            }
        }
        if self.pool.is_stopping() {
            Err(RunError::Stopped { at: stopped_at })
        } else {
            Ok(())
        }
    }

    fn on_event(&mut self, event: Event, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        match event {
            Event::Started { node, .. } => {
                if let Some(in_flight) = self.in_flight.get_mut(&node) {
                    in_flight.since = Instant::now();
                    run.observer.on_event(RunEvent::Started {
                        node: &node,
                        kind: run.results.node(in_flight.id).kind(),
                    });
                }
            }
            Event::Step(step) => {
                let Some(in_flight) = self.in_flight.get(&step.node) else {
                    return Ok(());
                };
                let fields = run.results.train_fields(in_flight.id)?;
                let Some((stage, _)) = run.results.node(in_flight.id).origin.trained() else {
                    return Ok(());
                };
                let tokens_per_step = u64::from(fields.global_batch) * u64::from(fields.sequence);
                run.observer.on_event(RunEvent::Step {
                    step: &step,
                    stage,
                    of: self.stage_steps(stage),
                    tokens_per_step,
                });
            }
            Event::EvalProgress { node, set, done, total } => {
                run.observer.on_event(RunEvent::Evaluating {
                    node: &node,
                    set: &set,
                    done,
                    of: total,
                });
            }
            Event::Finished { node } => {
                let Some(mut in_flight) = self.in_flight.remove(&node) else {
                    return Ok(());
                };
                in_flight.finished += 1;
                if in_flight.finished < self.pool.world() {
                    self.in_flight.insert(node, in_flight);
                    return Ok(());
                }
                if run.results.node(in_flight.id).kind() == NodeKind::Train {
                    self.complete_step_log(in_flight.id, &in_flight.out)?;
                }
                let seconds = in_flight.since.elapsed().as_secs_f64();
                run.publish(in_flight.id, &in_flight.out, Some(&self.made_on), seconds, outcome)?;
            }
            // Answers to other commands, and heartbeats.
            Event::Ready { .. }
            | Event::RendezvousReady { .. }
            | Event::Joined
            | Event::Heartbeat
            | Event::Failed(_)
            | Event::Stopped { .. }
            | Event::Idle => {}
        }
        Ok(())
    }

    fn stage_steps(&self, stage: &str) -> u64 {
        let graph = &self.run.results.keyed.graph;
        let checkpoints = graph.ids().filter_map(|id| graph.node(id).origin.trained());
        let steps = checkpoints.filter(|(of, _)| *of == stage).map(|(_, step)| step);
        steps.max().unwrap_or(0)
    }

    /// A checkpoint's step log covers the stage from step 1, even if earlier segments trained the first steps.
    fn complete_step_log(&self, id: NodeId, out: &Utf8Path) -> Result<(), RunError> {
        let Some(before) = self.run.results.input(id, &Role::ResumesFrom) else {
            return Ok(());
        };
        let earlier = self.run.results.file(before, STEP_LOG)?;
        prepend_steps(&earlier, &out.join(STEP_LOG))
            .map_err(|error| self.run.fail(id, format!("cannot write its step log: {error}")))
    }

    fn save_partial(&mut self, node: &str, step: u64) -> Result<(), RunError> {
        let Some(in_flight) = self.in_flight.remove(node) else {
            return Ok(());
        };
        let results = &self.run.results;
        // The input may itself be unfinished in this session; an unfinished checkpoint needs no realised key.
        let publication = crate::store::Publication {
            experiment: results.experiment,
            node,
            id: results.known_id(in_flight.id)?,
            realised: results.keyed.key(in_flight.id),
            preimage: results.keyed.preimage(in_flight.id),
            made_on: Some(self.made_on.clone()),
        };
        results.store.publish_partial(publication, step, &in_flight.out)?;
        Ok(())
    }
}

/// Puts the steps of `earlier` before those of `log`, unless `log` begins with step 1.
fn prepend_steps(earlier: &Utf8Path, log: &Utf8Path) -> io::Result<()> {
    let mut first = String::new();
    BufReader::new(fs::File::open(log)?).read_line(&mut first)?;
    let first: StepLogLine = serde_json::from_str(&first)?;
    if first.step == 1 {
        return Ok(());
    }
    let mut steps = fs::read(earlier)?;
    steps.extend_from_slice(&fs::read(log)?);
    fs::File::create(log)?.write_all(&steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_steps_are_put_before_a_log_that_begins_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let (earlier, log) = (folder.join("earlier"), folder.join("log"));
        let step = |step: u64| StepLogLine {
            step,
            batch: String::new(),
            loss: String::new(),
            grad_norm: String::new(),
            learning_rate: String::new(),
            groups: BTreeMap::new(),
        };
        // Members in another order: a log is recognised by its first step, not by its first bytes.
        let line = |number: u64| {
            let value = serde_json::to_value(step(number)).expect("JSON");
            let members = value.as_object().expect("an object").iter().rev();
            let members: Vec<String> = members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}\n", members.join(","))
        };
        fs::write(&earlier, line(1)).expect("written");
        for (own, expected) in [(line(2), line(1) + &line(2)), (line(1) + &line(2), line(1) + &line(2))] {
            fs::write(&log, own).expect("written");
            prepend_steps(&earlier, &log).expect("two logs");
            assert_eq!(fs::read_to_string(&log).expect("read"), expected);
        }
        fs::write(&log, "not a step\n").expect("written");
        prepend_steps(&earlier, &log).expect_err("its first line is not a step");
    }
}
