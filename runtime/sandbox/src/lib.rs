//! A sandbox for programs that a language model wrote.
//!
//! In: a [`Program`] and its [`Limits`]. Out: how it ended and what it wrote, an [`Outcome`]. A program sees no network, no
//! other process, and of the files only interpreters and libraries, read-only, beside its own folder; the kernel ends it
//! when its time is over, and with it all that it started. Nothing of it stays. Where a machine cannot promise this,
//! [`protection`] says what is missing, and nothing runs.
//!
//! How: a process is forked into namespaces of its own (user, process, network, mount, IPC, host name), with a root of two
//! small file systems in memory. Landlock, a list of allowed system calls and resource limits hold it as well. Where there
//! are no namespaces (a plain container), these three hold a program of one process that writes no file; it can then ask
//! whether a path exists, not what is there. The set-up runs in the forked process itself, not in a second start of the
//! caller's program: nobody can forget an entry in `main`, and all that allocates is prepared before the fork (`plan`).
//! Not here: what a program's output means, except that it came to its end ([`python`]).

mod child;
mod filter;
mod plan;
mod protection;
pub mod python;
mod view;
mod watch;

use std::io;
use std::time::Duration;

pub use protection::{Protection, Unprotected, protection};

/// What a program may use. The same limits mean the same on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// Of each process; whole seconds, rounded up.
    pub cpu: Duration,
    /// Bytes of address space of all processes together: each may have an equal share.
    pub memory: u64,
    /// Processes and threads at a time, the first included, and those that have ended but were not waited for. More than
    /// one needs namespaces.
    pub processes: u32,
    /// Bytes written to stdout and stderr together; a program that writes more is ended.
    pub output: u64,
    /// Bytes that its folder may take beyond the files given; more than zero needs namespaces.
    pub files: u64,
}

/// A program, and the files of its folder, in which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The absolute path of a program below `/usr` or `/bin`, and its arguments.
    pub command: Vec<String>,
    /// Plain names and what is in the files.
    pub files: Vec<(String, Vec<u8>)>,
    pub stdin: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal, which it brought on itself.
    Signal(i32),
    /// By the limit of wall or CPU time.
    OutOfTime,
    /// By the limit of output.
    TooMuchOutput,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub ended: Ended,
    /// stdout and stderr as they came, up to the limit.
    pub output: Vec<u8>,
    /// From start to end.
    pub seconds: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("`{name}` is not the plain name of a file")]
    Name { name: String },
    #[error("there is no program to run")]
    NoProgram,
    #[error("a NUL byte stands in `{text}`")]
    Nul { text: String },
    #[error(
        "a program with more than one process, or with files of its own, needs namespaces that this machine does not grant; \
         with `processes` 1 and `files` 0 it can run"
    )]
    NeedsNamespaces,
    #[error("cannot start `{program}`: it is not below /usr/bin, /usr/local/bin or /bin, or is not an executable file")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("the sandbox was not set up: cannot {what}")]
    SetUp {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the sandbox was not set up: {what}")]
    Crate { what: String },
}

impl SandboxError {
    fn set_up(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::SetUp {
            what,
            source: error.into(),
        }
    }
}
