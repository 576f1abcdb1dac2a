//! `aurora report`: the report of a finished experiment.

use aurora_compiler::lock::Lock;
use aurora_runtime::report::comparison::{self, Compared};
use aurora_runtime::report::read;
use aurora_runtime::store::{Record, ResultId, Store, StoreError};
use camino::Utf8Path;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::diff::{DiffSide, side};
use crate::failure::{Exit, Failure};
use crate::numerics::results_to_read;
use crate::output;
use crate::project::compile;
use crate::stdio::{out_text, outln};

pub fn run(context: &Context, argument: &SpecArgument, to: Option<&Utf8Path>) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let store = Store::open_read_only(&project.store)?;
    let results = results_to_read(&store, &loaded.spec, &keyed, lock.as_ref())?;
    let not_built =
        || Failure::error(format!("`{}` does not have a finished run", loaded.spec.name)).help("aurora run SPEC");
    let id = keyed.graph.find("report").ok_or_else(not_built)?;
    let record = results.find(id)?.ok_or_else(not_built)?;
    let files = store.files(&record)?;
    let page = files.get("report.html").ok_or_else(not_built)?;
    let place = match to {
        Some(to) => {
            std::fs::copy(page, to).map_err(|error| Failure::error(format!("cannot write `{to}`: {error}")))?;
            to.to_owned()
        }
        None => page.clone(),
    };
    let story = aurora_runtime::report::read(&store, &record)?;
    if context.json {
        output::json(json!({
            "page": place,
            "evals": story.evals,
            "gates": story.gates,
            "noise": story.uncertainty,
            "stages": story.stages,
        }))?;
    } else {
        out_text(&output::table(&story.table()))?;
        outln!("report: {place}")?;
    }
    Ok(Exit::Done)
}

/// The record of a lock's report, in the lock's numerics class.
fn report_of(store: &Store, lock: &Lock) -> Result<Option<Record>, StoreError> {
    let Some(node) = lock.node.get("report") else {
        return Ok(None);
    };
    let id = ResultId {
        key: node.key,
        class: lock.class,
    };
    match store.record(id)? {
        // The report of a spec without training does not have a class.
        None => store.record_of_any_class(node.key),
        found => Ok(found),
    }
}

/// The report of several runs, side by side.
pub fn compare(
    context: &Context,
    first: &SpecArgument,
    others: &[String],
    to: Option<&Utf8Path>,
) -> Result<Exit, Failure> {
    let project = context.project(
        Some(&first.spec)
            .filter(|path| path.is_file())
            .map(|path| path.as_path()),
    )?;
    let store = Store::open_read_only(&project.store)?;
    let mut runs = Vec::new();
    for name in std::iter::once(first.spec.as_str()).chain(others.iter().map(String::as_str)) {
        let record = match side(context, name, &first.selection)? {
            DiffSide::Spec(spec, _) => {
                let (keyed, _, lock) = compile(&project, &spec)?;
                let results = results_to_read(&store, &spec, &keyed, lock.as_ref())?;
                keyed
                    .graph
                    .find("report")
                    .map(|id| results.find(id))
                    .transpose()?
                    .flatten()
            }
            DiffSide::Lock(lock) => report_of(&store, &lock)?,
        };
        let story = record.and_then(|record| read(&store, &record).ok()).ok_or_else(|| {
            Failure::error(format!("`{name}` has no report in this store")).help("run it with `aurora run SPEC`")
        })?;
        // Two runs of one experiment differ by the names that the user gave.
        let name = if name == story.experiment {
            name.to_owned()
        } else {
            format!("{} ({name})", story.experiment)
        };
        runs.push(Compared { name, story });
    }
    let rows = comparison::table(&runs);
    if let Some(to) = to {
        let page = comparison::page(&runs).map_err(|error| Failure::from_error(&error))?;
        std::fs::write(to, page).map_err(|error| Failure::error(format!("cannot write `{to}`: {error}")))?;
    }
    if context.json {
        let stories: Vec<_> = runs
            .iter()
            .map(|run| json!({ "name": run.name, "evals": run.story.evals, "stages": run.story.stages }))
            .collect();
        output::json(json!({ "page": to, "runs": stories }))?;
        return Ok(Exit::Done);
    }
    out_text(&output::table(&rows))?;
    if let Some(to) = to {
        outln!("comparison: {to}")?;
    }
    Ok(Exit::Done)
}
