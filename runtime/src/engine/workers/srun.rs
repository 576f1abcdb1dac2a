//! Workers that Slurm starts: one `srun`, which runs as long as they do.

use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camino::Utf8Path;

use super::handle::keep_errors;
use super::listener::WorkerListener;
use super::program::{LIBRARY_PATH, WorkerProgram};
use crate::engine::RunError;
use crate::job::TOKEN;

/// How long `srun` may take to end after its workers' connections are closed.
const SRUN_END: Duration = Duration::from_secs(5);

/// A running `srun` and the end of its standard error.
pub struct Srun {
    child: Child,
    errors: Option<JoinHandle<String>>,
}

impl Srun {
    /// Starts one worker per task. They connect to the address of the node that `srun` was started on.
    ///
    /// # Errors
    /// There is no `srun`.
    pub fn start(
        arguments: &[String],
        program: &WorkerProgram,
        logs: Option<&Utf8Path>,
        listener: &WorkerListener,
    ) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Launch {
            text: format!("cannot start workers with `srun`: {error}"),
            help: "run inside an allocation (`sbatch`, `salloc`), or with `--launcher local`".to_owned(),
        };
        let mut command = Command::new("srun");
        if let Some(logs) = logs {
            command.arg(format!("--output={logs}/rank-%t.log"));
        }
        command
            .args(arguments)
            // For the tasks only: `srun` itself loads the libraries that it is installed with.
            .arg("env")
            .arg(format!("{LIBRARY_PATH}={}", program.library_path()))
            .arg(&program.path)
            .arg(format!("--join=:{}", listener.port()?))
            .env(TOKEN, listener.token())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let log = logs.map(|logs| logs.join("srun.log"));
        let errors = child.stderr.take().map(|stderr| keep_errors(stderr, log));
        Ok(Self { child, errors })
    }

    /// Its exit status and the end of its standard error; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let errors = self.errors.take().and_then(|thread| thread.join().ok());
        Some(format!("{status}:\n{}", errors.unwrap_or_default()))
    }
}

impl Drop for Srun {
    fn drop(&mut self) {
        let until = Instant::now() + SRUN_END;
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
