//! How a run's workers are started: by this process, `srun`, or torchrun.

use std::sync::Arc;
use std::time::Duration;

use aurora_compiler::spec::Spec;
use aurora_runtime::engine::RunError;
use aurora_runtime::engine::workers::{
    Admission, LIBRARY_PATH, LaunchMethod, WorkerLaunch, WorkerListener, WorkerProgram,
};
use aurora_runtime::job::{Layout, TOKEN, WorkerDevice};
use aurora_runtime::launch::{Identity, Launcher, Machine, identity, srun_arguments};
use aurora_runtime::libtorch::LibtorchError;
use camino::Utf8PathBuf;

use crate::arguments::{LauncherArgument, RunArguments};
use crate::devices::{refuse_portable, worker_device};
use crate::failure::Failure;
use crate::layout::{LayoutRequest, count, devices, nodes, shares_devices, tasks};
use crate::libtorch::worker_program;

/// How long the engine waits for each step of the start: all workers connect to it, which includes the time in which
/// Slurm starts them; then they connect to each other. `START_TIMEOUT` in `runtime/train/src/worker/connect.rs` is the
/// shorter time that a worker waits, once it runs.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a worker may keep another one waiting in a transfer before it counts as lost.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1800);

/// How the workers of a layout are started.
pub fn worker_launch(
    spec: &Spec,
    options: &RunArguments,
    layout: &Layout,
    program: Result<WorkerProgram, LibtorchError>,
    torchrun: Option<&TorchrunListener>,
    logs: Option<Utf8PathBuf>,
) -> Result<WorkerLaunch, Failure> {
    let device = match devices(spec, options.layout.unwrap_or_default()) {
        Some(kind) => {
            refuse_portable(spec, kind)?;
            worker_device(kind, shares_devices(spec), layout, options.launcher, &program)?
        }
        None => WorkerDevice::Cpu,
    };
    let method = match options.launcher {
        LauncherArgument::Local => LaunchMethod::Local,
        LauncherArgument::Srun => {
            let cluster = std::env::var("SLURM_CLUSTER_NAME").unwrap_or_default();
            let machine = match cluster.as_str() {
                "lumi" if device != WorkerDevice::Cpu => Machine::Lumi,
                "frontier" if device != WorkerDevice::Cpu => Machine::Frontier,
                _ => Machine::Plain {
                    cpus_per_task: count(layout.threads),
                },
            };
            let nodes = nodes(spec, LayoutRequest::by(options));
            LaunchMethod::Srun(srun_arguments(&tasks(machine, layout, nodes)?, &[]))
        }
        LauncherArgument::Torchrun => {
            let TorchrunListener {
                identity,
                host,
                listener,
            } = torchrun.ok_or_else(|| Failure::error("torchrun's workers have no port to connect to"))?;
            if identity.world != layout.world() as usize {
                let (started, workers) = (identity.world, layout.world());
                return Err(Failure::error(format!(
                    "torchrun has started {started} processes, and the layout has {workers} workers"
                ))
                .help("`--nproc-per-node` × `--nnodes` must be the product of the degrees"));
            }
            LaunchMethod::Torchrun {
                host: host.clone(),
                listener: Arc::clone(listener),
            }
        }
    };
    let heartbeat_timeout = Duration::from_secs_f64(options.heartbeat_timeout);
    Ok(WorkerLaunch {
        method,
        device,
        logs,
        ..local_launch(program, heartbeat_timeout)
    })
}

/// Workers on this machine, without logs.
pub fn local_launch(program: Result<WorkerProgram, LibtorchError>, heartbeat_timeout: Duration) -> WorkerLaunch {
    WorkerLaunch {
        method: LaunchMethod::Local,
        program,
        device: WorkerDevice::Cpu,
        logs: None,
        heartbeat_timeout,
        start: START_TIMEOUT,
        transfer_timeout: TRANSFER_TIMEOUT,
    }
}

/// RCCL and its devices on this machine, line by line.
pub fn rccl_survey() -> Vec<String> {
    let survey = rccl_sys::survey(rccl_sys::Platform::Rocm, &rccl_sys::Search::default());
    survey.to_string().lines().map(str::to_owned).collect()
}

/// Listens for workers that torchrun started. It is opened first, because they start at the same time as this process.
pub struct TorchrunListener {
    identity: Identity,
    /// The address of this host for workers.
    host: String,
    listener: Arc<WorkerListener>,
}

impl TorchrunListener {
    /// Lets workers end that had nothing to do: the run may end before they have connected.
    pub fn dismiss(&self) {
        self.listener.dismiss(self.identity.world - 1, START_TIMEOUT);
    }
}

/// Under torchrun, opens the listener in the first process. Every other process becomes a worker of the first one; then
/// this function does not return. `pinned` finds the version of libtorch that the lock pins, so that every process chooses
/// the same one.
pub fn torchrun_listener(
    options: &RunArguments,
    pinned: impl FnOnce() -> Option<String>,
) -> Result<Option<TorchrunListener>, Failure> {
    if options.launcher != LauncherArgument::Torchrun {
        return Ok(None);
    }
    if options.restarts > 0 {
        return Err(
            Failure::error("`--restarts` cannot start workers again that torchrun has started")
                .help("give `--max-restarts` to torchrun: each new start resumes from the last checkpoint"),
        );
    }
    let identity = identity(&|name| std::env::var(name).ok());
    let identity = identity.map_err(|error| Failure::from_error(&error).help(error.help()))?;
    let Some(identity) = identity.filter(|identity| identity.launcher == Launcher::Torchrun) else {
        return Err(Failure::error("torchrun's variables are not set")
            .help("start it as `torchrun --no-python … aurora run … --launcher torchrun`"));
    };
    // torchrun's own store uses the port itself.
    let port = identity.rendezvous.port;
    let port = port.checked_add(1).unwrap_or(port - 1);
    let admission = admission(&identity)?;
    if identity.rank > 0 {
        let program = worker_program(pinned().as_deref())?;
        let program = program.map_err(|error| Failure::from(RunError::from(error)))?;
        return Err(become_worker(&program, &admission, port));
    }
    let host = match admission {
        Admission::Secret(_) => identity.rendezvous.hosts.first().cloned().unwrap_or_default(),
        Admission::ThisMachine => LOOPBACK.to_owned(),
    };
    let listener = Arc::new(WorkerListener::open(port, admission)?);
    Ok(Some(TorchrunListener {
        identity,
        host,
        listener,
    }))
}

/// The address of workers that need no secret, whatever `MASTER_ADDR` is: only this machine reaches it.
const LOOPBACK: &str = "127.0.0.1";

/// Characters of the shortest secret: 96 random bits in base64.
const SHORTEST_SECRET: usize = 16;

/// Which processes may become workers of torchrun's first process: those that know the secret of the environment. Without one,
/// those of this user on this machine, if torchrun has started all of them here.
fn admission(identity: &Identity) -> Result<Admission, Failure> {
    let help = format!(
        "set it to one secret on all hosts: `export {TOKEN}=$(head -c 24 /dev/urandom | base64)` gives a new one"
    );
    match std::env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
        Some(token) if token.len() < SHORTEST_SECRET => Err(Failure::error(format!(
            "`{TOKEN}` has fewer than {SHORTEST_SECRET} characters and can be guessed"
        ))
        .help(help)),
        Some(token) => Ok(Admission::Secret(token)),
        None if identity.local_world == identity.world => Ok(Admission::ThisMachine),
        None => Err(Failure::error(format!(
            "the workers are on several hosts, and `{TOKEN}` is not set: anybody who can connect could become one of them"
        ))
        .help(help)),
    }
}

/// Returns only if that fails.
fn become_worker(program: &WorkerProgram, admission: &Admission, port: u16) -> Failure {
    use std::os::unix::process::CommandExt;
    let host = match admission {
        Admission::Secret(_) => "",
        Admission::ThisMachine => LOOPBACK,
    };
    let error = std::process::Command::new(&program.path)
        .arg(format!("--join={host}:{port}"))
        .env(LIBRARY_PATH, program.library_path())
        .exec();
    Failure::error(format!("cannot start `{}`: {error}", program.path))
}
