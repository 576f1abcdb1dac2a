//! The step log of a checkpoint: results of each step, as bits.

use aurora_runtime::job::StepLogLine;

use super::TrainError;

/// Steps of the training stage between digests of the weights.
pub const INTERVAL: u64 = 10;

/// The lines of `trail.jsonl`, the file of the step log in a checkpoint. (File names are part of a result's digest, so
/// this one does not change.)
#[derive(Clone, Debug, Default)]
pub struct StepLog {
    lines: Vec<String>,
}

impl StepLog {
    /// Resumes the step log of an interrupted segment, which must contain exactly the steps `first + 1 ..= done`.
    ///
    /// # Errors
    /// [`TrainError::StateSyntax`] or [`TrainError::State`] if it does not.
    pub fn resume(text: &str, first: u64, done: u64) -> Result<Self, TrainError> {
        let file = aurora_runtime::checkpoint::STEP_LOG;
        let damaged = |problem: String| TrainError::State { file, problem };
        let mut expected = first;
        let mut lines = Vec::new();
        for line in text.lines() {
            expected += 1;
            let step: StepLogLine =
                serde_json::from_str(line).map_err(|source| TrainError::StateSyntax { file, source })?;
            if step.step != expected {
                return Err(damaged(format!("found step {}, expected step {expected}", step.step)));
            }
            lines.push(line.to_owned());
        }
        if expected != done {
            return Err(damaged(format!(
                "it ends at step {expected}, but the checkpoint is at step {done}"
            )));
        }
        Ok(Self { lines })
    }

    pub fn push(&mut self, step: &StepLogLine) {
        self.lines
            .push(serde_json::to_string(step).expect("names and numbers are JSON"));
    }

    /// Text of the file.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// The bits of a number as sixteen hexadecimal digits.
pub fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}
