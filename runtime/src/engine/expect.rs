//! Gates: compares metrics of evals into `gate.json`.

use aurora_compiler::fields::ExpectFields;
use aurora_compiler::graph::{NodeId, Role};
use camino::Utf8Path;

use crate::errors::FileError;
use crate::results::{ResultError, Results};
use crate::statistics::{GateResult, judge};

/// The result of an `expect` node.
pub(super) const GATE_FILE: &str = "gate.json";

/// Evaluates a gate.
pub(super) fn build(
    results: &Results<'_>,
    id: NodeId,
    fields: &ExpectFields,
    out: &Utf8Path,
) -> Result<(), ResultError> {
    let evals = results
        .inputs(id, &Role::Scores)
        .into_iter()
        .map(|input| results.scored(input));
    let evals = evals.collect::<Result<Vec<_>, _>>()?;
    let gate = GateResult {
        name: fields.name.clone(),
        text: fields.text.clone(),
        found: judge(fields, &evals).map_err(|error| results.fail(id, error))?,
    };
    let text = serde_json::to_string(&gate).map_err(|error| results.fail(id, error))?;
    let path = out.join(GATE_FILE);
    std::fs::write(&path, text + "\n").map_err(|error| results.fail(id, FileError::writing(&path)(error)))
}
