//! `aurora bisect`: finds the first operation in which two executions of one lock differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aurora_runtime::bisect::{Fork, Stretch, locate};
use aurora_runtime::checkpoint::STEP_LOG;
use aurora_runtime::compare::{ResultDifference, first_step_of, read_step_log};
use aurora_runtime::engine::workers::WorkerProgram;
use aurora_runtime::engine::{ExternalInputs, Run, Traced, WorkerOptions};
use aurora_runtime::errors::FileError;
use aurora_runtime::job::{Layout, Recompute};
use aurora_runtime::libtorch::LibtorchError;
use aurora_runtime::record::{RunFacts, runs};
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use aurora_runtime::trace::Comparison;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::arguments::{ProgressMode, VariantSelection};
use crate::context::Context;
use crate::execution::{STOP, install_signal_handlers};
use crate::failure::{Exit, Failure};
use crate::layout::portable;
use crate::libtorch::worker_program;
use crate::output::{self, grouped};
use crate::progress_display::ProgressDisplay;
use crate::project::{Loaded, Project, Reach, load, locked_graph, read_lock, refuse_damaged_run};
use crate::stdio::{Printed, outln};
use crate::worker_launch::local_launch;

/// Longer than the default of `run`: the two executions that bisect repeats may share the cores with a run.
const HEARTBEAT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// One execution, as the user named it.
struct ComparedRun {
    name: String,
    store: Utf8PathBuf,
    facts: RunFacts,
    layout: Layout,
}

/// The result of executing the steps again.
struct Divergence {
    node: String,
    stretch: Stretch,
    comparison: Comparison,
    /// Whether each repetition has the step log of the execution that it repeats.
    repeats: [bool; 2],
}

pub fn run(
    context: &Context,
    names: [&str; 2],
    lock: Option<&Utf8Path>,
    progress: ProgressMode,
) -> Result<Exit, Failure> {
    let project = context.project(lock)?;
    let [a, b] = names.map(|name| execution(&project, name));
    let (a, b) = (a?, b?);
    let resolved = |store: &Utf8Path| store.canonicalize_utf8().map_err(FileError::reading(store));
    if resolved(&a.store)? == resolved(&b.store)? {
        return Err(Failure::error(format!(
            "`{}` and `{}` are the same store, which has one result of every node",
            a.name, b.name
        ))
        .help("repeat the lock in a separate folder: `aurora rerun LOCK --into DIR`"));
    }
    let lock_path = match (lock, &a.facts.lock) {
        (Some(lock), _) => lock.to_owned(),
        (None, Some(lock)) => project.root.join(lock),
        (None, None) => {
            return Err(
                Failure::error(format!("the record of `{}` does not name a lock", a.name))
                    .help("name it with `--lock LOCK`"),
            );
        }
    };
    let Some(lock) = read_lock(&lock_path)? else {
        return Err(Failure::error(format!("there is no lock `{lock_path}`"))
            .help("run this command in the project, or name a lock with `--lock LOCK`"));
    };
    let reach = Reach {
        lock: Some(&lock),
        ..context.reach()
    };
    let loaded = load(
        &project.root.join(&lock.spec),
        &VariantSelection::of(&lock),
        context.json,
        reach,
    )?;
    let keyed = locked_graph(&lock, &loaded)?;
    let (first, second) = (Store::open(&a.store)?, Store::open_read_only(&b.store)?);
    let of_first = Results::to_read(&loaded.spec.name, &keyed, &first, lock.class)?;
    let of_second = Results::to_read(&loaded.spec.name, &keyed, &second, lock.class)?;
    let fork = locate(&of_first, &of_second).map_err(|error| {
        Failure::from_error(&error).help("compare finished executions of the same lock: `aurora rerun LOCK --into DIR`")
    })?;
    match fork {
        Fork::Nowhere { nodes } => {
            if context.json {
                output::json(
                    json!({ "identical": true, "nodes_compared": nodes, "executions": [a.json(), b.json()] }),
                )?;
            } else {
                outln!("bisect: identical ({nodes} nodes compared)")?;
            }
            Ok(Exit::Done)
        }
        Fork::Node(difference) => {
            report_node(context, [&a, &b], &difference)?;
            Ok(Exit::Error)
        }
        Fork::Steps(stretch) => {
            let program = worker_program(Some(&lock.libtorch))?;
            install_signal_handlers()?;
            let display = ProgressDisplay::new(progress, None);
            let repetition = Repetition {
                project: &project,
                loaded: &loaded,
                results: of_first,
                display: &display,
                stretch: &stretch,
                program: &program,
            };
            let traced = repetition.trace(&a).and_then(|of_a| Ok([of_a, repetition.trace(&b)?]));
            display.finish();
            let [of_a, of_b] = traced?;
            let repeats = |of: &Results<'_>, traced: &Traced| -> Result<bool, Failure> {
                let record = of.find(stretch.node)?;
                let path = record.and_then(|record| Some(of.store.object_path(&record.outputs.get(STEP_LOG)?.content)));
                let read = |path: &Utf8PathBuf| read_step_log(path).map_err(FileError::reading(path));
                let recorded = path.as_ref().map(read).transpose()?.unwrap_or_default();
                Ok(first_step_of(&traced.step_log, &recorded).is_none())
            };
            let divergence = Divergence {
                node: keyed.graph.node(stretch.node).name().to_owned(),
                comparison: of_a.trace.compare(&of_b.trace),
                repeats: [repeats(&of_first, &of_a)?, repeats(&of_second, &of_b)?],
                stretch,
            };
            divergence.report(context, [&a, &b])?;
            Ok(Exit::Error)
        }
    }
}

/// Finds an execution by its name: a folder with a store, or the beginning of a run's id.
fn execution(project: &Project, name: &str) -> Result<ComparedRun, Failure> {
    let folder = Utf8Path::new(name);
    let (store, of) = if folder.is_dir() {
        let own = folder.join(".aurora");
        (if own.is_dir() { own } else { folder.to_owned() }, None)
    } else {
        (project.store.clone(), Some(name))
    };
    let mut named: Vec<RunFacts> = runs(&store).map_err(FileError::reading(&store))?;
    if let Some(id) = of {
        named.retain(|facts| facts.id.starts_with(id));
    }
    let several = named.len() > 1;
    let mut computed = named.iter().filter_map(|facts| Some((facts, facts.layout.clone()?)));
    match (computed.next(), of, several) {
        (_, Some(_), true) => {
            Err(Failure::error(format!("several runs begin with `{name}`")).help("`aurora status` lists them"))
        }
        (Some((facts, layout)), ..) => {
            refuse_damaged_run(&store, &facts.id)?;
            Ok(ComparedRun {
                name: name.to_owned(),
                facts: facts.clone(),
                store,
                layout,
            })
        }
        (None, ..) if named.is_empty() => Err(Failure::error(format!(
            "`{name}` is neither a folder with an execution nor a run of this project"
        ))
        .help("`aurora status` lists runs; `aurora rerun LOCK --into DIR` keeps a repetition")),
        (None, ..) => Err(Failure::error(format!(
            "`{name}` has computed nothing: all its results were in the store"
        ))
        .help("name the run that computed them; `aurora status` lists runs")),
    }
}

/// The steps to execute again, once for each of the two executions.
struct Repetition<'a> {
    project: &'a Project,
    loaded: &'a Loaded,
    /// The first execution's: both agree up to these steps.
    results: Results<'a>,
    display: &'a ProgressDisplay,
    stretch: &'a Stretch,
    /// The workers' program.
    program: &'a Result<WorkerProgram, LibtorchError>,
}

impl Repetition<'_> {
    fn trace(&self, execution: &ComparedRun) -> Result<Traced, Failure> {
        let (Stretch { node, after, last, .. }, layout) = (self.stretch, &execution.layout);
        let text = format!(
            "executing steps {} to {last} again as {}: {}",
            after + 1,
            execution.name,
            DisplayLayout(layout)
        );
        self.display.line(&text);
        let pins = aurora_compiler::graph::Pins::new();
        let run = Run {
            results: self.results,
            inputs: ExternalInputs {
                folders: &self.project.folders,
                pins: &pins,
                offline: true,
                judges: &BTreeMap::new(),
                allowed: &BTreeSet::new(),
                at_most: &BTreeMap::new(),
                malformed: &BTreeMap::new(),
                recorded: None,
            },
            workers: WorkerOptions {
                launch: local_launch(self.program.clone(), HEARTBEAT_TIMEOUT),
                layout: layout.clone(),
                portable: portable(&self.loaded.spec),
                restarts: 0,
                fewer: false,
            },
            observer: self.display,
            stop: &STOP,
        };
        Ok(run.trace(*node, *after, *last)?)
    }
}

fn report_node(context: &Context, executions: [&ComparedRun; 2], difference: &ResultDifference) -> Printed {
    if context.json {
        output::json(json!({
            "identical": false,
            "executions": executions.map(ComparedRun::json),
            "node": difference.node,
            "first_difference": null,
            "file": difference.file,
        }))?;
    } else {
        outln!("bisect: DIFFERENT\nfirst difference: {difference}\nno step of training differs before it")?;
    }
    Ok(())
}

impl ComparedRun {
    fn json(&self) -> Value {
        json!({ "name": self.name, "run": self.facts.id, "layout": self.layout })
    }
}

impl Divergence {
    /// The executions that the repetitions agree with, if no operation differs.
    fn agrees_with<'n>(&self, [a, b]: [&'n ComparedRun; 2]) -> Vec<&'n str> {
        let named = [(&a.name, self.repeats[0]), (&b.name, self.repeats[1])];
        named
            .into_iter()
            .filter(|(_, repeats)| *repeats)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn report(&self, context: &Context, executions: [&ComparedRun; 2]) -> Printed {
        let Stretch { after, last, seen, .. } = &self.stretch;
        let Comparison {
            compared,
            agreeing,
            differing,
            first,
        } = &self.comparison;
        if context.json {
            let first = first
                .as_ref()
                .map(|operation| json!({ "text": operation.name.to_string(), "operation": operation }));
            output::json(json!({
                "identical": false,
                "executions": executions.map(ComparedRun::json),
                "node": self.node,
                "steps": { "first": after + 1, "last": last },
                "seen": seen,
                "first_difference": first,
                "operations": { "compared": compared, "agreeing_before": agreeing, "differing": differing },
                "agrees_with": self.agrees_with(executions),
                "repeats": self.repeats,
            }))?;
            return Ok(());
        }
        let seen = seen.as_deref().unwrap_or("weights at the end of the segment");
        outln!(
            "bisect: DIFFERENT\nin the results: node `{}`, step {last} ({seen})",
            self.node
        )?;
        let Some(first) = first else {
            outln!(
                "executed again, all {} operations of steps {} to {last} agree",
                grouped(*compared as u64),
                after + 1
            )?;
            outln!("not repeatable: the cause was not the arithmetic of this build on this machine")?;
            match &self.agrees_with(executions)[..] {
                [] => outln!("the repetition agrees with neither")?,
                [one] => outln!("the repetition agrees with {one}")?,
                _ => outln!("the repetition agrees with both, as far as their step logs show")?,
            }
            return Ok(());
        };
        outln!("first difference: {}", first.name)?;
        for (execution, digests) in executions.iter().zip([&first.a, &first.b]) {
            outln!(
                "  {}: {} ({})",
                execution.name,
                short(digests),
                DisplayLayout(&execution.layout)
            )?;
        }
        outln!(
            "{} operations before it agree; {} of {} differ",
            grouped(*agreeing as u64),
            grouped(*differing as u64),
            grouped(*compared as u64)
        )?;
        for (execution, repeats) in executions.iter().zip(self.repeats) {
            if !repeats {
                outln!(
                    "note: executed again, {} gives other results than before",
                    execution.name
                )?;
            }
        }
        Ok(())
    }
}

/// Shortened digests; several if ranks have different bytes of one result.
fn short(digests: &BTreeSet<String>) -> String {
    let short: Vec<&str> = digests
        .iter()
        .map(|digest| digest.get(..16).unwrap_or(digest))
        .collect();
    short.join(" and ")
}

/// A layout in the format of `--layout`.
struct DisplayLayout<'a>(&'a Layout);

impl fmt::Display for DisplayLayout<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout {
            tensor,
            pipeline,
            data,
            threads,
            recompute,
            sequence_parallel,
            distributed_optimizer,
        } = self.0;
        write!(f, "tensor={tensor},pipeline={pipeline},data={data}")?;
        if *recompute != Recompute::None {
            write!(f, ",recompute={}", recompute.word())?;
        }
        for (flag, name) in [
            (sequence_parallel, "sequence_parallel"),
            (distributed_optimizer, "distributed_optimizer"),
        ] {
            if *flag {
                write!(f, ",{name}")?;
            }
        }
        write!(f, " threads={threads}")
    }
}
