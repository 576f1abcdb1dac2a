//! `aurora run`: builds what is missing, writes the lock, the record and the report.

use aurora_compiler::graph::{NodeId, lower};
use aurora_compiler::hash::Keyed;
use aurora_compiler::lock::Lock;
use aurora_runtime::data_counts::CorpusCounts;
use aurora_runtime::engine::Outcome;
use aurora_runtime::errors::FileError;
use aurora_runtime::pin::from_lock;
use aurora_runtime::record::{REPORT, RunRecord, Status};
use aurora_runtime::remote_specs::Fetch;
use aurora_runtime::report::ReportContent;
use aurora_runtime::results::Results;
use aurora_runtime::store::{Store, StoreError};
use serde_json::json;

use crate::arguments::{RunArguments, SpecArgument};
use crate::consent::consent;
use crate::context::Context;
use crate::execution::{Execution, install_signal_handlers, pin, refuse_changes, refuse_unknown};
use crate::failure::{Exit, Failure};
use crate::libtorch::worker_program;
use crate::output;
use crate::progress_display::{ProgressDisplay, duration};
use crate::project::{Project, Reach, bundle};
use crate::stdio::{Printed, errln, out_text, outln};
use crate::worker_launch::torchrun_listener;

/// A run that has ended without an error.
struct Finished<'a> {
    run: &'a str,
    experiment: &'a str,
    keyed: &'a Keyed,
    outcome: &'a Outcome,
    story: &'a ReportContent,
    lock: &'a Lock,
    lock_path: &'a str,
    report: &'a str,
    seconds: f64,
}

pub fn run(context: &Context, argument: &SpecArgument, options: &RunArguments, locked: bool) -> Result<Exit, Failure> {
    let torchrun = torchrun_listener(options, || pinned_by_lock(context, argument))?;
    let reach = Reach {
        fetch: Fetch::allowed(options.offline, locked),
        ..context.reach()
    };
    let (project, loaded) = context.open_with(argument, reach)?;
    refuse_unknown(&loaded.spec)?;
    let old = project.lock(&loaded.spec)?;
    let have = from_lock(&loaded.spec, old.as_ref());
    let program = worker_program(old.as_ref().map(|lock| lock.libtorch.as_str()))?;
    if locked {
        refuse_changes(&project, &loaded, old.as_ref(), &program)?;
    }
    let graph = lower(&loaded.spec, &have);
    let allowed = consent(&project, &loaded, &graph, &have, None, options.trust)?;
    install_signal_handlers()?;
    let store = Store::open(&project.store)?;
    let lock_path = project.lock_path(&loaded.spec);
    let (spec, lock) = (project.relative(&argument.spec), project.relative(&lock_path));
    let record = RunRecord::begin(&project.store, &loaded.spec.name, &spec, &lock).map_err(|error| {
        let path = project.store.join("runs");
        Failure::from(StoreError::Io {
            doing: "write",
            path,
            source: error,
        })
    })?;
    let id = record.id().to_string();
    let logs = record.folder().join("logs");
    std::fs::create_dir_all(&logs).map_err(FileError::writing(&logs))?;
    let display = ProgressDisplay::new(options.progress, Some(record));
    let execution = Execution {
        project: &project,
        loaded: &loaded,
        store: &store,
        options,
        program: &program,
        old: old.as_ref(),
        display: &display,
        torchrun: torchrun.as_ref(),
        logs: Some(&logs),
        lock_path: Some(&lock_path),
        recorded: None,
        allowed: &allowed,
        locked,
    };
    let since = std::time::Instant::now();
    let done = pin(&execution, have).and_then(|(keyed, pins)| Ok((execution.run(&keyed, &pins)?, keyed)));
    let record = display.finish();
    let ((outcome, fresh), keyed) = match done {
        Ok(done) => done,
        Err(failure) => {
            let status = if failure.exit == Exit::Resumable {
                Status::Stopped
            } else {
                Status::Failed
            };
            end(record, status, Some(failure.message.clone()));
            return Err(failure);
        }
    };
    let holds = outcome.gates.iter().all(|gate| gate.found.holds);
    let results = Results {
        experiment: &loaded.spec.name,
        keyed: &keyed,
        store: &store,
        class: outcome.class,
    };
    let report = place_report(&project, &results, &id)?;
    let story = aurora_runtime::report::load(&results)?;
    let mut record = record;
    if let Some(record) = &mut record {
        record_scores(record, &story)?;
        let folder = record.folder().to_owned();
        record
            .keep_lock(&fresh.to_text())
            .map_err(FileError::writing(&folder))?;
    }
    end(record, if holds { Status::Finished } else { Status::GateFailed }, None);
    let finished = Finished {
        run: &id,
        experiment: &loaded.spec.name,
        keyed: &keyed,
        outcome: &outcome,
        story: &story,
        lock: &fresh,
        lock_path: &lock,
        report: &report,
        seconds: since.elapsed().as_secs_f64(),
    };
    finished.print(context.json)?;
    Ok(if holds { Exit::Done } else { Exit::GateFailed })
}

/// The version of libtorch that the lock of a spec pins; `None` also if one of the two cannot be read, which the run
/// reports.
fn pinned_by_lock(context: &Context, argument: &SpecArgument) -> Option<String> {
    let (bundle, _) = bundle(&argument.spec, &argument.selection, context.reach()).ok()?;
    let spec = bundle.check(&argument.selection.choice()).ok()?;
    let project = context.project(Some(&argument.spec)).ok()?;
    Some(project.lock(&spec).ok()??.libtorch)
}

impl Finished<'_> {
    fn print(&self, as_json: bool) -> Printed {
        let Outcome {
            built, reused, gates, ..
        } = self.outcome;
        let nodes = self.keyed.graph.len();
        if as_json {
            let names = |ids: &[NodeId]| -> Vec<String> {
                ids.iter()
                    .map(|id| self.keyed.graph.node(*id).name().to_owned())
                    .collect()
            };
            output::json(json!({
                "run": self.run,
                "experiment": self.experiment,
                "nodes": nodes,
                "built": names(built),
                "reused": names(reused),
                "gates": gates,
                "data": self.story.corpora,
                "evals": self.story.evals,
                "noise": self.story.uncertainty,
                "results": self.lock.result,
                "lock": self.lock_path,
                "report": self.report,
            }))?;
            return Ok(());
        }
        for line in self.story.corpora.iter().flat_map(CorpusCounts::lines) {
            outln!("{line}")?;
        }
        out_text(&output::table(&self.story.table()))?;
        for gate in gates {
            outln!(
                "gate {}: {} ({}; {})",
                gate.name,
                gate.verdict(),
                gate.text,
                gate.figures()
            )?;
        }
        outln!(
            "{nodes} nodes: {} built, {} reused, {} cached, in {}",
            built.len(),
            reused.len(),
            nodes - built.len() - reused.len(),
            duration(self.seconds)
        )?;
        outln!("report: {}\nrepeat: aurora rerun {}", self.report, self.lock_path)?;
        Ok(())
    }
}

/// Records every score as an event of TensorBoard.
fn record_scores(record: &mut RunRecord, story: &ReportContent) -> Result<(), Failure> {
    let points = story
        .evals
        .iter()
        .flat_map(|eval| eval.points.iter().map(move |point| (eval, point)));
    let folder = record.folder().to_owned();
    let failed = FileError::writing(&folder);
    for (eval, point) in points {
        for (set, score) in &point.sets {
            let tag = format!("eval/{}/{set}/bits_per_byte", eval.name);
            record.score(&tag, score.bits_per_byte, point.tokens).map_err(failed)?;
        }
        for (name, measure) in point.measured() {
            let tag = format!("eval/{}/{name}", eval.name);
            record.score(&tag, measure.value, point.tokens).map_err(failed)?;
        }
    }
    Ok(())
}

fn end(record: Option<RunRecord>, status: Status, error: Option<String>) {
    if let Some(mut record) = record
        && let Err(cause) = record.end(status, error)
    {
        errln!(
            "warning: cannot write the end of the run record to `{}`: {cause}",
            record.folder()
        );
    }
}

/// Copies the report to the record of the run, and returns its path.
fn place_report(project: &Project, results: &Results<'_>, run: &str) -> Result<String, Failure> {
    let id = results
        .keyed
        .graph
        .find("report")
        .ok_or_else(|| Failure::error("the graph has no report"))?;
    let record = results
        .find(id)?
        .ok_or_else(|| Failure::error("the report is not in the store"))?;
    let files = results.store.files(&record)?;
    let made = files
        .get(REPORT)
        .ok_or_else(|| Failure::error("the result of `report` has no report.html"))?;
    let page = project.store.join("runs").join(run).join(REPORT);
    let text = std::fs::read(made).map_err(FileError::reading(made))?;
    std::fs::write(&page, text).map_err(FileError::writing(&page))?;
    Ok(project.relative(&page))
}
