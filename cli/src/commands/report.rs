//! `aurora report`: the page of a finished experiment.

use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use super::Context;
use crate::arguments::SpecArgument;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::compile;

pub fn run(context: &Context, argument: &SpecArgument, to: Option<&Utf8Path>) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, _) = compile(&project, &loaded.spec)?;
    let store = Store::look(&project.store);
    let not_built =
        || Failure::fault(format!("`{}` has not been run to its end", loaded.spec.name)).help("aurora run SPEC");
    let id = keyed.graph.find("report").ok_or_else(not_built)?;
    let record = store.record(keyed.key(id)).ok_or_else(not_built)?;
    let files = store.files(&record)?;
    let page = files.get("report.html").ok_or_else(not_built)?;
    let place = match to {
        Some(to) => {
            std::fs::copy(page, to).map_err(|error| Failure::fault(format!("cannot write `{to}`: {error}")))?;
            to.to_owned()
        }
        None => page.clone(),
    };
    let story = aurora_runtime::report::load(&store, &keyed)?;
    if context.json {
        output::json(
            json!({ "page": place, "evals": story.evals, "gates": story.gates, "noise": story.noise, "stages": story.stages }),
        );
    } else {
        print!("{}", output::table(&story.table()));
        println!("report: {place}");
    }
    Ok(Exit::Done)
}
