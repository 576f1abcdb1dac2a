//! Gates: compares metrics of evals, and says how it came out.

use aurora_compiler::fields::{ExpectFields, Term};
use aurora_compiler::graph::NodeId;
use aurora_compiler::spec::Relation;
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::{Run, RunError};
use crate::job::Scores;

/// How a gate came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub name: String,
    /// The gate as the spec says it.
    pub text: String,
    pub holds: bool,
    pub left: f64,
    pub right: f64,
}

/// Evaluates a gate into `gate.json`.
pub(super) fn build(run: &Run<'_>, id: NodeId, out: &Utf8Path) -> Result<(), RunError> {
    let fields: ExpectFields = run.fields(id)?;
    let mut scores = Vec::new();
    for input in run.inputs(id, "scores") {
        let path = &run.files(input)?["scores.json"];
        let text = std::fs::read_to_string(path).map_err(|error| run.fail(id, error))?;
        scores.push(serde_json::from_str::<Scores>(&text).map_err(|error| run.fail(id, error))?);
    }
    let left = value(&fields.left, &scores).map_err(|cause| run.fail(id, cause))?;
    let right = value(&fields.right, &scores).map_err(|cause| run.fail(id, cause))?;
    let holds = match fields.relation {
        Relation::Less => left < right,
        Relation::AtMost => left <= right,
        Relation::Greater => left > right,
        Relation::AtLeast => left >= right,
    };
    let node = run.node(id);
    let name = node.name.trim_start_matches("expect/").to_string();
    let text = node.spec_values.values().next().cloned().unwrap_or_default();
    let gate = Gate {
        name,
        text,
        holds,
        left,
        right,
    };
    let text = serde_json::to_string(&gate).map_err(|error| run.fail(id, error))?;
    std::fs::write(out.join("gate.json"), text + "\n").map_err(|error| run.fail(id, error))
}

/// Reads how a gate came out.
pub(super) fn read(run: &Run<'_>, id: NodeId) -> Result<Gate, RunError> {
    let text = std::fs::read_to_string(&run.files(id)?["gate.json"]).map_err(|error| run.fail(id, error))?;
    serde_json::from_str(&text).map_err(|error| run.fail(id, error))
}

fn value(term: &Term, scores: &[Scores]) -> Result<f64, String> {
    Ok(match term {
        Term::Number(number) => number.to_f64(),
        Term::Add(left, right) => value(left, scores)? + value(right, scores)?,
        Term::Subtract(left, right) => value(left, scores)? - value(right, scores)?,
        Term::Multiply(left, right) => value(left, scores)? * value(right, scores)?,
        Term::Metric { input, metric, set } => {
            let of = scores
                .get(*input)
                .ok_or("the gate names an eval that it does not have")?;
            if let Some(measures) = of.measures.get(set) {
                let measure = measures.get(metric);
                return measure
                    .map(|measure| measure.value)
                    .ok_or_else(|| format!("the eval has no metric `{metric}`"));
            }
            let score = of.sets.get(set).ok_or_else(|| format!("the eval has no set `{set}`"))?;
            match metric.as_str() {
                "perplexity" => score.perplexity,
                "bits_per_byte" => score.bits_per_byte,
                other => return Err(format!("the eval has no metric `{other}`")),
            }
        }
    })
}
