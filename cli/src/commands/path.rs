//! `aurora path`: the files of a node's result in the store.

use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::PathArguments;
use crate::context::Context;
use crate::experiment::{Experiment, only_lock};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::outln;

pub fn run(context: &Context, arguments: &PathArguments) -> Result<Exit, Failure> {
    let (name, file) = (&arguments.node, arguments.file.as_deref());
    let named = match &arguments.of {
        Some(of) => of.to_owned(),
        None => lock_of(context, name)?,
    };
    let experiment = Experiment::named(context, &named, &arguments.selection)?;
    let id = experiment.node(name)?;
    let store = Store::open_read_only(&experiment.project.store)?;
    let results = experiment.results(&store)?;
    let node = results.node(id).name();
    let Some(record) = results.find(id)? else {
        return Err(experiment.project.not_built(node, &experiment.loaded));
    };
    let mut files = store.files(&record)?;
    if let Some(file) = file {
        let names: Vec<String> = files.keys().cloned().collect();
        files.retain(|name, _| name == file);
        if files.is_empty() {
            return Err(Failure::error(format!("the result of `{node}` has no file `{file}`"))
                .help(format!("its files: {}", names.join(", "))));
        }
    }
    if context.json {
        let files: Vec<_> = files
            .iter()
            .map(|(name, path)| json!({ "name": name, "path": path, "bytes": record.outputs[name].bytes }))
            .collect();
        output::json(json!({ "node": node, "key": record.key, "files": files }))?;
        return Ok(Exit::Done);
    }
    for path in files.values() {
        outln!("{path}")?;
    }
    Ok(Exit::Done)
}

/// The lock of `EXPERIMENT/NODE`, or the only lock of the project.
fn lock_of(context: &Context, name: &str) -> Result<String, Failure> {
    let project = context.project(None)?;
    if let Some((experiment, _)) = name.split_once('/') {
        let path = project.root.join("lockfiles").join(format!("{experiment}.lock"));
        if path.is_file() {
            return Ok(path.into_string());
        }
    }
    Ok(only_lock(&project)?.into_string())
}
