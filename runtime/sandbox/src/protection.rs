//! What a machine offers to contain a program; every layer is tested before it is used.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child::SetupStep;
use crate::prepared::{Layers, PreparedSandbox};
use crate::watch::{ProcessResult, fork, watch};
use crate::{Limits, Program, ProgramOutcome, SandboxError, visible_files};

/// Permission to run programs: this machine was tested to contain them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    layers: Layers,
    contained: bool,
}

/// Why programs are not run on this machine.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unprotected {
    /// The missing parts, one sentence each.
    #[error("this machine cannot contain a program: {}", missing.join("; "))]
    Machine { missing: Vec<String> },
    #[error("`{path}` is in `{folder}`, which every program can read")]
    Visible { path: PathBuf, folder: &'static str },
}

impl Unprotected {
    /// How to fix it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Machine { .. } => {
                "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns; in a container its seccomp profile), or use Linux 6.2 or newer \
                 with Landlock"
            }
            Self::Visible { .. } => "move it, for example to /home or /var",
        }
    }

    /// Accepts the risk: the available filters and limits restrict a program, but it may read and write what this user
    /// may, or see the folder that should be hidden.
    pub fn anyway(self) -> Protection {
        if let Self::Visible { .. } = self {
            let contained = false;
            return protection(&[]).map_or_else(Self::anyway, |found| Protection { contained, ..found });
        }
        let nothing = Layers {
            namespaces: false,
            landlock: false,
            seccomp: false,
            many_processes: false,
        };
        let filtered = Layers {
            seccomp: true,
            ..nothing
        };
        let starts = matches!(probe(filtered, 1), Ok(ProcessResult::Report(SetupStep::Probe, _)));
        Protection {
            layers: if starts { filtered } else { nothing },
            contained: false,
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (!self.contained, "not contained"),
            (
                self.layers.namespaces,
                "own user, process, network, mount, IPC, host name and cgroup namespaces",
            ),
            (self.layers.landlock, "Landlock"),
            (self.layers.seccomp, "seccomp"),
            (!self.layers.many_processes, "one process"),
            (true, "resource limits"),
        ];
        let names: Vec<&str> = parts.iter().filter(|part| part.0).map(|part| part.1).collect();
        to.write_str(&names.join("; "))
    }
}

impl Protection {
    /// Runs a program until it ends, or `cancelled` is true. Can be called from several threads at a time.
    ///
    /// # Errors
    /// [`SandboxError`] if the program could not be started in the sandbox or something else ended it; never because of
    /// what it did.
    pub fn run(
        &self,
        program: &Program,
        limits: &Limits,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ProgramOutcome, SandboxError> {
        let prepared = PreparedSandbox::new(self.layers, program, limits)?;
        match watch(&prepared, limits, None, cancelled)? {
            ProcessResult::Program(outcome) => Ok(outcome),
            ProcessResult::Report(step, number) => Err(failed(step, number, program)),
        }
    }

    /// The same limits, reduced to one process without files of its own where this machine does not allow more.
    pub fn fit(&self, limits: Limits) -> Limits {
        let processes = if self.layers.many_processes {
            limits.processes
        } else {
            1
        };
        Limits {
            processes,
            memory: limits.memory / u64::from(limits.processes.max(1)) * u64::from(processes),
            files: if self.layers.namespaces { limits.files } else { 0 },
            ..limits
        }
    }

    /// Whether programs have no access to the network and to other files. False only after [`Unprotected::anyway`].
    pub fn contained(&self) -> bool {
        self.contained
    }
}

fn failed(step: SetupStep, number: i32, program: &Program) -> SandboxError {
    let source = std::io::Error::from_raw_os_error(number);
    match step {
        SetupStep::Start => SandboxError::Start {
            program: program.command.first().cloned().unwrap_or_default(),
            source,
        },
        step => SandboxError::SetUp {
            what: step.what(),
            source,
        },
    }
}

/// Tests what this machine offers. `hidden` are the folders that no program may see: the store, the project, the home.
///
/// # Errors
/// [`Unprotected`] with what is missing, or with a hidden folder that is among the visible libraries.
pub fn protection(hidden: &[&Path]) -> Result<Protection, Unprotected> {
    if let Some((path, folder)) = hidden
        .iter()
        .find_map(|path| Some((path, visible_files::visible(path)?)))
    {
        let path = path.to_path_buf();
        return Err(Unprotected::Visible { path, folder });
    }
    let landlock = visible_files::ruleset(false).is_ok();
    let namespaces = Layers {
        namespaces: true,
        landlock,
        seccomp: true,
        many_processes: false,
    };
    let contained = |layers| Protection {
        layers,
        contained: true,
    };
    let without_namespaces = match contains(namespaces, 1) {
        Ok(()) => {
            let many = Layers {
                many_processes: true,
                ..namespaces
            };
            return Ok(contained(if contains(many, 2).is_ok() { many } else { namespaces }));
        }
        Err(why) => why,
    };
    let rules = Layers {
        namespaces: false,
        landlock: true,
        ..namespaces
    };
    match contains(rules, 1) {
        Ok(()) => Ok(contained(rules)),
        Err(why) => Err(Unprotected::Machine {
            missing: vec![
                format!("with namespaces, {without_namespaces}"),
                format!("with Landlock, {why}"),
            ],
        }),
    }
}

const READ: i32 = 1;
const WRITE: i32 = 2;
const NETWORK: i32 = 4;
const SIGNAL: i32 = 8;
const PROCESSES: i32 = 16;
const MEMORY: i32 = 32;
const BREACHES: [(i32, &str); 6] = [
    (READ, "it can read files of this user"),
    (WRITE, "it can write files"),
    (NETWORK, "it can open a socket"),
    (SIGNAL, "it can signal other processes"),
    (PROCESSES, "the number of its processes is not limited"),
    (MEMORY, "its memory is not limited"),
];

/// Whether these layers contain a process that tries to break out.
fn contains(layers: Layers, processes: u32) -> Result<(), String> {
    let text = |error: SandboxError| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}{}", cause.map(|cause| format!(": {cause}")).unwrap_or_default())
    };
    match probe(layers, processes).map_err(text)? {
        ProcessResult::Report(SetupStep::Probe, 0) => Ok(()),
        ProcessResult::Report(SetupStep::Probe, bits) => {
            let breaches = BREACHES
                .iter()
                .filter(|(bit, _)| bits & bit != 0)
                .map(|(_, what)| *what);
            Err(breaches.collect::<Vec<_>>().join(", "))
        }
        ProcessResult::Report(step, number) => Err(text(failed(step, number, &nothing()))),
        ProcessResult::Program(_) => Err("the probe returned no result".to_owned()),
    }
}

fn nothing() -> Program {
    Program {
        command: vec!["probe".to_owned()],
        files: vec![("probe".to_owned(), Vec::new())],
        stdin: Vec::new(),
        errors_apart: false,
    }
}

/// Sets up a sandbox in which a process tries, with system calls, what a program must not be able to do.
fn probe(layers: Layers, processes: u32) -> Result<ProcessResult, SandboxError> {
    let limits = Limits {
        wall: Duration::from_secs(10),
        cpu: Duration::from_secs(5),
        memory: 1 << 30,
        processes,
        output: 0,
        files: 0,
        network: false,
    };
    let file = |source| SandboxError::SetUp {
        what: "write a file for the probe",
        source,
    };
    let secret = tempfile::NamedTempFile::new().map_err(file)?;
    fs::write(secret.path(), "secret").map_err(file)?;
    let path = std::ffi::CString::new(secret.path().as_os_str().as_bytes()).map_err(|error| file(error.into()))?;
    let parent = std::process::id() as i32;
    let memory = limits.memory as usize;
    // After a fork: system calls only.
    let attempt = move || -> i32 {
        let mut breaches = 0;
        // SAFETY: NUL-terminated strings, no other pointers; the mapping is never used.
        unsafe {
            if libc::open(path.as_ptr(), libc::O_RDONLY) >= 0 {
                breaches |= READ;
            }
            if libc::open(path.as_ptr(), libc::O_WRONLY) >= 0
                || libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_TRUNC) >= 0
                || libc::open(c"probe".as_ptr(), libc::O_WRONLY) >= 0
                || libc::open(c"new".as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600) >= 0
            {
                breaches |= WRITE;
            }
            if libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) >= 0
                || libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) >= 0
            {
                breaches |= NETWORK;
            }
            if libc::kill(parent, 0) == 0 {
                breaches |= SIGNAL;
            }
            let mut running = 1;
            while running <= processes {
                match fork(0) {
                    // It counts until it is waited for, which never happens.
                    0 => libc::_exit(0),
                    pid if pid > 0 => running += 1,
                    _ => break,
                }
            }
            if running != processes {
                breaches |= PROCESSES;
            }
            let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            if libc::mmap(std::ptr::null_mut(), memory, libc::PROT_READ, private, -1, 0) != libc::MAP_FAILED {
                breaches |= MEMORY;
            }
        }
        breaches
    };
    let prepared = PreparedSandbox::new(layers, &nothing(), &limits)?;
    watch(&prepared, &limits, Some(&attempt), &|| false)
}
