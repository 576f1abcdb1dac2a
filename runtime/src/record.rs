//! The record of one run: `runs/<id>/` with `run.json`, `metrics.jsonl` and TensorBoard events.
//!
//! In: the events of a run. Out: files for people and tools, with their digests when the run ends. Nothing here is part
//! of a key; times and hosts are allowed.

pub mod checks;
pub mod mlflow;
mod tensorboard;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::errors::FileError;
use crate::job::{Layout, StepMetrics};
use crate::process::ProcessIdentity;
use crate::redact;
use crate::regular;
use crate::store::entries;
use crate::write_atomically;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    Finished,
    /// A checkpoint is kept; the same command resumes from it.
    Stopped,
    Failed,
    GateFailed,
}

/// `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunFacts {
    pub format_version: String,
    pub id: String,
    pub experiment: String,
    pub spec: String,
    pub status: Status,
    /// Seconds since 1970.
    pub started: u64,
    pub ended: Option<u64>,
    pub process: ProcessIdentity,
    /// The last step: node, step of the stage, loss.
    pub last_step: Option<(String, u64, f64)>,
    pub error: Option<String>,
    /// The lock of the experiment, as the project sees it.
    #[serde(default)]
    pub lock: Option<String>,
    /// The layout of the last workers; none if no worker was needed.
    #[serde(default)]
    pub layout: Option<Layout>,
}

/// The lock in a run's folder.
pub const LOCK: &str = "run.lock";
/// The report in a run's folder.
pub const REPORT: &str = "report.html";
const FACTS: &str = "run.json";
const METRICS: &str = "metrics.jsonl";
/// The version of `run.json`.
const FORMAT: &str = "1.0";

pub struct RunRecord {
    store: Utf8PathBuf,
    folder: Utf8PathBuf,
    facts: RunFacts,
    metrics: File,
    events: tensorboard::EventFile,
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl RunRecord {
    /// Begins a record in the store's `runs/`; `latest` points to it.
    ///
    /// # Errors
    /// The folder or a file cannot be created.
    pub fn begin(store: &Utf8Path, experiment: &str, spec: &str, lock: &str) -> io::Result<Self> {
        let process = ProcessIdentity::own();
        let started = now();
        let unique = format!("{experiment} {spec} {} {started} {:?}", process.id, SystemTime::now());
        let id = blake3::hash(unique.as_bytes()).to_hex()[..8].to_string();
        let folder = store.join("runs").join(&id);
        fs::create_dir_all(&folder)?;
        let facts = RunFacts {
            format_version: FORMAT.to_string(),
            id: id.clone(),
            experiment: experiment.to_string(),
            spec: spec.to_string(),
            status: Status::Running,
            started,
            ended: None,
            process,
            last_step: None,
            error: None,
            lock: Some(lock.to_string()),
            layout: None,
        };
        let metrics = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(METRICS))?;
        let events = tensorboard::EventFile::create(&folder.join("tensorboard"), started)?;
        let record = Self {
            store: store.to_owned(),
            folder,
            facts,
            metrics,
            events,
        };
        record.save()?;
        point(&store.join("runs").join("latest"), &id)?;
        Ok(record)
    }

    pub fn id(&self) -> &str {
        &self.facts.id
    }

    pub fn folder(&self) -> &Utf8Path {
        &self.folder
    }

    fn text(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(&self.facts).map_err(io::Error::other)? + "\n")
    }

    fn save(&self) -> io::Result<()> {
        write_atomically(&self.folder.join(FACTS), self.text()?.as_bytes())
    }

    /// Records a training step, at `tokens` of the whole run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn step(&mut self, step: &StepMetrics, tokens: u64) -> io::Result<()> {
        let line = serde_json::to_string(step).map_err(io::Error::other)?;
        writeln!(self.metrics, "{line}")?;
        let values = [
            ("train/loss", step.loss),
            ("train/grad_norm", step.grad_norm),
            ("train/learning_rate", step.learning_rate),
            ("train/tokens_seen", tokens as f64),
            ("perf/step_seconds", step.seconds),
        ];
        self.events.scalars(tokens, &values, now())?;
        let due = self
            .facts
            .last_step
            .as_ref()
            .is_none_or(|(node, _, _)| *node != step.node)
            || step.step.is_multiple_of(10);
        self.facts.last_step = Some((step.node.clone(), step.step, step.loss));
        if due { self.save() } else { Ok(()) }
    }

    /// Records the layout of the workers.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn placed(&mut self, layout: &Layout) -> io::Result<()> {
        self.facts.layout = Some(layout.clone());
        self.save()
    }

    /// Records a score, at `tokens` of the whole run.
    ///
    /// # Errors
    /// The events cannot be written.
    pub fn score(&mut self, tag: &str, value: f64, tokens: u64) -> io::Result<()> {
        self.events.scalars(tokens, &[(tag, value)], now())
    }

    /// Keeps the lock with the results of this run, as `run.lock`: later runs change the experiment's own lock.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_lock(&self, text: &str) -> io::Result<()> {
        write_atomically(&self.folder.join(LOCK), text.as_bytes())
    }

    /// Ends the record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(&mut self, status: Status, error: Option<String>) -> io::Result<()> {
        self.facts.status = status;
        self.facts.ended = Some(now());
        self.facts.error = error.map(|text| redact::message(&text).into_owned());
        self.metrics.flush()?;
        checks::seal(&self.store, &self.facts.id, &self.text()?)?;
        self.save()
    }
}

/// Creates or moves a link in one step.
fn point(link: &Utf8Path, to: &str) -> io::Result<()> {
    let fresh = link.with_extension(format!("new{}", std::process::id()));
    drop(fs::remove_file(&fresh));
    std::os::unix::fs::symlink(to, &fresh)?;
    fs::rename(&fresh, link)
}

/// The folders of a store's runs.
fn folders(store: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let mut found = entries(&store.join("runs"), 0)?;
    // Not `latest`, which is a link.
    found.retain(|path| fs::symlink_metadata(path).is_ok_and(|status| status.is_dir()));
    found.sort();
    Ok(found)
}

/// Reads `run.json` in the folder of a run; `None` if there is none.
fn facts(folder: &Utf8Path) -> Result<Option<RunFacts>, FileError> {
    let path = folder.join(FACTS);
    let text = match regular::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::reading(&path)(error)),
    };
    let read = || -> Result<RunFacts, String> {
        let found: RunFacts = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if found.format_version != FORMAT {
            let version = &found.format_version;
            return Err(format!(
                "it has version {version} of the format; this Aurora reads version {FORMAT}"
            ));
        }
        Ok(found)
    };
    let found = read().map_err(|cause| FileError::reading(&path)(io::Error::other(cause)))?;
    Ok(Some(found))
}

/// Reads the records of a store, newest first. Leaves out damaged ones, which [`checks::verify`] finds.
///
/// # Errors
/// The folder cannot be listed.
pub fn runs(store: &Utf8Path) -> io::Result<Vec<RunFacts>> {
    let mut found: Vec<RunFacts> = folders(store)?
        .iter()
        .filter_map(|folder| facts(folder).ok().flatten())
        .collect();
    found.sort_by(|a, b| (b.started, &b.id).cmp(&(a.started, &a.id)));
    Ok(found)
}

/// The recorded steps of a run, in order.
///
/// # Errors
/// The file cannot be read, or a line is not a step.
pub fn steps(store: &Utf8Path, run: &str) -> io::Result<Vec<StepMetrics>> {
    let text = regular::read_to_string(&store.join("runs").join(run).join(METRICS))?;
    let step = |line: &str| serde_json::from_str(line).map_err(io::Error::other);
    text.lines().map(step).collect()
}

impl RunFacts {
    /// The state of the run. A run was interrupted if its process ended without recording that.
    pub fn state(&self) -> &'static str {
        match self.status {
            Status::Running => match self.process.is_running() {
                Some(true) => "running",
                Some(false) => "interrupted",
                None => "on another host",
            },
            Status::Finished => "finished",
            Status::Stopped => "stopped",
            Status::Failed => "failed",
            Status::GateFailed => "gate failed",
        }
    }

    /// Seconds from start to end, or to now.
    pub fn seconds(&self) -> u64 {
        self.ended.unwrap_or_else(now).saturating_sub(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(process: ProcessIdentity) -> &'static str {
        let facts = RunFacts {
            format_version: "1.0".to_owned(),
            id: "x".to_owned(),
            experiment: "x".to_owned(),
            spec: "x.aur".to_owned(),
            status: Status::Running,
            started: 0,
            ended: None,
            process,
            last_step: None,
            error: None,
            lock: None,
            layout: None,
        };
        facts.state()
    }

    #[test]
    fn a_run_is_running_while_its_own_process_is() {
        assert_eq!(state(ProcessIdentity::own()), "running");
        // Another process got the id of the run's process.
        let started = ProcessIdentity::own().started.map(|ticks| ticks - 1);
        let later = ProcessIdentity {
            started,
            ..ProcessIdentity::own()
        };
        assert_eq!(state(later), "interrupted");
        let elsewhere = ProcessIdentity {
            host: "elsewhere.example".to_owned(),
            ..ProcessIdentity::own()
        };
        assert_eq!(state(elsewhere), "on another host");
    }
}
