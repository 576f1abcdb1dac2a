//! The content of a report: `report.json`, and the closing table of a run.

use std::collections::BTreeMap;

use aurora_compiler::graph::NodeKind;
use aurora_compiler::spec::Better;
use serde::{Deserialize, Serialize};

use crate::data_counts::CorpusCounts;
use crate::job::{Measure, PerplexityScore};
use crate::judge::JudgeReport;
use crate::statistics::{GateResult, Interval, Tested};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportContent {
    pub experiment: String,
    pub parameters: u64,
    /// In the order of training.
    pub stages: Vec<StageReport>,
    pub evals: Vec<EvalReport>,
    /// What extraction and preparation kept, dropped and changed.
    pub corpora: Vec<CorpusCounts>,
    pub gates: Vec<GateResult>,
    /// The uncertainty of the scores.
    #[serde(rename = "noise")]
    pub uncertainty: Uncertainty,
    pub lineage: Vec<LineageNode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    pub name: String,
    pub steps: u64,
    pub tokens_per_step: u64,
    /// Tokens trained before the stage began.
    pub tokens_before: u64,
    pub loss: Vec<f64>,
    pub components: Vec<MixtureUsage>,
}

/// The fraction of a component in the mixture, and in the data order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixtureUsage {
    pub component: String,
    /// Fraction of the mixture, in 0..1.
    #[serde(rename = "asked")]
    pub expected: f64,
    pub samples: u64,
    /// Fraction of the data order, in 0..1.
    #[serde(rename = "dealt")]
    pub actual: f64,
    /// Passes over the component's samples.
    pub epochs: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    pub name: String,
    /// By tokens trained.
    pub points: Vec<CurvePoint>,
    /// Some items, with the answers of the first and the last checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// The quality of its judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeReport>,
}

/// An item, and the answers of some checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// `FILE:LINE`.
    pub item: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// By checkpoint.
    #[serde(rename = "said")]
    pub answers: Vec<ExampleAnswer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleAnswer {
    pub at: String,
    pub answer: String,
    /// The judge's verdict, or the scores.
    pub verdict: String,
}

/// The uncertainty of all scores of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Uncertainty {
    /// Every score of every stage's start and end.
    pub changes: Vec<StageEffect>,
    pub forgotten: Vec<Forgotten>,
    /// For consecutive stages, if a score was measured after two or more of them.
    pub transfers: Vec<BackwardTransfer>,
    /// For gates with a confidence: two-sided p that the comparison does not hold, corrected for all of them.
    pub gates: BTreeMap<String, f64>,
}

/// A score before and after a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageEffect {
    pub stage: String,
    pub eval: String,
    pub metric: String,
    pub set: String,
    pub before: f64,
    pub after: f64,
    /// After − before.
    pub difference: f64,
    pub better: Better,
    /// Of the difference, paired by items, at 95%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Two-sided, of this row alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Tested>,
    /// Corrected for all rows of the report (Holm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<f64>,
}

/// The best of a score against its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    pub eval: String,
    pub metric: String,
    pub set: String,
    pub best: f64,
    /// The checkpoint with the best score.
    pub at: String,
    pub end: f64,
    /// Above zero is worse.
    pub lost: f64,
    /// Of the loss, at 95%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

/// What later stages did to the scores of earlier ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackwardTransfer {
    pub eval: String,
    pub metric: String,
    pub set: String,
    /// Stages after which it was measured.
    pub stages: usize,
    /// Above zero is better.
    pub transfer: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The checkpoint's name, `cap@120`, or the model's name for its initial weights.
    pub at: String,
    pub tokens: u64,
    /// The last checkpoint of a stage.
    pub ends_stage: bool,
    pub sets: BTreeMap<String, PerplexityScore>,
    /// Of a task: by category, then metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, BTreeMap<String, Measure>>,
    /// At 95%, by set or category, then metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, BTreeMap<String, Interval>>,
}

impl CurvePoint {
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
    pub kind: NodeKind,
    /// First digits of the key.
    pub key: String,
    pub inputs: Vec<String>,
}

impl ReportContent {
    /// Rows of the closing table: for each eval and set, bits per byte at the start, at the end of each stage, and the
    /// change; for each of a task's metrics, its value.
    pub fn table(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for eval in &self.evals {
            let ends: Vec<&CurvePoint> = eval
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
            let mut add = |name: &str, of: &dyn Fn(&CurvePoint) -> Option<f64>, change: fn(f64, f64) -> String| {
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
                let bits = |point: &CurvePoint| point.sets.get(set).map(|score| score.bits_per_byte);
                add(set, &bits, |from, to| format!("{:+.1}%", (to / from - 1.0) * 100.0));
            }
            for name in last.measured().keys() {
                let value = |point: &CurvePoint| point.measured().get(name).map(|measure| measure.value);
                add(name, &value, |from, to| format!("{:+.3}", to - from));
            }
        }
        rows
    }
}
