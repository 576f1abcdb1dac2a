//! The process as the worker needs it, before libtorch is used.
//!
//! libtorch's libraries read some settings once, when they are loaded; by the time `main` runs that has happened. So the
//! worker looks whether its environment is the right one, and if not starts itself anew with it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::Command;

/// What must stand in the environment: kernels run on one thread each, whoever starts the worker.
const SETTINGS: [(&str, &str); 5] = [
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_DYNAMIC", "FALSE"),
    ("OMP_DYNAMIC", "FALSE"),
];

/// Settings that change which kernels run, or how, begin so: none of a user's shell may reach the kernels.
const FOREIGN: [&str; 9] = [
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

/// Set in the restarted process, so that a setting that does not hold cannot restart it for ever.
const RESTARTED: &str = "AURORA_WORKER_RESTARTED";

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("cannot start the worker anew with the environment that its kernels need")]
    Restart(#[source] io::Error),
    #[error("`{name}` is not `{value}` although the worker was started with it")]
    Lost { name: &'static str, value: &'static str },
}

/// Starts this program anew if a setting is not as it must be; then this call does not return.
///
/// # Errors
/// [`EnvironmentError`].
pub fn settle() -> Result<(), EnvironmentError> {
    let right = |(name, value): &&(&str, &str)| env::var_os(name).is_some_and(|found| found == *value);
    let wrong = SETTINGS.iter().find(|setting| !right(setting));
    let own = |name: &str| SETTINGS.iter().any(|(own, _)| *own == name);
    let foreign: Vec<OsString> = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| {
            name.to_str()
                .is_some_and(|name| !own(name) && FOREIGN.iter().any(|start| name.starts_with(start)))
        })
        .collect();
    if wrong.is_none() && foreign.is_empty() {
        return Ok(());
    }
    if let Some((name, value)) = wrong
        && env::var_os(RESTARTED).is_some()
    {
        return Err(EnvironmentError::Lost { name, value });
    }
    let mut command = Command::new(env::current_exe().map_err(EnvironmentError::Restart)?);
    for name in foreign {
        command.env_remove(name);
    }
    command.args(env::args_os().skip(1)).envs(SETTINGS).env(RESTARTED, "1");
    restart(command)
}

#[cfg(unix)]
fn restart(mut command: Command) -> Result<(), EnvironmentError> {
    use std::os::unix::process::CommandExt;
    Err(EnvironmentError::Restart(command.exec()))
}

#[cfg(not(unix))]
fn restart(mut command: Command) -> Result<(), EnvironmentError> {
    let status = command.status().map_err(EnvironmentError::Restart)?;
    std::process::exit(status.code().unwrap_or(1))
}

/// Leaves signals of the terminal and of a scheduler to the engine, which answers them with an order.
pub fn detach_signals() {
    #[cfg(unix)]
    // SAFETY: sets dispositions only; no handler runs.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        // A closed pipe to the engine shows as an error of the write.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// A worker that the engine has started itself dies with it.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: `prctl` with these arguments sets one number of this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}
