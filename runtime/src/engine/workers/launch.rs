//! Starting workers, and waiting for those that Slurm or torchrun start.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use super::handle::{MessageSender, WorkerHandle};
use super::listener::{Admission, Arrival, WorkerListener};
use super::program::WorkerProgram;
use super::srun::Srun;
use crate::engine::{RunError, Stop};
use crate::job::WorkerDevice;
use crate::launch::device_names;
use crate::libtorch::LibtorchError;
use crate::numerics::MachineDescription;

/// Who starts the workers, and where.
#[derive(Clone, Debug)]
pub enum LaunchMethod {
    /// This process, on this machine.
    Local,
    /// `srun`, in the allocation that this process runs in; these are its arguments up to the worker's.
    Srun(Vec<String>),
    /// torchrun, which started this process as rank 0 and one process for each other rank. These connect to the listener,
    /// which is open from the start because preparing the data may take long. They connect once: a lost worker is not
    /// replaced.
    Torchrun {
        host: String,
        listener: Arc<WorkerListener>,
    },
}

/// How workers are started and watched.
#[derive(Clone, Debug)]
pub struct WorkerLaunch {
    pub method: LaunchMethod,
    /// Without a libtorch only a run that needs a worker fails.
    pub program: Result<WorkerProgram, LibtorchError>,
    pub device: WorkerDevice,
    /// Folder for each worker's log.
    pub logs: Option<Utf8PathBuf>,
    /// A worker without a heartbeat for this long is lost.
    pub heartbeat_timeout: Duration,
    /// How long all workers may take to start.
    pub start: Duration,
    /// How long a worker waits for another one in a transfer before it reports it as lost.
    pub transfer_timeout: Duration,
}

impl WorkerLaunch {
    /// Describes the workers that this process would start on this machine; `None` without a libtorch.
    pub fn machine(&self) -> Option<MachineDescription> {
        let program = self.program.as_ref().ok()?;
        Some(MachineDescription::here(&program.libtorch, device_names(self.device)))
    }

    fn log(&self, rank: usize) -> Option<Utf8PathBuf> {
        self.logs.as_ref().map(|logs| logs.join(format!("rank-{rank}.log")))
    }

    /// Starts the workers of all ranks; also returns `srun` if it started them.
    pub(super) fn start(
        &self,
        program: &WorkerProgram,
        world: usize,
        messages: &MessageSender,
        stop: &Stop,
    ) -> Result<(Vec<WorkerHandle>, Option<Srun>), RunError> {
        let local = |host: &str, rank| WorkerHandle::start(program, host, rank, self.log(rank), messages);
        match &self.method {
            LaunchMethod::Local => {
                let workers = (0..world).map(|rank| local("127.0.0.1", rank));
                Ok((workers.collect::<Result<_, _>>()?, None))
            }
            LaunchMethod::Srun(arguments) => {
                let secret = Admission::random().map_err(|error| RunError::Launch {
                    text: format!("no secret for the workers can be drawn: {error}"),
                    help: "`/dev/urandom` must be readable".to_owned(),
                })?;
                let listener = WorkerListener::open(0, secret)?;
                let mut srun = Srun::start(arguments, program, self.logs.as_deref(), &listener)?;
                let workers = self.arrivals(&listener, 0..world, messages, stop, Some(&mut srun))?;
                Ok((workers, Some(srun)))
            }
            LaunchMethod::Torchrun { host, listener } => {
                let mut workers = vec![local(host, 0)?];
                workers.extend(self.arrivals(listener, 1..world, messages, stop, None)?);
                Ok((workers, None))
            }
        }
    }

    /// Accepts the workers of these ranks.
    fn arrivals(
        &self,
        listener: &WorkerListener,
        ranks: Range<usize>,
        messages: &MessageSender,
        stop: &Stop,
        mut srun: Option<&mut Srun>,
    ) -> Result<Vec<WorkerHandle>, RunError> {
        let until = Instant::now() + self.start;
        let mut workers: BTreeMap<usize, WorkerHandle> = BTreeMap::new();
        let failed = |text: String| RunError::Launch {
            text,
            help: "see the workers' logs in the folder of the run".to_owned(),
        };
        while workers.len() < ranks.len() {
            if stop.is_at_once() {
                return Err(RunError::Killed);
            }
            if let Some(status) = srun.as_mut().and_then(|srun| srun.exit_status()) {
                let status = status.trim_end();
                let text = format!("`srun` ended before all workers connected, with {status}");
                return Err(RunError::NotStarted { text });
            }
            if Instant::now() > until {
                let missing: Vec<String> = ranks
                    .clone()
                    .filter(|rank| !workers.contains_key(rank))
                    .map(|rank| rank.to_string())
                    .collect();
                let (missing, seconds) = (missing.join(", "), self.start.as_secs());
                let text = format!("rank {missing} did not connect within {seconds} s");
                return Err(RunError::NotStarted { text });
            }
            let Some(arrival) = listener.arrival(Duration::from_millis(100)) else {
                continue;
            };
            let Arrival {
                stream,
                reader,
                hello,
                address,
            } = arrival;
            let rank = hello.rank as usize;
            if hello.world as usize != ranks.end || !ranks.contains(&rank) || workers.contains_key(&rank) {
                let (world, expected) = (hello.world, ranks.end);
                return Err(failed(format!(
                    "a worker connected as rank {rank} of {world}, but the run has {expected} workers"
                )));
            }
            let address = address.ip().to_string();
            let host = format!("{} ({address})", hello.host);
            let worker = WorkerHandle::connected(stream, reader, host, address, rank, messages)
                .map_err(|error| failed(error.to_string()))?;
            workers.insert(rank, worker);
        }
        Ok(workers.into_values().collect())
    }
}
