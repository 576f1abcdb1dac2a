//! The program that workers run, and the libraries that it loads.

use camino::Utf8PathBuf;

use crate::libtorch::Devices;

/// The variable with the folders in which the system's loader looks for libraries.
pub const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// The program that workers run, and its libtorch.
#[derive(Clone, Debug)]
pub struct WorkerProgram {
    pub path: Utf8PathBuf,
    /// The folder of its libtorch's libraries.
    pub libraries: Utf8PathBuf,
    /// The release of its libtorch, such as `2.13.0`.
    pub libtorch: String,
    /// The devices that its libtorch can compute on.
    pub devices: Devices,
}

impl WorkerProgram {
    /// The worker's `LD_LIBRARY_PATH`: libtorch's folder, then those of this process.
    pub fn library_path(&self) -> String {
        let more = std::env::var(LIBRARY_PATH).ok().filter(|more| !more.is_empty());
        let folders = std::iter::once(self.libraries.to_string()).chain(more);
        folders.collect::<Vec<_>>().join(":")
    }
}
