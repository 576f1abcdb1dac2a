//! Finds and loads a collective library and its device runtime.

use std::error::Error as _;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

use libloading::os::unix;

use crate::table::{Collectives, Runtime};

/// The vendor whose libraries are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// RCCL on the HIP runtime.
    Rocm,
    /// NCCL on the CUDA runtime.
    Cuda,
}

impl Platform {
    /// Name of the collective library.
    pub fn collective_name(self) -> &'static str {
        match self {
            Self::Rocm => "RCCL",
            Self::Cuda => "NCCL",
        }
    }

    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::Rocm => "HIP runtime",
            Self::Cuda => "CUDA runtime",
        }
    }

    /// File names, best first. PyTorch's ROCm wheels name theirs without a version.
    fn collective_files(self) -> &'static [&'static str] {
        match self {
            Self::Rocm => &["librccl.so.1", "librccl.so"],
            Self::Cuda => &["libnccl.so.2"],
        }
    }

    fn runtime_files(self) -> &'static [&'static str] {
        match self {
            Self::Rocm => &[
                "libamdhip64.so.7",
                "libamdhip64.so.6",
                "libamdhip64.so.5",
                "libamdhip64.so",
            ],
            Self::Cuda => &["libcudart.so.13", "libcudart.so.12"],
        }
    }

    pub(crate) fn runtime_prefix(self) -> &'static str {
        match self {
            Self::Rocm => "hip",
            Self::Cuda => "cuda",
        }
    }

    /// Where the vendor's packages install libraries without registering them with the dynamic loader.
    fn usual_folder(self) -> &'static str {
        match self {
            Self::Rocm => "/opt/rocm/lib",
            Self::Cuda => "/usr/local/cuda/lib64",
        }
    }
}

/// Where to search, besides libraries that this process has loaded and the dynamic loader's paths.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The collective library's file; no other is tried then.
    pub collective: Option<PathBuf>,
    /// The runtime's file; no other is tried then.
    pub runtime: Option<PathBuf>,
    /// Folders with libraries, such as libtorch's; searched before the vendor's usual one.
    pub folders: Vec<PathBuf>,
}

/// Why a library is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{library} was not found; tried {}", tried.join(", "))]
    NotFound { library: &'static str, tried: Vec<String> },
    /// The file exists but does not load.
    #[error("{library} cannot be loaded: {cause}")]
    Broken { library: &'static str, cause: String },
}

/// Loads the collective library and returns its path.
pub(crate) fn open_collectives(platform: Platform, search: &Search) -> Result<(Collectives, String), OpenError> {
    let (name, files) = (platform.collective_name(), platform.collective_files());
    let library = load(platform, name, search.collective.as_deref(), files, &search.folders)?;
    // SAFETY: the names are NCCL's own, whose types the table has; the library is never unloaded.
    let table = unsafe { Collectives::load(&library, "nccl") };
    std::mem::forget(library);
    let path = table.GetVersion.map(|call| path_of(call as *const ()));
    Ok((table, path.unwrap_or_default()))
}

/// Loads the device runtime and returns its path.
pub(crate) fn open_runtime(platform: Platform, search: &Search) -> Result<(Runtime, String), OpenError> {
    let (name, files) = (platform.runtime_name(), platform.runtime_files());
    let library = load(platform, name, search.runtime.as_deref(), files, &search.folders)?;
    // SAFETY: the names with this prefix are the runtime's own, whose types the table has; it is never unloaded.
    let table = unsafe { Runtime::load(&library, platform.runtime_prefix()) };
    std::mem::forget(library);
    let path = table.GetDeviceCount.map(|call| path_of(call as *const ()));
    Ok((table, path.unwrap_or_default()))
}

fn load(
    platform: Platform,
    library: &'static str,
    file: Option<&Path>,
    files: &[&str],
    folders: &[PathBuf],
) -> Result<libloading::Library, OpenError> {
    let candidates: Vec<PathBuf> = match file {
        Some(file) => vec![file.to_owned()],
        None => {
            let usual = PathBuf::from(platform.usual_folder());
            let folders = folders.iter().chain([&usual]);
            let inside = folders.flat_map(|folder| files.iter().map(|file| folder.join(file)));
            files.iter().map(PathBuf::from).chain(inside).collect()
        }
    };
    let mut broken = None;
    for flags in [unix::RTLD_NOW | libc::RTLD_NOLOAD, unix::RTLD_NOW] {
        for candidate in &candidates {
            // SAFETY: these are the vendors' libraries, whose initializers only prepare them; users name other files at
            // their own risk.
            match unsafe { unix::Library::open(Some(candidate), flags) } {
                Ok(library) => return Ok(library.into()),
                // A missing file is not an error; one that exists and does not load is.
                Err(error) if flags == unix::RTLD_NOW => {
                    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                    let absent = format!("{}: cannot open shared object file: No such file", candidate.display());
                    if !cause.starts_with(&absent) {
                        broken.get_or_insert(cause);
                    }
                }
                Err(_) => {}
            }
        }
    }
    Err(match broken {
        Some(cause) => OpenError::Broken { library, cause },
        None => OpenError::NotFound {
            library,
            tried: candidates.iter().map(|path| path.display().to_string()).collect(),
        },
    })
}

/// The file that a function was loaded from; empty if the loader does not know.
fn path_of(function: *const ()) -> String {
    // SAFETY: all-zero is a valid value of this plain structure, and the loader only writes to it.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address is allowed.
    if unsafe { libc::dladdr(function.cast(), &mut found) } == 0 || found.dli_fname.is_null() {
        return String::new();
    }
    // SAFETY: the loader's name of a library that is never unloaded.
    unsafe { CStr::from_ptr(found.dli_fname) }
        .to_string_lossy()
        .into_owned()
}
