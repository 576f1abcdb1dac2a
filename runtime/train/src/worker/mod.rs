//! The worker process: orders on standard input, events on standard output, one order after another.
//!
//! Not here: how a segment is trained (`train`) or a set is scored (`eval`).

mod connect;
mod environment;
mod fingerprint;
mod inbox;
mod session;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use aurora_runtime::job::{Event, Order};
use aurora_runtime::trace::Operation;

pub use environment::{EnvironmentError, settle};
pub use fingerprint::fingerprint;
use inbox::Inbox;
use session::{Ended, Session};

/// Events, one JSON line each, flushed at once. Threads share it.
#[derive(Clone)]
pub struct Events {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Events {
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out: Arc::new(Mutex::new(out)),
        }
    }

    /// Sends an event. `false`: the line is closed, so the engine is gone; the end of the input, which follows, ends the
    /// worker.
    pub fn send(&self, event: &Event) -> bool {
        let mut line = serde_json::to_vec(event).expect("names and numbers are JSON");
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        out.write_all(&line).and_then(|()| out.flush()).is_ok()
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The program: returns when nothing more can come. See [`aurora_runtime::job`] for what is said, and through what:
/// standard input and output, or a connection to the engine at `HOST:PORT`. With a `fault`, for tests alone, that sum is
/// added in another order.
pub fn main(engine: Option<&str>, fault: Option<Operation>) -> ExitCode {
    if let Err(error) = environment::settle() {
        eprintln!("error: {}", chain(&error));
        return ExitCode::FAILURE;
    }
    environment::detach_signals();
    let line = match engine {
        None => {
            environment::die_with_parent();
            let input: Box<dyn io::BufRead + Send> = Box::new(io::BufReader::new(io::stdin()));
            Ok((input, Box::new(io::stdout()) as _))
        }
        Some(engine) => connect::call(engine),
    };
    let (input, output) = match line {
        Ok(line) => line,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let events = Events::new(output);
    // From its first moment on: a worker that is lost while others start is missed like any other.
    if let Err(error) = connect::stay_alive(&events) {
        eprintln!("error: cannot start the thread that says that this worker lives: {error}");
        return ExitCode::FAILURE;
    }
    tch::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    let fingerprint = match fingerprint() {
        Ok(fingerprint) => fingerprint,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let inbox = match Inbox::open(&events, input) {
        Ok(inbox) => inbox,
        Err(error) => {
            eprintln!("error: cannot start the thread that reads orders: {error}");
            return ExitCode::FAILURE;
        }
    };
    events.send(&Event::Ready { fingerprint });
    let mut session = match Session::new(events.clone(), fault) {
        Ok(session) => session,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    while let Some(order) = inbox.next() {
        let ended = match order {
            Order::Join(join) => session.join(&join),
            Order::Train(job) => session.train(&job, inbox.stop()),
            Order::Trace(trace) => session.trace(&trace, inbox.stop()),
            Order::Eval(job) => session.evaluate(&job, inbox.stop()),
            Order::Stop => session.stop(),
        };
        // After a stop nothing that was queued before it runs.
        if session.stops(inbox.stopping()) {
            session.settle();
            inbox.skip_to_stop();
            events.send(&match ended {
                Ended::Stopped { node, step } => Event::Stopped { node, step },
                Ended::Done | Ended::Idle => Event::Idle,
            });
        }
    }
    ExitCode::SUCCESS
}
