//! The report of an experiment: training, scores and lineage.
//!
//! In: the results of a graph. Out: `report.json` and `report.html`, which is self-contained. Contains nothing that
//! differs between two runs of one lock: times, hosts and speeds are in the run record.

pub mod comparison;
mod content;
mod examples;
mod gather;
pub mod harness;
mod html;
mod lineage;
mod plots;
mod tables;
mod uncertainty;

use aurora_compiler::graph::NodeId;
use camino::Utf8Path;

use crate::errors::{BoxedError, FileError};
use crate::results::{ResultError, Results};
use crate::store::{Record, Store};

pub use content::{
    BackwardTransfer, CurvePoint, EvalReport, Example, ExampleAnswer, Forgotten, MixtureUsage, ReportContent,
    StageEffect, StageReport, Uncertainty,
};

/// Writes the report of a graph whose other nodes are built.
///
/// # Errors
/// A result cannot be read, or the page cannot be written.
pub fn build(results: &Results<'_>, id: NodeId, out: &Utf8Path) -> Result<(), ResultError> {
    let story = gather::gather(results, id)?;
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|error| results.fail(id, FileError::writing(&path)(error)))
    };
    let json = serde_json::to_string_pretty(&story).map_err(|error| results.fail(id, error))?;
    write("report.json", json + "\n")?;
    let page = html::page(&story).map_err(|error| results.fail(id, error))?;
    write("report.html", page)
}

/// Reads the story of a report that has been built.
///
/// # Errors
/// It is missing, or cannot be read.
pub fn load(results: &Results<'_>) -> Result<ReportContent, ResultError> {
    let id = results.keyed.graph.find("report");
    let id = id.ok_or_else(|| failed("the graph has no report"))?;
    let record = results.find(id)?.ok_or_else(|| failed("it is not built"))?;
    read(results.store, &record)
}

/// Reads the story in the result of a report.
///
/// # Errors
/// A file is missing or damaged.
pub fn read(store: &Store, record: &Record) -> Result<ReportContent, ResultError> {
    let files = store.files(record)?;
    let path = files
        .get("report.json")
        .ok_or_else(|| failed("its result has no report.json"))?;
    let text = std::fs::read_to_string(path).map_err(|error| failed(FileError::reading(path)(error)))?;
    serde_json::from_str(&text).map_err(failed)
}

fn failed(cause: impl Into<BoxedError>) -> ResultError {
    ResultError::Node {
        node: "report".to_owned(),
        source: cause.into(),
    }
}
