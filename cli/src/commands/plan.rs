//! `aurora plan`: what a run would do, why, and at what cost.

use aurora_compiler::diff::segment_cost;
use aurora_compiler::fields::TrainFields;
use aurora_compiler::hash::Keyed;
use aurora_compiler::plan::{Plan, Planned, State, plan};
use aurora_runtime::store::{Store, View};
use serde_json::json;

use super::Context;
use super::build::{nodes, summary};
use crate::arguments::SpecArgument;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
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
    let cost = Cost::of(&keyed, &plan);
    if context.json {
        let unknown = unknown(&keyed);
        output::json(json!({
            "experiment": loaded.spec.name,
            "nodes": nodes(&keyed, &plan),
            "cost": { "tokens": cost.tokens, "flops": cost.flops, "checkpoint_bytes": cost.checkpoint_bytes },
            "unknown": unknown,
        }));
    } else {
        for planned in plan.nodes.iter().filter(|planned| planned.state != State::Cached) {
            let node = keyed.graph.node(planned.id);
            println!(
                "{} {}: {}",
                symbol(planned),
                node.name,
                planned.reason.as_deref().unwrap_or_default()
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
    }
    Ok(if exit_code && !plan.is_done() {
        Exit::Fault
    } else {
        Exit::Done
    })
}

fn symbol(planned: &Planned) -> char {
    let resumes = planned
        .reason
        .as_deref()
        .is_some_and(|reason| reason.contains("goes on from step"));
    match planned.state {
        _ if resumes => '>',
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

/// What the nodes that are not there would cost.
#[derive(Debug, Default)]
struct Cost {
    tokens: u64,
    /// 6 × parameters × tokens.
    flops: f64,
    /// Weights and two moments in f32.
    checkpoint_bytes: u64,
}

impl Cost {
    fn of(keyed: &Keyed, plan: &Plan) -> Self {
        let mut cost = Self::default();
        for planned in plan.nodes.iter().filter(|planned| planned.state != State::Cached) {
            let segment = segment_cost(keyed, planned.id);
            cost.tokens += segment.tokens;
            cost.flops += segment.flops;
            let fields = serde_json::from_value::<TrainFields>(keyed.graph.node(planned.id).fields.clone());
            cost.checkpoint_bytes += fields.map_or(0, |fields| 12 * fields.model.parameters());
        }
        cost
    }
}
