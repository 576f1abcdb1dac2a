//! Tables of gates, changes, forgetting and transfer, with their significance.

use maud::{Markup, html};

use super::content::{ReportContent, StageEffect};
use crate::statistics::{Interval, Tested};

/// Rows that are below this after the correction are marked.
const SIGNIFICANT: f64 = 0.05;

pub(super) fn gates(story: &ReportContent) -> Markup {
    let family = story.uncertainty.gates.len();
    html! {
        @if !story.gates.is_empty() {
            h2 { "Gates" }
            div class="wide" { table {
                tr { th { "gate" } th { "left, right, difference" } th { "" } @if family > 0 { th { "corrected p" } } }
                @for gate in &story.gates {
                    tr {
                        td { (gate.name) ": " code { (gate.text) } }
                        td { (gate.figures()) }
                        td { span class=(if gate.found.holds { "holds" } else { "fails" }) { (gate.verdict()) } }
                        @if family > 0 {
                            td { (story.uncertainty.gates.get(&gate.name).map_or(String::new(), |p| small(*p))) }
                        }
                    }
                }
            } }
            @if family > 0 {
                p {
                    "Each gate stands for itself. The last column is the chance of such a result if the gate did not hold, \
                     two-sided and corrected (Holm) for the " (family) " gates that ask for confidence."
                }
            }
        }
    }
}

pub(super) fn changes(story: &ReportContent) -> Markup {
    let rows = &story.uncertainty.changes;
    html! {
        @if !rows.is_empty() {
            h2 { "Before and after" }
            p {
                "Every score at the start and the end of each stage, over the same items. p is that of a paired test (McNemar\u{2019}s \
                 where items are right or wrong, exchanges of the two results otherwise), then corrected (Holm) for all "
                (rows.iter().filter(|row| row.p.is_some()).count()) " rows; below 0.05 it is marked."
            }
            div class="wide" { table {
                tr {
                    th { "score" } th { "stage" } th { "before" } th { "after" } th { "change" } th { "95% interval" } th { "p" }
                    th { "corrected p" } th { "" }
                }
                @for row in rows {
                    tr {
                        td { (named(&row.eval, &row.metric, &row.set)) }
                        td { (row.stage) }
                        td { (format!("{:.4}", row.before)) }
                        td { (format!("{:.4}", row.after)) }
                        td { (format!("{:+.4}", row.difference)) }
                        td { (between(row.interval)) }
                        td { (row.p.map_or(String::new(), small)) @if row.test == Some(Tested::Mcnemar) { " M" } }
                        td { (row.corrected.map_or(String::new(), small)) }
                        td { (judged(row)) }
                    }
                }
            } }
        }
    }
}

fn judged(row: &StageEffect) -> Markup {
    let is_better = crate::statistics::signed(row.better, row.difference) > 0.0;
    html! {
        @match row.corrected {
            Some(p) if p < SIGNIFICANT && is_better => span class="holds" { "better" },
            Some(p) if p < SIGNIFICANT => span class="fails" { "worse" },
            Some(_) => "within the noise",
            None => "",
        }
    }
}

pub(super) fn forgotten(story: &ReportContent) -> Markup {
    let rows = &story.uncertainty.forgotten;
    html! {
        @if !rows.is_empty() {
            h2 { "What was forgotten" }
            p { "The last score against the best seen before (Chaudhry et al. 2018); above zero is worse, whichever way the score is better." }
            div class="wide" { table {
                tr { th { "score" } th { "best" } th { "at" } th { "end" } th { "lost" } th { "95% interval" } }
                @for row in rows {
                    tr {
                        td { (named(&row.eval, &row.metric, &row.set)) }
                        td { (format!("{:.4}", row.best)) }
                        td { (row.at) }
                        td { (format!("{:.4}", row.end)) }
                        td { (format!("{:+.4}", row.lost)) }
                        td { (between(row.interval)) }
                    }
                }
            } }
        }
    }
}

pub(super) fn transfers(story: &ReportContent) -> Markup {
    let rows = &story.uncertainty.transfers;
    html! {
        @if !rows.is_empty() {
            h2 { "Backward transfer" }
            p {
                "What later stages did to the score that each earlier stage ended with, on average (Lopez-Paz and Ranzato 2017); \
                 above zero is better, whichever way the score is."
            }
            div class="wide" { table {
                tr { th { "score" } th { "stages" } th { "transfer" } th { "95% interval" } }
                @for row in rows {
                    tr {
                        td { (named(&row.eval, &row.metric, &row.set)) }
                        td { (row.stages) }
                        td { (format!("{:+.4}", row.transfer)) }
                        td { (between(row.interval)) }
                    }
                }
            } }
        }
    }
}

fn named(eval: &str, metric: &str, set: &str) -> String {
    let set = if set.is_empty() {
        String::new()
    } else {
        format!(".{set}")
    };
    format!("{eval}.{metric}{set}")
}

fn between(interval: Option<Interval>) -> String {
    interval.map_or(String::new(), |interval| {
        format!("{:+.4} … {:+.4}", interval.low, interval.high)
    })
}

fn small(p: f64) -> String {
    if p < 0.0001 {
        "< 0.0001".to_owned()
    } else {
        format!("{p:.4}")
    }
}
