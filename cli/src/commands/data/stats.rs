//! `aurora data stats`: what became of every row.

use aurora_runtime::data_counts::{SourceCounts, by_reason, data_counts};
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::ExperimentArgument;
use crate::context::Context;
use crate::experiment::Experiment;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::stdio::{out_text, outln};

pub fn run(context: &Context, of: &ExperimentArgument) -> Result<Exit, Failure> {
    let experiment = Experiment::named(context, &of.name, &of.selection)?;
    let store = Store::open_read_only(&experiment.project.store)?;
    let results = experiment.results(&store)?;
    let counts = data_counts(&results)?;
    if context.json {
        let sources: Vec<&SourceCounts> = counts.iter().flat_map(|corpus| &corpus.sources).collect();
        let prepared = counts
            .iter()
            .map(|corpus| (corpus.corpus.clone(), json!(corpus.prepared)));
        let prepared: serde_json::Map<_, _> = prepared.collect();
        output::json(json!({ "sources": sources, "prepared": prepared }))?;
        return Ok(Exit::Done);
    }
    let heads = ["corpus", "source", "read", "kept", "dropped"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for corpus in &counts {
        for source in &corpus.sources {
            let mut dropped = by_reason(source.dropped.iter().map(|(reason, count)| (reason, *count)));
            if source.invalid_text > 0 {
                let separator = if dropped.is_empty() { "" } else { "; " };
                dropped.push_str(&format!("{separator}{} kept with U+FFFD", source.invalid_text));
            }
            let (read, kept) = (grouped(source.read), grouped(source.kept));
            rows.push(vec![corpus.corpus.clone(), source.source.clone(), read, kept, dropped]);
        }
        let prepared = &corpus.prepared;
        let kept = prepared.train.documents + prepared.held_out.documents;
        let dropped = prepared.dropped.iter().map(|(reason, count)| (reason, count.documents));
        let (read, kept) = (grouped(prepared.read.documents), grouped(kept));
        rows.push(vec![
            corpus.corpus.clone(),
            "after prepare".to_owned(),
            read,
            kept,
            by_reason(dropped),
        ]);
    }
    out_text(&output::table(&rows))?;
    for source in counts.iter().flat_map(|corpus| &corpus.sources) {
        for first in &source.first {
            outln!("{}: {first}", source.source)?;
        }
    }
    Ok(Exit::Done)
}
