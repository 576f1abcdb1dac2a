//! Steps of a train node once more, under a placement, with the digest of every operation's result.

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader};

use aurora_compiler::graph::NodeId;
use camino::Utf8Path;

use super::crew::Crew;
use super::{Run, RunError};
use crate::job::{Event, NodeFiles, Placement, StepLogLine, TraceJob, WorkerCommand};
use crate::trace::Trace;

/// What a repetition of some steps has left.
#[derive(Debug, Default)]
pub struct Traced {
    pub trace: Trace,
    pub trail: Vec<StepLogLine>,
}

impl Run<'_> {
    /// Repeats the steps of a train node from its start to `last`, and records those after `after`. The inputs are taken
    /// from the store; nothing is published.
    ///
    /// # Errors
    /// A worker fails or is lost, an input is not there, or a signal comes.
    pub fn trace(&self, id: NodeId, placement: &Placement, after: u64, last: u64) -> Result<Traced, RunError> {
        let _in_use = self.store.share()?;
        self.check_stop()?;
        let from = self
            .inputs(id, "goes on from")
            .first()
            .or(self.inputs(id, "start").first())
            .copied();
        let Some(from) = from else {
            return Err(self.fail(id, "it has no start"));
        };
        let start = NodeFiles {
            key: self.keyed.key(from).to_hex(),
            files: self.files(from)?,
        };
        let scratch = self.store.scratch()?;
        let job = self.train_job(id, start, placement, scratch.path())?;
        let mut crew = Crew::start(&self.launching, placement, self.portable, self.stop)?;
        crew.send(&WorkerCommand::Trace(Box::new(TraceJob { job, after, last })))?;
        let mut finished = 0;
        while finished < crew.world() {
            let Some((rank, event)) = crew.hear(self.stop)? else {
                continue;
            };
            match event {
                Event::Finished { .. } => finished += 1,
                Event::Idle => return Err(RunError::Stopped { at: None }),
                Event::Failed { node, cause, peer } => return Err(crew.first_cause(rank, node, cause, peer)),
                _ => {}
            }
        }
        self.read_trace(id, scratch.path(), crew.world())
    }

    fn read_trace(&self, id: NodeId, folder: &Utf8Path, world: usize) -> Result<Traced, RunError> {
        let mut found = Traced::default();
        let mut read = || -> std::io::Result<()> {
            for rank in 0..world {
                let file = BufReader::new(File::open(folder.join(format!("trace-{rank}.jsonl")))?);
                for line in file.lines() {
                    found.trace.extend([serde_json::from_str(&line?)?]);
                }
            }
            for line in read_to_string(folder.join(crate::checkpoint::TRAIL))?.lines() {
                found.trail.push(serde_json::from_str(line)?);
            }
            Ok(())
        };
        read().map_err(|error| self.fail(id, format!("its trace cannot be read: {error}")))?;
        Ok(found)
    }
}
