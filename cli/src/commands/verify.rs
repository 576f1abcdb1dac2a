//! `aurora verify`: reads every byte of the store.

use aurora_runtime::errors::FileError;
use aurora_runtime::record::checks;
use aurora_runtime::remote_specs;
use aurora_runtime::store::Store;
use camino::Utf8Path;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::stdio::outln;

pub fn run(context: &Context, of: Option<&Utf8Path>) -> Result<Exit, Failure> {
    let project = context.project(of)?;
    let mut report = Store::open_read_only(&project.store)?.verify()?;
    let reading = FileError::reading(&project.store);
    for (path, cause) in checks::verify(&project.store).map_err(reading)? {
        report.add(path, cause, Vec::new());
    }
    for (path, cause) in remote_specs::verify(&project.store).map_err(reading)? {
        report.add(path, cause, Vec::new());
    }
    if context.json {
        output::json(json!({
            "store": project.store,
            "objects": report.objects,
            "bytes": report.bytes,
            "records": report.records,
            "problems": report.problems,
        }))?;
    } else {
        for problem in &report.problems {
            let of = if problem.nodes.is_empty() {
                String::new()
            } else {
                format!(" (of {})", problem.nodes.join(", "))
            };
            outln!("damaged: {}{of}: {}", problem.path, problem.cause)?;
        }
        outln!(
            "{} objects ({} bytes) and {} records read: {}",
            grouped(report.objects),
            grouped(report.bytes),
            grouped(report.records),
            if report.problems.is_empty() {
                "none damaged".to_string()
            } else {
                format!("{} damaged", report.problems.len())
            }
        )?;
    }
    Ok(if report.problems.is_empty() {
        Exit::Done
    } else {
        Exit::Error
    })
}
