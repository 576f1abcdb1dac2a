//! The report page: one self-contained HTML file, without scripts and fonts.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::content::{CurvePoint, EvalReport, ReportContent, StageReport};
use super::plots::{Line, Plot, PlotError, draw, short};
use super::{examples, lineage, tables};
use crate::data_counts::by_reason;
use crate::statistics::Interval;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1,h2{line-height:1.2} h2{margin-top:2.5rem;border-bottom:1px solid #ddd;padding-bottom:.2rem}
table{border-collapse:collapse;margin:1rem 0} th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e5e5e5}
th:first-child,td:first-child{text-align:left} caption{text-align:left;font-weight:600;padding:.3rem 0}
.plot{width:100%;height:auto;background:#fff} .wide{overflow-x:auto}
.lineage rect{fill:#eef3f8;stroke:#7a9cbf} .lineage text{font:11px system-ui,sans-serif}
.lineage .kind{font-weight:600;font-size:13px} .lineage path{fill:none;stroke:#b9c6d3}
details{margin:.5rem 0 1.5rem} summary{cursor:pointer} .example{border-left:3px solid #ccc;padding-left:.8rem;margin:1rem 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;margin:.2rem 0} a{color:#005a8c}
.holds{color:#005a8c} .fails{color:#b34700;font-weight:600} code{font-size:13px}
@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616} th,td{border-color:#333} h2{border-color:#444}
.plot,.lineage{background:#fff;border-radius:4px} .holds,a{color:#7cc4f0} .example{border-color:#555} .fails{color:#ff9a57}}
@media print{body{max-width:none;margin:0} h2{break-after:avoid} .plot,table{break-inside:avoid}}
";

pub fn page(story: &ReportContent) -> Result<String, PlotError> {
    let total: u64 = story
        .stages
        .iter()
        .map(|stage| stage.steps * stage.tokens_per_step)
        .sum();
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{} · Aurora report", story.experiment)))
            body {
                h1 { (story.experiment) }
                p {
                    (story.parameters) " parameters, " (story.stages.len()) " stages, "
                    (short(total as f64)) " tokens. Every figure on this page follows from the lock alone."
                }
                (examples::contents(story))
                (tables::gates(story))
                h2 { "Loss" }
                p { "Mean over each step's tokens of −ln p, in nats." }
                (PreEscaped(draw(&losses(story))?))
                h2 { "Scores against tokens" }
                @for eval in &story.evals {
                    h3 { (eval.name) }
                    @if !set_names(eval).is_empty() {
                        (PreEscaped(draw(&scores(eval, story))?))
                        (score_table(eval))
                    }
                    @if let Some(plot) = measures(eval, story) { (PreEscaped(draw(&plot)?)) }
                    (measure_table(eval))
                    (examples::table(eval))
                }
                (tables::changes(story))
                (tables::forgotten(story))
                (tables::transfers(story))
                h2 { "Mixture ledger" }
                p { "What each stage asked for, and what the data order dealt." }
                @for stage in &story.stages { (ledger(stage)) }
                h2 { "Documents" }
                (corpora(story))
                h2 { "Lineage" }
                div class="wide" { (PreEscaped(lineage::draw(&story.lineage))) }
            }
        }
    };
    Ok(body.into_string())
}

/// The head of a page.
pub(super) fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// The losses of a run's steps, by tokens trained.
pub(super) fn loss_points(story: &ReportContent) -> Vec<(f64, f64)> {
    let points = story.stages.iter().flat_map(|stage| {
        let at = |index: usize| (stage.tokens_before + (index as u64 + 1) * stage.tokens_per_step) as f64;
        let losses = stage.loss.iter().enumerate();
        losses.map(move |(index, loss)| (at(index), *loss))
    });
    points.collect()
}

fn seams(story: &ReportContent) -> Vec<(f64, String)> {
    story
        .stages
        .iter()
        .map(|stage| (stage.tokens_before as f64, stage.name.clone()))
        .collect()
}

fn losses(story: &ReportContent) -> Plot<'static> {
    let line = Line {
        name: "loss".to_string(),
        points: loss_points(story),
        bars: Vec::new(),
        colour: 0,
        marked: false,
    };
    Plot {
        across: "tokens",
        up: "loss (nats)",
        lines: vec![line],
        seams: seams(story),
    }
}

fn set_names(eval: &EvalReport) -> Vec<String> {
    let mut names: Vec<String> = eval
        .points
        .iter()
        .flat_map(|point| point.sets.keys().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn bits(eval: &EvalReport, set: &str) -> Vec<(f64, f64)> {
    let scored = eval
        .points
        .iter()
        .filter_map(|point| Some((point.tokens as f64, point.sets.get(set)?.bits_per_byte)));
    scored.collect()
}

fn bars(eval: &EvalReport, set: &str, metric: &str) -> Vec<(f64, f64, f64)> {
    let found = eval.points.iter().filter_map(|point| {
        let interval = point.interval(set, metric)?;
        Some((point.tokens as f64, interval.low, interval.high))
    });
    found.collect()
}

fn scores(eval: &EvalReport, story: &ReportContent) -> Plot<'static> {
    let mut all: Vec<String> = story.evals.iter().flat_map(set_names).collect();
    all.sort();
    all.dedup();
    let line = |set: &String| Line {
        name: set.clone(),
        points: bits(eval, set),
        bars: bars(eval, set, "bits_per_byte"),
        colour: all.iter().position(|name| name == set).unwrap_or(0),
        marked: true,
    };
    let lines = set_names(eval).iter().map(line).collect();
    Plot {
        across: "tokens",
        up: "bits per byte",
        lines,
        seams: seams(story),
    }
}

/// A task's scores over all of its items, except those on another scale than 0 to 1; `None` for a single checkpoint.
fn measures(eval: &EvalReport, story: &ReportContent) -> Option<Plot<'static>> {
    let all = eval.points.iter().filter_map(|point| point.measures.get(""));
    let mut names: Vec<&String> = all.flat_map(|own| own.keys()).collect();
    names.sort();
    names.dedup();
    let line = |(colour, name): (usize, &String)| {
        let own = |point: &CurvePoint| Some((point.tokens as f64, point.measures.get("")?.get(name)?.value));
        Line {
            name: name.clone(),
            points: eval.points.iter().filter_map(own).collect(),
            bars: bars(eval, "", name),
            colour,
            marked: true,
        }
    };
    let lines = names.into_iter().enumerate().map(line);
    let lines: Vec<Line> = lines
        .filter(|line| line.points.iter().all(|point| (0.0..=1.0).contains(&point.1)))
        .collect();
    lines.iter().any(|line| line.points.len() > 1).then(|| Plot {
        across: "tokens",
        up: "score",
        lines,
        seams: seams(story),
    })
}

fn score_table(eval: &EvalReport) -> Markup {
    html! {
        div class="wide" { table {
            caption { "Bits per byte ± half of the 95% interval (perplexity by token)" }
            tr { th { "set" } @for point in &eval.points { th { (point.at) } } }
            @for set in set_names(eval) {
                tr {
                    td { (set) }
                    @for point in &eval.points {
                        td { @if let Some(score) = point.sets.get(&set) {
                            (format!("{:.3}", score.bits_per_byte))
                            (plus_minus(point.interval(&set, "bits_per_byte")))
                            (format!(" ({:.1})", score.perplexity))
                        } }
                    }
                }
            }
        } }
    }
}

/// The measures of a task.
fn measure_table(eval: &EvalReport) -> Markup {
    let names: std::collections::BTreeSet<(&String, &String)> = eval
        .points
        .iter()
        .flat_map(|point| &point.measures)
        .flat_map(|(set, own)| own.keys().map(move |metric| (set, metric)))
        .collect();
    html! {
        @if !names.is_empty() {
            div class="wide" { table {
                caption { "Scores ± half of their 95% intervals" }
                tr { th { "metric" } @for point in &eval.points { th { (point.at) } } }
                @for (set, metric) in names {
                    tr {
                        td { (set) " " (metric) }
                        @for point in &eval.points {
                            td { @if let Some(measure) = point.measures.get(set).and_then(|own| own.get(metric)) {
                                (format!("{:.3}", measure.value))
                                (plus_minus(point.interval(set, metric)))
                            } }
                        }
                    }
                }
            } }
        }
    }
}

fn plus_minus(interval: Option<Interval>) -> String {
    interval.map_or(String::new(), |interval| format!(" ± {:.3}", interval.half()))
}

fn ledger(stage: &StageReport) -> Markup {
    html! {
        table {
            caption { (stage.name) ": " (stage.steps) " steps of " (stage.tokens_per_step) " tokens" }
            tr { th { "component" } th { "asked" } th { "dealt" } th { "sequences" } th { "epochs" } }
            @for row in &stage.components {
                tr {
                    td { (row.component) }
                    td { (format!("{:.2}%", row.expected * 100.0)) }
                    td { (format!("{:.2}%", row.actual * 100.0)) }
                    td { (row.samples) }
                    td { (format!("{:.2}", row.epochs)) }
                }
            }
        }
    }
}

/// Every row of every source: what became of it, and what the corpus dropped and changed after that.
fn corpora(story: &ReportContent) -> Markup {
    let counts = |counts: &mut dyn Iterator<Item = (&String, u64)>| by_reason(counts);
    html! {
        div class="wide" { table {
            tr { th { "corpus" } th { "source" } th { "rows" } th { "documents" } th { "bytes" } th { "dropped and changed" } }
            @for corpus in &story.corpora {
                @for source in &corpus.sources {
                    tr {
                        td { (corpus.corpus) }
                        td { (source.source) }
                        td { (source.read) }
                        td { (source.kept) }
                        td { (source.bytes) }
                        td {
                            (counts(&mut source.dropped.iter().map(|(reason, count)| (reason, *count))))
                            @if source.invalid_text > 0 { " " (source.invalid_text) " with U+FFFD for invalid text" }
                            @for first in &source.first { br; (first) }
                        }
                    }
                }
                @let prepared = &corpus.prepared;
                tr {
                    td { (corpus.corpus) }
                    td { "after prepare" }
                    td { (prepared.read.documents) }
                    td { (prepared.train.documents + prepared.held_out.documents) " (" (prepared.held_out.documents) " held out)" }
                    td { (prepared.train.bytes + prepared.held_out.bytes) }
                    td {
                        (counts(&mut prepared.dropped.iter().map(|(reason, count)| (reason, count.documents))))
                        @if !prepared.dropped_paragraphs.is_empty() {
                            " paragraphs: "
                            (counts(&mut prepared.dropped_paragraphs.iter().map(|(reason, count)| (reason, count.paragraphs))))
                        }
                        @if !prepared.changed.is_empty() {
                            " changed by: "
                            (counts(&mut prepared.changed.iter().map(|(step, count)| (step, *count))))
                        }
                    }
                }
            }
        } }
    }
}
