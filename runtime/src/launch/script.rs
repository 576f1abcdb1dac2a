//! A batch script for Slurm that runs Aurora, saves a checkpoint before the time limit, and requeues itself.
//!
//! In: a plain struct. Out: the script's text. The script starts the engine, and the engine starts the workers
//! ([`super::srun_arguments`]). Slurm warns the batch shell (`--signal=B:USR1@…`), which passes the warning on; the engine
//! then writes a checkpoint and ends with status 75, and the script has the job requeued. It does so too after a lost worker
//! (status 6), a few times in a row. Every other status ends the job.

use std::time::Duration;

use super::machine::Tasks;

/// The engine's exit status for "stopped, can resume".
const RESUMABLE: u8 = 75;
/// The engine's exit status for a lost worker.
const LOST: u8 = 6;

/// Slurm may send its signal this much early (sbatch(1), `--signal`).
const EARLY: Duration = Duration::from_secs(60);

/// Slurm's maximum for the time of the signal.
const MOST_GRACE: Duration = Duration::from_secs(65_535);

#[derive(Clone, Debug)]
pub struct BatchScript {
    pub job_name: String,
    pub account: Option<String>,
    /// `None` for the cluster's default.
    pub partition: Option<String>,
    pub tasks: Tasks,
    /// How long the job may run; rounded up to minutes, as in Slurm.
    pub time_limit: Duration,
    /// How long before the limit the engine saves a checkpoint, in seconds. Must cover a step, a checkpoint, and the minute by
    /// which Slurm may be early.
    pub grace: Duration,
    /// How often the job may be requeued.
    pub max_restarts: u32,
    /// How many starts in a row may lose a worker: a node that fails is replaced, but another cause would occur again.
    pub max_losses: u32,
    /// Shell commands before the engine starts: modules, a container, a virtual environment.
    pub setup: Vec<String>,
    /// The engine and its arguments, such as `aurora run SPEC --launcher srun`.
    pub command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("{what} `{value}` is not valid in a batch script: use letters, digits and `{marks}`")]
    Name {
        what: &'static str,
        value: String,
        marks: &'static str,
    },
    #[error("a grace time of {} s leaves no time to work in {} s", grace.as_secs(), limit.as_secs())]
    Grace { grace: Duration, limit: Duration },
    #[error("a grace time of {} s is more than Slurm's maximum of {} s", grace.as_secs(), MOST_GRACE.as_secs())]
    LongGrace { grace: Duration },
    #[error("there is no command to run")]
    NoCommand,
    #[error("the command has an argument with a NUL byte")]
    Nul,
}

impl BatchScript {
    /// The script's text.
    ///
    /// # Errors
    /// [`ScriptError`] for names that Slurm or the shell would misinterpret, and for a grace time that leaves no time to work.
    pub fn text(&self) -> Result<String, ScriptError> {
        let command = self.checked_command()?;
        let machine = self.tasks.machine();
        let mut lines = vec!["#!/bin/bash".to_owned()];
        lines.extend(
            self.directives()?
                .iter()
                .map(|directive| format!("#SBATCH {directive}")),
        );
        let settings = machine.settings();
        if !settings.is_empty() {
            lines.push("\n# RCCL and libfabric on Slingshot.".to_owned());
        }
        lines.extend(settings.iter().map(|(name, value)| format!("export {name}={value}")));
        if machine.has_miopen() {
            lines.push(MIOPEN.to_owned());
        }
        if !self.setup.is_empty() {
            lines.push(String::new());
            lines.extend(self.setup.iter().cloned());
        }
        lines.push(format!("{FORWARD}{command} &\n{WAIT}"));
        lines.push(format!(
            "resumable={RESUMABLE} most={} lost={LOST} most_losses={}\n{REQUEUE}",
            self.max_restarts, self.max_losses
        ));
        Ok(lines.join("\n") + "\n")
    }

    fn checked_command(&self) -> Result<String, ScriptError> {
        if self.command.is_empty() {
            return Err(ScriptError::NoCommand);
        }
        let words = self.command.iter().map(String::as_str);
        shlex::try_join(words).map_err(|_| ScriptError::Nul)
    }

    fn directives(&self) -> Result<Vec<String>, ScriptError> {
        let (tasks, machine) = (&self.tasks, self.tasks.machine());
        let minutes = self.time_limit.as_secs().div_ceil(60);
        let (grace, limit) = (self.grace, Duration::from_secs(minutes * 60));
        if grace > MOST_GRACE {
            return Err(ScriptError::LongGrace { grace });
        }
        if grace + EARLY >= limit {
            return Err(ScriptError::Grace { grace, limit });
        }
        let mut directives = vec![format!("--job-name={}", word("job name", &self.job_name, "._-")?)];
        if let Some(account) = &self.account {
            directives.push(format!("--account={}", word("account", account, "._-")?));
        }
        if let Some(partition) = &self.partition {
            directives.push(format!("--partition={}", word("partition", partition, "._-,")?));
        }
        directives.extend([
            format!("--nodes={}", tasks.nodes()),
            format!("--ntasks-per-node={}", tasks.per_node()),
            format!("--cpus-per-task={}", machine.cpus_per_task()),
        ]);
        directives.extend(machine.directives().iter().map(|directive| (*directive).to_owned()));
        directives.extend([
            format!("--time={:02}:{:02}:00", minutes / 60, minutes % 60),
            format!("--signal=B:USR1@{}", grace.as_secs()),
            "--requeue".to_owned(),
            "--open-mode=append".to_owned(),
            "--output=%x-%j.out".to_owned(),
        ]);
        Ok(directives)
    }
}

/// A name that is a single word for Slurm and the shell, and not an option.
fn word<'a>(what: &'static str, value: &'a str, marks: &'static str) -> Result<&'a str, ScriptError> {
    let fits = |character: char| character.is_ascii_alphanumeric() || marks.contains(character);
    if value.starts_with(|first: char| first.is_ascii_alphanumeric()) && value.chars().all(fits) {
        return Ok(value);
    }
    Err(ScriptError::Name {
        what,
        value: value.to_owned(),
        marks,
    })
}

/// Each task creates the folder on its node (`srun_arguments`).
const MIOPEN: &str = r#"
# MIOpen's caches lie on the node: on a parallel file system its locks stall.
export MIOPEN_USER_DB_PATH="/tmp/miopen-$SLURM_JOB_ID"
export MIOPEN_CUSTOM_CACHE_DIR="$MIOPEN_USER_DB_PATH""#;

/// Before the engine: passes signals on to the last background process, which is the engine.
const FORWARD: &str = r#"
# USR1 is Slurm's warning before the time limit, TERM its word that the job is being ended.
signalled='' ended=''
trap 'signalled=1; kill -s USR1 "$!" 2>/dev/null' USR1
trap 'signalled=1; ended=1; kill -s TERM "$!" 2>/dev/null' TERM
"#;

/// After the engine: its exit status is in `status`.
const WAIT: &str = r#"
# A signal ends `wait` early: then wait again.
while
    signalled=''
    wait "$!"
    status=$?
    [ -n "$signalled" ]
do :; done
"#;

/// After `resumable=… most=… lost=… most_losses=…`: a cancelled job (`ended`) is not requeued. After a lost worker, the job is
/// requeued only if Slurm does not end or requeue it itself: it may have noticed the loss of the node meanwhile, or its
/// cancelling of the job may have ended the worker.
const REQUEUE: &str = r#"restarts=${SLURM_RESTART_COUNT:-0} losses=${SLURM_JOB_NAME:-aurora}-$SLURM_JOB_ID.lost why=''
case $status in
"$resumable")
    rm -f "$losses"
    why='saved a checkpoint'
    ;;
"$lost")
    # A line for each start in a row that has lost a worker.
    echo "$restarts" >>"$losses"
    count=$(wc -l <"$losses") || count=$((most_losses + 1))
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
    if [ "$count" -gt "$most_losses" ]; then
        echo "aurora can resume, but $count starts in a row have lost a worker: not requeued" >&2
    elif [ "$state" = RUNNING ]; then
        why='lost a worker'
    else
        echo "aurora lost a worker while Slurm ended the job (its state is '$state'): not requeued by this script" >&2
    fi
    ;;
*) rm -f "$losses" ;;
esac
if [ -n "$why" ] && [ -z "$ended" ]; then
    if [ "$restarts" -ge "$most" ]; then
        echo "aurora can resume, but the job has already been restarted $restarts times: not requeued" >&2
    elif scontrol requeue "$SLURM_JOB_ID"; then
        echo "aurora $why and resumes in restart $((restarts + 1)) of at most $most" >&2
    else
        echo "aurora can resume, but the job cannot be requeued: submit it again" >&2
    fi
fi
exit "$status""#;

#[cfg(test)]
mod tests;
