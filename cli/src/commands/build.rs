//! `aurora build`: the graph of a spec, every node with its key and state.

use aurora_compiler::check::{AssumptionKind, assumptions};
use aurora_compiler::graph::{Graph, NodeId, NodeKind, model_fields, stage_plan};
use aurora_compiler::json_output;
use aurora_compiler::plan::plan;
use aurora_compiler::spec::{BlockKind, Spec};
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::numerics::results_to_plan;
use crate::output::{self, grouped};
use crate::plan_nodes::{nodes, state_name, summary};
use crate::project::compile;
use crate::stdio::{Printed, errln, out_text, outln};

pub fn run(context: &Context, argument: &SpecArgument) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let store = Store::open_read_only(&project.store)?;
    let (results, note) = results_to_plan(&store, &loaded.spec, &keyed, lock.as_ref())?;
    let plan = plan(&keyed, &results)?;
    if let Some(note) = note {
        errln!("{note}");
    }
    let assumed = assumptions(&loaded.spec);
    if context.json {
        output::json(json!(json_output::GraphDocument {
            experiment: loaded.spec.name.clone(),
            models: models(&loaded.spec),
            stages: stages(&loaded.spec),
            nodes: nodes(&keyed, &plan),
            assumptions: assumed,
        }))?;
        return Ok(Exit::Done);
    }
    print_facts(&loaded.spec, &keyed.graph)?;
    let mut rows = vec![["node", "kind", "key", "state", "reason"].map(String::from).to_vec()];
    for planned in &plan.nodes {
        let node = keyed.graph.node(planned.id);
        rows.push(vec![
            node.name().to_owned(),
            node.kind().name().to_string(),
            keyed.key(planned.id).to_hex()[..12].to_string(),
            state_name(planned.state()).to_string(),
            planned.explanation().unwrap_or_default(),
        ]);
    }
    out_text(&output::table(&rows))?;
    let open: Vec<_> = assumed
        .iter()
        .filter(|a| matches!(a.kind, AssumptionKind::Assumed | AssumptionKind::Unknown))
        .collect();
    if !open.is_empty() {
        outln!("\nnot published ({}):", open.len())?;
        let rows: Vec<Vec<String>> = open
            .iter()
            .map(|a| {
                let place = format!("{}:{}:{}", a.file, a.line, a.column);
                vec![
                    format!("  {}", a.kind),
                    a.path.clone(),
                    a.value.clone(),
                    place,
                    a.text.clone(),
                ]
            })
            .collect();
        out_text(&output::table(&rows))?;
    }
    outln!("\n{}", summary(&plan))?;
    Ok(Exit::Done)
}

fn models(spec: &Spec) -> Vec<json_output::Model> {
    let of_kind = spec.blocks.keys().filter(|id| id.kind == BlockKind::Model);
    of_kind
        .map(|id| json_output::Model {
            name: id.name.clone(),
            parameters: model_fields(spec, id).parameters(),
        })
        .collect()
}

fn stages(spec: &Spec) -> Vec<json_output::Stage> {
    let of_kind = spec.blocks.keys().filter(|id| id.kind == BlockKind::Stage);
    of_kind
        .map(|id| {
            let plan = stage_plan(spec, id);
            json_output::Stage {
                name: id.name.clone(),
                steps: plan.steps,
                tokens: plan.steps * plan.tokens_per_step(),
                tokens_per_step: plan.tokens_per_step(),
                checkpoints: plan.checkpoints().len(),
            }
        })
        .collect()
}

fn print_facts(spec: &Spec, graph: &Graph) -> Printed {
    let is_eval = |id: &NodeId| matches!(graph.node(*id).kind(), NodeKind::Eval | NodeKind::Judge);
    let evals = graph.ids().filter(is_eval).count();
    for id in spec.blocks.keys().filter(|id| id.kind == BlockKind::Model) {
        outln!(
            "model {}: {} parameters",
            id.name,
            grouped(model_fields(spec, id).parameters())
        )?;
    }
    for id in spec.blocks.keys().filter(|id| id.kind == BlockKind::Stage) {
        let plan = stage_plan(spec, id);
        outln!(
            "stage {}: {} steps of {} tokens = {} tokens, {} checkpoints",
            id.name,
            grouped(plan.steps),
            grouped(plan.tokens_per_step()),
            grouped(plan.steps * plan.tokens_per_step()),
            plan.checkpoints().len()
        )?;
    }
    outln!("evals: {evals} in all\n")?;
    Ok(())
}
