//! A sandbox for programs that a language model wrote.
//!
//! In: a [`Program`] and its [`Limits`]. Out: how it ended and what it wrote, a [`ProgramOutcome`]. A program has no
//! network, sees no other process, and of the files only interpreters and libraries, read-only, and its own folder.
//! When its time is over, the kernel ends it and everything that it started. Nothing of it remains. If a machine cannot
//! guarantee this, [`protection`] names what is missing, and nothing runs.
//!
//! How: a process is forked into its own namespaces (user, process, network, mount, IPC, host name), with a root of two
//! small file systems in memory. Landlock, a list of allowed system calls and resource limits restrict it too. Without
//! namespaces (in a plain container) these three restrict a program with one process that writes no files; it can then
//! test whether a path exists, but not read it. The set-up runs in the forked process itself, not in a second start of
//! the caller's program, so that callers need no entry in `main`; everything that allocates is prepared before the fork
//! (`prepared`). Not here: the meaning of a program's output, except that it ran to its end ([`python`]).

mod child;
mod filter;
mod prepared;
mod protection;
pub mod python;
mod visible_files;
mod watch;

use std::io;
use std::time::Duration;

pub use protection::{Protection, Unprotected, protection};

/// Limits of a program. The same limits have the same meaning on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// Per process; rounded up to seconds.
    pub cpu: Duration,
    /// Bytes of address space of all processes together, divided equally among them.
    pub memory: u64,
    /// Processes and threads that exist at a time, including the first, and those that ended but were not waited for.
    /// More than one needs namespaces.
    pub processes: u32,
    /// Bytes written to stdout and stderr together; a program that writes more is ended.
    pub output: u64,
    /// Bytes that its folder may contain in addition to the given files; more than zero needs namespaces.
    pub files: u64,
}

/// A program, and the files of the folder in which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The absolute path of a program in `/usr` or `/bin`, and its arguments.
    pub command: Vec<String>,
    /// File names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    pub stdin: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    /// It exited with this status.
    Exit(i32),
    /// It caused this signal.
    Signal(i32),
    /// It reached the limit of wall-clock or CPU time.
    OutOfTime,
    /// It reached the output limit.
    TooMuchOutput,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProgramOutcome {
    pub ended: ProgramEnd,
    /// stdout and stderr in the order in which they were written, up to the limit.
    pub output: Vec<u8>,
    /// From start to end.
    pub seconds: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("`{name}` is not a plain file name")]
    Name { name: String },
    #[error("no program is given")]
    NoProgram,
    #[error("`{text}` contains a NUL byte")]
    Nul { text: String },
    #[error(
        "a program with more than one process, or with files of its own, needs namespaces, which this machine does not allow; \
         use `processes` 1 and `files` 0"
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
