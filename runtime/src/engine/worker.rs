//! The worker process: orders in, events out, gone when the engine is gone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use camino::Utf8Path;

use super::RunError;
use crate::job::{Event, Order};

/// What can reach the engine from its worker.
#[derive(Debug)]
pub enum Heard {
    Event(Box<Event>),
    /// Nothing within the time asked for.
    Nothing,
    /// The worker has closed its output.
    End,
}

pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Result<Event, String>>,
    errors: Option<JoinHandle<String>>,
}

/// Settings of numeric libraries that a user's environment may hold: they could change bits, so a worker sees none.
const NUMERIC: [&str; 9] = [
    "OMP_",
    "KMP_",
    "GOMP_",
    "MKL_",
    "ONEDNN_",
    "DNNL_",
    "ATEN_",
    "TORCH_",
    "LD_PRELOAD",
];

impl Worker {
    /// Starts the worker program.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn start(program: &Utf8Path) -> Result<Self, RunError> {
        if !program.is_file() {
            return Err(RunError::NoWorker {
                path: program.to_owned(),
            });
        }
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if NUMERIC.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| RunError::Worker {
            how: format!("before it began: {error}"),
        })?;
        let lost = || RunError::Worker {
            how: "before it began: its pipes are missing".to_string(),
        };
        let input = child.stdin.take().ok_or_else(lost)?;
        let output = child.stdout.take().ok_or_else(lost)?;
        let stderr = child.stderr.take().ok_or_else(lost)?;
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let event = line
                    .map_err(|error| error.to_string())
                    .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error} in `{line}`")));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut last = Vec::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                last.push(line);
                if last.len() > 20 {
                    last.remove(0);
                }
            }
            last.join("\n")
        });
        Ok(Self {
            child,
            input: Some(input),
            events,
            errors: Some(errors),
        })
    }

    /// Sends an order.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn send(&mut self, order: &Order) -> Result<(), RunError> {
        let line = serde_json::to_string(order).map_err(|error| RunError::Worker { how: error.to_string() })?;
        let sent = self
            .input
            .as_mut()
            .map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The worker says something that is not an event.
    pub fn hear(&mut self, at_most: Duration) -> Result<Heard, RunError> {
        match self.events.recv_timeout(at_most) {
            Ok(Ok(event)) => Ok(Heard::Event(Box::new(event))),
            Ok(Err(cause)) => Err(RunError::Worker {
                how: format!("after saying {cause}"),
            }),
            Err(RecvTimeoutError::Timeout) => Ok(Heard::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(Heard::End),
        }
    }

    /// Ends the worker that has already closed its output, and says how it went.
    pub fn ended(&mut self) -> RunError {
        drop(self.input.take());
        let status = self
            .child
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        let errors = self
            .errors
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        let how = if errors.is_empty() {
            format!("with {status}")
        } else {
            format!("with {status}:\n{errors}")
        };
        RunError::Worker { how }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        // Closing its input ends a worker; one that computes a step does not look, and has nothing left to save.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
