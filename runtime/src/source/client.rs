//! Runs a package client and waits for it.
//!
//! In: a program and its arguments. Out: its output. Programs run without a shell, in the C locale, without input, and are
//! killed when the work is cancelled. Not here: which program, and what its output means.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::progress::{Cancelled, ProgressReporter};
use crate::redact;

/// How often a running client is polled.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes that are kept of a client's output.
const OUTPUT_LIMIT: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{program}` is not installed; {remedy}")]
    Missing { program: String, remedy: &'static str },
    #[error("cannot run `{program}`")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A client's output and exit status.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub out: String,
    pub error: String,
}

impl Output {
    /// The last lines of its error output, for a message. A client may print addresses with passwords.
    pub fn cause(&self) -> String {
        let text = if self.error.trim().is_empty() {
            &self.out
        } else {
            &self.error
        };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        redact::message(&lines[lines.len().saturating_sub(6)..].join("\n")).into_owned()
    }
}

/// Runs a client until it ends. `remedy` is how the user can install it if it is missing.
///
/// # Errors
/// If it is not installed or cannot be run, or the work is cancelled. A client that fails is an [`Output`].
pub fn run(command: &mut Command, remedy: &'static str, progress: ProgressReporter<'_>) -> Result<Output, ClientError> {
    run_reading(command, Stdio::null(), remedy, progress)
}

/// As [`run`], for a client that reads `input`.
///
/// # Errors
/// As [`run`].
pub fn run_fed(
    command: &mut Command,
    input: &str,
    remedy: &'static str,
    progress: ProgressReporter<'_>,
) -> Result<Output, ClientError> {
    let file = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(input.as_bytes())?;
        file.rewind()?;
        Ok(file)
    };
    let file = file().map_err(|source| ClientError::Run {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    run_reading(command, file.into(), remedy, progress)
}

/// As [`run`], for a client that works in a locked folder: `lock` is an empty file that this process has locked. The
/// client gets it as its input, so that the lock lasts as long as the client, even if this process is killed.
///
/// # Errors
/// As [`run`].
pub fn run_locked(
    command: &mut Command,
    lock: &File,
    remedy: &'static str,
    progress: ProgressReporter<'_>,
) -> Result<Output, ClientError> {
    let held = lock.try_clone().map_err(|source| ClientError::Run {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    run_reading(command, held.into(), remedy, progress)
}

fn run_reading(
    command: &mut Command,
    input: Stdio,
    remedy: &'static str,
    progress: ProgressReporter<'_>,
) -> Result<Output, ClientError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let running = |source| ClientError::Run {
        program: program.clone(),
        source,
    };
    // Files instead of pipes need no reader.
    let (out, error) = (
        tempfile::tempfile().map_err(running)?,
        tempfile::tempfile().map_err(running)?,
    );
    command
        .stdin(input)
        .stdout(out.try_clone().map_err(running)?)
        .stderr(error.try_clone().map_err(running)?)
        .env("LC_ALL", "C")
        .env_remove("LANGUAGE");
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ClientError::Missing {
            program: program.clone(),
            remedy,
        },
        _ => running(source),
    })?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(running)? {
            break status;
        }
        if let Err(cancelled) = progress.check() {
            // It may already have ended; wait for it in both cases.
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled.into());
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    Ok(Output {
        status,
        out: text(out).map_err(running)?,
        error: text(error).map_err(running)?,
    })
}

fn text(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_status_come_back() {
        let output = run(
            Command::new("sh").args(["-c", "echo $LC_ALL; echo bad >&2; exit 3"]),
            "",
            ProgressReporter::none(),
        )
        .expect("ran");
        assert_eq!(
            (output.out.as_str(), output.error.as_str(), output.status.code()),
            ("C\n", "bad\n", Some(3))
        );
        assert_eq!(output.cause(), "bad");
    }

    #[test]
    fn a_message_has_no_password() {
        let script = "echo cannot reach https://me:hunter2@host/simple >&2; exit 1";
        let output = run(Command::new("sh").args(["-c", script]), "", ProgressReporter::none()).expect("ran");
        assert_eq!(output.cause(), "cannot reach https://***@host/simple");
    }

    #[test]
    fn a_missing_client_comes_with_its_remedy() {
        let error = run(
            &mut Command::new("aurora-no-such-program"),
            "install it",
            ProgressReporter::none(),
        )
        .expect_err("missing");
        assert_eq!(
            error.to_string(),
            "`aurora-no-such-program` is not installed; install it"
        );
    }

    /// A client keeps the lock of the process that started it, even after that process has ended.
    #[test]
    fn a_lock_lasts_as_long_as_the_client() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let ours = File::create(&path).expect("created");
        ours.lock().expect("locked");
        let script = "exec 3<&0; sleep 600 <&3 >/dev/null 2>&1 & echo $!";
        let output = run_locked(
            Command::new("sh").args(["-c", script]),
            &ours,
            "",
            ProgressReporter::none(),
        )
        .expect("ran");
        drop(ours);
        let other = File::open(&path).expect("opened");
        assert!(other.try_lock().is_err());
        let client = output.out.trim().to_owned();
        run(Command::new("kill").arg(client), "", ProgressReporter::none()).expect("ran");
        other.lock().expect("locked once the client has ended");
    }

    #[test]
    fn cancelling_ends_the_client() {
        let cancel = std::sync::atomic::AtomicBool::new(true);
        let progress = ProgressReporter::new(&|_| {}, &cancel);
        assert!(matches!(
            run(Command::new("sleep").arg("600"), "", progress),
            Err(ClientError::Cancelled(_))
        ));
    }
}
