//! The nodes that become others where a few fields of a spec change: points of a sweep share all the rest.
//!
//! In: a spec, the graph of the one that it was, and the fields that differ. Out: the nodes to put in their places, or
//! nothing where more than nodes' own fields may differ; then the spec is lowered as every other.

use super::nodes::{checked, order_node, report_node, segment_nodes};
use super::{Graph, Node, NodeId, NodeOrigin, Role};
use crate::spec::{BlockId, BlockKind, Spec};
use crate::views;

/// The nodes of a graph that are others where only these fields of the spec, `(block, field)`, have changed since it
/// was lowered; none if more than their own fields may have changed.
pub fn changed_nodes(spec: &Spec, graph: &Graph, changed: &[(BlockId, String)]) -> Option<Vec<(NodeId, Node)>> {
    let mut nodes = vec![(graph.find("report")?, report_node(spec))];
    let experiment = checked(views::experiment(spec));
    let mut orders: Vec<&BlockId> = Vec::new();
    let mut trained: Vec<&BlockId> = Vec::new();
    for (block, field) in changed {
        match (block.kind, field.as_str()) {
            (BlockKind::Stage, "learning_rate" | "optimizer" | "optimizer_state") => trained.push(block),
            (BlockKind::Mixture, _) => {
                let reads = |stage: &crate::spec::Block| stage.reference("mixture") == Some(block);
                orders.extend(
                    spec.of_kind(BlockKind::Stage)
                        .filter(|(_, stage)| reads(stage))
                        .map(|(id, _)| id),
                );
            }
            _ => return None,
        }
    }
    orders.sort();
    orders.dedup();
    trained.sort();
    trained.dedup();
    for stage in orders {
        let view = checked(views::stage(spec, stage));
        let mixture = checked(views::mixture(spec, &view.mixture));
        let node = order_node(stage, &view, &mixture, &experiment);
        let id = graph.find(node.name())?;
        // Other components or corpora are other inputs.
        let reads = |input: super::Input| match (input.role, &graph.node(input.node).origin) {
            (Role::Tokens(component), NodeOrigin::Tokens { corpus, .. }) => Some((component, corpus.clone())),
            _ => None,
        };
        let now = mixture.components.iter().flat_map(|component| {
            let corpora = component.corpora.iter();
            corpora.map(|corpus| Some((component.name.clone(), corpus.name.clone())))
        });
        if !graph.inputs(id).map(reads).eq(now) {
            return None;
        }
        nodes.push((id, node));
    }
    for stage in trained {
        let view = checked(views::stage(spec, stage));
        let model = checked(views::model(spec, spec.model_of(stage)?));
        for (_, node) in segment_nodes(stage, &view, &model, &experiment) {
            nodes.push((graph.find(node.name())?, node));
        }
    }
    Some(nodes)
}
