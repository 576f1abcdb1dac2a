//! `aurora report`: the report of a finished experiment.

use aurora_runtime::report::comparison::{self, Compared};
use aurora_runtime::report::load_key;
use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::diff::{DiffSide, side};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::compile;
use crate::stdio::{out, outln};

pub fn run(context: &Context, argument: &SpecArgument, to: Option<&Utf8Path>) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, _) = compile(&project, &loaded.spec)?;
    let store = Store::open_read_only(&project.store)?;
    let not_built =
        || Failure::error(format!("`{}` does not have a finished run", loaded.spec.name)).help("aurora run SPEC");
    let id = keyed.graph.find("report").ok_or_else(not_built)?;
    let record = store.record(keyed.key(id))?.ok_or_else(not_built)?;
    let files = store.files(&record)?;
    let page = files.get("report.html").ok_or_else(not_built)?;
    let place = match to {
        Some(to) => {
            std::fs::copy(page, to).map_err(|error| Failure::error(format!("cannot write `{to}`: {error}")))?;
            to.to_owned()
        }
        None => page.clone(),
    };
    let story = aurora_runtime::report::load(&store, &keyed)?;
    if context.json {
        output::json(json!({
            "page": place,
            "evals": story.evals,
            "gates": story.gates,
            "noise": story.uncertainty,
            "stages": story.stages,
        }))?;
    } else {
        out!("{}", output::table(&story.table()))?;
        outln!("report: {place}")?;
    }
    Ok(Exit::Done)
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
        let key = match side(context, name, &first.selection)? {
            DiffSide::Spec(spec, _) => {
                let (keyed, _, _) = compile(&project, &spec)?;
                keyed.graph.find("report").map(|id| keyed.key(id))
            }
            DiffSide::Lock(lock) => lock.node.get("report").map(|node| node.key),
        };
        let story = key.and_then(|key| load_key(&store, key).ok()).ok_or_else(|| {
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
    out!("{}", output::table(&rows))?;
    if let Some(to) = to {
        outln!("comparison: {to}")?;
    }
    Ok(Exit::Done)
}
