//! Finds the libtorch that workers load, and the worker program that is built for it.
//!
//! In: the environment, the folder of `aurora`, the user's cache, the version that a lock pins. Out: every place where a
//! libtorch was looked for, with its version and whether it fits, and the choice. Nothing is loaded or executed here: the
//! versions are read from files. Not here: starting workers (`engine::workers`).

mod search;
#[cfg(test)]
mod tests;
mod version;

pub use search::{Candidate, Devices, LibtorchError, Origin, Place, Search, VARIABLE, Worker};
pub use version::Version;

/// The version that `aurora-worker` is built for: that of the tch in `Cargo.lock`, and the one that `fetch.py` fetches.
///
/// A worker for another version is built from a copy of the workspace and has the version in its name.
pub const BUILT_FOR: &str = "2.13.0";
