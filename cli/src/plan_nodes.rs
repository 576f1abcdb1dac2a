//! The nodes of a plan, as `build`, `plan` and `why` print them.

use aurora_compiler::hash::Keyed;
use aurora_compiler::json_output;
use aurora_compiler::plan::{NodeState, Plan};

pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Cached => "cached",
        NodeState::Run => "run",
        NodeState::Changed => "changed",
    }
}

pub fn summary(plan: &Plan) -> String {
    let [cached, run, changed] = [NodeState::Cached, NodeState::Run, NodeState::Changed].map(|state| plan.count(state));
    format!(
        "{} nodes: {cached} cached, {run} to run, {changed} changed",
        plan.nodes.len()
    )
}

/// Every node, in the graph's order.
pub fn nodes(keyed: &Keyed, plan: &Plan) -> Vec<json_output::NodeDocument> {
    let name = |id| keyed.graph.node(id).name().to_owned();
    plan.nodes
        .iter()
        .map(|planned| {
            let node = keyed.graph.node(planned.id);
            let inputs: Vec<String> = keyed
                .graph
                .inputs(planned.id)
                .filter(|input| input.role.is_identity())
                .map(|input| name(input.node))
                .collect();
            json_output::NodeDocument {
                name: node.name().to_owned(),
                kind: node.kind(),
                key: keyed.key(planned.id),
                inputs,
                state: planned.state(),
                reason: planned.explanation(),
                changes: planned.reason.is_some().then(|| planned.changes().to_vec()),
            }
        })
        .collect()
}
