//! The worker process: reads commands, sends events, and executes one command after the other.
//!
//! Not here: how a segment is trained (`train`) or a set is scored (`eval`).

mod arguments;
mod connect;
mod device;
mod device_libraries;
mod fingerprint;
mod inbox;
mod process;
mod session;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use aurora_compiler::text::printable;
use aurora_runtime::errors::chain;
use aurora_runtime::job::{Event, WorkerCommand};
use c10d_sys::LibtorchRelease;

pub use arguments::Arguments;
pub use fingerprint::fingerprint;
pub use process::{ProcessError, settle};

use crate::gpu::{self, Gpu};
use crate::model::{ModelError, self_test};
use crate::train::TrainError;
use connect::ConnectError;
pub use device::{DeviceError, first_device};
use device_libraries::DeviceLibraries;
use inbox::Inbox;
use session::{CommandEnd, Session};

/// Sends events: one JSON line each, flushed at once. Threads share it.
#[derive(Clone)]
pub struct EventSink {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl EventSink {
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out: Arc::new(Mutex::new(out)),
        }
    }

    /// Sends an event. Returns `false` if the connection is closed, so the engine is lost; the end of the input, which
    /// follows, ends the worker.
    pub fn send(&self, event: &Event) -> bool {
        let mut line = serde_json::to_vec(event).expect("names and numbers are JSON");
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        out.write_all(&line).and_then(|()| out.flush()).is_ok()
    }
}

/// The program: returns when no more commands can come. [`aurora_runtime::job`] describes the messages, which go
/// through standard input and output, or through a connection to the engine.
pub fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(
        "this worker is built for libtorch {built_for}, and libtorch {loaded} is loaded: start it through `aurora`, which \
         finds one that fits"
    )]
    Libtorch {
        built_for: LibtorchRelease,
        loaded: LibtorchRelease,
    },
    #[error("cannot connect to the engine")]
    Connect(#[from] ConnectError),
    #[error("cannot start the thread that {task}")]
    Thread {
        task: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the engine's first command, and no other, must be `start`")]
    NotStarted,
    #[error("cannot write the results")]
    Output(#[source] io::Error),
    #[error("these kernels of the device do not agree with their references: {0}")]
    WrongKernels(String),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Compares a device's kernels with their references, and prints a JSON line for each: `name`, `error`, `bound`, `repeats`.
fn test_device(index: u32, libraries: &DeviceLibraries) -> Result<(), StartError> {
    let device = device::to_test(index, libraries)?;
    let fingerprint = fingerprint(device)?;
    let checks = self_test(device.tensors())?;
    let mut out = io::stdout().lock();
    let mut print = |line: serde_json::Value| writeln!(out, "{line}");
    let printed = print(serde_json::json!({ "device": fingerprint.machine.device, "memory": gpu::current().map(Gpu::memory), "probe": fingerprint.probe }))
        .and_then(|()| checks.iter().try_for_each(|check| print(serde_json::json!(check))));
    printed.map_err(StartError::Output)?;
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| !check.passes())
        .map(|check| check.name.as_str())
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(StartError::WrongKernels(failed.join("; ")))
    }
}

fn run(arguments: &Arguments) -> Result<(), StartError> {
    process::settle()?;
    // Before any other thread is started.
    device::fix_environment();
    // Before every other call of libtorch.
    let devices = device_libraries::load();
    if let DeviceLibraries::Failed { .. } = &devices {
        eprintln!("warning: this worker computes on CPUs only: {devices}");
    }
    let (built_for, loaded) = (LibtorchRelease::built_for(), LibtorchRelease::loaded());
    if !loaded.is_compatible(built_for) {
        return Err(StartError::Libtorch { built_for, loaded });
    }
    if let Some(index) = arguments.test_device {
        return test_device(index, &devices);
    }
    process::detach_signals();
    let (input, output): connect::Line = match &arguments.engine {
        None => {
            process::die_with_parent();
            (Box::new(io::BufReader::new(io::stdin())), Box::new(io::stdout()))
        }
        Some(engine) => connect::call(engine)?,
    };
    let events = EventSink::new(output);
    let thread = |task: &'static str| move |source: io::Error| StartError::Thread { task, source };
    // First of all: a worker that is lost while others start must be noticed too.
    connect::send_heartbeats(&events).map_err(thread("sends heartbeats"))?;
    tch::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    let inbox = Inbox::open(&events, input).map_err(thread("reads commands"))?;
    let Some(WorkerCommand::Start(start)) = inbox.next() else {
        return Err(StartError::NotStarted);
    };
    let device = device::choose(start, &devices)?;
    let fingerprint = fingerprint(device)?;
    device.refuse_host_access();
    events.send(&Event::Ready { fingerprint });
    let mut session = Session::new(events.clone(), arguments.fault, device)?;
    while let Some(command) = inbox.next() {
        let end = match command {
            WorkerCommand::Start(_) => return Err(StartError::NotStarted),
            WorkerCommand::Join(join) => session.join(&join),
            WorkerCommand::Train(job) => session.train(&job, inbox.stop()),
            WorkerCommand::Trace(trace) => session.trace(&trace, inbox.stop()),
            WorkerCommand::Eval(job) => session.evaluate(&job, inbox.stop()),
            WorkerCommand::Stop => session.stop(),
        };
        // After a stop, commands that were queued before it are dropped.
        if session.stops(inbox.stopping()) {
            session.flush();
            inbox.skip_to_stop();
            events.send(&match end {
                CommandEnd::Stopped { node, step } => Event::Stopped { node, step },
                CommandEnd::Done | CommandEnd::Idle => Event::Idle,
            });
        }
    }
    Ok(())
}
