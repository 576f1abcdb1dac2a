//! `aurora sweep`: the points of a spec's sweeps, and how many nodes they share.

use std::collections::BTreeMap;

use aurora_compiler::hash::Key;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::project::{bundle, compile};
use crate::stdio::{out_text, outln};

pub fn run(context: &Context, argument: &SpecArgument) -> Result<Exit, Failure> {
    let (bundle, _) = bundle(&argument.spec, &argument.selection, context.reach())?;
    let project = context.project(Some(&argument.spec))?;
    // The spec itself first: its errors, and the pins of its sources.
    let (_, loaded) = context.open(argument)?;
    let points = bundle.points();
    if points.is_empty() {
        return Err(Failure::error(format!("`{}` has no sweep", argument.spec))
            .help("write `sweep NAME { stage.cap.learning_rate.peak = [5e-5, 1e-4] }`"));
    }
    // All points use the pins of the spec itself.
    let (_, pins, _) = compile(&project, &loaded.spec)?;
    let swept = bundle
        .sweep_keys(argument.selection.profile.as_deref(), &pins)
        .map_err(|found| output::refused(&found, bundle.sources().view(), context.json))?;
    let mut users: BTreeMap<Key, usize> = BTreeMap::new();
    for point in &swept {
        for key in &point.keys {
            *users.entry(*key).or_default() += 1;
        }
    }
    let mut rows = vec![["point", "nodes", "own"].map(String::from).to_vec()];
    let mut values = Vec::new();
    for point in &swept {
        let own = point.keys.iter().filter(|key| users[key] == 1).count();
        rows.push(vec![
            point.point.name.clone(),
            point.keys.len().to_string(),
            own.to_string(),
        ]);
        values.push(json!({
            "sweep": point.point.sweep,
            "point": point.point.name,
            "experiment": point.experiment,
            "nodes": point.keys.len(),
            "own": own,
        }));
    }
    let total: usize = swept.iter().map(|point| point.keys.len()).sum();
    if context.json {
        output::json(json!({ "points": values, "nodes": { "total": total, "distinct": users.len() } }))?;
    } else {
        out_text(&output::table(&rows))?;
        outln!(
            "\n{} points have {} nodes, {} of them distinct",
            grouped(swept.len() as u64),
            grouped(total as u64),
            grouped(users.len() as u64)
        )?;
    }
    Ok(Exit::Done)
}
