//! Trains some steps of a train node again under a layout, and records the digest of every operation's result.

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader};

use aurora_compiler::graph::{NodeId, Role};
use camino::Utf8Path;

use super::workers::WorkerPool;
use super::{Run, RunError};
use crate::job::{Event, NodeFiles, StepLogLine, TraceJob, WorkerCommand};
use crate::trace::Trace;

/// What a repetition of some steps has recorded.
#[derive(Debug, Default)]
pub struct Traced {
    pub trace: Trace,
    pub step_log: Vec<StepLogLine>,
}

impl Run<'_> {
    /// Repeats the steps of a train node from its start to `last`, and records those after `after`. The inputs are read
    /// from the store; nothing is published.
    ///
    /// # Errors
    /// A worker fails or is lost, an input is missing, or a signal comes.
    pub fn trace(&self, id: NodeId, after: u64, last: u64) -> Result<Traced, RunError> {
        let results = &self.results;
        self.check_stop()?;
        let from = match results.input(id, &Role::ResumesFrom) {
            Some(before) => before,
            None => results.required_input(id, &Role::Start)?,
        };
        let start = NodeFiles {
            key: results.keyed.key(from).to_hex(),
            files: results.files(from)?,
        };
        let scratch = results.store.scratch()?;
        let layout = &self.workers.layout;
        let job = self.train_job(id, start, layout, scratch.path())?;
        let mut pool = WorkerPool::start(&self.workers.launch, layout, self.workers.portable, self.stop)?;
        pool.send(&WorkerCommand::Trace(Box::new(TraceJob { job, after, last })))?;
        let mut finished = 0;
        while finished < pool.world() {
            let Some((rank, event)) = pool.next_event(self.stop)? else {
                continue;
            };
            match event {
                Event::Finished { .. } => finished += 1,
                Event::Idle => return Err(RunError::Stopped { at: None }),
                Event::Failed(failure) => return Err(pool.first_cause(rank, failure)),
                _ => {}
            }
        }
        read_trace(scratch.path(), pool.world())
            .map_err(|error| self.fail(id, format!("cannot read its trace: {error}")))
    }
}

fn read_trace(folder: &Utf8Path, world: usize) -> std::io::Result<Traced> {
    let mut traced = Traced::default();
    for rank in 0..world {
        let file = BufReader::new(File::open(folder.join(format!("trace-{rank}.jsonl")))?);
        for line in file.lines() {
            traced.trace.extend([serde_json::from_str(&line?)?]);
        }
    }
    for line in read_to_string(folder.join(crate::checkpoint::STEP_LOG))?.lines() {
        traced.step_log.push(serde_json::from_str(line)?);
    }
    Ok(traced)
}
