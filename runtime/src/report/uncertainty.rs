//! Uncertainty of a run's scores: intervals, what each stage changed and what was forgotten, and whether that is noise.
//!
//! The items of an eval are resampled once for all of its checkpoints and metrics, so that differences are paired.

use aurora_compiler::graph::NodeId;
use aurora_compiler::schema;
use aurora_compiler::spec::Better;

use super::content::{BackwardTransfer, CurvePoint, Forgotten, StageEffect, Uncertainty};
use crate::statistics::{
    GateResult, Interval, LEVEL, REPLICATES, Scored, ScoredItems, backward_transfer, forgetting, holm, paired,
    replicates,
};

/// An eval of one checkpoint.
pub(super) struct CheckpointScore {
    pub node: NodeId,
    pub checkpoint: Option<NodeId>,
    pub point: CurvePoint,
    pub scored: Scored,
    /// Stated in the spec for metrics that Aurora does not know.
    pub lower_is_better: Option<bool>,
}

/// The first and the last checkpoint of a stage.
pub(super) struct StageEnds<'a> {
    pub name: &'a str,
    pub start: Option<NodeId>,
    pub end: NodeId,
}

/// One score at every checkpoint of its eval, and in every replicate.
struct Series<'a> {
    eval: &'a str,
    set: String,
    metric: String,
    better: Better,
    /// By checkpoint, in order; `None` where it was not measured.
    values: Vec<Option<f64>>,
    samples: Vec<Option<ScoredItems>>,
    /// Column of each sample in `drawn`.
    columns: Vec<Option<usize>>,
}

impl Series<'_> {
    /// The interval of a function of some checkpoints' scores.
    fn interval(&self, drawn: &[Vec<f64>], of: &[usize], function: &dyn Fn(&[f64]) -> Option<f64>) -> Option<Interval> {
        let columns: Vec<usize> = of.iter().map(|place| self.columns[*place]).collect::<Option<_>>()?;
        let mut values = Vec::with_capacity(REPLICATES);
        for row in drawn {
            let scores: Vec<f64> = columns.iter().map(|column| row[*column]).collect();
            values.push(function(&scores)?);
        }
        Interval::of(&values, LEVEL)
    }
}

impl Uncertainty {
    /// Adds one eval, whose checkpoints are in the order of tokens, and sets their intervals.
    pub(super) fn add_eval(&mut self, eval: &str, scores: &mut [CheckpointScore], stages: &[StageEnds<'_>]) {
        let mut all = series(eval, scores);
        let mut samples = Vec::new();
        for series in &mut all {
            series.columns = vec![None; series.samples.len()];
            for (column, sample) in series.columns.iter_mut().zip(&series.samples) {
                if let Some(sample) = sample {
                    *column = Some(samples.len());
                    samples.push(sample.clone());
                }
            }
        }
        let drawn = replicates(&samples.iter().collect::<Vec<_>>());
        for series in &all {
            for (place, score) in scores.iter_mut().enumerate() {
                let found = series.interval(&drawn, &[place], &|scores| Some(scores[0]));
                if let Some(found) = found {
                    let own = score.point.intervals.entry(series.set.clone()).or_default();
                    own.insert(series.metric.clone(), found);
                }
            }
            let place = |id: Option<NodeId>| scores.iter().position(|score| id.is_some() && score.checkpoint == id);
            for stage in stages {
                if let (Some(before), Some(after)) = (place(stage.start), place(Some(stage.end))) {
                    self.changes.extend(change(series, stage.name, before, after, &drawn));
                }
            }
            self.forgotten.extend(forgotten(series, scores, &drawn));
            let follow = stages.windows(2).all(|pair| pair[1].start == Some(pair[0].end));
            let ends: Vec<usize> = stages.iter().filter_map(|stage| place(Some(stage.end))).collect();
            self.transfers
                .extend(transfer(series, &ends, &drawn).filter(|_| follow));
        }
    }

    /// Corrects for the number of rows, and for the number of gates with a confidence.
    pub(super) fn correct(&mut self, gates: &[GateResult]) {
        let tested: Vec<f64> = self.changes.iter().filter_map(|change| change.p).collect();
        let rows = self.changes.iter_mut().filter(|change| change.p.is_some());
        for (change, corrected) in rows.zip(holm(&tested)) {
            change.corrected = Some(corrected);
        }
        let with_level = gates.iter().filter(|gate| gate.found.level_is_set);
        let of = |gate: &GateResult| {
            let against = gate.found.doubt.map(|doubt| doubt * REPLICATES as f64);
            let one_sided = against.map_or(1.0, |against| (1.0 + against) / (1.0 + REPLICATES as f64));
            (gate.name.clone(), (2.0 * one_sided).min(1.0))
        };
        let (names, values): (Vec<String>, Vec<f64>) = with_level.map(of).unzip();
        self.gates = names.into_iter().zip(holm(&values)).collect();
    }
}

/// Every score of an eval, by set, then metric.
fn series<'a>(eval: &'a str, scores: &[CheckpointScore]) -> Vec<Series<'a>> {
    let names = |score: &CheckpointScore| {
        let measures = score.point.measures.iter();
        let measures = measures.flat_map(|(set, own)| own.keys().map(move |metric| (set.clone(), metric.clone())));
        let sets = score
            .point
            .sets
            .keys()
            .flat_map(|set| ["bits_per_byte", "perplexity"].map(|metric| (set.clone(), metric.to_owned())));
        measures.chain(sets).collect::<Vec<_>>()
    };
    let mut all: Vec<(String, String)> = scores.iter().flat_map(names).collect();
    all.sort();
    all.dedup();
    let lower = scores.iter().find_map(|score| score.lower_is_better);
    let of = |(set, metric): (String, String)| Series {
        eval,
        better: match lower {
            Some(true) => Better::Lower,
            Some(false) => Better::Higher,
            None => schema::better(&metric),
        },
        values: scores
            .iter()
            .map(|score| score.scored.value(&set, &metric).ok())
            .collect(),
        samples: scores
            .iter()
            .map(|score| score.scored.sample(&set, &metric).cloned())
            .collect(),
        columns: Vec::new(),
        set,
        metric,
    };
    all.into_iter().map(of).collect()
}

fn change(series: &Series<'_>, stage: &str, before: usize, after: usize, drawn: &[Vec<f64>]) -> Option<StageEffect> {
    let (from, to) = (series.values[before]?, series.values[after]?);
    let samples = series.samples[before].as_ref().zip(series.samples[after].as_ref());
    let tested = samples.and_then(|(before, after)| paired(before, after));
    Some(StageEffect {
        stage: stage.to_owned(),
        eval: series.eval.to_owned(),
        metric: series.metric.clone(),
        set: series.set.clone(),
        before: from,
        after: to,
        difference: to - from,
        better: series.better,
        interval: series.interval(drawn, &[before, after], &|scores| Some(scores[1] - scores[0])),
        p: tested.map(|(p, _)| p),
        test: tested.map(|(_, test)| test),
        corrected: None,
    })
}

fn forgotten(series: &Series<'_>, scores: &[CheckpointScore], drawn: &[Vec<f64>]) -> Option<Forgotten> {
    let measured: Vec<usize> = (0..series.values.len())
        .filter(|place| series.values[*place].is_some())
        .collect();
    let (last, earlier) = measured.split_last()?;
    let value = |place: usize| series.values[place].unwrap_or(f64::NAN);
    let better = |a: &usize, b: &usize| match series.better {
        Better::Higher => value(*b).total_cmp(&value(*a)),
        Better::Lower => value(*a).total_cmp(&value(*b)),
    };
    // Ties go to the first.
    let best = earlier.iter().copied().min_by(better)?;
    let earlier_values: Vec<f64> = earlier.iter().map(|place| value(*place)).collect();
    let lost = |scores: &[f64]| {
        let (last, earlier) = scores.split_last()?;
        forgetting(earlier, *last, series.better)
    };
    Some(Forgotten {
        eval: series.eval.to_owned(),
        metric: series.metric.clone(),
        set: series.set.clone(),
        best: value(best),
        at: scores[best].point.at.clone(),
        end: value(*last),
        lost: forgetting(&earlier_values, value(*last), series.better)?,
        interval: series.interval(drawn, &measured, &lost),
    })
}

fn transfer(series: &Series<'_>, ends: &[usize], drawn: &[Vec<f64>]) -> Option<BackwardTransfer> {
    let values: Vec<f64> = ends.iter().map(|place| series.values[*place]).collect::<Option<_>>()?;
    Some(BackwardTransfer {
        eval: series.eval.to_owned(),
        metric: series.metric.clone(),
        set: series.set.clone(),
        stages: ends.len(),
        transfer: backward_transfer(&values, series.better)?,
        interval: series.interval(drawn, ends, &|scores| backward_transfer(scores, series.better)),
    })
}
