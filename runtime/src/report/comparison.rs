//! Several runs side by side: their losses and scores on common axes, and the last scores of each in one table.
//!
//! In: the reports of the runs. Out: a self-contained page. Comparisons paired by items (of two checkpoints) are in the report
//! of one run; runs are compared by their intervals.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::content::{CurvePoint, ReportContent};
use super::html::{head, loss_points};
use super::plots::{Line, Plot, PlotError, draw};
use crate::statistics::Interval;

/// A run and its name on the page.
pub struct Compared {
    pub name: String,
    pub story: ReportContent,
}

/// A score's eval, set and metric.
type ScoreName = (String, String, String);

impl Compared {
    /// The last value of a score, with its interval.
    fn last(&self, (eval, set, metric): &ScoreName) -> Option<(f64, Option<Interval>)> {
        let eval = self.story.evals.iter().find(|own| own.name == *eval)?;
        let point = eval.points.last()?;
        Some((value(point, set, metric)?, point.interval(set, metric)))
    }

    fn line(&self, place: &ScoreName, colour: usize) -> Option<Line> {
        let (eval, set, metric) = place;
        let eval = self.story.evals.iter().find(|own| own.name == *eval)?;
        let points = eval.points.iter();
        let points: Vec<(f64, f64)> = points
            .filter_map(|point| Some((point.tokens as f64, value(point, set, metric)?)))
            .collect();
        let bar = |point: &CurvePoint| {
            let interval = point.interval(set, metric)?;
            Some((point.tokens as f64, interval.low, interval.high))
        };
        (!points.is_empty()).then(|| Line {
            name: self.name.clone(),
            points,
            bars: eval.points.iter().filter_map(bar).collect(),
            colour,
            marked: true,
        })
    }
}

fn value(point: &CurvePoint, set: &str, metric: &str) -> Option<f64> {
    if metric == "bits_per_byte" {
        return point.sets.get(set).map(|score| score.bits_per_byte);
    }
    Some(point.measures.get(set)?.get(metric)?.value)
}

/// The scores of all runs.
fn places(runs: &[Compared]) -> Vec<ScoreName> {
    let mut found = BTreeSet::new();
    for eval in runs.iter().flat_map(|run| &run.story.evals) {
        for point in &eval.points {
            let of_sets = point.sets.keys().map(|set| (set, "bits_per_byte"));
            let measures = point.measures.iter();
            let of_measures = measures.flat_map(|(set, own)| own.keys().map(move |metric| (set, metric.as_str())));
            let all = of_sets.chain(of_measures);
            found.extend(all.map(|(set, metric)| (eval.name.clone(), set.clone(), metric.to_owned())));
        }
    }
    found.into_iter().collect()
}

/// Rows of the comparison: each score's name, then its last value in every run.
pub fn table(runs: &[Compared]) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["score".to_owned()]];
    rows[0].extend(runs.iter().map(|run| run.name.clone()));
    for place in places(runs) {
        let (eval, set, metric) = &place;
        let names = [eval.as_str(), set.as_str(), metric.as_str()];
        let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let mut row = vec![names.join(" ")];
        row.extend(runs.iter().map(|run| run.last(&place).map_or(String::new(), text)));
        rows.push(row);
    }
    rows
}

fn text((value, interval): (f64, Option<Interval>)) -> String {
    let within = interval.map_or(String::new(), |interval| format!(" ± {:.3}", interval.half()));
    format!("{value:.3}{within}")
}

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(runs: &[Compared]) -> Result<String, PlotError> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = names.join(" · ");
    let mut rows = table(runs).into_iter();
    let columns = rows.next().unwrap_or_default();
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · Aurora comparison")))
            body {
                h1 { (title) }
                h2 { "Last scores" }
                p { "± half of the 95% interval, from the items alone: two runs differ by their seeds as well." }
                div class="wide" { table {
                    tr { @for cell in &columns { th { (cell) } } }
                    @for row in rows { tr { @for cell in &row { td { (cell) } } } }
                } }
                h2 { "Loss" }
                (PreEscaped(draw(&losses(runs))?))
                h2 { "Scores against tokens" }
                @for place in places(runs) { (plot(runs, &place)?) }
            }
        }
    };
    Ok(body.into_string())
}

fn losses(runs: &[Compared]) -> Plot<'static> {
    let line = |(colour, run): (usize, &Compared)| Line {
        name: run.name.clone(),
        points: loss_points(&run.story),
        bars: Vec::new(),
        colour,
        marked: false,
    };
    Plot {
        across: "tokens",
        up: "loss (nats)",
        lines: runs.iter().enumerate().map(line).collect(),
        seams: Vec::new(),
    }
}

/// A score against tokens, if a run has more than one value.
fn plot(runs: &[Compared], place: &ScoreName) -> Result<Markup, PlotError> {
    let lines = runs.iter().enumerate();
    let lines: Vec<Line> = lines.filter_map(|(colour, run)| run.line(place, colour)).collect();
    if lines.iter().all(|line| line.points.len() < 2) {
        return Ok(html! {});
    }
    let (eval, set, metric) = place;
    let plot = Plot {
        across: "tokens",
        up: metric,
        lines,
        seams: Vec::new(),
    };
    let drawn = draw(&plot)?;
    Ok(html! { h3 { (eval) " " (set) } (PreEscaped(drawn)) })
}
