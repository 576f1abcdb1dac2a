//! Gates: compares metrics of evals, and says how it came out.

use aurora_compiler::fields::ExpectFields;
use aurora_compiler::graph::{NodeId, NodeOrigin, Role};
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::{Run, RunError};
use crate::statistics::{Interval, Judgement, Scored, Verdict, judge};

/// How a gate came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    pub name: String,
    /// The gate as the spec says it.
    pub text: String,
    #[serde(flatten)]
    pub found: Judgement,
}

impl Gate {
    /// How it came out, in words.
    pub fn verdict(&self) -> String {
        let found = &self.found;
        match (found.holds, found.verdict) {
            (false, Verdict::HoldsWithinNoise) => {
                format!(
                    "FAILS: it holds within the noise, and asks for {} confidence",
                    self.level()
                )
            }
            (_, verdict) => verdict.to_string().replace("fails", "FAILS"),
        }
    }

    /// The two sides, and the difference with its interval.
    pub fn figures(&self) -> String {
        let found = &self.found;
        let sides = format!(
            "{:.4} against {:.4}, difference {:+.4}",
            found.left, found.right, found.difference
        );
        match found.interval {
            Some(Interval { low, high }) => format!("{sides}, {} interval {low:+.4} to {high:+.4}", self.level()),
            None => format!("{sides}, and too few items to say more"),
        }
    }

    fn level(&self) -> String {
        format!("{}%", (self.found.level * 1e4).round() / 100.0)
    }
}

impl Run<'_> {
    /// Reads what an eval found.
    ///
    /// # Errors
    /// Its result is not there or damaged.
    pub(crate) fn scored(&self, eval: NodeId) -> Result<Scored, RunError> {
        let files = self.files(eval)?;
        let read = |name: &str| {
            let path = files
                .get(name)
                .ok_or_else(|| self.fail(eval, format!("its result has no {name}")))?;
            std::fs::read_to_string(path).map_err(|error| self.fail(eval, error))
        };
        let scores = serde_json::from_str(&read("scores.json")?).map_err(|error| self.fail(eval, error))?;
        Scored::new(scores, &read("items.jsonl")?).map_err(|cause| self.fail(eval, cause))
    }
}

/// Evaluates a gate into `gate.json`.
pub(super) fn build(run: &Run<'_>, id: NodeId, fields: &ExpectFields, out: &Utf8Path) -> Result<(), RunError> {
    let evals = run.inputs(id, &Role::Scores).into_iter().map(|input| run.scored(input));
    let evals = evals.collect::<Result<Vec<_>, _>>()?;
    let node = run.node(id);
    let NodeOrigin::Expect { gate } = &node.origin else {
        return Err(run.fail(id, "it is not a gate"));
    };
    let gate = Gate {
        name: gate.clone(),
        text: node.spec_values.values().next().cloned().unwrap_or_default(),
        found: judge(fields, &evals).map_err(|cause| run.fail(id, cause))?,
    };
    let text = serde_json::to_string(&gate).map_err(|error| run.fail(id, error))?;
    std::fs::write(out.join("gate.json"), text + "\n").map_err(|error| run.fail(id, error))
}

/// Reads how a gate came out.
pub(super) fn read(run: &Run<'_>, id: NodeId) -> Result<Gate, RunError> {
    let text = std::fs::read_to_string(&run.files(id)?["gate.json"]).map_err(|error| run.fail(id, error))?;
    serde_json::from_str(&text).map_err(|error| run.fail(id, error))
}
