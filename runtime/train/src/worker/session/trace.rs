//! Steps of a segment once more, with the digest of every operation's result.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aurora_runtime::checkpoint::{CheckpointError, TRAIL};
use aurora_runtime::job::{Event, TraceJob, TrailStep};
use aurora_runtime::trace::{Entry, Operation};
use camino::Utf8Path;

use super::{Ended, Session, group_digests};
use crate::model::Recorder;
use crate::train::TrainError;
use crate::train::batch::Batches;
use crate::train::schedule::rate;
use crate::train::state::check;
use crate::train::step::Trainer;
use crate::train::trail::{INTERVAL, Trail, bits};

impl Session {
    /// Repeats the segment's steps from its start to the last that is asked for.
    pub(super) fn record(&mut self, trace: &TraceJob, stop: &AtomicBool) -> Result<Ended, TrainError> {
        let job = &trace.job;
        let fields = &job.fields;
        check(fields)?;
        let (team, peers) = self.take(&job.placement)?;
        let network = self.network(&fields.model, &fields.numerics, fields.precision, &job.placement)?;
        let batches = Batches::new(job, network.grid.micro_batch)?;
        let (state, first, _) = self.start(job, network)?;
        let leads = self.rank == 0;
        let mut trainer = Trainer::new(
            state,
            peers,
            &fields.optimizer,
            fields.sequence as usize,
            batches.count(),
            job.placement.recompute,
        )?;
        let recorder = Arc::new(Recorder::default());
        let mut trail = Trail::default();
        for step in first..trace.last.min(fields.last_step) {
            let done = step + 1;
            let recorded = done > trace.after;
            trainer.recorder = recorded.then(|| Arc::clone(&recorder));
            recorder.begin(done);
            let (network, replica) = (&trainer.state.network, trainer.peers()?.at().data);
            let mut batch = batches.batch(step, |index| Trainer::reads(network, replica, index), leads)?;
            let learning_rate = rate(&fields.schedule, step);
            let samples = batch.samples.clone();
            let not_finite = |what: &'static str, value: f64| TrainError::NotFinite {
                what,
                step: done,
                value,
                batch: batches.describe(&samples),
            };
            let outcome = trainer.step(&team, &mut batch, &fields.optimizer, learning_rate, stop, not_finite)?;
            if outcome.stop {
                let (_, peers) = trainer.into_parts();
                self.give_back(team, peers);
                self.agreed = true;
                return Ok(Ended::Idle);
            }
            if !recorded {
                continue;
            }
            recorder.add(recorder.name(Operation::LearningRate), &learning_rate.to_le_bytes());
            let groups = if done.is_multiple_of(INTERVAL) {
                group_digests(&trainer)?
            } else {
                BTreeMap::new()
            };
            if let Some(digest) = batch.digest {
                recorder.put(recorder.name(Operation::Batch), digest.clone());
                trail.push(&TrailStep {
                    step: done,
                    batch: digest,
                    loss: bits(outcome.loss),
                    grad_norm: bits(outcome.grad_norm),
                    learning_rate: bits(learning_rate),
                    groups,
                });
            }
        }
        let (_, peers) = trainer.into_parts();
        self.give_back(team, peers);
        let path = job.out.join(format!("trace-{}.jsonl", self.rank));
        let failed = |source| CheckpointError::Write {
            path: path.clone(),
            source,
        };
        write(&path, &recorder.take()).map_err(failed)?;
        if leads {
            std::fs::write(job.out.join(TRAIL), trail.text()).map_err(failed)?;
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(Ended::Done)
    }
}

fn write(path: &Utf8Path, entries: &[Entry]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for entry in entries {
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
