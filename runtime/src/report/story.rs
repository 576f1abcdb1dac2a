//! Gathers the content of a report from the results of a graph.

use std::collections::{BTreeMap, BTreeSet};

use aurora_compiler::fields::TrainFields;
use aurora_compiler::graph::{Graph, Kind, NodeId, NodeOrigin, Role};
use serde::{Deserialize, Serialize};

use super::examples::{self, Example};
use super::noise::{CheckpointScore, Noise, StageEnds};
use crate::checkpoint::TRAIL;
use crate::data::order::{ComponentSizes, Order};
use crate::job::{Measure, Score, TrailStep};
use crate::judge::JudgeReport;
use crate::results::{ResultError, Results};
use crate::statistics::{Gate, Interval};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    pub experiment: String,
    pub parameters: u64,
    /// In the order of training.
    pub stages: Vec<StageStory>,
    pub evals: Vec<EvalStory>,
    /// What extraction and filtering kept and dropped, by corpus, as the filter reported it.
    pub corpora: BTreeMap<String, serde_json::Value>,
    pub gates: Vec<Gate>,
    /// The uncertainty of the scores.
    pub noise: Noise,
    pub lineage: Vec<LineageNode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageStory {
    pub name: String,
    pub steps: u64,
    pub tokens_per_step: u64,
    /// Tokens trained before the stage began.
    pub tokens_before: u64,
    pub loss: Vec<f64>,
    pub components: Vec<MixtureUsage>,
}

/// How much of a component the mixture asks for, and how much the data order contains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixtureUsage {
    pub component: String,
    /// Fraction of the mixture, in 0..1.
    pub asked: f64,
    pub samples: u64,
    /// Fraction of the data order, in 0..1.
    pub dealt: f64,
    /// Passes over the component's samples.
    pub epochs: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalStory {
    pub name: String,
    /// By tokens trained.
    pub points: Vec<Point>,
    /// Some items, with the answers of the first and the last checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// The quality of its judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The checkpoint's name, `cap@120`, or the model's for its first weights.
    pub at: String,
    pub tokens: u64,
    /// The last checkpoint of a stage.
    pub ends_stage: bool,
    pub sets: BTreeMap<String, Score>,
    /// Of a task: by category, then metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, BTreeMap<String, Measure>>,
    /// At 95%, by set or category, then metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, BTreeMap<String, Interval>>,
}

impl Point {
    /// The interval of a score, if it has one.
    pub fn interval(&self, set: &str, metric: &str) -> Option<Interval> {
        self.intervals.get(set)?.get(metric).copied()
    }

    /// A task's measures by their labels: the metric, after its category if it has one.
    pub fn measured(&self) -> BTreeMap<String, &Measure> {
        let named = |category: &str, metric: &str| match category {
            "" => metric.to_owned(),
            category => format!("{category} {metric}"),
        };
        let each = self
            .measures
            .iter()
            .flat_map(|(category, own)| own.iter().map(move |(metric, m)| (category, metric, m)));
        each.map(|(category, metric, measure)| (named(category, metric), measure))
            .collect()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineageNode {
    pub name: String,
    pub kind: Kind,
    /// First digits of the key.
    pub key: String,
    pub inputs: Vec<String>,
}

/// What is known of the checkpoints of a graph.
struct Checkpoints<'a> {
    /// Tokens trained up to each checkpoint; a stage begins at the tokens of its start.
    tokens: BTreeMap<NodeId, u64>,
    /// The last checkpoint of each stage.
    last: BTreeSet<NodeId>,
    stages: Vec<StageEnds<'a>>,
}

pub(super) fn gather(results: &Results<'_>, report: NodeId) -> Result<Story, ResultError> {
    let graph = &results.keyed.graph;
    let mut story = Story {
        experiment: results.experiment.to_string(),
        parameters: 0,
        stages: Vec::new(),
        evals: Vec::new(),
        corpora: BTreeMap::new(),
        gates: Vec::new(),
        noise: Noise::default(),
        lineage: lineage(results, report),
    };
    let checkpoints = stages(results, &mut story)?;
    for (name, mut scores) in scores(results, &checkpoints)? {
        scores.sort_by_key(|score| score.point.tokens);
        story.noise.add_eval(&name, &mut scores, &checkpoints.stages);
        story.evals.push(eval(results, name, scores)?);
    }
    for id in graph.ids() {
        if let NodeOrigin::Filter { corpus } = &graph.node(id).origin {
            story.corpora.insert(corpus.clone(), results.json(id, "report.json")?);
        }
    }
    for id in of_kind(graph, Kind::Expect) {
        story.gates.push(results.json(id, "gate.json")?);
    }
    story.noise.correct(&story.gates);
    Ok(story)
}

fn of_kind(graph: &Graph, kind: Kind) -> impl Iterator<Item = NodeId> {
    graph.ids().filter(move |id| graph.node(*id).kind() == kind)
}

/// Adds the stages, in the order of training, to the story.
fn stages<'a>(results: &Results<'a>, story: &mut Story) -> Result<Checkpoints<'a>, ResultError> {
    let graph = &results.keyed.graph;
    let mut found = Checkpoints {
        tokens: of_kind(graph, Kind::Weights).map(|id| (id, 0)).collect(),
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
    for id in of_kind(graph, Kind::Eval).chain(of_kind(graph, Kind::Judge)) {
        let node = graph.node(id);
        let Some((eval, at)) = node.origin.eval() else {
            continue;
        };
        let scored = results.scored(id)?;
        let answers = results.input(id, &Role::Answers).unwrap_or(id);
        let checkpoint = results.input(answers, &Role::Checkpoint);
        let tokens = checkpoint.and_then(|checkpoint| checkpoints.tokens.get(&checkpoint).copied());
        let point = Point {
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
fn eval(results: &Results<'_>, name: String, scores: Vec<CheckpointScore>) -> Result<EvalStory, ResultError> {
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
    Ok(EvalStory {
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
) -> Result<StageStory, ResultError> {
    let mut loss = Vec::new();
    for step in results.json_lines::<TrailStep>(last, TRAIL)? {
        let bits = u64::from_str_radix(&step.loss, 16).map_err(|error| results.fail(last, error))?;
        loss.push(f64::from_bits(bits));
    }
    let order = results.required_input(last, &Role::Order)?;
    let order_fields = results.order_fields(order)?;
    let sizes: ComponentSizes = results.json(order, "order.json")?;
    let samples = fields.last_step * u64::from(fields.global_batch);
    let order = Order::new(order_fields, &sizes.samples).map_err(|error| results.fail(last, error))?;
    let counts = order.counts(samples);
    let components = order_fields
        .components
        .iter()
        .zip(&counts)
        .zip(&sizes.samples)
        .map(|((component, &count), &available)| MixtureUsage {
            component: component.name.clone(),
            asked: order_fields.asked(component, samples),
            samples: count,
            dealt: count as f64 / samples.max(1) as f64,
            epochs: count as f64 / available.max(1) as f64,
        })
        .collect();
    Ok(StageStory {
        name: name.to_owned(),
        steps: fields.last_step,
        tokens_per_step: per_step,
        tokens_before: before,
        loss,
        components,
    })
}

impl Story {
    /// Rows of the closing table: for each eval and set, bits per byte at the start, at the end of each stage, and the
    /// change; for each of a task's metrics, its value.
    pub fn table(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for eval in &self.evals {
            let ends: Vec<&Point> = eval
                .points
                .iter()
                .filter(|point| point.tokens == 0 || point.ends_stage)
                .collect();
            let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
                continue;
            };
            let unit = if last.sets.is_empty() { "" } else { ", bits per byte" };
            let mut header = vec![format!("{}{unit}", eval.name)];
            header.extend(ends.iter().map(|point| point.at.clone()));
            header.push("change".to_string());
            rows.push(header);
            let mut add = |name: &str, of: &dyn Fn(&Point) -> Option<f64>, change: fn(f64, f64) -> String| {
                let mut row = vec![format!("  {name}")];
                row.extend(
                    ends.iter()
                        .map(|point| of(point).map_or(String::new(), |value| format!("{value:.3}"))),
                );
                if let (Some(from), Some(to)) = (of(first), of(last)) {
                    row.push(change(from, to));
                }
                rows.push(row);
            };
            for set in last.sets.keys() {
                let bits = |point: &Point| point.sets.get(set).map(|score| score.bits_per_byte);
                add(set, &bits, |from, to| format!("{:+.1}%", (to / from - 1.0) * 100.0));
            }
            for name in last.measured().keys() {
                let value = |point: &Point| point.measured().get(name).map(|measure| measure.value);
                add(name, &value, |from, to| format!("{:+.3}", to - from));
            }
        }
        rows
    }
}
