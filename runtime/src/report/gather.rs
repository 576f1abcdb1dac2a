//! Gathers the content of a report from the results of a graph.

use std::collections::{BTreeMap, BTreeSet};

use aurora_compiler::fields::TrainFields;
use aurora_compiler::graph::{Graph, NodeId, NodeKind, Role};

use super::content::{CurvePoint, EvalReport, LineageNode, MixtureUsage, ReportContent, StageReport, Uncertainty};
use super::examples;
use super::uncertainty::{CheckpointScore, StageEnds};
use crate::checkpoint::STEP_LOG;
use crate::data::order::{Order, OrderSizes};
use crate::data_counts::data_counts;
use crate::job::StepLogLine;
use crate::results::{ResultError, Results};

/// The checkpoints of a graph.
struct Checkpoints<'a> {
    /// Tokens trained up to each checkpoint; a stage begins at the tokens of its start.
    tokens: BTreeMap<NodeId, u64>,
    /// The last checkpoint of each stage.
    last: BTreeSet<NodeId>,
    stages: Vec<StageEnds<'a>>,
}

pub(super) fn gather(results: &Results<'_>, report: NodeId) -> Result<ReportContent, ResultError> {
    let graph = &results.keyed.graph;
    let mut story = ReportContent {
        experiment: results.experiment.to_string(),
        parameters: 0,
        stages: Vec::new(),
        evals: Vec::new(),
        corpora: data_counts(results)?,
        gates: Vec::new(),
        uncertainty: Uncertainty::default(),
        lineage: lineage(results, report),
    };
    let checkpoints = stages(results, &mut story)?;
    for (name, mut scores) in scores(results, &checkpoints)? {
        scores.sort_by_key(|score| score.point.tokens);
        story.uncertainty.add_eval(&name, &mut scores, &checkpoints.stages);
        story.evals.push(eval(results, name, scores)?);
    }
    for id in of_kind(graph, NodeKind::Expect) {
        story.gates.push(results.json(id, "gate.json")?);
    }
    story.uncertainty.correct(&story.gates);
    Ok(story)
}

fn of_kind(graph: &Graph, kind: NodeKind) -> impl Iterator<Item = NodeId> {
    graph.ids().filter(move |id| graph.node(*id).kind() == kind)
}

/// Adds the stages, in the order of training, to the story.
fn stages<'a>(results: &Results<'a>, story: &mut ReportContent) -> Result<Checkpoints<'a>, ResultError> {
    let graph = &results.keyed.graph;
    let mut found = Checkpoints {
        tokens: of_kind(graph, NodeKind::Weights).map(|id| (id, 0)).collect(),
        last: BTreeSet::new(),
        stages: Vec::new(),
    };
    for id in graph.ids() {
        let (Some(fields), Some((name, _))) = (graph.node(id).work.train(), graph.node(id).origin.trained()) else {
            continue;
        };
        story.parameters = fields.model.parameters();
        let per_step = u64::from(fields.global_batch) * u64::from(fields.sequence);
        let start = results.input(id, &Role::Start);
        let before = start.and_then(|start| found.tokens.get(&start).copied()).unwrap_or(0);
        found.tokens.insert(id, before + fields.last_step * per_step);
        let is_last = !graph.users(id).any(|user| {
            graph
                .inputs(user)
                .any(|input| input.node == id && input.role == Role::ResumesFrom)
        });
        if is_last {
            found.last.insert(id);
            found.stages.push(StageEnds { name, start, end: id });
            story.stages.push(stage(results, id, name, fields, before, per_step)?);
        }
    }
    Ok(found)
}

/// The scores of every eval at each of its checkpoints.
fn scores(
    results: &Results<'_>,
    checkpoints: &Checkpoints<'_>,
) -> Result<BTreeMap<String, Vec<CheckpointScore>>, ResultError> {
    let graph = &results.keyed.graph;
    let mut evals: BTreeMap<String, Vec<CheckpointScore>> = BTreeMap::new();
    for id in of_kind(graph, NodeKind::Eval).chain(of_kind(graph, NodeKind::Judge)) {
        let node = graph.node(id);
        let Some((eval, at)) = node.origin.eval() else {
            continue;
        };
        let scored = results.scored(id)?;
        let answers = results.input(id, &Role::Answers).unwrap_or(id);
        let checkpoint = results.input(answers, &Role::Checkpoint);
        let tokens = checkpoint.and_then(|checkpoint| checkpoints.tokens.get(&checkpoint).copied());
        let point = CurvePoint {
            at: at.to_string(),
            tokens: tokens.unwrap_or(0),
            ends_stage: checkpoint.is_some_and(|checkpoint| checkpoints.last.contains(&checkpoint)),
            sets: scored.scores.sets.clone(),
            measures: scored.scores.measures.clone(),
            intervals: BTreeMap::new(),
        };
        let better = node.spec_values.get(&format!("eval.{eval}.better"));
        evals.entry(eval.to_string()).or_default().push(CheckpointScore {
            node: id,
            checkpoint,
            point,
            scored,
            lower_is_better: better.map(|better| better == "lower"),
        });
    }
    Ok(evals)
}

/// One eval, from its scores in the order of tokens.
fn eval(results: &Results<'_>, name: String, scores: Vec<CheckpointScore>) -> Result<EvalReport, ResultError> {
    let ends: Vec<&CheckpointScore> = match scores.as_slice() {
        [first, .., last] => vec![first, last],
        few => few.iter().collect(),
    };
    let mut checkpoints = Vec::new();
    for score in ends.iter().filter(|score| !score.point.measures.is_empty()) {
        checkpoints.push((score.point.at.clone(), results.json_lines(score.node, "items.jsonl")?));
    }
    let judge = match ends.last() {
        Some(score) if results.files(score.node)?.contains_key("judge.json") => {
            Some(results.json(score.node, "judge.json")?)
        }
        _ => None,
    };
    Ok(EvalReport {
        name,
        examples: examples::choose(&checkpoints),
        judge,
        points: scores.into_iter().map(|score| score.point).collect(),
    })
}

fn lineage(results: &Results<'_>, report: NodeId) -> Vec<LineageNode> {
    let graph = &results.keyed.graph;
    let node = |id: NodeId| LineageNode {
        name: graph.node(id).name().to_owned(),
        kind: graph.node(id).kind(),
        key: results.keyed.key(id).to_hex()[..12].to_string(),
        inputs: graph
            .inputs(id)
            .map(|input| graph.node(input.node).name().to_owned())
            .collect(),
    };
    graph.ids().filter(|id| *id != report).map(node).collect()
}

fn stage(
    results: &Results<'_>,
    last: NodeId,
    name: &str,
    fields: &TrainFields,
    before: u64,
    per_step: u64,
) -> Result<StageReport, ResultError> {
    let mut loss = Vec::new();
    for step in results.json_lines::<StepLogLine>(last, STEP_LOG)? {
        let bits = u64::from_str_radix(&step.loss, 16).map_err(|error| results.fail(last, error))?;
        loss.push(f64::from_bits(bits));
    }
    let order = results.required_input(last, &Role::Order)?;
    let order_fields = results.order_fields(order)?;
    let sizes: OrderSizes = results.json(order, "order.json")?;
    let samples = fields.last_step * u64::from(fields.global_batch);
    let available = sizes.samples();
    let order = Order::new(order_fields, &available).map_err(|error| results.fail(last, error))?;
    let counts = order.counts(samples);
    let components = order_fields
        .components
        .iter()
        .zip(&counts)
        .zip(&available)
        .map(|((component, &count), &available)| MixtureUsage {
            component: component.name.clone(),
            expected: order_fields.configured_fraction(component, samples),
            samples: count,
            actual: count as f64 / samples.max(1) as f64,
            epochs: count as f64 / available.max(1) as f64,
        })
        .collect();
    Ok(StageReport {
        name: name.to_owned(),
        steps: fields.last_step,
        tokens_per_step: per_step,
        tokens_before: before,
        loss,
        components,
    })
}
