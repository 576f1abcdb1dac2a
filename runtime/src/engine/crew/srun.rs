//! Workers that Slurm starts: one `srun`, which lives as long as they do.

use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::member::keep_errors;
use super::{Launching, Meeting};
use crate::engine::RunError;
use crate::job::TOKEN;

/// How long `srun` may take to end once its workers have been left.
const LAUNCHER_END: Duration = Duration::from_secs(5);

/// `srun`, and what it says.
pub struct Srun {
    child: Child,
    errors: Option<JoinHandle<String>>,
}

impl Srun {
    /// Starts one worker a task. They find the engine by the address of the node that `srun` was started on.
    ///
    /// # Errors
    /// There is no `srun`.
    pub fn start(arguments: &[String], how: &Launching, meeting: &Meeting) -> Result<Self, RunError> {
        let failed = |cause: String| RunError::Launch {
            cause: format!("cannot start workers by `srun`: {cause}"),
            help: "run inside of an allocation (`sbatch`, `salloc`), or with `--launcher local`".to_owned(),
        };
        let mut command = Command::new("srun");
        if let Some(logs) = &how.logs {
            command.arg(format!("--output={logs}/rank-%t.log"));
        }
        command
            .args(arguments)
            .arg(&how.program)
            .arg(format!("--join=:{}", meeting.port()?))
            .env(TOKEN, meeting.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let log = how.logs.as_ref().map(|logs| logs.join("srun.log"));
        let errors = child.stderr.take().map(|stderr| keep_errors(stderr, log));
        Ok(Self { child, errors })
    }

    /// How it has ended, in words; nothing while it runs.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let said = self
            .errors
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        Some(format!("{status}:\n{said}"))
    }
}

impl Drop for Srun {
    fn drop(&mut self) {
        let until = Instant::now() + LAUNCHER_END;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > until {
                drop(self.child.kill());
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drop(self.child.wait());
    }
}
