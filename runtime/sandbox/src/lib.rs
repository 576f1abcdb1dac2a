//! A sandbox for programs that a language model or a stranger wrote.
//!
//! In: a [`Program`] and its [`Limits`]. Out: how it ended and what it wrote, a [`ProgramOutcome`]. A program has no
//! network unless it is given one, sees no other process, and of the files only interpreters and libraries, read-only, and
//! its own folder.
//! When its time is over, it is ended with everything that it started. Nothing of it remains. If a machine cannot
//! guarantee this, [`protection`] names what is missing, and nothing runs.
//!
//! How a program ends does not depend on the load of the machine: its time is CPU time, and the wall-clock time in which it
//! did not wait for a processor. A program that something else ended has no outcome; that is an error.
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
    /// Wall-clock time from start to end, without the time in which the first process waited for a processor.
    pub wall: Duration,
    /// CPU time of the first process and of those that it has waited for. Every other process has four times as much.
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
    /// It may connect to the network of this machine, and see the files that name hosts and certificates.
    pub network: bool,
}

/// A program, and the files of the folder in which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The absolute path of a program in `/usr` or `/bin`, and its arguments.
    pub command: Vec<String>,
    /// File names and contents. A name may have folders: `data/judge.py`.
    pub files: Vec<(String, Vec<u8>)>,
    pub stdin: Vec<u8>,
    /// Collects stderr apart from stdout.
    pub errors_apart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    /// It exited with this status.
    Exit(i32),
    /// It caused this signal.
    Signal(i32),
    /// It reached the limit of CPU time or of wall-clock time.
    OutOfTime,
    /// It reached the output limit.
    TooMuchOutput,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProgramOutcome {
    pub ended: ProgramEnd,
    /// stdout and stderr in the order in which they were written, up to the limit; stdout alone if they are apart.
    pub output: Vec<u8>,
    /// stderr, if it is apart.
    pub errors: Vec<u8>,
    /// From start to end.
    pub seconds: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("`{name}` is not the name of a file in a folder")]
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
    #[error(
        "a program was ended by signal {signal}, which it cannot have caused: the machine is out of memory, or something else \
         ended it; run again, with more memory or less other work on this machine"
    )]
    Killed { signal: i32 },
    #[error("cancelled")]
    Cancelled,
}

impl SandboxError {
    fn set_up(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::SetUp {
            what,
            source: error.into(),
        }
    }
}
