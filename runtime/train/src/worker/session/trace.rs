//! Repeats steps of a segment, with the digest of every operation's result.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aurora_runtime::checkpoint::STEP_LOG;
use aurora_runtime::errors::FileError;
use aurora_runtime::job::{Event, TraceJob};
use aurora_runtime::trace::{Operation, TraceEntry};
use camino::Utf8Path;

use super::{CommandEnd, Session};
use crate::model::TraceRecorder;
use crate::train::TrainError;
use crate::train::step_log::StepLog;

impl Session {
    /// Repeats the segment's steps from its start to the last requested one.
    pub(super) fn record(&mut self, trace: &TraceJob, stop: &AtomicBool) -> Result<CommandEnd, TrainError> {
        let job = &trace.job;
        let (mut segment, first, _) = self.begin(job)?;
        let recorder = Arc::new(TraceRecorder::default());
        let mut step_log = StepLog::default();
        for step in first..trace.last.min(job.fields.last_step) {
            let recorded = step >= trace.after;
            segment.trainer.recorder = recorded.then(|| Arc::clone(&recorder));
            recorder.begin(step + 1);
            let done = segment.step(step, stop)?;
            if done.outcome.stop {
                self.end(segment);
                self.agreed = true;
                return Ok(CommandEnd::Idle);
            }
            if !recorded {
                continue;
            }
            let rate = done.learning_rate.to_le_bytes();
            recorder.add(recorder.name(Operation::LearningRate), &rate);
            if let Some(line) = &done.line {
                recorder.add_digest(recorder.name(Operation::Batch), line.batch.clone());
                step_log.push(line);
            }
        }
        self.end(segment);
        let path = job.out.join(format!("trace-{}.jsonl", self.rank));
        let failed = FileError::writing(&path);
        write(&path, &recorder.take()).map_err(failed)?;
        if self.rank == 0 {
            std::fs::write(job.out.join(STEP_LOG), step_log.text()).map_err(failed)?;
        }
        self.events.send(&Event::Finished { node: job.node.clone() });
        Ok(CommandEnd::Done)
    }
}

fn write(path: &Utf8Path, entries: &[TraceEntry]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for entry in entries {
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
