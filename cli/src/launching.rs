//! Who starts a run's workers: this process, `srun`, or torchrun.

use std::sync::Arc;
use std::time::Duration;

use aurora_compiler::spec::Spec;
use aurora_runtime::engine::crew::{Launch, Launching, Meeting};
use aurora_runtime::job::Placement;
use aurora_runtime::launch::{Identity, Launcher as Found, Machine, identity, srun_arguments};
use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::{Launcher, RunArguments};
use crate::failure::Failure;
use crate::placement::{Asked, count, nodes, on_devices, tasks};

/// How long workers may take to start, and one may keep another waiting inside of a transfer.
pub const START: Duration = Duration::from_secs(120);
pub const TRANSFER: Duration = Duration::from_secs(1800);

/// How the workers are started.
pub fn launching(
    spec: &Spec,
    how: &RunArguments,
    placement: &Placement,
    door: Option<&Door>,
    logs: Option<Utf8PathBuf>,
) -> Result<Launching, Failure> {
    if on_devices(spec, how.layout.unwrap_or_default()) {
        let missing = crate::commands::doctor::rccl().join("; ");
        let text = format!("the layout is for MI250X, and this version trains on CPUs (found here: {missing})");
        return Err(Failure::fault(text).help("choose a profile with a layout for CPUs, or `--layout machine=cpu,…`"));
    }
    let launch = match how.launcher {
        Launcher::Local => Launch::Local,
        Launcher::Srun => {
            let machine = Machine::Plain {
                cpus_per_task: count(placement.threads),
            };
            Launch::Srun(srun_arguments(
                &tasks(machine, placement, nodes(spec, Asked::by(how)))?,
                &[],
            ))
        }
        Launcher::Torchrun => {
            let Door { me, meeting } = door.ok_or_else(|| Failure::fault("no worker could come"))?;
            if me.world != placement.world() as usize {
                let (started, asked) = (me.world, placement.world());
                return Err(Failure::fault(format!(
                    "torchrun has started {started} processes, and the layout has {asked} workers"
                ))
                .help("let `--nproc-per-node` × `--nnodes` be the product of the degrees"));
            }
            Launch::Torchrun {
                host: me.rendezvous.hosts.first().cloned().unwrap_or_default(),
                meeting: Arc::clone(meeting),
            }
        }
    };
    Ok(Launching {
        launch,
        program: worker_program()?,
        logs,
        silence: Duration::from_secs_f64(how.silence),
        start: START,
        transfer: TRANSFER,
    })
}

/// The worker program stands beside this one.
pub fn worker_program() -> Result<Utf8PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let own = Utf8PathBuf::try_from(own).map_err(|error| Failure::fault(error.to_string()))?;
    Ok(own.with_file_name("aurora-worker"))
}

/// Where the workers come that torchrun has started, open from the command's first moment on.
pub struct Door {
    me: Identity,
    meeting: Arc<Meeting>,
}

impl Door {
    /// Lets those workers go that had nothing to do: the engine may be done before they have come.
    pub fn dismiss(&self) {
        self.meeting.dismiss(self.me.world - 1, START);
    }
}

/// Under torchrun, opens the door in the first process; every other becomes a worker of the first, and then this does not
/// return.
pub fn door(how: &RunArguments) -> Result<Option<Door>, Failure> {
    if how.launcher != Launcher::Torchrun {
        return Ok(None);
    }
    if how.restarts > 0 {
        return Err(
            Failure::fault("workers that torchrun has started cannot be started anew by `--restarts`")
                .help("give `--max-restarts` to torchrun: a new start goes on from the last checkpoint"),
        );
    }
    let found = identity(&|name| std::env::var(name).ok());
    let me = found.map_err(|error| Failure::fault(error.to_string()).help(error.help()))?;
    let Some(me) = me.filter(|me| me.launcher == Found::Torchrun) else {
        return Err(Failure::fault("torchrun's variables are not set")
            .help("start it as `torchrun --no-python … aurora run … --launcher torchrun`"));
    };
    // torchrun's own store has the port itself.
    let port = me.rendezvous.port.checked_add(1).unwrap_or(me.rendezvous.port - 1);
    if me.rank > 0 {
        return Err(become_worker(&worker_program()?, port));
    }
    let meeting = Arc::new(Meeting::open(port, me.run.clone())?);
    Ok(Some(Door { me, meeting }))
}

/// Returns only if that fails.
fn become_worker(program: &Utf8Path, port: u16) -> Failure {
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new(program)
        .arg(format!("--join=:{port}"))
        .exec();
    Failure::fault(format!("cannot start `{program}`: {error}"))
}
