//! The lineage graph as SVG: a column for each kind of node, a line for each input.

use std::collections::BTreeMap;

use aurora_compiler::graph::NodeKind;

use super::content::LineageNode;

const COLUMN: usize = 190;
const ROW: usize = 22;
const TOP: usize = 30;

/// Draws the nodes in columns from sources to gates.
pub fn draw(nodes: &[LineageNode]) -> String {
    let mut kinds: Vec<NodeKind> = nodes.iter().map(|node| node.kind).collect();
    kinds.sort();
    kinds.dedup();
    let mut rows: BTreeMap<NodeKind, usize> = BTreeMap::new();
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for node in nodes {
        let column = kinds.iter().position(|kind| *kind == node.kind).unwrap_or(0);
        let row = rows.entry(node.kind).or_insert(0);
        places.insert(&node.name, (10 + column * COLUMN, TOP + *row * ROW));
        *row += 1;
    }
    let height = TOP + rows.values().max().copied().unwrap_or(0) * ROW + 10;
    let width = kinds.len() * COLUMN + 10;
    let mut svg = format!("<svg class=\"lineage\" role=\"img\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">");
    for (column, kind) in kinds.iter().enumerate() {
        let x = 10 + column * COLUMN;
        svg.push_str(&format!(
            "<text class=\"kind\" x=\"{x}\" y=\"16\">{}</text>",
            kind.name()
        ));
    }
    for node in nodes {
        let (x, y) = places[node.name.as_str()];
        for input in &node.inputs {
            let Some(&(from_x, from_y)) = places.get(input.as_str()) else {
                continue;
            };
            let (start, end) = (from_x + COLUMN - 30, x - 2);
            let middle = (start + end) / 2;
            svg.push_str(&format!(
                "<path d=\"M{start},{a} C{middle},{a} {middle},{b} {end},{b}\"/>",
                a = from_y + 7,
                b = y + 7
            ));
        }
    }
    for node in nodes {
        let (x, y) = places[node.name.as_str()];
        let full = maud::html! { (node.name) " · " (node.key) }.into_string();
        let own = node.name.split_once('/').map_or(node.name.as_str(), |(_, rest)| rest);
        let label: String = if own.chars().count() > 22 {
            own.chars().take(21).chain(['…']).collect()
        } else {
            own.to_string()
        };
        let label = maud::html! { (label) }.into_string();
        svg.push_str(&format!(
            "<g><title>{full}</title><rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"16\" rx=\"3\"/>\
             <text x=\"{tx}\" y=\"{ty}\">{label}</text></g>",
            w = COLUMN - 32,
            tx = x + 5,
            ty = y + 12
        ));
    }
    svg.push_str("</svg>");
    svg
}
