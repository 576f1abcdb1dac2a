//! `aurora plan`: what a run would do, why, and at what cost.

use aurora_compiler::diff::{Cost, segment_cost};
use aurora_compiler::hash::Keyed;
use aurora_compiler::json_output::{self, WorkerMemory};
use aurora_compiler::layout::Layout;
use aurora_compiler::memory::Memory;
use aurora_compiler::plan::{NodeState, PlannedNode, plan};
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::numerics::results_to_plan;
use crate::output::{self, grouped};
use crate::plan_nodes::{nodes, summary};
use crate::project::compile;
use crate::stdio::{Printed, errln, out_text, outln};
use crate::worker_memory::worker_memory;

pub fn run(context: &Context, argument: &SpecArgument, exit_code: bool) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let store = Store::open_read_only(&project.store)?;
    let (results, note) = results_to_plan(&store, &loaded.spec, &keyed, lock.as_ref())?;
    let plan = plan(&keyed, &results)?;
    if let Some(note) = note {
        errln!("{note}");
    }
    let to_run = plan.nodes.iter().filter(|planned| planned.reason.is_some());
    let cost = to_run.fold(Cost::default(), |cost, planned| {
        cost.plus(segment_cost(&keyed, planned.id))
    });
    let memory = worker_memory(&loaded.spec, &keyed);
    if context.json {
        output::json(json!(json_output::PlanDocument {
            experiment: loaded.spec.name.clone(),
            nodes: nodes(&keyed, &plan),
            cost,
            memory,
            unknown: unknown(&keyed),
        }))?;
    } else {
        for planned in plan.nodes.iter().filter(|planned| planned.reason.is_some()) {
            let node = keyed.graph.node(planned.id);
            outln!(
                "{} {}: {}",
                symbol(planned),
                node.name(),
                planned.explanation().unwrap_or_default()
            )?;
        }
        outln!("{}", summary(&plan))?;
        if cost.tokens > 0 {
            outln!(
                "to train: {} tokens, {:.3e} FLOP (6 × parameters × tokens), {} bytes of checkpoints",
                grouped(cost.tokens),
                cost.flops,
                grouped(cost.checkpoint_bytes)
            )?;
        }
        if let Some(memory) = &memory {
            print_memory(memory)?;
        }
    }
    Ok(if exit_code && !plan.is_done() {
        Exit::Error
    } else {
        Exit::Done
    })
}

fn symbol(planned: &PlannedNode) -> char {
    match planned.state() {
        _ if planned.resumes_from.is_some() => '>',
        NodeState::Cached => '=',
        NodeState::Run => '+',
        NodeState::Changed => '~',
    }
}

/// Paths of the unknown values that keep a spec from running.
fn unknown(keyed: &Keyed) -> Vec<String> {
    let mut paths: Vec<String> = keyed
        .graph
        .ids()
        .flat_map(|id| keyed.graph.node(id).unknown.clone())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

fn print_memory(memory: &WorkerMemory) -> Printed {
    let Layout {
        tensor,
        pipeline,
        data,
        threads,
        ..
    } = memory.layout;
    outln!(
        "memory of a worker at {} (tensor {tensor} × pipeline {pipeline} × data {data}, threads {threads}), GiB:",
        memory.node
    )?;
    let head = [
        "pipeline rank",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "scratch",
        "transfers",
        "total",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for rank in &memory.ranks {
        let Memory {
            weights,
            gradients,
            optimizer,
            activations,
            scratch,
            transfers,
        } = rank.bytes;
        let bytes = [
            weights,
            gradients,
            optimizer,
            activations,
            scratch,
            transfers,
            rank.total,
        ];
        let gib = bytes.map(|bytes| format!("{:.3}", bytes as f64 / f64::from(1 << 30)));
        rows.push([rank.pp_rank.to_string()].into_iter().chain(gib).collect());
    }
    out_text(&output::table(&rows))?;
    let most = memory.most();
    if let Some(device) = memory.device_memory {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let verdict = if most > device { "it does not fit" } else { "it fits" };
        outln!(
            "the largest rank needs {:.3} GiB of the {:.3} GiB of a device: {verdict}",
            gib(most),
            gib(device)
        )?;
    }
    if memory.micro_batch_unknown {
        outln!("the micro-batch is unknown: this is the memory for one sequence")?;
    }
    Ok(())
}
