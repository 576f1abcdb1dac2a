//! What each step did, as bits.

use aurora_runtime::job::TrailStep;

use super::TrainError;

/// Weights are digested each time so many steps of the stage are done.
pub const INTERVAL: u64 = 10;

/// The lines of `trail.jsonl`.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    lines: Vec<String>,
}

impl Trail {
    /// Goes on with the trail of an interrupted segment: the steps `first + 1 ..= done`, no more and no fewer.
    ///
    /// # Errors
    /// [`TrainError::State`] if the lines are not those.
    pub fn resume(text: &str, first: u64, done: u64) -> Result<Self, TrainError> {
        let damaged = |cause: String| TrainError::State {
            file: aurora_runtime::checkpoint::STEP_LOG,
            cause,
        };
        let mut expected = first;
        let mut lines = Vec::new();
        for line in text.lines() {
            expected += 1;
            let step: TrailStep = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
            if step.step != expected {
                return Err(damaged(format!("step {} stands where {expected} should", step.step)));
            }
            lines.push(line.to_owned());
        }
        if expected != done {
            return Err(damaged(format!(
                "it ends at step {expected}, the checkpoint is of step {done}"
            )));
        }
        Ok(Self { lines })
    }

    pub fn push(&mut self, step: &TrailStep) {
        self.lines
            .push(serde_json::to_string(step).expect("names and numbers are JSON"));
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// The bits of a number, as sixteen hexadecimal digits.
pub fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}
