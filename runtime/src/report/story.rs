//! Gathers what a report tells from the results of a graph.

use std::collections::BTreeMap;

use aurora_compiler::fields::{OrderFields, TrainFields};
use aurora_compiler::graph::{Kind, NodeId};
use serde::{Deserialize, Serialize};

use super::examples::{self, Example};
use super::noise::{Looked, Noise, StageEnds};
use crate::data::order::Order;
use crate::engine::{Gate, Run, RunError};
use crate::job::{Measure, Score, StepLogLine};
use crate::judge::JudgeReport;
use crate::statistics::Interval;
use crate::task::ItemResult;

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
    /// What the evals' scores are worth.
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
    pub components: Vec<Ledger>,
}

/// What a mixture asked for and what the order dealt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    pub component: String,
    /// Share asked for, in 0..1.
    pub asked: f64,
    pub samples: u64,
    /// Share dealt, in 0..1.
    pub dealt: f64,
    /// Passes over the component's samples.
    pub epochs: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalStory {
    pub name: String,
    /// By tokens trained.
    pub points: Vec<Point>,
    /// Some items, and what the first and the last checkpoint said to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// What its judge is worth.
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

    /// A task's numbers, each by the words that stand before it: the metric, after its category if it has one.
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

/// A file of a node's result.
fn read_text(run: &Run<'_>, id: NodeId, file: &str) -> Result<String, RunError> {
    let files = run.files(id)?;
    let path = files
        .get(file)
        .ok_or_else(|| unreadable(run, id, format!("its result has no {file}")))?;
    std::fs::read_to_string(path).map_err(|error| unreadable(run, id, error.to_string()))
}

fn unreadable(run: &Run<'_>, id: NodeId, cause: String) -> RunError {
    RunError::Node {
        node: run.keyed.graph.node(id).name.clone(),
        cause,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(run: &Run<'_>, id: NodeId, file: &str) -> Result<T, RunError> {
    let text = read_text(run, id, file)?;
    serde_json::from_str(&text).map_err(|error| unreadable(run, id, format!("{file}: {error}")))
}

pub(super) fn tell(run: &Run<'_>, report: NodeId) -> Result<Story, RunError> {
    let graph = &run.keyed.graph;
    let of_kind = |kind: Kind| graph.ids().filter(move |id| graph.node(*id).kind == kind);
    let mut story = Story {
        experiment: run.experiment.to_string(),
        parameters: 0,
        stages: Vec::new(),
        evals: Vec::new(),
        corpora: BTreeMap::new(),
        gates: Vec::new(),
        noise: Noise::default(),
        lineage: Vec::new(),
    };
    // Where on the axis of tokens each checkpoint stands: a stage begins where its start stands.
    let mut tokens_at: BTreeMap<NodeId, u64> = of_kind(Kind::Weights).map(|id| (id, 0)).collect();
    let mut lasts = std::collections::BTreeSet::new();
    let mut ends = Vec::new();
    for id in of_kind(Kind::Train) {
        let fields: TrainFields = parse(run, id)?;
        story.parameters = fields.model.parameters();
        let per_step = u64::from(fields.global_batch) * u64::from(fields.sequence);
        let start = graph
            .inputs(id)
            .find(|input| input.role == "start")
            .map(|input| input.node);
        let before = start.and_then(|start| tokens_at.get(&start).copied()).unwrap_or(0);
        tokens_at.insert(id, before + fields.last_step * per_step);
        let is_last = !graph.users(id).any(|user| {
            graph
                .inputs(user)
                .any(|input| input.node == id && input.role == "goes on from")
        });
        if is_last {
            lasts.insert(id);
            ends.push((start, id));
            story.stages.push(stage(run, id, &fields, before, per_step)?);
        }
    }
    let mut evals: BTreeMap<String, Vec<Looked>> = BTreeMap::new();
    for id in of_kind(Kind::Eval).chain(of_kind(Kind::Judge)) {
        let node = graph.node(id);
        let mut parts = node.name.splitn(3, '/');
        let (Some(_), Some(eval), Some(at)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let scored = run.scored(id)?;
        let first = |id: NodeId, role: &str| {
            graph
                .inputs(id)
                .find(|input| input.role == role)
                .map(|input| input.node)
        };
        let checkpoint = first(first(id, "answers").unwrap_or(id), "checkpoint");
        let tokens = checkpoint
            .and_then(|checkpoint| tokens_at.get(&checkpoint).copied())
            .unwrap_or(0);
        let ends_stage = checkpoint.is_some_and(|checkpoint| lasts.contains(&checkpoint));
        let point = Point {
            at: at.to_string(),
            tokens,
            ends_stage,
            sets: scored.scores.sets.clone(),
            measures: scored.scores.measures.clone(),
            intervals: BTreeMap::new(),
        };
        let better = node.spec_values.get(&format!("eval.{eval}.better")).cloned();
        evals.entry(eval.to_string()).or_default().push(Looked {
            node: id,
            checkpoint,
            point,
            scored,
            lower: better.map(|better| better == "lower"),
        });
    }
    let ends = story.stages.iter().map(|stage| stage.name.as_str()).zip(ends);
    let ends: Vec<StageEnds<'_>> = ends
        .map(|(name, (start, end))| StageEnds { name, start, end })
        .collect();
    let mut noise = Noise::default();
    let mut told = Vec::new();
    for (name, mut looked) in evals {
        looked.sort_by_key(|looked| looked.point.tokens);
        noise.tell(&name, &mut looked, &ends);
        let ends: Vec<&Looked> = match looked.as_slice() {
            [first, .., last] => vec![first, last],
            few => few.iter().collect(),
        };
        let mut checkpoints = Vec::new();
        for looked in ends.iter().filter(|looked| !looked.point.measures.is_empty()) {
            checkpoints.push((looked.point.at.clone(), items(run, looked.node)?));
        }
        let judge = ends
            .last()
            .map(|looked| judge_report(run, looked.node))
            .transpose()?
            .flatten();
        told.push(EvalStory {
            name,
            examples: examples::choose(&checkpoints),
            judge,
            points: looked.into_iter().map(|looked| looked.point).collect(),
        });
    }
    story.evals = told;
    for id in of_kind(Kind::Filter) {
        let name = graph.node(id).name.trim_start_matches("filter/").to_string();
        story.corpora.insert(name, read_json(run, id, "report.json")?);
    }
    for id in of_kind(Kind::Expect) {
        story.gates.push(read_json(run, id, "gate.json")?);
    }
    noise.correct(&story.gates);
    story.noise = noise;
    for id in graph.ids().filter(|id| *id != report) {
        story.lineage.push(LineageNode {
            name: graph.node(id).name.clone(),
            kind: graph.node(id).kind,
            key: run.keyed.key(id).to_hex()[..12].to_string(),
            inputs: graph
                .inputs(id)
                .map(|input| graph.node(input.node).name.clone())
                .collect(),
        });
    }
    Ok(story)
}

/// The items of a task.
fn items(run: &Run<'_>, id: NodeId) -> Result<Vec<ItemResult>, RunError> {
    let text = read_text(run, id, "items.jsonl")?;
    let items = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    items.map_err(|error| unreadable(run, id, format!("items.jsonl: {error}")))
}

/// What is known of the judge of an eval, if it has one that was measured.
fn judge_report(run: &Run<'_>, id: NodeId) -> Result<Option<JudgeReport>, RunError> {
    if run.files(id)?.contains_key("judge.json") {
        read_json(run, id, "judge.json").map(Some)
    } else {
        Ok(None)
    }
}

fn parse<T: serde::de::DeserializeOwned>(run: &Run<'_>, id: NodeId) -> Result<T, RunError> {
    let node = run.keyed.graph.node(id);
    serde_json::from_value(node.fields.clone()).map_err(|error| RunError::Node {
        node: node.name.clone(),
        cause: error.to_string(),
    })
}

fn stage(
    run: &Run<'_>,
    last: NodeId,
    fields: &TrainFields,
    before: u64,
    per_step: u64,
) -> Result<StageStory, RunError> {
    let graph = &run.keyed.graph;
    let name = graph.node(last).name.split('@').next().unwrap_or_default().to_string();
    let fail = |cause: String| RunError::Node {
        node: graph.node(last).name.clone(),
        cause,
    };
    let files = run.files(last)?;
    let trail = files
        .get("trail.jsonl")
        .ok_or_else(|| fail("its result has no trail".to_string()))?;
    let trail = std::fs::read_to_string(trail).map_err(|error| fail(error.to_string()))?;
    let mut loss = Vec::new();
    for line in trail.lines() {
        let step: StepLogLine = serde_json::from_str(line).map_err(|error| fail(error.to_string()))?;
        let bits = u64::from_str_radix(&step.loss, 16).map_err(|error| fail(error.to_string()))?;
        loss.push(f64::from_bits(bits));
    }
    let order = graph
        .inputs(last)
        .find(|input| input.role == "order")
        .map(|input| input.node);
    let order = order.ok_or_else(|| fail("it has no order".to_string()))?;
    let order_fields: OrderFields = parse(run, order)?;
    let dealt: Dealt = read_json(run, order, "order.json")?;
    let samples = fields.last_step * u64::from(fields.global_batch);
    let made = Order::new(&order_fields, &dealt.samples).map_err(|error| fail(error.to_string()))?;
    let counts = made.counts(samples);
    let components = order_fields
        .components
        .iter()
        .zip(&counts)
        .zip(&dealt.samples)
        .map(|((component, &count), &available)| Ledger {
            component: component.name.clone(),
            asked: order_fields.asked(component, samples),
            samples: count,
            dealt: count as f64 / samples.max(1) as f64,
            epochs: count as f64 / available.max(1) as f64,
        })
        .collect();
    Ok(StageStory {
        name,
        steps: fields.last_step,
        tokens_per_step: per_step,
        tokens_before: before,
        loss,
        components,
    })
}

/// `order.json` of an order node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dealt {
    /// Samples that each component holds, in the order's order.
    pub samples: Vec<u64>,
    pub tokens: Vec<u64>,
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
