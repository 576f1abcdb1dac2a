//! The page: one HTML file without scripts, fonts or anything to fetch.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lineage;
use super::plots::{Line, Plot, draw, short};
use super::story::{EvalStory, StageStory, Story};

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1,h2{line-height:1.2} h2{margin-top:2.5rem;border-bottom:1px solid #ddd;padding-bottom:.2rem}
table{border-collapse:collapse;margin:1rem 0} th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e5e5e5}
th:first-child,td:first-child{text-align:left} caption{text-align:left;font-weight:600;padding:.3rem 0}
.plot{width:100%;height:auto;background:#fff} .wide{overflow-x:auto}
.lineage rect{fill:#eef3f8;stroke:#7a9cbf} .lineage text{font:11px system-ui,sans-serif}
.lineage .kind{font-weight:600;font-size:13px} .lineage path{fill:none;stroke:#b9c6d3}
.holds{color:#005a8c} .fails{color:#b34700;font-weight:600} code{font-size:13px}
@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616} th,td{border-color:#333} h2{border-color:#444}
.plot,.lineage{background:#fff;border-radius:4px} .holds{color:#7cc4f0} .fails{color:#ff9a57}}
@media print{body{max-width:none;margin:0} h2{break-after:avoid} .plot,table{break-inside:avoid}}
";

pub fn page(story: &Story) -> Result<String, String> {
    let total: u64 = story
        .stages
        .iter()
        .map(|stage| stage.steps * stage.tokens_per_step)
        .sum();
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (story.experiment) " · Aurora report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (story.experiment) }
                p {
                    (story.parameters) " parameters, " (story.stages.len()) " stages, "
                    (short(total as f64)) " tokens. Every figure on this page follows from the lock alone."
                }
                (gates(story))
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
                    (measure_table(eval))
                }
                h2 { "What was forgotten" }
                p { "Bits per byte at the end against the best seen before; above zero is worse." }
                @for eval in story.evals.iter().filter(|eval| !set_names(eval).is_empty()) { (forgotten(eval)) }
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

fn gates(story: &Story) -> Markup {
    html! {
        @if !story.gates.is_empty() {
            h2 { "Gates" }
            table {
                tr { th { "gate" } th { "left" } th { "right" } th { "" } }
                @for gate in &story.gates {
                    tr {
                        td { (gate.name) ": " code { (gate.text) } }
                        td { (format!("{:.4}", gate.left)) }
                        td { (format!("{:.4}", gate.right)) }
                        td {
                            @if gate.holds { span class="holds" { "holds" } } @else { span class="fails" { "fails" } }
                        }
                    }
                }
            }
        }
    }
}

fn seams(story: &Story) -> Vec<(f64, String)> {
    story
        .stages
        .iter()
        .map(|stage| (stage.tokens_before as f64, stage.name.clone()))
        .collect()
}

fn losses(story: &Story) -> Plot<'static> {
    let points = story.stages.iter().flat_map(|stage| {
        let at = |index: usize| stage.tokens_before + (index as u64 + 1) * stage.tokens_per_step;
        stage
            .loss
            .iter()
            .enumerate()
            .map(move |(index, loss)| (at(index) as f64, *loss))
    });
    let line = Line {
        name: "loss".to_string(),
        points: points.collect(),
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

fn set_names(eval: &EvalStory) -> Vec<String> {
    let mut names: Vec<String> = eval
        .points
        .iter()
        .flat_map(|point| point.sets.keys().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn bits(eval: &EvalStory, set: &str) -> Vec<(f64, f64)> {
    let scored = eval
        .points
        .iter()
        .filter_map(|point| Some((point.tokens as f64, point.sets.get(set)?.bits_per_byte)));
    scored.collect()
}

fn scores(eval: &EvalStory, story: &Story) -> Plot<'static> {
    let mut all: Vec<String> = story.evals.iter().flat_map(set_names).collect();
    all.sort();
    all.dedup();
    let line = |set: &String| Line {
        name: set.clone(),
        points: bits(eval, set),
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

fn score_table(eval: &EvalStory) -> Markup {
    html! {
        div class="wide" { table {
            caption { "Bits per byte (perplexity by token)" }
            tr { th { "set" } @for point in &eval.points { th { (point.at) } } }
            @for set in set_names(eval) {
                tr {
                    td { (set) }
                    @for point in &eval.points {
                        td { @if let Some(score) = point.sets.get(&set) {
                            (format!("{:.3} ({:.1})", score.bits_per_byte, score.perplexity))
                        } }
                    }
                }
            }
        } }
    }
}

/// What a task has measured, with standard errors.
fn measure_table(eval: &EvalStory) -> Markup {
    let names: std::collections::BTreeSet<String> = eval
        .points
        .iter()
        .flat_map(|point| point.measured().into_keys())
        .collect();
    html! {
        @if !names.is_empty() {
            div class="wide" { table {
                caption { "Scores ± standard error" }
                tr { th { "metric" } @for point in &eval.points { th { (point.at) } } }
                @for name in &names {
                    tr {
                        td { (name) }
                        @for point in &eval.points {
                            td { @if let Some(measure) = point.measured().get(name) {
                                (format!("{:.3}", measure.value))
                                @if let Some(error) = measure.standard_error { (format!(" ± {error:.3}")) }
                            } }
                        }
                    }
                }
            } }
        }
    }
}

fn forgotten(eval: &EvalStory) -> Markup {
    html! {
        table {
            caption { (eval.name) }
            tr { th { "set" } th { "best" } th { "at" } th { "end" } th { "lost" } }
            @for set in set_names(eval) {
                @if let Some((best, at, end)) = best_and_end(eval, &set) {
                    tr {
                        td { (set) }
                        td { (format!("{best:.3}")) }
                        td { (at) }
                        td { (format!("{end:.3}")) }
                        td { (format!("{:+.2}%", (end / best - 1.0) * 100.0)) }
                    }
                }
            }
        }
    }
}

fn best_and_end(eval: &EvalStory, set: &str) -> Option<(f64, String, f64)> {
    let scored: Vec<(&str, f64)> = eval
        .points
        .iter()
        .filter_map(|point| Some((point.at.as_str(), point.sets.get(set)?.bits_per_byte)))
        .collect();
    let (at, best) = scored.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((*best, (*at).to_string(), scored.last()?.1))
}

fn ledger(stage: &StageStory) -> Markup {
    html! {
        table {
            caption { (stage.name) ": " (stage.steps) " steps of " (stage.tokens_per_step) " tokens" }
            tr { th { "component" } th { "asked" } th { "dealt" } th { "sequences" } th { "epochs" } }
            @for row in &stage.components {
                tr {
                    td { (row.component) }
                    td { (format!("{:.2}%", row.asked * 100.0)) }
                    td { (format!("{:.2}%", row.dealt * 100.0)) }
                    td { (row.samples) }
                    td { (format!("{:.2}", row.epochs)) }
                }
            }
        }
    }
}

fn corpora(story: &Story) -> Markup {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<(&String, Vec<(String, String)>)> = Vec::new();
    for (name, report) in &story.corpora {
        let mut cells = Vec::new();
        flatten("", report, &mut cells);
        for (column, _) in &cells {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        rows.push((name, cells));
    }
    html! {
        div class="wide" { table {
            tr { th { "corpus" } @for column in &columns { th { (column) } } }
            @for (name, cells) in &rows {
                tr {
                    td { (name) }
                    @for column in &columns {
                        td { @if let Some((_, value)) = cells.iter().find(|(known, _)| known == column) { (value) } }
                    }
                }
            }
        } }
    }
}

fn flatten(path: &str, value: &serde_json::Value, cells: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path} {name}")
                };
                flatten(&below, member, cells);
            }
        }
        serde_json::Value::Array(_) => {}
        serde_json::Value::String(text) => cells.push((path.to_string(), text.clone())),
        other => cells.push((path.to_string(), other.to_string())),
    }
}
