//! The search itself: the places in their order, and the choice.

use std::collections::BTreeMap;
use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};

use super::version::series;
use super::{BUILT_FOR, Version};

/// The variable that names a libtorch folder.
pub const VARIABLE: &str = "AURORA_LIBTORCH";

/// The library that every libtorch has.
const LIBRARY: &str = "libtorch_cpu.so";

/// Variables with the folder of the active Python environment.
const PYTHON: [&str; 2] = ["VIRTUAL_ENV", "CONDA_PREFIX"];

/// File name of the worker program; other versions follow it, as in `aurora-worker-2.11`.
const WORKER: &str = "aurora-worker";

/// What the search depends on.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The folder of the program `aurora`, which has the worker programs too.
    pub programs: &'a Utf8Path,
    /// The folder into which `fetch.py` puts a libtorch.
    pub cache: &'a Utf8Path,
}

/// Where a libtorch comes from, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The folder that `AURORA_LIBTORCH` names.
    Variable,
    /// The folder `lib` next to `aurora`.
    Programs,
    /// The package `torch` of the Python environment that this variable names.
    Python(&'static str),
    /// The user's cache.
    Cache,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str(VARIABLE),
            Self::Programs => f.write_str("next to aurora"),
            Self::Python(variable) => write!(f, "Python ({variable})"),
            Self::Cache => f.write_str("cache"),
        }
    }
}

/// The devices that a libtorch can compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// CPUs only.
    Cpu,
    /// CPUs and NVIDIA's GPUs.
    Cuda,
    /// CPUs and AMD's GPUs.
    Rocm,
}

impl Devices {
    /// Reads the devices from the libraries in a folder.
    fn of(libraries: &Utf8Path) -> Self {
        if libraries.join("libtorch_cuda.so").exists() {
            Self::Cuda
        } else if libraries.join("libtorch_hip.so").exists() {
            Self::Rocm
        } else {
            Self::Cpu
        }
    }

    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU only",
            Self::Cuda => "with CUDA",
            Self::Rocm => "with ROCm",
        })
    }
}

/// A worker program and the versions of libtorch that it can load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub path: Utf8PathBuf,
    /// The first two numbers of the versions, such as `2.13`.
    pub series: String,
}

/// A place where a libtorch was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub origin: Origin,
    /// The folder with its libraries.
    pub folder: Utf8PathBuf,
    /// `None` if the folder has no libtorch, or no file states the version.
    pub version: Option<Version>,
    /// `None` if the folder has no libtorch.
    pub devices: Option<Devices>,
    /// The worker program that can load it, or why none can.
    pub worker: Result<Worker, String>,
}

impl Candidate {
    fn new(origin: Origin, folder: Utf8PathBuf, workers: &[Worker]) -> Self {
        let there = folder.join(LIBRARY).is_file();
        let version = if there { Version::of(&folder) } else { None };
        let worker = match &version {
            _ if !there => Err(format!("no {LIBRARY}")),
            None => Err("no build-version and no version.py, so its version is not known".to_owned()),
            Some(version) => {
                let series = version.series();
                let fitting = workers.iter().find(|worker| worker.series == series).cloned();
                fitting.ok_or_else(|| format!("no {WORKER}-{series} next to aurora"))
            }
        };
        Self {
            origin,
            devices: there.then(|| Devices::of(&folder)),
            folder,
            version,
            worker,
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.folder)?;
        if let Some(version) = &self.version {
            write!(f, ", {version}")?;
        }
        if let Some(devices) = &self.devices {
            write!(f, ", {devices}")?;
        }
        match &self.worker {
            Ok(_) => Ok(()),
            Err(reason) => write!(f, ": {reason}"),
        }
    }
}

/// All places where a libtorch was looked for, and the worker programs.
#[derive(Clone, Debug)]
pub struct Search {
    /// In the order of preference.
    pub candidates: Vec<Candidate>,
    /// The worker programs next to `aurora`.
    pub workers: Vec<Worker>,
    /// The folder of `aurora`.
    programs: Utf8PathBuf,
    /// The release that a lock pins.
    pinned: Option<String>,
}

impl Search {
    /// Looks in every place. `pinned` is the release that a lock pins: a fitting libtorch of it is preferred to the order.
    pub fn new(place: Place<'_>, pinned: Option<&str>) -> Self {
        let workers = workers(place.programs);
        let folders = folders(place).into_iter();
        Self {
            candidates: folders
                .map(|(origin, folder)| Candidate::new(origin, folder, &workers))
                .collect(),
            workers,
            programs: place.programs.to_owned(),
            pinned: pinned.map(str::to_owned),
        }
    }

    /// The libtorch to use.
    ///
    /// `AURORA_LIBTORCH` is an explicit choice: it is used also if a lock pins another version, and it is an error if it
    /// does not fit. Elsewhere a libtorch that does not fit is skipped.
    ///
    /// # Errors
    /// [`LibtorchError`].
    pub fn choice(&self) -> Result<(&Candidate, &Worker), LibtorchError> {
        if self.workers.is_empty() {
            let path = self.programs.join(WORKER);
            return Err(LibtorchError::NoWorker { path });
        }
        let explicit = self
            .candidates
            .iter()
            .find(|candidate| candidate.origin == Origin::Variable);
        if let Some(explicit) = explicit {
            return match &explicit.worker {
                Ok(worker) => Ok((explicit, worker)),
                Err(reason) => Err(self.explicit(explicit, reason)),
            };
        }
        let fitting = || {
            let candidates = self.candidates.iter();
            candidates.filter_map(|candidate| Some((candidate, candidate.worker.as_ref().ok()?)))
        };
        let is_pinned = |(candidate, _): &(&Candidate, &Worker)| {
            let release = candidate.version.as_ref().map(Version::release);
            release.is_some() && release == self.pinned.as_deref()
        };
        fitting()
            .find(is_pinned)
            .or_else(|| fitting().next())
            .ok_or_else(|| LibtorchError::NotFound {
                supported: self.supported(),
                places: self.candidates.iter().map(ToString::to_string).collect(),
            })
    }

    /// The error of an explicit choice that does not fit.
    fn explicit(&self, explicit: &Candidate, reason: &str) -> LibtorchError {
        let mut supported = self.supported();
        if let Some(pinned) = &self.pinned {
            supported.push_str(&format!("; the lock pins {pinned}"));
        }
        LibtorchError::Explicit {
            folder: explicit.folder.clone(),
            found: match &explicit.version {
                Some(version) => format!("libtorch {version}"),
                None => reason.to_owned(),
            },
            series: explicit.version.as_ref().map(Version::series),
            supported,
        }
    }

    /// The versions that workers next to `aurora` can load, as text.
    fn supported(&self) -> String {
        let series: Vec<&str> = self.workers.iter().map(|worker| worker.series.as_str()).collect();
        series.join(" or ")
    }
}

/// Why there is no libtorch to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibtorchError {
    #[error("there is no worker program `{path}`")]
    NoWorker { path: Utf8PathBuf },
    /// The explicit choice does not fit.
    #[error("`{VARIABLE}` does not fit: `{folder}` has {found}, and the workers next to `aurora` load {supported}")]
    Explicit {
        folder: Utf8PathBuf,
        /// Its version, or what is missing.
        found: String,
        /// The first two numbers of its version.
        series: Option<String>,
        /// The versions that can be loaded.
        supported: String,
    },
    #[error("no libtorch {supported} was found; looked in:{}", lines(places))]
    NotFound { supported: String, places: Vec<String> },
}

/// Each text in a line of its own.
fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n{text}")).collect()
}

impl LibtorchError {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            Self::NoWorker { .. } => "this `aurora` was built without training: build it with the feature `train`, or \
                                      put `aurora-worker` next to it"
                .to_owned(),
            Self::Explicit {
                series: None,
                supported,
                ..
            } => {
                format!("name a libtorch folder with `lib/{LIBRARY}` and `build-version`, of version {supported}")
            }
            Self::Explicit {
                series: Some(series), ..
            } => format!(
                "name a libtorch of a supported version, unset `{VARIABLE}`, or build `{WORKER}-{series}` (see \
                 \"libtorch\" in the book's page on workers)"
            ),
            Self::NotFound { supported, .. } => format!(
                "in a checkout of Aurora run `make libtorch`; else install the Python package torch {supported} and \
                 activate its environment, or set `{VARIABLE}` to a libtorch folder"
            ),
        }
    }
}

/// The worker programs in a folder. A program with a version in its name is preferred to `aurora-worker`.
fn workers(folder: &Utf8Path) -> Vec<Worker> {
    let mut found: BTreeMap<(u32, u32), Utf8PathBuf> = BTreeMap::new();
    for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
        let Some(after) = entry.file_name().strip_prefix(WORKER) else {
            continue;
        };
        let named = match after.strip_prefix('-') {
            Some(version) => series(version).filter(|(major, minor)| version == format!("{major}.{minor}")),
            None if after.is_empty() => series(BUILT_FOR),
            None => None,
        };
        if let Some(named) = named.filter(|_| entry.path().is_file())
            && (!after.is_empty() || !found.contains_key(&named))
        {
            found.insert(named, entry.path().to_owned());
        }
    }
    // The newest first.
    let worker = |((major, minor), path): ((u32, u32), Utf8PathBuf)| Worker {
        path,
        series: format!("{major}.{minor}"),
    };
    found.into_iter().rev().map(worker).collect()
}

/// The library folders to look in, in the order of preference.
fn folders(place: Place<'_>) -> Vec<(Origin, Utf8PathBuf)> {
    let set = |name: &str| (place.variable)(name).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    if let Some(folder) = set(VARIABLE) {
        let folder = camino::absolute_utf8(&folder).unwrap_or_else(|_| Utf8PathBuf::from(&folder));
        // The folder with the libraries itself is accepted too.
        let own = folder.join(LIBRARY).is_file();
        found.push((Origin::Variable, if own { folder } else { folder.join("lib") }));
    }
    found.push((Origin::Programs, place.programs.join("lib")));
    for name in PYTHON {
        let Some(environment) = set(name) else { continue };
        let packages = Utf8PathBuf::from(environment).join("lib");
        let mut pythons: Vec<Utf8PathBuf> = names_in(&packages, "python3")
            .into_iter()
            .map(|python| packages.join(python).join("site-packages/torch/lib"))
            .filter(|folder| folder.is_dir())
            .collect();
        if pythons.is_empty() {
            pythons.push(packages.join("python3*/site-packages/torch/lib"));
        }
        found.extend(pythons.into_iter().map(|folder| (Origin::Python(name), folder)));
    }
    // The version that `fetch.py` of this version fetches comes first.
    let own = format!("libtorch-{BUILT_FOR}-cpu");
    let others = names_in(place.cache, "libtorch-");
    let others = others.into_iter().rev().filter(|name| *name != own);
    let folders = std::iter::once(own.clone()).chain(others);
    found.extend(folders.map(|name| (Origin::Cache, place.cache.join(name).join("lib"))));
    found
}

/// The names in a folder that begin with `start`, sorted.
fn names_in(folder: &Utf8Path, start: &str) -> Vec<String> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| name.starts_with(start))
        .collect();
    names.sort();
    names
}
