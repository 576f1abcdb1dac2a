//! `aurora data show`: documents of a corpus.

use std::io::{BufRead, BufReader};

use aurora_compiler::graph::{NodeId, NodeKind, NodeOrigin, Role, Work};
use aurora_runtime::data::documents::Document;
use aurora_runtime::data::filter::{INPUTS, KeptOfInput, filter_watched};
use aurora_runtime::errors::FileError;
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use camino::Utf8PathBuf;
use serde_json::json;

use crate::arguments::{ExperimentArgument, Shown};
use crate::context::Context;
use crate::experiment::Experiment;
use crate::failure::{Exit, Failure};
use crate::stdio::{Printed, out_json, out_text, outln};

/// Documents that are printed if the command does not say how many.
const USUAL: usize = 5;

/// Documents that are printed of those that were dropped.
const DROPPED: usize = 100;

/// A document, and where it is.
struct Found {
    document: Document,
    source: Option<String>,
    split: &'static str,
}

impl Found {
    fn print(&self, as_json: bool) -> Printed {
        let Document { id, text, .. } = &self.document;
        if as_json {
            let value = json!({ "id": id, "source": self.source, "split": self.split, "text": text });
            return out_json(&value.to_string());
        }
        let source = self
            .source
            .as_ref()
            .map_or(String::new(), |source| format!(" from {source}"));
        outln!("== {id}{source} ({})", self.split)?;
        out_text(text)?;
        outln!("")
    }
}

pub fn run(context: &Context, of: &ExperimentArgument, corpus: &str, which: &Shown) -> Result<Exit, Failure> {
    let experiment = Experiment::named(context, &of.name, &of.selection)?;
    let store = Store::open_read_only(&experiment.project.store)?;
    let results = experiment.results(&store)?;
    let graph = &results.keyed.graph;
    let of_corpus =
        |id: &NodeId| matches!(&graph.node(*id).origin, NodeOrigin::Filter { corpus: name } if name == corpus);
    let Some(node) = graph.ids().find(of_corpus) else {
        let corpora = graph.ids().filter(|id| graph.node(*id).kind() == NodeKind::Filter);
        let names = corpora.filter_map(|id| match &graph.node(id).origin {
            NodeOrigin::Filter { corpus } => Some(format!("`{corpus}`")),
            _ => None,
        });
        let names: Vec<String> = names.collect();
        return Err(
            Failure::error(format!("no corpus is called `{corpus}`")).help(format!("there is {}", names.join(", ")))
        );
    };
    let found = match (&which.document, &which.dropped) {
        (Some(id), _) => document(&results, node, id)?,
        (_, Some(reason)) => dropped(&results, node, reason)?,
        _ => sample(&results, node, which.sample.unwrap_or(USUAL))?,
    };
    for one in &found {
        one.print(context.json)?;
    }
    Ok(Exit::Done)
}

/// The documents that training and evals read, in their order.
fn read_all(results: &Results<'_>, node: NodeId, take: &mut dyn FnMut(u64, Found)) -> Result<(), Failure> {
    let inputs: Vec<KeptOfInput> = results.json(node, INPUTS)?;
    let sources = sources(results, node);
    let mut number = 0;
    for split in ["train", "held_out"] {
        let path = results.file(node, &format!("{split}.jsonl"))?;
        let reading = FileError::reading(&path);
        let lines = BufReader::new(std::fs::File::open(&path).map_err(reading)?).lines();
        let mut ends = inputs.iter().scan(0, |end, input| {
            *end += if split == "train" { input.train } else { input.held_out };
            Some(*end)
        });
        let ends: Vec<u64> = ends.by_ref().collect();
        for (line, text) in (0..).zip(lines) {
            let document: Document =
                serde_json::from_str(&text.map_err(reading)?).map_err(|error| reading(error.into()))?;
            let source = ends.iter().position(|end| line < *end);
            let found = Found {
                document,
                source: source.and_then(|at| sources.get(at).cloned()),
                split: if split == "train" { "train" } else { "held out" },
            };
            take(number, found);
            number += 1;
        }
    }
    Ok(())
}

fn sources(results: &Results<'_>, node: NodeId) -> Vec<String> {
    let inputs = results.inputs(node, &Role::Documents).into_iter();
    let sources = inputs.map(|id| match &results.node(id).origin {
        NodeOrigin::Extract { source, .. } => source.clone(),
        other => other.to_string(),
    });
    sources.collect()
}

fn sample(results: &Results<'_>, node: NodeId, count: usize) -> Result<Vec<Found>, Failure> {
    let counts = aurora_runtime::data_counts::corpus_counts(results, node)?;
    let all = counts.prepared.train.documents + counts.prepared.held_out.documents;
    let wanted: Vec<u64> = (0..count as u64).map(|at| at * all / (count as u64).max(1)).collect();
    let mut found = Vec::new();
    read_all(results, node, &mut |number, document| {
        if wanted.contains(&number) {
            found.push(document);
        }
    })?;
    Ok(found)
}

fn document(results: &Results<'_>, node: NodeId, id: &str) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    read_all(results, node, &mut |_, document| {
        if document.document.id == id {
            found.push(document);
        }
    })?;
    if found.is_empty() {
        return Err(Failure::error(format!("no document of the corpus has the id `{id}`"))
            .help("`aurora data stats` counts what was dropped, and `--dropped REASON` prints it"));
    }
    Ok(found)
}

/// What the steps dropped: they run again, into a folder that is deleted.
fn dropped(results: &Results<'_>, node: NodeId, reason: &str) -> Result<Vec<Found>, Failure> {
    let Work::Filter(fields) = &results.node(node).work else {
        return Err(results.fail(node, "it is not a corpus").into());
    };
    let inputs = results.inputs(node, &Role::Documents).into_iter();
    let documents: Vec<Utf8PathBuf> = inputs
        .map(|input| results.file(input, "documents.jsonl"))
        .collect::<Result<_, _>>()?;
    let folder = tempfile::tempdir().map_err(|error| Failure::error(format!("cannot make a folder: {error}")))?;
    let out = Utf8PathBuf::try_from(folder.path().to_owned())
        .map_err(|error| Failure::error(format!("cannot use a folder: {error}")))?;
    let (mut found, mut reasons) = (Vec::new(), std::collections::BTreeSet::new());
    filter_watched(
        fields,
        &documents,
        &out,
        ProgressReporter::none(),
        &mut |document, why| {
            reasons.insert(why);
            if why == reason && found.len() < DROPPED {
                found.push(Found {
                    document: document.clone(),
                    source: None,
                    split: "dropped",
                });
            }
        },
    )
    .map_err(|error| results.fail(node, error))?;
    if found.is_empty() {
        let known: Vec<String> = reasons.iter().map(|reason| format!("`{reason}`")).collect();
        let known = if known.is_empty() {
            "nothing was dropped".to_owned()
        } else {
            format!("there is {}", known.join(", "))
        };
        let rows = "`aurora data stats` counts rows that became no document, with their lines";
        return Err(Failure::error(format!("no document was dropped as `{reason}`")).help(format!("{known}; {rows}")));
    }
    Ok(found)
}
