//! Everything that the forked process needs, prepared before the fork: after it nothing may be allocated.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{PidfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_open};
use seccompiler::BpfProgram;
use tempfile::TempDir;

use crate::visible_files::{VisibleFile, entries, own_access, ruleset};
use crate::{Limits, Program, SandboxError, filter};

/// Descriptors that a program may have open.
const OPEN_FILES: u64 = 64;
/// Bytes of stack, as on most systems; the system's own value would decide how deep a program can recurse.
const STACK: u64 = 8 << 20;
const PAGE: u64 = 4096;
/// Files and folders that a program can create.
const INODES: usize = 1024;

/// The layers in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    pub namespaces: bool,
    pub landlock: bool,
    pub seccomp: bool,
    /// The kernel limits the number of a sandbox's processes.
    pub many_processes: bool,
}

/// Strings in the form of `execve`: pointers, then a null pointer.
pub struct Strings {
    // The pointers point in here.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Self {
            _strings: strings,
            pointers,
        }
    }

    pub fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    pub fn first(&self) -> *const c_char {
        self.pointers.first().copied().unwrap_or(null())
    }
}

/// A step of creating the new root. Paths are relative to it, except for sources.
pub enum RootStep {
    Folder(CString),
    Link {
        target: CString,
        path: CString,
    },
    Bind {
        source: CString,
        path: CString,
        device: bool,
    },
    Empty(CString),
}

/// The root and the program's folder, each on its own file system.
pub struct Root {
    pub steps: Vec<RootStep>,
    /// Mount options of the program's folder: its size.
    pub options: CString,
    /// Folders of the files, each after the one that contains it.
    pub folders: Vec<CString>,
    pub files: Vec<(CString, Vec<u8>)>,
    pub writable: bool,
}

/// The folder in which the program starts.
pub enum ProgramFolder {
    /// In a root that the forked process creates.
    Own(Root),
    /// In a folder of the machine, which is deleted after the program has ended.
    Here { path: CString, _folder: TempDir },
}

/// A program and its limits in the form of system calls.
pub struct PreparedSandbox {
    pub command: Strings,
    pub environment: Strings,
    pub stdin: OwnedFd,
    pub place: ProgramFolder,
    pub ruleset: Option<OwnedFd>,
    /// Landlock's access rights for the program's folder.
    pub own_access: u64,
    pub filter: Option<BpfProgram>,
    pub limits: Vec<(Resource, Rlimit)>,
    /// stderr is collected apart from stdout.
    pub errors_apart: bool,
    /// This process; the program ends with it.
    pub parent: OwnedFd,
}

fn text(text: &str) -> Result<CString, SandboxError> {
    CString::new(text).map_err(|_| SandboxError::Nul { text: text.to_owned() })
}

/// The same for a path.
fn path(path: &Path) -> Result<CString, SandboxError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SandboxError::Nul {
        text: path.display().to_string(),
    })
}

impl PreparedSandbox {
    pub fn new(layers: Layers, program: &Program, limits: &Limits) -> Result<Self, SandboxError> {
        if (limits.processes > 1 && !layers.many_processes) || (limits.files > 0 && !layers.namespaces) {
            return Err(SandboxError::NeedsNamespaces);
        }
        let is_inside = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if let Some((name, _)) = program.files.iter().find(|(name, _)| !is_inside(name)) {
            return Err(SandboxError::Name { name: name.clone() });
        }
        if program.command.is_empty() {
            return Err(SandboxError::NoProgram);
        }
        let command: Result<Vec<_>, _> = program.command.iter().map(|word| text(word)).collect();
        // Nothing of the caller's environment, which contains secrets. A fixed seed, so that sets have the same order
        // in every run.
        let environment = [
            c"PATH=/usr/local/bin:/usr/bin:/bin",
            c"LANG=C.UTF-8",
            c"PYTHONHASHSEED=0",
        ];
        let ruleset = if layers.landlock {
            ruleset(limits.network).map_err(|error| SandboxError::Crate {
                what: format!("Landlock: {error}"),
            })?
        } else {
            None
        };
        let filter = layers.seccomp.then(|| filter::filter(limits)).transpose();
        Ok(Self {
            command: Strings::new(command?),
            environment: Strings::new(environment.map(CStr::to_owned).to_vec()),
            stdin: stdin(&program.stdin)?,
            place: if layers.namespaces {
                ProgramFolder::Own(root(program, limits)?)
            } else {
                folder(program)?
            },
            ruleset,
            own_access: own_access(limits.files > 0).bits(),
            filter: filter.map_err(|error| SandboxError::Crate {
                what: format!("seccomp: {error}"),
            })?,
            limits: resources(layers, limits),
            errors_apart: program.errors_apart,
            parent: pidfd_open(getpid(), PidfdFlags::empty())
                .map_err(SandboxError::set_up("open this process as a file"))?,
        })
    }
}

/// Steps that create the new root: each folder before its contents.
fn root(program: &Program, limits: &Limits) -> Result<Root, SandboxError> {
    let mut steps = Vec::new();
    let mut created = Vec::new();
    for entry in entries(limits.network) {
        let (VisibleFile::Folder(at) | VisibleFile::File(at) | VisibleFile::Link(at, _)) = &entry;
        let relative = Path::new(at.trim_start_matches('/'));
        let mut above: Vec<&Path> = relative.ancestors().skip(1).collect();
        // The last of them is the root itself.
        above.pop();
        for folder in above.into_iter().rev().map(Path::to_owned) {
            if !created.contains(&folder) {
                steps.push(RootStep::Folder(path(&folder)?));
                created.push(folder);
            }
        }
        let target = path(relative)?;
        match &entry {
            VisibleFile::Link(_, to) => steps.push(RootStep::Link {
                target: path(to)?,
                path: target,
            }),
            VisibleFile::Folder(_) => steps.push(RootStep::Folder(target)),
            VisibleFile::File(_) => steps.push(RootStep::Empty(target)),
        }
        if !matches!(entry, VisibleFile::Link(..)) {
            steps.push(RootStep::Bind {
                source: text(at)?,
                path: path(relative)?,
                device: at.starts_with("/dev/"),
            });
        }
    }
    let files: Result<Vec<_>, SandboxError> = program
        .files
        .iter()
        .map(|(name, bytes)| Ok((text(name)?, bytes.clone())))
        .collect();
    let given: u64 = program
        .files
        .iter()
        .map(|(_, bytes)| (bytes.len() as u64).next_multiple_of(PAGE))
        .sum();
    // A size of zero would mean no limit.
    let size = given.saturating_add(limits.files).max(PAGE);
    let folders = folders(program);
    let inodes = program.files.len() + folders.len() + INODES;
    Ok(Root {
        steps,
        options: text(&format!("size={size},nr_inodes={inodes},mode=0755"))?,
        folders: folders.into_iter().map(text).collect::<Result<_, _>>()?,
        files: files?,
        writable: limits.files > 0,
    })
}

/// The folders of a program's files, each after the one that contains it.
fn folders(program: &Program) -> BTreeSet<&str> {
    let names = program.files.iter().map(|(name, _)| name.as_str());
    names
        .flat_map(|name| name.match_indices('/').map(|(end, _)| &name[..end]))
        .collect()
}

/// A folder of this machine with the program's files.
fn folder(program: &Program) -> Result<ProgramFolder, SandboxError> {
    let write = || -> std::io::Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("aurora-sandbox-").tempdir()?;
        for name in folders(program) {
            std::fs::create_dir(folder.path().join(name))?;
        }
        for (name, bytes) in &program.files {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        Ok(folder)
    };
    let folder = write().map_err(|source| SandboxError::SetUp {
        what: "write the program's files",
        source,
    })?;
    Ok(ProgramFolder::Here {
        path: path(folder.path())?,
        _folder: folder,
    })
}

/// A sealed file in memory: unlike a pipe it needs no writer.
fn stdin(bytes: &[u8]) -> Result<OwnedFd, SandboxError> {
    let make = || -> std::io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(c"stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(bytes)?;
        file.rewind()?;
        fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(file.into())
    };
    make().map_err(|source| SandboxError::SetUp {
        what: "prepare its input",
        source,
    })
}

fn resources(layers: Layers, limits: &Limits) -> Vec<(Resource, Rlimit)> {
    // Far beyond the limit of the first process, which this process observes: the kernel counts here in clock ticks, which on
    // a loaded machine are far ahead of the time that was really used.
    let cpu = limits.cpu.saturating_mul(4).as_secs().saturating_add(1);
    let mut limits_by_resource = vec![
        (Resource::As, limits.memory / u64::from(limits.processes.max(1))),
        (Resource::Cpu, cpu),
        (Resource::Fsize, limits.files),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Stack, STACK),
        // One byte: with zero the kernel would still pipe a core dump to a program.
        (Resource::Core, 1),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    if layers.namespaces {
        limits_by_resource.push((Resource::Nproc, u64::from(limits.processes)));
    }
    let lower = |(resource, wanted): (Resource, u64)| {
        let maximum = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(wanted.min(maximum));
        let limit = Rlimit {
            current: value,
            maximum: value,
        };
        (resource, limit)
    };
    limits_by_resource.into_iter().map(lower).collect()
}
