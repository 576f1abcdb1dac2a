//! The report of an experiment: what was trained, what it did to every language, and where it all came from.
//!
//! In: the results of a graph. Out: `report.json` and `report.html`, one file that needs no other. Holds nothing that
//! differs between two runs of one lock: no times, hosts or speeds (the run record has those).

pub mod comparison;
mod examples;
pub mod harness;
mod html;
mod lineage;
mod noise;
mod plots;
mod story;
mod tables;

use aurora_compiler::graph::NodeId;
use aurora_compiler::hash::{Key, Keyed};
use camino::Utf8Path;

use crate::engine::{Run, RunError};
use crate::store::Store;

pub use examples::{Example, Said};
pub use noise::{Change, Forgotten, Noise, Transfer};
pub use story::{Dealt, EvalStory, Point, StageStory, Story};

/// Writes the report of a graph whose other nodes are built.
///
/// # Errors
/// A result cannot be read, or the page cannot be written.
pub fn build(run: &Run<'_>, id: NodeId, out: &Utf8Path) -> Result<(), RunError> {
    let story = story::tell(run, id)?;
    let fail = |error: std::io::Error| RunError::Node {
        node: "report".to_string(),
        cause: error.to_string(),
    };
    let json = serde_json::to_string_pretty(&story).map_err(|error| fail(error.into()))?;
    std::fs::write(out.join("report.json"), json + "\n").map_err(fail)?;
    let page = html::page(&story).map_err(|cause| fail(std::io::Error::other(cause)))?;
    std::fs::write(out.join("report.html"), page).map_err(fail)
}

/// Reads the story of a report that has been built.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn load(store: &Store, keyed: &Keyed) -> Result<Story, RunError> {
    let id = keyed.graph.find("report").ok_or_else(|| RunError::Node {
        node: "report".to_string(),
        cause: "the graph has no report".to_string(),
    })?;
    load_key(store, keyed.key(id))
}

/// Reads the story of the report with this key.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn load_key(store: &Store, key: Key) -> Result<Story, RunError> {
    let fail = |cause: &str| RunError::Node {
        node: "report".to_string(),
        cause: cause.to_string(),
    };
    let record = store.record(key).ok_or_else(|| fail("it is not built"))?;
    let files = store.files(&record)?;
    let path = files
        .get("report.json")
        .ok_or_else(|| fail("its result has no report.json"))?;
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| fail(&error.to_string()))
}
