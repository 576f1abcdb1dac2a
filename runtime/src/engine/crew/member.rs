//! One worker process as the engine sees it: lines in, lines out, and when it was last heard.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};

use crate::engine::RunError;
use crate::job::{Event, WorkerCommand};

/// What a member's reading thread passes on.
#[derive(Debug)]
pub enum Said {
    Event(Box<Event>),
    /// A line that is no event, and why.
    Garbled(String),
    /// Its output is closed: the process has ended, or the connection has.
    End,
}

/// What a worker said last on its standard error; all of it goes to its log.
const LAST_LINES: usize = 20;

enum Process {
    /// A child of this process.
    Child {
        child: Box<Child>,
        errors: Option<JoinHandle<String>>,
    },
    /// A process that somebody else has started, here or on another host, and that has connected.
    Remote(TcpStream),
}

pub struct Member {
    process: Process,
    input: Option<Box<dyn Write + Send>>,
    /// The host, in words.
    pub host: String,
    /// The address by which other workers reach it.
    pub address: String,
    /// Nothing before its first sign of life: until then it may still be starting.
    pub last_heard: Option<Instant>,
}

impl Member {
    /// Starts a worker program as a child. What it says comes out of `said` with `rank`.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn start(
        program: &Utf8Path,
        address: &str,
        rank: usize,
        log: Option<Utf8PathBuf>,
        said: &Sender<(usize, Said)>,
    ) -> Result<Self, RunError> {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = |how: String| RunError::Worker { how };
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("before it began: {error}")))?;
        let (Some(input), Some(output), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("before it began: its pipes are missing".to_string()));
        };
        listen(output, rank, said.clone());
        Ok(Self {
            process: Process::Child {
                child: Box::new(child),
                errors: Some(keep_errors(stderr, log)),
            },
            input: Some(Box::new(input)),
            host: address.to_owned(),
            address: address.to_owned(),
            last_heard: None,
        })
    }

    /// Takes over a worker that has connected and said who it is.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn connected(
        stream: TcpStream,
        read: BufReader<TcpStream>,
        host: String,
        address: String,
        rank: usize,
        said: &Sender<(usize, Said)>,
    ) -> io::Result<Self> {
        let input = stream.try_clone()?;
        listen(read, rank, said.clone());
        Ok(Self {
            process: Process::Remote(stream),
            input: Some(Box::new(input)),
            host,
            address,
            last_heard: None,
        })
    }

    /// The engine's address as this worker sees it, if it is on another host.
    pub fn engine_from_afar(&self) -> Option<IpAddr> {
        let Process::Remote(stream) = &self.process else {
            return None;
        };
        let (engine, own) = (stream.local_addr().ok()?.ip(), stream.peer_addr().ok()?.ip());
        (engine != own && !engine.is_loopback()).then_some(engine)
    }

    /// Sends an order; `false` if the worker does not take it.
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

    /// How a worker that has closed its output went, in words.
    pub fn how_it_ended(&mut self) -> String {
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

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.input.take());
        match &mut self.process {
            // Closing its input ends a worker; one that computes a step does not look, and has nothing left to save.
            Process::Child { child, .. } => {
                drop(child.kill());
                drop(child.wait());
            }
            Process::Remote(stream) => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

fn listen(output: impl Read + Send + 'static, rank: usize, said: Sender<(usize, Said)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let event = line
                .map_err(|error| error.to_string())
                .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error} in `{line}`")));
            let event = match event {
                Ok(event) => Said::Event(Box::new(event)),
                Err(cause) => Said::Garbled(cause),
            };
            if said.send((rank, event)).is_err() {
                return;
            }
        }
        let _ = said.send((rank, Said::End));
    });
}

/// Writes what a program says on its standard error to its log, and keeps the last lines.
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
