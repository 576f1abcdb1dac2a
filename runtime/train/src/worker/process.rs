//! Prepares the process before libtorch is used.
//!
//! libtorch's libraries read some settings once, when they are loaded, which is before `main` runs. So the worker
//! checks its environment, and restarts itself if it has to be different.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::Command;

/// Required variables: kernels run on one thread each, whatever started the worker.
const SETTINGS: [(&str, &str); 5] = [
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_DYNAMIC", "FALSE"),
    ("OMP_DYNAMIC", "FALSE"),
];

/// Prefixes of settings that change which kernels run, or how. Such settings of a user's shell must not reach the
/// kernels.
const FORBIDDEN_PREFIXES: [&str; 9] = [
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

/// Set in the restarted process, so that a setting that does not persist cannot restart it forever.
const RESTARTED: &str = "AURORA_WORKER_RESTARTED";

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot restart the worker with the environment that its kernels need")]
    Restart(#[source] io::Error),
    #[error("`{name}` is not `{value}`, although the worker was restarted with it")]
    Lost { name: &'static str, value: &'static str },
}

/// Restarts this program if a setting is wrong; this call then does not return.
///
/// # Errors
/// [`ProcessError`].
pub fn settle() -> Result<(), ProcessError> {
    let right = |(name, value): &&(&str, &str)| env::var_os(name).is_some_and(|found| found == *value);
    let wrong = SETTINGS.iter().find(|setting| !right(setting));
    let own = |name: &str| SETTINGS.iter().any(|(own, _)| *own == name);
    let forbidden: Vec<OsString> = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| {
            name.to_str()
                .is_some_and(|name| !own(name) && FORBIDDEN_PREFIXES.iter().any(|start| name.starts_with(start)))
        })
        .collect();
    if wrong.is_none() && forbidden.is_empty() {
        return Ok(());
    }
    if let Some((name, value)) = wrong
        && env::var_os(RESTARTED).is_some()
    {
        return Err(ProcessError::Lost { name, value });
    }
    let mut command = Command::new(env::current_exe().map_err(ProcessError::Restart)?);
    for name in forbidden {
        command.env_remove(name);
    }
    command.args(env::args_os().skip(1)).envs(SETTINGS).env(RESTARTED, "1");
    restart(command)
}

fn restart(mut command: Command) -> Result<(), ProcessError> {
    use std::os::unix::process::CommandExt;
    Err(ProcessError::Restart(command.exec()))
}

/// Leaves signals of the terminal and of a scheduler to the engine, which reacts with a command.
pub fn detach_signals() {
    // SAFETY: this sets dispositions only; no handler runs.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        // A closed pipe to the engine is reported by the write.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        // A limit on the size of files is reported by the write, too.
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Makes a worker that the engine started end with it.
pub fn die_with_parent() {
    // SAFETY: `prctl` with these arguments sets one number of this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}
