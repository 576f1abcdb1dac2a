//! A difference as text for a terminal, and as Markdown for a review.

use std::fmt::Write as _;

use aurora_compiler::diff::{Diff, DiffEffect};

use aurora_lang::printable::printable;

use crate::output::grouped;

/// Rows of a Markdown table; further rows are only counted.
const MOST_ROWS: usize = 200;

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("(not set)")
}

/// A summary of the difference in one sentence.
fn summary(found: &Diff) -> String {
    let nodes = &found.nodes;
    let work = || {
        let cost = &found.cost;
        let cost = if cost.tokens == 0 {
            String::new()
        } else {
            format!(
                "; to train: {} tokens, {:.3e} FLOP, {} bytes of checkpoints",
                grouped(cost.tokens),
                cost.flops,
                grouped(cost.checkpoint_bytes)
            )
        };
        format!(
            "{} nodes rerun, {} are reused{cost}",
            nodes.rerun.len(),
            nodes.reused.len()
        )
    };
    match found.severity {
        DiffEffect::None => "no difference".to_owned(),
        DiffEffect::Same => "bitwise identical results: no node reruns".to_owned(),
        DiffEffect::Measured => format!("same training, different evaluation: {}", work()),
        DiffEffect::Trained => work(),
    }
}

/// One line for each value, assumption and node.
pub fn text(found: &Diff) -> String {
    let mut text = String::new();
    let mut line = |new: String| {
        text.push_str(&printable(&new));
        text.push('\n');
    };
    for value in &found.changed {
        let (old, new) = (shown(&value.old), shown(&value.new));
        line(format!("{}: {old} → {new}  ({})", value.path, value.origin));
    }
    for change in &found.assumptions {
        match (&change.old, &change.new) {
            (None, Some(new)) => line(format!("open    {}: {new}", change.path)),
            (Some(old), None) => line(format!("settled {}: was {old}", change.path)),
            (old, new) => line(format!("open    {}: {} → {}", change.path, shown(old), shown(new))),
        }
    }
    for (stage, step) in &found.nodes.shared {
        line(format!("shared  {stage}: up to step {step}"));
    }
    for rerun in &found.nodes.rerun {
        line(format!("reruns  {}: {}", rerun.name, rerun.reason));
    }
    for name in &found.nodes.removed {
        line(format!("removed {name}"));
    }
    line(summary(found));
    text
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    printable(&text.replace('|', "\\|").replace('\n', " ")).into_owned()
}

fn code(text: &str) -> String {
    let text = cell(text);
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

fn table(to: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    to.push_str(&line(&head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()));
    to.push_str(&line(&vec!["---".to_owned(); head.len()]));
    for row in rows.iter().take(MOST_ROWS) {
        to.push_str(&line(row));
    }
    if rows.len() > MOST_ROWS {
        let _ = writeln!(to, "\nand {} more", rows.len() - MOST_ROWS);
    }
    to.push('\n');
}

/// A comment for a pull request; `title` names what is compared.
pub fn markdown(found: &Diff, title: &str) -> String {
    let mut text = format!("### {}\n\n**{}**\n\n", cell(title), summary(found));
    if !found.changed.is_empty() {
        let rows: Vec<_> = found
            .changed
            .iter()
            .map(|value| {
                let [old, new] = [&value.old, &value.new].map(|value| value.as_deref().map_or("–".to_owned(), code));
                vec![code(&value.path), old, new, cell(&value.origin)]
            })
            .collect();
        table(&mut text, &["value", "old", "new", "where"], &rows);
    }
    if !found.assumptions.is_empty() {
        let rows: Vec<_> = found
            .assumptions
            .iter()
            .map(|change| {
                let [old, new] = [&change.old, &change.new].map(|text| cell(text.as_deref().unwrap_or("–")));
                vec![code(&change.path), old, new]
            })
            .collect();
        table(&mut text, &["not published", "old", "new"], &rows);
    }
    for (stage, step) in &found.nodes.shared {
        let _ = writeln!(text, "The first {step} steps of `{stage}` are shared.\n");
    }
    let mut folded = |what: &str, head: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = writeln!(text, "<details><summary>{what}: {}</summary>\n", rows.len());
            table(&mut text, head, &rows);
            text.push_str("</details>\n\n");
        }
    };
    let reruns = found
        .nodes
        .rerun
        .iter()
        .map(|rerun| vec![code(&rerun.name), cell(&rerun.reason)])
        .collect();
    folded("nodes that rerun", &["node", "first cause"], reruns);
    let removed = found.nodes.removed.iter().map(|name| vec![code(name)]).collect();
    folded("removed nodes", &["node"], removed);
    text
}
