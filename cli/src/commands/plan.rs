//! `aurora plan`: what a run would do, why, and at what cost.

use aurora_compiler::diff::{Cost, segment_cost};
use aurora_compiler::hash::Keyed;
use aurora_compiler::memory::{Memory, by_stage};
use aurora_compiler::placement::Placement;
use aurora_compiler::plan::{PlannedNode, State, plan};
use aurora_compiler::spec::Spec;
use aurora_runtime::store::{Store, View};
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::placement::{PlacementRequest, layout, number, placement};
use crate::plan_nodes::{nodes, summary};
use crate::project::compile;

pub fn run(context: &Context, argument: &SpecArgument, exit_code: bool) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, _) = compile(&project, &loaded.spec)?;
    let store = Store::look(&project.store);
    let plan = plan(
        &keyed,
        &View {
            store: &store,
            experiment: &loaded.spec.name,
        },
    );
    let to_run = plan.nodes.iter().filter(|planned| planned.reason.is_some());
    let cost = to_run.fold(Cost::default(), |cost, planned| {
        cost.plus(segment_cost(&keyed, planned.id))
    });
    let memory = Need::of(&loaded.spec, &keyed);
    if context.json {
        let unknown = unknown(&keyed);
        output::json(json!({
            "experiment": loaded.spec.name,
            "nodes": nodes(&keyed, &plan),
            "cost": cost,
            "memory": memory.as_ref().map(Need::json),
            "unknown": unknown,
        }));
    } else {
        for planned in plan.nodes.iter().filter(|planned| planned.reason.is_some()) {
            let node = keyed.graph.node(planned.id);
            println!(
                "{} {}: {}",
                symbol(planned),
                node.name(),
                planned.explanation().unwrap_or_default()
            );
        }
        println!("{}", summary(&plan));
        if cost.tokens > 0 {
            println!(
                "to train: {} tokens, {:.3e} FLOP (6 × parameters × tokens), {} bytes of checkpoints",
                grouped(cost.tokens),
                cost.flops,
                grouped(cost.checkpoint_bytes)
            );
        }
        if let Some(memory) = &memory {
            memory.print();
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
        State::Cached => '=',
        State::Run => '+',
        State::Changed => '~',
    }
}

/// Paths of the unknown values that keep a spec from running.
pub fn unknown(keyed: &Keyed) -> Vec<String> {
    let mut paths: Vec<String> = keyed
        .graph
        .ids()
        .flat_map(|id| keyed.graph.node(id).unknown.clone())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// What each worker needs under the spec's layout, at the node that needs most.
struct Need {
    node: String,
    placement: Placement,
    /// By the number of the pipeline stage.
    stages: Vec<(u32, Memory)>,
    /// The spec does not know the micro-batch: one sequence is the least that it can be.
    least: bool,
}

impl Need {
    /// Nothing, if the spec has no layout or does not train.
    fn of(spec: &Spec, keyed: &Keyed) -> Option<Self> {
        // The same on every machine: one thread, unless the layout says how many.
        let threads = number(layout(spec)?, "threads").unwrap_or(1);
        let asked = PlacementRequest {
            threads: Some(threads),
            ..PlacementRequest::default()
        };
        let placement = placement(spec, asked);
        let of = |id| {
            let node = keyed.graph.node(id);
            let mut fields = node.work.train()?.clone();
            let micro_batch = &mut fields.numerics.micro_batch;
            let least = *micro_batch == 0;
            *micro_batch = (*micro_batch).max(1);
            Some((node.name().to_owned(), by_stage(&fields, &placement), least))
        };
        let largest = |stages: &[(u32, Memory)]| stages.iter().map(|(_, memory)| memory.total()).max();
        // Of several the first.
        let needs: Vec<_> = keyed.graph.ids().filter_map(of).collect();
        let (node, stages, least) = needs.into_iter().rev().max_by_key(|(_, stages, _)| largest(stages))?;
        Some(Self {
            node,
            placement,
            stages,
            least,
        })
    }

    fn json(&self) -> serde_json::Value {
        let ranks: Vec<_> = self
            .stages
            .iter()
            .map(|(stage, memory)| json!({ "stage": stage, "bytes": memory, "total": memory.total() }))
            .collect();
        json!({ "node": self.node, "placement": self.placement, "micro_batch_unknown": self.least, "ranks": ranks })
    }

    fn print(&self) {
        let Placement {
            tensor,
            pipeline,
            data,
            threads,
            ..
        } = self.placement;
        println!(
            "memory of a worker at {} (tensor {tensor} × pipeline {pipeline} × data {data}, threads {threads}), GiB:",
            self.node
        );
        let head = [
            "stage",
            "weights",
            "gradients",
            "optimizer",
            "activations",
            "scratch",
            "transfers",
            "total",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        for (stage, memory) in &self.stages {
            let &Memory {
                weights,
                gradients,
                optimizer,
                activations,
                scratch,
                transfers,
            } = memory;
            let bytes = [
                weights,
                gradients,
                optimizer,
                activations,
                scratch,
                transfers,
                memory.total(),
            ];
            let gib = bytes.map(|bytes| format!("{:.3}", bytes as f64 / f64::from(1 << 30)));
            rows.push([stage.to_string()].into_iter().chain(gib).collect());
        }
        print!("{}", output::table(&rows));
        if self.least {
            println!("the micro-batch is unknown: this is with one sequence");
        }
    }
}
