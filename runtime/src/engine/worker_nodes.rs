//! Train and eval nodes, handed to the workers.
//!
//! All missing segments are queued at once, so that the workers go from one to the next with their state in memory while
//! the checkpoint before is still being written, hashed and published.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::time::Instant;

use aurora_compiler::fields::{OptimizerState, OrderFields, TrainFields};
use aurora_compiler::graph::{Kind, NodeId};
use aurora_compiler::hash::Key;
use camino::{Utf8Path, Utf8PathBuf};

use super::crew::Crew;
use super::{Outcome, Run, RunError, Seen};
use crate::data::tokenizer::{TokenizerMeta, TokensMeta};
use crate::job::{
    EvalJob, EvalSetPaths, Event, Files, NodeFiles, Placement, TaskPaths, TokenPaths, TrainJob, WorkerCommand,
};
use crate::store::{Held, Scratch};

/// A node in the workers' hands.
struct Handed {
    id: NodeId,
    out: Utf8PathBuf,
    since: Instant,
    /// Workers that have finished their part of it.
    finished: usize,
    _held: Held,
}

struct Session<'r, 'a> {
    run: &'r Run<'a>,
    crew: Crew,
    placement: Placement,
    /// What this run's numerics stand on.
    made_on: String,
    handed: BTreeMap<String, Handed>,
    scratch: Scratch,
}

impl Run<'_> {
    /// Trains and evaluates, with new workers if some are lost, as often as that is allowed.
    pub(super) fn worker_nodes(
        &self,
        training: &[NodeId],
        evals: &[NodeId],
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        let mut placement = self.placement.clone();
        let mut left = self.restarts;
        loop {
            let lost = match self.with_workers(&placement, training, evals, outcome) {
                Err(lost @ RunError::Lost { .. }) if left > 0 && !self.stop.asked() => lost,
                ended => return ended,
            };
            left -= 1;
            if self.fewer {
                placement = fewer(&placement);
            }
            let (world, text) = (placement.world(), super::chain(&lost));
            let text = format!("{text}; going on from the last checkpoint with {world} workers ({left} restarts left)");
            self.observer.see(Seen::Restart { text: &text });
        }
    }

    fn with_workers(
        &self,
        placement: &Placement,
        training: &[NodeId],
        evals: &[NodeId],
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        self.check_stop()?;
        let crew = Crew::start(&self.launching, placement, self.portable, self.stop)?;
        self.observer.see(Seen::Worker {
            fingerprint: &crew.fingerprint,
            placement,
        });
        outcome.fingerprint = Some(crew.fingerprint.clone());
        let mut session = Session {
            run: self,
            placement: placement.clone(),
            made_on: crew.fingerprint.text(self.portable),
            crew,
            handed: BTreeMap::new(),
            scratch: self.store.scratch()?,
        };
        let mut queued = BTreeSet::new();
        for &id in training {
            session.queue_train(id, &mut queued, outcome)?;
        }
        session.listen(outcome)?;
        // Two names for one measurement: the second finds what the first has made.
        let mut waiting = evals.to_vec();
        while !waiting.is_empty() {
            let mut keys = BTreeSet::new();
            let (now, later) = waiting.into_iter().partition(|id| keys.insert(self.keyed.key(*id)));
            waiting = later;
            for id in now {
                session.queue_eval(id, outcome)?;
            }
            session.listen(outcome)?;
        }
        Ok(())
    }
}

impl Run<'_> {
    /// What a worker is told of a train node that starts from `start`.
    pub(super) fn train_job(
        &self,
        id: NodeId,
        start: NodeFiles,
        placement: &Placement,
        out: &Utf8Path,
    ) -> Result<TrainJob, RunError> {
        let mut fields: TrainFields = self.fields(id)?;
        if let Some(before) = self.inputs(id, "goes on from").first() {
            fields.first_step = self.fields::<TrainFields>(*before)?.last_step;
            fields.optimizer_state = OptimizerState::Keep;
        }
        let Some(order) = self.inputs(id, "order").first().copied() else {
            return Err(self.fail(id, "it has no order"));
        };
        let order: OrderFields = self.fields(order)?;
        let mut tokens = Vec::new();
        for component in &order.components {
            let nodes = self.inputs(id, &format!("tokens.{}", component.name));
            let paths = nodes.into_iter().map(|node| self.token_paths(node));
            tokens.push(paths.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(TrainJob {
            node: self.node(id).name.clone(),
            key: self.keyed.key(id).to_hex(),
            fields,
            start,
            order,
            tokens,
            placement: placement.clone(),
            out: out.to_owned(),
        })
    }

    fn token_paths(&self, node: NodeId) -> Result<TokenPaths, RunError> {
        let files = self.files(node)?;
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

/// Half of the workers: replicas first, then pipeline stages, then tensor ranks. Bits stay.
fn fewer(placement: &Placement) -> Placement {
    let mut fewer = placement.clone();
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
        let path = self.scratch.path().join(self.run.keyed.key(id).to_hex());
        fs::create_dir(&path).map_err(|error| self.run.fail(id, error))?;
        Ok(path)
    }

    fn hand(&mut self, id: NodeId, out: Utf8PathBuf, held: Held, order: &WorkerCommand) -> Result<(), RunError> {
        let name = self.run.node(id).name.clone();
        self.crew.send(order)?;
        self.handed.insert(
            name,
            Handed {
                id,
                out,
                since: Instant::now(),
                finished: 0,
                _held: held,
            },
        );
        Ok(())
    }

    fn queue_train(&mut self, id: NodeId, queued: &mut BTreeSet<Key>, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        let key = run.keyed.key(id);
        // Two names for one training.
        if queued.contains(&key) {
            return Ok(());
        }
        let held = run.store.hold(run.keyed.key(id))?;
        if run.is_whole(id) {
            return Ok(());
        }
        let one = |role: &str| run.inputs(id, role).first().copied();
        let before = one("goes on from");
        let Some(stage_start) = one("start") else {
            return Err(run.fail(id, "it has no start"));
        };
        let waits = |input: NodeId| queued.contains(&run.keyed.key(input));
        if !waits(before.unwrap_or(stage_start)) && !waits(stage_start) && run.reuse(id, outcome)? {
            return Ok(());
        }
        let from = before.unwrap_or(stage_start);
        if !waits(from) {
            self.same_numerics(from, run.result(from)?.made_on.as_deref())?;
        }
        let start = match run.store.partial(run.keyed.key(id)) {
            Some(partial) => {
                self.same_numerics(id, partial.made_on.as_deref())?;
                let step = partial.step.unwrap_or_default();
                run.observer.see(Seen::Resumed {
                    node: &run.node(id).name,
                    step,
                });
                NodeFiles {
                    key: run.keyed.key(id).to_hex(),
                    files: run.store.files(&partial)?,
                }
            }
            None => NodeFiles {
                key: run.keyed.key(from).to_hex(),
                // What is still being trained has no files yet: the worker goes on from its memory.
                files: if waits(from) { Files::new() } else { run.files(from)? },
            },
        };
        let out = self.folder(id)?;
        let job = run.train_job(id, start, &self.placement, &out)?;
        queued.insert(key);
        self.hand(id, out, held, &WorkerCommand::Train(Box::new(job)))
    }

    /// A checkpoint is gone on from only where its bits could have been made.
    fn same_numerics(&self, id: NodeId, there: Option<&str>) -> Result<(), RunError> {
        match there {
            Some(there) if there != self.made_on => Err(RunError::Numerics {
                node: self.run.node(id).name.clone(),
                there: there.to_owned(),
                here: self.made_on.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn queue_eval(&mut self, id: NodeId, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        let held = run.store.hold(run.keyed.key(id))?;
        if run.is_whole(id) || run.reuse(id, outcome)? {
            return Ok(());
        }
        let Some(checkpoint) = run.inputs(id, "checkpoint").first().copied() else {
            return Err(run.fail(id, "it has no checkpoint"));
        };
        let mut sets = Vec::new();
        for node in run.inputs(id, "set") {
            let meta = self.meta(node)?;
            sets.push(EvalSetPaths {
                files: vec![run.token_paths(node)?],
                documents: run.token_documents(node)?,
                bytes: meta.bytes,
                end_of_document: meta.end_of_document_id,
            });
        }
        let out = self.folder(id)?;
        let job = EvalJob {
            node: run.node(id).name.clone(),
            key: run.keyed.key(id).to_hex(),
            fields: run.fields(id)?,
            checkpoint: NodeFiles {
                key: run.keyed.key(checkpoint).to_hex(),
                files: run.files(checkpoint)?,
            },
            sets,
            task: self.task_paths(id)?,
            placement: self.placement.clone(),
            out: out.clone(),
        };
        self.hand(id, out, held, &WorkerCommand::Eval(Box::new(job)))
    }

    /// The files of a task's items, and the tokenizer.
    fn task_paths(&self, id: NodeId) -> Result<Option<TaskPaths>, RunError> {
        let run = self.run;
        let Some(tokenizer) = run.inputs(id, "tokenizer").first().copied() else {
            return Ok(None);
        };
        let mut files = Vec::new();
        for source in run.inputs(id, "items") {
            files.extend(run.files(source)?);
        }
        let own = run.files(tokenizer)?;
        let of = |name: &str| {
            own.get(name)
                .ok_or_else(|| run.fail(tokenizer, format!("its result has no {name}")))
        };
        let text = fs::read_to_string(of("meta.json")?).map_err(|error| run.fail(tokenizer, error))?;
        let meta: TokenizerMeta = serde_json::from_str(&text).map_err(|error| run.fail(tokenizer, error))?;
        Ok(Some(TaskPaths {
            files,
            tokenizer: of("tokenizer.json")?.clone(),
            end_of_document: meta.end_of_document_id,
        }))
    }

    fn meta(&self, node: NodeId) -> Result<TokensMeta, RunError> {
        let files = self.run.files(node)?;
        let path = files
            .get("meta.json")
            .ok_or_else(|| self.run.fail(node, "its result has no meta.json"))?;
        let text = fs::read_to_string(path).map_err(|error| self.run.fail(node, error))?;
        serde_json::from_str(&text).map_err(|error| self.run.fail(node, error))
    }

    /// Hears events until nothing is in the workers' hands.
    fn listen(&mut self, outcome: &mut Outcome) -> Result<(), RunError> {
        let mut stopped_at = None;
        let mut answers = 0;
        while !self.handed.is_empty() {
            let Some((rank, event)) = self.crew.hear(self.run.stop)? else {
                continue;
            };
            match event {
                // Workers answer a stop together: all have saved, or none had anything to save.
                Event::Idle => answers += 1,
                Event::Stopped { node, step } => {
                    answers += 1;
                    stopped_at = Some((node, step));
                }
                Event::Failed { node, cause, peer } => return Err(self.crew.first_cause(rank, node, cause, peer)),
                event => self.see(event, outcome)?,
            }
            if answers == self.crew.world() {
                if let Some((node, step)) = &stopped_at {
                    self.save_partial(node, *step)?;
                }
                break;
            }
        }
        if self.crew.stopping() {
            Err(RunError::Stopped { at: stopped_at })
        } else {
            Ok(())
        }
    }

    fn see(&mut self, event: Event, outcome: &mut Outcome) -> Result<(), RunError> {
        let run = self.run;
        match event {
            Event::Started { node, .. } => {
                if let Some(handed) = self.handed.get_mut(&node) {
                    handed.since = Instant::now();
                    run.observer.see(Seen::Started {
                        node: &node,
                        kind: run.node(handed.id).kind,
                    });
                }
            }
            Event::Step(step) => {
                let Some(handed) = self.handed.get(&step.node) else {
                    return Ok(());
                };
                let fields: TrainFields = run.fields(handed.id)?;
                let (stage, _) = step.node.split_once('@').unwrap_or((&step.node, ""));
                let tokens_per_step = u64::from(fields.global_batch) * u64::from(fields.sequence);
                run.observer.see(Seen::Step {
                    step: &step,
                    stage,
                    of: self.stage_steps(stage),
                    tokens_per_step,
                });
            }
            Event::EvalProgress { node, set, done, total } => {
                run.observer.see(Seen::Evaluating {
                    node: &node,
                    set: &set,
                    done,
                    of: total,
                });
            }
            Event::Finished { node } => {
                let Some(mut handed) = self.handed.remove(&node) else {
                    return Ok(());
                };
                handed.finished += 1;
                if handed.finished < self.crew.world() {
                    self.handed.insert(node, handed);
                    return Ok(());
                }
                if run.node(handed.id).kind == Kind::Train {
                    self.whole_trail(handed.id, &handed.out)?;
                }
                let seconds = handed.since.elapsed().as_secs_f64();
                run.publish(handed.id, &handed.out, Some(&self.made_on), seconds, outcome)?;
            }
            // Answers to other orders, and signs of life.
            Event::Ready { .. }
            | Event::StoreReady { .. }
            | Event::Joined
            | Event::Heartbeat
            | Event::Failed { .. }
            | Event::Stopped { .. }
            | Event::Idle => {}
        }
        Ok(())
    }

    fn stage_steps(&self, stage: &str) -> u64 {
        let graph = &self.run.keyed.graph;
        let of_stage =
            |id: &NodeId| graph.node(*id).kind == Kind::Train && graph.node(*id).name.split('@').next() == Some(stage);
        graph
            .ids()
            .filter(of_stage)
            .filter_map(|id| graph.node(id).name.split_once('@')?.1.parse().ok())
            .max()
            .unwrap_or(0)
    }

    /// A checkpoint's trail tells of the stage from its first step, wherever the stage was cut.
    fn whole_trail(&self, id: NodeId, out: &Utf8Path) -> Result<(), RunError> {
        let Some(before) = self.run.inputs(id, "goes on from").first().copied() else {
            return Ok(());
        };
        let path = out.join("trail.jsonl");
        let prepend = || -> std::io::Result<()> {
            let own = fs::read(&path)?;
            if own.starts_with(b"{\"step\":1,") {
                return Ok(());
            }
            let files = self.run.files(before).map_err(std::io::Error::other)?;
            let earlier = files
                .get("trail.jsonl")
                .ok_or_else(|| std::io::Error::other("no earlier trail"))?;
            let mut whole = fs::read(earlier)?;
            whole.extend_from_slice(&own);
            let mut file = fs::File::create(&path)?;
            file.write_all(&whole)
        };
        prepend().map_err(|error| self.run.fail(id, format!("its trail cannot be written: {error}")))
    }

    fn save_partial(&mut self, node: &str, step: u64) -> Result<(), RunError> {
        let Some(handed) = self.handed.remove(node) else {
            return Ok(());
        };
        let run = self.run;
        // The input may itself be unfinished business of this session; an unfinished checkpoint needs no realised key.
        let publication = crate::store::Publication {
            experiment: run.experiment,
            node,
            key: run.keyed.key(handed.id),
            realised: run.keyed.key(handed.id),
            preimage: run.keyed.preimage(handed.id),
            made_on: Some(self.made_on.clone()),
        };
        run.store.publish_partial(publication, step, &handed.out)?;
        Ok(())
    }
}
