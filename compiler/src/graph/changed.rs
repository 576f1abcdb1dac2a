//! The nodes that change with a few fields of a spec, so that the points of a sweep can reuse all others.
//!
//! In: a spec, the graph of the unchanged spec, and the fields that differ. Out: the nodes that replace those of the graph, or
//! none if more than the fields of nodes may differ; then the complete spec must be lowered.

use super::nodes::{checked, order_node, report_node, segment_nodes};
use super::{Graph, Node, NodeId, NodeOrigin, Role};
use crate::spec::{BlockId, BlockKind, Spec};
use crate::views;

/// The nodes that replace those of the graph if only these fields of the spec, `(block, field)`, have changed since it
/// was lowered. None if inputs may have changed too.
pub fn changed_nodes(spec: &Spec, graph: &Graph, changed: &[(BlockId, String)]) -> Option<Vec<(NodeId, Node)>> {
    let report = graph.find("report")?;
    let names = graph
        .ids()
        .filter(|id| *id != report)
        .map(|id| graph.node(id).name().to_owned());
    let mut nodes = vec![(report, report_node(spec, names.collect()))];
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
        // Other components or corpora change the inputs.
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
