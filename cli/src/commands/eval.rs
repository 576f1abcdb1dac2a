//! `aurora eval`: evaluates a checkpoint with an eval of its experiment.

use aurora_compiler::graph::lower_eval;
use aurora_compiler::hash::hash;
use aurora_compiler::spec::{BlockId, BlockKind};
use aurora_runtime::engine::{ExternalInputs, Run};
use aurora_runtime::job::Scores;
use aurora_runtime::pin::{at_most, malformed};
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::RunArguments;
use crate::checkpoint::NamedCheckpoint;
use crate::consent::{consent, judges};
use crate::context::Context;
use crate::execution::{STOP, install_signal_handlers, worker_options};
use crate::failure::{Exit, Failure};
use crate::libtorch::worker_program;
use crate::output;
use crate::progress_display::ProgressDisplay;
use crate::project::read_lock;
use crate::stdio::out_text;
use crate::worker_launch::torchrun_listener;

pub fn run(context: &Context, checkpoint: &str, eval: &str, options: &RunArguments) -> Result<Exit, Failure> {
    let torchrun = torchrun_listener(options, || NamedCheckpoint::pinned_libtorch(context, checkpoint))?;
    let NamedCheckpoint {
        project,
        loaded,
        keyed,
        pins,
        id,
        lock,
    } = NamedCheckpoint::find(context, checkpoint)?;
    let spec = &loaded.spec;
    let name = keyed.graph.node(id).name().to_owned();
    let name = name.as_str();
    let block = BlockId {
        kind: BlockKind::Eval,
        name: eval.to_owned(),
    };
    if !spec.blocks.contains_key(&block) {
        let names: Vec<&str> = spec.of_kind(BlockKind::Eval).map(|(id, _)| id.name.as_str()).collect();
        let failure = Failure::error(format!("`{}` has no eval `{eval}`", spec.name));
        return Err(failure.help(format!("its evals: {}", names.join(", "))));
    }
    let store = Store::open(&project.store)?;
    if store.record_of_any_class(keyed.key(id))?.is_none() {
        return Err(project.not_built(name, &loaded));
    }
    let (graph, node) = lower_eval(spec, &pins, name, &block)
        .ok_or_else(|| Failure::error(format!("no stage of `{}` has the checkpoint `{name}`", spec.name)))?;
    let allowed = consent(&project, &loaded, &graph, &pins, Some(eval), options.trust)?;
    let lock = read_lock(&lock)?;
    let program = worker_program(lock.as_ref().map(|lock| lock.libtorch.as_str()))?;
    install_signal_handlers()?;
    let keyed = hash(graph);
    let trained = keyed
        .graph
        .find(name)
        .ok_or_else(|| Failure::error(format!("the eval does not read the checkpoint `{name}`")))?;
    let display = ProgressDisplay::new(options.progress, None);
    let results = Results {
        experiment: &spec.name,
        keyed: &keyed,
        store: &store,
        class: None,
    };
    let run = Run {
        results,
        inputs: ExternalInputs {
            folders: &project.folders,
            pins: &pins,
            offline: options.offline,
            judges: &judges(spec),
            allowed: &allowed,
            at_most: &at_most(spec),
            malformed: &malformed(spec),
            recorded: None,
        },
        workers: worker_options(spec, options, &program, torchrun.as_ref(), None)?,
        observer: &display,
        stop: &STOP,
    };
    let done = run.evaluate(trained, node);
    display.finish();
    let results = Results {
        class: done?.class,
        ..results
    };
    if let Some(torchrun) = &torchrun {
        torchrun.dismiss();
    }
    let scores: Scores = results.json(node, "scores.json")?;
    if context.json {
        output::json(json!({ "checkpoint": checkpoint, "eval": eval, "scores": scores }))?;
        return Ok(Exit::Done);
    }
    out_text(&output::table(&rows(&scores)))?;
    Ok(Exit::Done)
}

/// The lines of the printed table.
fn rows(scores: &Scores) -> Vec<Vec<String>> {
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
    rows
}
