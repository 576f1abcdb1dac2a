//! `aurora status`: the runs and their states.

use aurora_runtime::errors::FileError;
use aurora_runtime::record::runs;
use camino::Utf8Path;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress_display::duration;
use crate::stdio::{out_text, outln};

pub fn run(context: &Context, of: Option<&Utf8Path>) -> Result<Exit, Failure> {
    let project = context.project(of)?;
    let runs = runs(&project.store).map_err(FileError::reading(&project.store))?;
    if context.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|run| json!({ "state": run.state(), "run": run }))
            .collect();
        output::json(json!({ "store": project.store, "runs": runs }))?;
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        outln!("no runs yet in {}", project.store)?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![
        ["run", "experiment", "state", "took", "last step"]
            .map(String::from)
            .to_vec(),
    ];
    for run in &runs {
        let last = run
            .last_step
            .as_ref()
            .map(|(node, step, loss)| format!("{node}, step {step}, loss {loss:.4}"));
        rows.push(vec![
            run.id.clone(),
            run.experiment.clone(),
            run.state().to_string(),
            duration(run.seconds() as f64),
            last.or_else(|| run.error.clone()).unwrap_or_default(),
        ]);
    }
    out_text(&output::table(&rows))?;
    Ok(Exit::Done)
}
