//! `aurora eval`: measures a checkpoint with an eval of its experiment.

use aurora_compiler::graph::lower_eval;
use aurora_compiler::hash::hash;
use aurora_compiler::spec::{BlockId, BlockKind};
use aurora_runtime::engine::Run;
use aurora_runtime::job::Scores;
use aurora_runtime::store::Store;
use serde_json::json;

use super::Context;
use super::run::{STOP, hear_signals, portable};
use crate::arguments::RunArguments;
use crate::checkpoint::Named;
use crate::failure::{Exit, Failure};
use crate::launching::{door, launching};
use crate::output;
use crate::placement::{Asked, check, placement};
use crate::watch::Watch;

pub fn run(context: &Context, checkpoint: &str, eval: &str, how: &RunArguments) -> Result<Exit, Failure> {
    let door = door(how)?;
    let Named {
        project,
        loaded,
        keyed,
        pins,
        id,
        ..
    } = Named::find(context, checkpoint)?;
    let spec = &loaded.spec;
    let name = keyed.graph.node(id).name();
    let block = BlockId {
        kind: BlockKind::Eval,
        name: eval.to_owned(),
    };
    if !spec.blocks.contains_key(&block) {
        let names: Vec<&str> = spec.of_kind(BlockKind::Eval).map(|(id, _)| id.name.as_str()).collect();
        let failure = Failure::fault(format!("`{}` has no eval `{eval}`", spec.name));
        return Err(failure.help(format!("there are: {}", names.join(", "))));
    }
    let store = Store::open(&project.store)?;
    if store.record(keyed.key(id)).is_none() {
        let failure = Failure::fault(format!(
            "`{name}` of `{}` has not been made as the spec stands now",
            spec.name
        ));
        return Err(failure.help(format!("aurora run {}", project.relative(&loaded.path))));
    }
    let (graph, node) = lower_eval(spec, &pins, name, &block)
        .ok_or_else(|| Failure::fault(format!("no stage of `{}` has the checkpoint `{name}`", spec.name)))?;
    hear_signals()?;
    let keyed = hash(graph);
    let watch = Watch::new(how.progress, None);
    let placement = placement(spec, Asked::by(how));
    check(spec, &placement)?;
    let run = Run {
        keyed: &keyed,
        experiment: &spec.name,
        store: &store,
        root: &project.root,
        pins: &pins,
        offline: how.offline,
        launching: launching(spec, how, &placement, door.as_ref(), None)?,
        placement,
        portable: portable(spec),
        restarts: how.restarts,
        fewer: how.fewer,
        observer: &watch,
        stop: &STOP,
        max_epochs: std::collections::BTreeMap::new(),
        secrets: super::run::secrets(spec),
        recorded: None,
        only: Some(node),
        before_training: &|_| Ok(()),
    };
    let done = run.run().and_then(|_| run.files(node));
    watch.finish();
    let files = done?;
    if let Some(door) = &door {
        door.dismiss();
    }
    let path = &files["scores.json"];
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::fault(format!("cannot read `{path}`: {error}")))?;
    let scores: Scores = serde_json::from_str(&text).map_err(|error| Failure::fault(format!("`{path}`: {error}")))?;
    if context.json {
        output::json(json!({ "checkpoint": checkpoint, "eval": eval, "scores": scores }));
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    for (set, score) in &scores.sets {
        rows.push(vec![
            set.clone(),
            "bits_per_byte".to_owned(),
            format!("{:.4}", score.bits_per_byte),
        ]);
        rows.push(vec![
            set.clone(),
            "perplexity".to_owned(),
            format!("{:.4}", score.perplexity),
        ]);
    }
    for (category, measures) in &scores.measures {
        for (metric, measure) in measures {
            let error = measure
                .standard_error
                .map(|error| format!("± {error:.4}"))
                .unwrap_or_default();
            let items = format!("{} items", measure.items);
            let category = if category.is_empty() { "all" } else { category };
            rows.push(vec![
                category.to_owned(),
                metric.clone(),
                format!("{:.4}", measure.value),
                error,
                items,
            ]);
        }
    }
    print!("{}", output::table(&rows));
    Ok(Exit::Done)
}
