//! Loads libtorch's part for GPUs.
//!
//! The worker uses no symbol of it, so it is not linked with it: one program runs with a libtorch for CPUs, CUDA or ROCm.
//! When the part is loaded, it registers its kernels. It must be loaded before anything asks libtorch for devices: libtorch
//! keeps the first answer until the process ends.

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::os::unix::{self, Library};

/// The library that every libtorch has.
const LIBRARY: &str = "/libtorch_cpu.so";

/// The vendors' parts.
const PARTS: [&str; 2] = ["libtorch_cuda.so", "libtorch_hip.so"];

/// What became of libtorch's part for GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLibraries {
    /// This libtorch computes on CPUs only.
    NotPresent,
    /// The part is loaded.
    Loaded(PathBuf),
    /// The part does not load, so that this process computes on CPUs only.
    Failed {
        path: PathBuf,
        /// The loader's message.
        cause: String,
    },
}

impl fmt::Display for DeviceLibraries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPresent => f.write_str("this libtorch computes on CPUs only"),
            Self::Loaded(path) => write!(f, "`{}` is loaded", path.display()),
            Self::Failed { path, cause } => write!(f, "`{}` cannot be loaded: {cause}", path.display()),
        }
    }
}

/// Loads the part for GPUs of the libtorch that this process has loaded, if it has one.
pub fn load() -> DeviceLibraries {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    folder_of_libtorch(&maps).map_or(DeviceLibraries::NotPresent, |folder| load_from(&folder))
}

/// The folder of the loaded libtorch in the text of `/proc/self/maps`.
fn folder_of_libtorch(maps: &str) -> Option<PathBuf> {
    let path = |line: &str| Some(line.get(line.find('/')?..)?.strip_suffix(LIBRARY)?.to_owned());
    maps.lines().find_map(path).map(PathBuf::from)
}

fn load_from(folder: &Path) -> DeviceLibraries {
    let Some(path) = PARTS
        .map(|part| folder.join(part))
        .into_iter()
        .find(|path| path.exists())
    else {
        return DeviceLibraries::NotPresent;
    };
    // SAFETY: the initialisers of libtorch's own library only register its kernels.
    match unsafe { Library::open(Some(&path), unix::RTLD_NOW | unix::RTLD_GLOBAL) } {
        Ok(library) => {
            // Its kernels are used until the process ends.
            std::mem::forget(library);
            DeviceLibraries::Loaded(path)
        }
        Err(error) => {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            DeviceLibraries::Failed { path, cause }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_folder() -> PathBuf {
        // A call of libtorch, so that the linker keeps it.
        assert_eq!(tch::Tensor::from(1i64).size(), [0i64; 0]);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps of this process");
        folder_of_libtorch(&maps).expect("libtorch is loaded")
    }

    #[test]
    fn the_folder_is_that_of_the_loaded_library() {
        assert!(own_folder().join("libtorch_cpu.so").is_file());
        let line = |path: &str| format!("7f0000000000-7f0000001000 r--p 00000000 00:1f 123    {path}\n");
        let maps = line("/usr/lib/libc.so.6") + &line("/a folder/lib/libtorch_cpu.so") + &line("[heap]");
        assert_eq!(folder_of_libtorch(&maps), Some(PathBuf::from("/a folder/lib")));
        assert_eq!(folder_of_libtorch(&line("/lib/libtorch_cpu.so.old")), None);
    }

    #[test]
    fn an_absent_part_is_not_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(load_from(folder.path()), DeviceLibraries::NotPresent);
    }

    #[test]
    fn a_part_is_loaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let part = folder.path().join("libtorch_hip.so");
        // This library is loaded already.
        std::os::unix::fs::symlink(own_folder().join("libc10.so"), &part).expect("a link");
        assert_eq!(load_from(folder.path()), DeviceLibraries::Loaded(part));
    }

    #[test]
    fn a_part_that_does_not_load_is_reported() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let part = folder.path().join("libtorch_cuda.so");
        std::fs::write(&part, "not a library").expect("a file");
        let loaded = load_from(folder.path());
        assert!(matches!(&loaded, DeviceLibraries::Failed { path, .. } if *path == part));
        let text = loaded.to_string();
        assert!(
            text.contains("libtorch_cuda.so` cannot be loaded: ") && text.contains("file too short"),
            "{text}"
        );
    }
}
