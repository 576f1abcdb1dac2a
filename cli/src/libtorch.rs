//! The libtorch of this machine, and the worker program that loads it.

use aurora_compiler::lock::Lock;
use aurora_runtime::engine::workers::WorkerProgram;
use aurora_runtime::libtorch::{BUILT_FOR, Devices, LibtorchError, Place, Search, Version};
use camino::Utf8Path;

use crate::failure::Failure;
use crate::project::own_program;

/// Looks for a libtorch. `pinned` is the version that a lock pins.
pub fn search(pinned: Option<&str>) -> Result<Search, Failure> {
    let own = own_program()?;
    let place = Place {
        variable: &|name| std::env::var(name).ok(),
        programs: own.parent().unwrap_or(Utf8Path::new(".")),
        cache: &aurora_runtime::cache_folder(),
    };
    Ok(Search::new(place, pinned))
}

/// The program that workers run with the libtorch that a search chose.
pub fn chosen_program(search: &Search) -> Result<WorkerProgram, LibtorchError> {
    let (libtorch, worker) = search.choice()?;
    Ok(WorkerProgram {
        path: worker.path.clone(),
        libraries: libtorch.folder.clone(),
        devices: libtorch.devices.unwrap_or(Devices::Cpu),
        libtorch: libtorch.version.as_ref().map_or(BUILT_FOR, Version::release).to_owned(),
    })
}

/// The program that workers run, and its libtorch. That there is none is an error of the commands that need a worker.
///
/// # Errors
/// `AURORA_LIBTORCH` names a libtorch that does not fit.
pub fn worker_program(pinned: Option<&str>) -> Result<Result<WorkerProgram, LibtorchError>, Failure> {
    match chosen_program(&search(pinned)?) {
        Ok(program) => Ok(Ok(program)),
        Err(error @ LibtorchError::Explicit { .. }) => Err(Failure::from_error(&error).help(error.help())),
        Err(error) => Ok(Err(error)),
    }
}

/// The version of libtorch that a lock pins, or without a lock the one that this version of Aurora is built for.
pub fn pinned(lock: Option<&Lock>) -> &str {
    lock.map_or(BUILT_FOR, |lock| &lock.libtorch)
}

/// The version of libtorch for the lock of a spec: that of its old lock, or the one that a run would use.
pub fn version_to_lock(old: Option<&Lock>) -> String {
    match (old, worker_program(None)) {
        (None, Ok(Ok(program))) => program.libtorch,
        _ => pinned(old).to_owned(),
    }
}
