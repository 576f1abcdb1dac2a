//! Runs a graph: store, sources, data, evals and the engine.
//!
//! In: a planned graph. Out: artifacts in the store, a lock, a run record. Not here: tensors (`aurora-train`, the worker
//! process), printing (`cli`).
//!
//! | Module | What it has |
//! |---|---|
//! | `engine` | runs a graph: data nodes in this process, train and eval nodes on workers (`engine::workers`) |
//! | `job` | the messages between engine and workers: `WorkerCommand`, `Event` |
//! | `store`, `results` | the result store; results as engine and report read them |
//! | `source`, `pin`, `remote_specs` | fetches and pins sources and imported specs |
//! | `data` | documents, filters, tokenizers, tokens, data order |
//! | `weights`, `checkpoint` | weights in and out, checkpoint files |
//! | `task`, `judge`, `statistics` | items and scores of evals, judges, intervals and gates |
//! | `report`, `record` | the report; run records, metrics, MLflow |
//! | `launch` | Slurm, torchrun and local launchers |
//! | `limits` | what may be read from outside: bytes, nodes, depth |
//! | `http`, `redact` | transfers over HTTP; texts without secrets |
//! | `libtorch` | finds the libtorch that workers load |
//! | `numerics` | what the bits of results depend on: numerics classes of machines |
//! | `trace`, `bisect`, `compare` | finds where two executions differ |

pub mod bisect;
pub mod checkpoint;
pub mod compare;
pub mod data;
pub mod data_counts;
pub mod engine;
pub mod errors;
mod guard;
pub mod http;
pub mod job;
pub mod judge;
pub mod launch;
pub mod libtorch;
pub mod limits;
pub mod lookup;
pub mod numerics;
pub mod pin;
pub mod process;
pub mod progress;
pub mod record;
pub mod redact;
pub mod regular;
pub mod remote_specs;
pub mod report;
pub mod results;
pub mod source;
pub mod statistics;
pub mod store;
pub(crate) mod strict_json;
pub mod task;
pub mod trace;
pub mod trust;
pub mod weights;

#[cfg(test)]
#[path = "../../tests/missing_tools.rs"]
mod missing_tools;

use camino::{Utf8Path, Utf8PathBuf};

/// How the names of files that are being written begin.
const PARTIAL: &str = ".aurora-";

/// Replaces a file in one step: a reader sees either all old or all new bytes.
///
/// # Errors
/// The bytes cannot be written to a temporary file, or it cannot be renamed; then the old file still exists.
pub fn write_atomically(path: &Utf8Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0o644, |status| status.permissions().mode() & 0o777);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL)
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Makes a folder and those above it, but not `root`: a project that was moved or deleted meanwhile is not made again.
///
/// # Errors
/// A folder cannot be made; `root` does not exist.
pub fn make_below(root: &Utf8Path, folder: &Utf8Path) -> std::io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    match folder.parent() {
        Some(above) if folder.starts_with(root) => make_below(root, above)?,
        _ => {}
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// BLAKE3 of bytes, as hexadecimal digits.
pub fn content_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The user's home: `HOME`, else that of the system's list of users. Never a relative path, which could lead into a project.
fn home() -> Option<Utf8PathBuf> {
    let home = std::env::home_dir().and_then(|home| Utf8PathBuf::try_from(home).ok());
    home.filter(|home| home.is_absolute())
}

/// The folder for the user's own settings: `aurora` in `XDG_CONFIG_HOME`, else in `~/.config`. A relative path is ignored: it
/// could lead into a project. `None` without any.
pub fn config_folder() -> Option<Utf8PathBuf> {
    let set = |name: &str| {
        std::env::var(name)
            .ok()
            .map(Utf8PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = set("XDG_CONFIG_HOME").or_else(|| home().map(|home| home.join(".config")));
    base.map(|base| base.join("aurora"))
}

/// The folder for files that can be fetched again: `AURORA_CACHE_DIR`, else `aurora` in the user's cache folder.
pub fn cache_folder() -> Utf8PathBuf {
    let set = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.is_empty())
            .map(Utf8PathBuf::from)
    };
    set("AURORA_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("aurora")))
        .or_else(|| home().map(|home| home.join(".cache/aurora")))
        .unwrap_or_else(|| Utf8PathBuf::from(".aurora-cache"))
}
