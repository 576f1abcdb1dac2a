//! Incoming commands: a thread reads them, so that a stop is noticed while a step runs.

use std::cell::Cell;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use aurora_runtime::job::{Event, JobFailure, WorkerCommand};

use super::EventSink;

/// Ends the process at once, without destructors: other threads may be inside libtorch. Every event has been flushed,
/// and a partial file is in a folder that nothing publishes.
pub fn end(status: i32) -> ! {
    // SAFETY: ends the process without running anything.
    unsafe { libc::_exit(status) }
}

pub struct Inbox {
    commands: Receiver<WorkerCommand>,
    stop: Arc<AtomicBool>,
    /// The stop that set the flag has been taken from the queue.
    taken: Cell<bool>,
}

impl Inbox {
    /// Starts reading. The process ends when the input ends, and at a second stop before the first is answered.
    ///
    /// # Errors
    /// The system's, if it cannot start a thread.
    pub fn open(events: &EventSink, input: Box<dyn BufRead + Send>) -> io::Result<Self> {
        let (sender, commands) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, events) = (Arc::clone(&stop), events.clone());
        let read = move || {
            for line in input.lines() {
                let Ok(line) = line else { break };
                match serde_json::from_str::<WorkerCommand>(&line) {
                    Ok(command) => {
                        if matches!(command, WorkerCommand::Stop) && flag.swap(true, Ordering::SeqCst) {
                            end(1);
                        }
                        if sender.send(command).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let cause = format!("malformed command: {error}");
                        events.send(&Event::Failed(JobFailure {
                            node: String::new(),
                            cause,
                            os_error: None,
                            peer: None,
                        }));
                    }
                }
            }
            // The engine is lost, and nothing else publishes the results of this worker.
            end(0);
        };
        thread::Builder::new().name("commands".to_owned()).spawn(read)?;
        Ok(Self {
            commands,
            stop,
            taken: Cell::new(false),
        })
    }

    /// The next command; nothing after the end of the input.
    pub fn next(&self) -> Option<WorkerCommand> {
        let command = self.commands.recv().ok();
        self.taken.set(matches!(command, Some(WorkerCommand::Stop)));
        command
    }

    /// Set by a stop.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Drops queued commands up to and including the stop, and clears the flag.
    pub fn skip_to_stop(&self) {
        if !self.taken.get() {
            while let Ok(command) = self.commands.recv() {
                if matches!(command, WorkerCommand::Stop) {
                    break;
                }
            }
        }
        self.stop.store(false, Ordering::SeqCst);
    }
}
