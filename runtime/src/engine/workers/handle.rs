//! The engine's handle of one worker process: lines in, lines out, and the time of its last message.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use camino::Utf8PathBuf;

use super::program::{LIBRARY_PATH, WorkerProgram};
use crate::engine::RunError;
use crate::job::{Event, WorkerCommand};
use crate::store::help_with;

/// What the reading thread of a worker passes on.
#[derive(Debug)]
pub enum WorkerMessage {
    Event(Box<Event>),
    /// A line that is not a valid event, and why.
    Invalid(String),
    /// Its output is closed: the process has ended, or the connection is closed.
    End,
}

/// Where the messages of a pool's workers go, with their ranks.
pub type MessageSender = Sender<(usize, WorkerMessage)>;

/// The last lines of a worker's standard error that are kept for messages; its log has all of them.
const LAST_LINES: usize = 20;

enum Process {
    /// A child of this process.
    Child {
        child: Box<Child>,
        errors: Option<JoinHandle<String>>,
    },
    /// A process that Slurm or torchrun started, here or on another host, and that has connected.
    Remote(TcpStream),
}

pub struct WorkerHandle {
    process: Process,
    input: Option<Box<dyn Write + Send>>,
    /// The host, for messages.
    pub host: String,
    /// The address by which other workers reach it.
    pub address: String,
    /// `None` before its first message: until then it may still be starting.
    pub last_message: Option<Instant>,
}

impl WorkerHandle {
    /// Starts a worker program as a child. Its messages go to `messages` with `rank`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &WorkerProgram,
        address: &str,
        rank: usize,
        log: Option<Utf8PathBuf>,
        messages: &MessageSender,
    ) -> Result<Self, RunError> {
        let mut command = Command::new(&program.path);
        command
            .env(LIBRARY_PATH, program.library_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| RunError::Launch {
            text: format!("the worker `{}` cannot be started: {error}", program.path),
            help: help_with(&error)
                .unwrap_or("`aurora doctor` lists the workers that were found")
                .to_owned(),
        })?;
        let (Some(input), Some(output), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(RunError::Worker {
                how: "before it started: its pipes are missing".to_owned(),
            });
        };
        read_messages(output, rank, messages.clone());
        Ok(Self {
            process: Process::Child {
                child: Box::new(child),
                errors: Some(keep_errors(stderr, log)),
            },
            input: Some(Box::new(input)),
            host: address.to_owned(),
            address: address.to_owned(),
            last_message: None,
        })
    }

    /// Takes over a worker that has connected and identified itself.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn connected(
        stream: TcpStream,
        reader: BufReader<TcpStream>,
        host: String,
        address: String,
        rank: usize,
        messages: &MessageSender,
    ) -> io::Result<Self> {
        let input = stream.try_clone()?;
        read_messages(reader, rank, messages.clone());
        Ok(Self {
            process: Process::Remote(stream),
            input: Some(Box::new(input)),
            host,
            address,
            last_message: None,
        })
    }

    /// The engine's address as this worker sees it, if it is on another host.
    pub fn engine_from_other_host(&self) -> Option<IpAddr> {
        let Process::Remote(stream) = &self.process else {
            return None;
        };
        let (engine, own) = (stream.local_addr().ok()?.ip(), stream.peer_addr().ok()?.ip());
        (engine != own && !engine.is_loopback()).then_some(engine)
    }

    /// Sends a command; `false` if the worker does not take it.
    pub fn send(&mut self, order: &WorkerCommand) -> bool {
        let Ok(line) = serde_json::to_string(order) else {
            return false;
        };
        let sent = self
            .input
            .as_mut()
            .map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        matches!(sent, Some(Ok(())))
    }

    /// How a worker that has closed its output ended, for messages.
    pub fn exit_status(&mut self) -> String {
        drop(self.input.take());
        match &mut self.process {
            Process::Remote(_) => "its connection was closed".to_owned(),
            Process::Child { child, errors } => {
                let status = child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                let errors = errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                if errors.is_empty() {
                    status
                } else {
                    format!("{status}:\n{errors}")
                }
            }
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        drop(self.input.take());
        match &mut self.process {
            // A closed input ends a worker; one that computes a step does not read it, and has nothing left to save.
            Process::Child { child, .. } => {
                drop(child.kill());
                drop(child.wait());
            }
            Process::Remote(stream) => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

fn read_messages(output: impl Read + Send + 'static, rank: usize, messages: MessageSender) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let event = line
                .map_err(|error| error.to_string())
                .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error} in `{line}`")));
            let message = match event {
                Ok(event) => WorkerMessage::Event(Box::new(event)),
                Err(cause) => WorkerMessage::Invalid(cause),
            };
            if messages.send((rank, message)).is_err() {
                return;
            }
        }
        // Fails only if the pool was dropped meanwhile; then the end of the worker no longer matters.
        let _ = messages.send((rank, WorkerMessage::End));
    });
}

/// Writes a program's standard error to its log, and keeps the last lines.
pub fn keep_errors(stderr: impl Read + Send + 'static, log: Option<Utf8PathBuf>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut last = Vec::new();
        let mut log = log.and_then(|path| std::fs::File::create(path).ok());
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(log) = &mut log {
                let _ = writeln!(log, "{line}");
            }
            last.push(line);
            if last.len() > LAST_LINES {
                last.remove(0);
            }
        }
        last.join("\n")
    })
}
