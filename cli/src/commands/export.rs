//! `aurora export`: writes a model, results or a job for another system.

use std::time::Duration;

use aurora_compiler::hash::Keyed;
use aurora_runtime::errors::FileError;
use aurora_runtime::job::StepMetrics;
use aurora_runtime::launch::{BatchScript, Machine};
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::record;
use aurora_runtime::record::mlflow::MlflowServer;
use aurora_runtime::redact::{self, Secret};
use aurora_runtime::report::harness::{self, HarnessError};
use aurora_runtime::store::Store;
use aurora_runtime::weights::{SHARD_BYTES, export};
use camino::Utf8Path;
use serde_json::json;

use crate::arguments::{Cluster, SlurmArguments, SpecArgument};
use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::devices::refuse_portable;
use crate::failure::{Exit, Failure};
use crate::layout::{LayoutRequest, as_argument, check, count, devices, layout, nodes, tasks};
use crate::numerics::results_to_read;
use crate::output;
use crate::project::{absolute, compile, own_program, refuse_damaged_run};
use crate::stdio::{out_text, outln};

/// A model in Hugging Face's format.
pub fn hf(context: &Context, checkpoint: &str, folder: &Utf8Path) -> Result<Exit, Failure> {
    let found = Checkpoint::find(context, checkpoint)?;
    let tokenizer = found.tokenizer.as_ref().map(|(path, meta)| (path.as_path(), meta));
    let exported = export(&found.model, &found.files, tokenizer, &found.card, SHARD_BYTES, folder)
        .map_err(|error| Failure::from_error(&error))?;
    if context.json {
        output::json(json!({ "folder": folder, "files": exported.files }))?;
        return Ok(Exit::Done);
    }
    let rows = exported
        .files
        .iter()
        .map(|(name, bytes)| vec![name.clone(), format!("{:>15}", output::grouped(*bytes))]);
    out_text(&output::table(&rows.collect::<Vec<_>>()))?;
    outln!(
        "{folder}: {} parameters of {}",
        output::grouped(found.model.parameters()),
        found.card.name
    )?;
    Ok(Exit::Done)
}

/// Results in the format of lm-evaluation-harness.
pub fn lm_eval(context: &Context, argument: &SpecArgument, folder: &Utf8Path) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let store = Store::open_read_only(&project.store)?;
    let results = results_to_read(&store, &loaded.spec, &keyed, lock.as_ref())?;
    let files = harness::write(&results, folder).map_err(|error| {
        let nothing = matches!(error, HarnessError::Nothing { .. });
        let failure = Failure::error(error.to_string());
        if nothing {
            failure.help(format!("aurora run {}", project.relative(&loaded.path)))
        } else {
            failure
        }
    })?;
    if context.json {
        output::json(json!({ "files": files }))?;
    } else {
        for file in &files {
            outln!("{file}")?;
        }
    }
    Ok(Exit::Done)
}

/// The steps with the stages that their nodes belong to.
fn stage_steps<'a>(keyed: &'a Keyed, steps: &'a [StepMetrics]) -> Vec<(&'a str, &'a StepMetrics)> {
    let stage = |step: &StepMetrics| {
        let node = keyed.graph.find(&step.node)?;
        keyed.graph.node(node).origin.trained().map(|(stage, _)| stage)
    };
    steps.iter().filter_map(|step| Some((stage(step)?, step))).collect()
}

/// A run's metrics, sent to MLflow.
pub fn mlflow(
    context: &Context,
    argument: &SpecArgument,
    url: &str,
    run: Option<&str>,
    token: Option<&str>,
) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let name = &loaded.spec.name;
    let mut runs = record::runs(&project.store)
        .map_err(FileError::reading(&project.store))?
        .into_iter()
        .filter(|facts| facts.experiment == *name);
    let facts = match run {
        Some(run) => runs.find(|facts| facts.id == run),
        None => runs.next(),
    };
    let facts = facts.ok_or_else(|| {
        let what = run.map_or_else(|| "no run".to_owned(), |run| format!("no run `{run}`"));
        Failure::error(format!("there is {what} of `{name}`")).help("`aurora status` lists the runs")
    })?;
    refuse_damaged_run(&project.store, &facts.id)?;
    let token = token.map(|name| {
        let value = std::env::var(name).map(|value| Secret::new(&value));
        value.map_err(|_| Failure::error(format!("the environment variable `{name}` is not set")))
    });
    let token = token.transpose()?;
    let steps = record::steps(&project.store, &facts.id)
        .map_err(FileError::reading(&project.store.join("runs").join(&facts.id)))?;
    let store = Store::open_read_only(&project.store)?;
    let story = aurora_runtime::report::load(&results_to_read(&store, &loaded.spec, &keyed, lock.as_ref())?)?;
    let server = MlflowServer {
        url,
        token: token.as_ref(),
        progress: ProgressReporter::none(),
    };
    let sent = server
        .send(&facts, &stage_steps(&keyed, &steps), &story)
        .map_err(|error| Failure::from_error(&error))?;
    if context.json {
        output::json(json!({ "run": facts.id, "mlflow_run": sent }))?;
    } else {
        outln!("run {} of {name} is run {sent} at {}", facts.id, redact::message(url))?;
    }
    Ok(Exit::Done)
}

/// A batch script for Slurm. It contains the program, the spec and the complete layout, so that the run uses the nodes and
/// tasks that the job requests even if the spec's layout changes.
pub fn slurm(context: &Context, argument: &SpecArgument, job: &SlurmArguments) -> Result<Exit, Failure> {
    let (_, loaded) = context.open(argument)?;
    let spec = &loaded.spec;
    let overrides = job.layout.unwrap_or_default();
    let request = LayoutRequest {
        overrides,
        threads: job.threads,
        cpus_per_task: Some(1),
        nodes: job.nodes,
    };
    let layout = layout(spec, request);
    check(spec, &layout)?;
    let devices = devices(spec, overrides);
    devices.map_or(Ok(()), |kind| refuse_portable(spec, kind))?;
    let title = devices.map_or("CPUs", |devices| devices.title);
    let is_mi250x = title == "MI250X";
    let machine = match job.cluster {
        Cluster::Lumi if is_mi250x => Machine::Lumi,
        Cluster::Frontier if is_mi250x => Machine::Frontier,
        Cluster::Plain if devices.is_none() => Machine::Plain {
            cpus_per_task: count(layout.threads),
        },
        Cluster::Plain => {
            return Err(
                Failure::error(format!("the layout is for {title}, and a plain cluster has no devices"))
                    .help("name the cluster (`--cluster lumi`), or run on CPUs (`--layout machine=cpu,…`)"),
            );
        }
        Cluster::Lumi | Cluster::Frontier => {
            return Err(Failure::error(format!(
                "the layout is for {title}, and the nodes of this cluster have MI250X"
            ))
            .help("leave `--cluster` out, or set `machine = mi250x` in the layout"));
        }
    };
    let script = BatchScript {
        job_name: job.job_name.clone().unwrap_or_else(|| spec.name.clone()),
        account: job.account.clone(),
        partition: job.partition.clone(),
        tasks: tasks(machine, &layout, nodes(spec, request))?,
        time_limit: job.time,
        grace: Duration::from_secs(job.grace),
        max_restarts: job.requeues,
        max_losses: job.losses,
        setup: job.setup.clone(),
        command: command(
            context,
            argument,
            job,
            &as_argument(&layout, overrides.cpu),
            layout.threads,
        )?,
    };
    let text = script.text().map_err(|error| Failure::error(error.to_string()))?;
    if context.json {
        output::json(json!({ "script": text }))?;
    } else {
        out_text(&text)?;
    }
    Ok(Exit::Done)
}

/// A workflow for GitHub Actions that comments on pull requests with what their specs change. `install` is the command that
/// installs `aurora` on the runner.
pub fn github(context: &Context, install: &str) -> Result<Exit, Failure> {
    if install.trim().is_empty() || install.contains('\n') {
        return Err(Failure::error("`--install` must be one line of shell"));
    }
    // JSON strings are valid YAML scalars.
    let install = serde_json::Value::from(install).to_string();
    let text = include_str!("export/github.yml").replace("{install}", &install);
    if context.json {
        output::json(json!({ "workflow": text }))?;
    } else {
        out_text(&text)?;
    }
    Ok(Exit::Done)
}

/// Paths are absolute: the job may start in another folder.
fn command(
    context: &Context,
    argument: &SpecArgument,
    job: &SlurmArguments,
    layout: &str,
    threads: u32,
) -> Result<Vec<String>, Failure> {
    let spec = absolute(&argument.spec)?;
    let mut words = vec![own_program()?.into_string(), "run".to_owned(), spec.to_string()];
    words.extend(argument.selection.words());
    if let Some(store) = &context.store {
        words.extend(["--store".to_owned(), absolute(store)?.into_string()]);
    }
    words.extend(
        [
            "--launcher",
            "srun",
            "--progress",
            "plain",
            "--layout",
            layout,
            "--threads",
        ]
        .map(str::to_owned),
    );
    words.push(threads.to_string());
    words.extend(job.run.iter().cloned());
    Ok(words)
}
