//! Exit codes, and failures that end a command.

use std::process::ExitCode;

use aurora_compiler::lock::LockError;
use aurora_lang::diagnostics::Code;
use aurora_runtime::engine::RunError;
use aurora_runtime::errors::{FileError, causes, chain};
use aurora_runtime::pin::PinError;
use aurora_runtime::progress::Cancelled;
use aurora_runtime::redact;
use aurora_runtime::results::ResultError;
use aurora_runtime::store::StoreError;

use crate::stdio::{OutputError, errln, out_json};

/// The exit codes, as the book lists them (`book/src/commands.md`). Code 2, for an error in the command line, comes
/// from clap and is in that table too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// An error in the spec, the lock or a result; also: the compared sides differ (`diff`, `rerun`, `bisect`, `test`,
    /// `fmt --check`, `lock --check`), or not everything is done (`plan --exit-code`).
    Error = 1,
    /// A bug in Aurora.
    Bug = 3,
    /// A node failed while running.
    NodeFailed = 4,
    /// A gate (`expect`) failed.
    GateFailed = 5,
    /// A worker was lost, or its node did not start it; the same command resumes.
    WorkerLost = 6,
    /// Stopped; the same command resumes.
    Resumable = 75,
    /// Stopped by a signal at once.
    Interrupted = 130,
    /// The output pipe is closed: 128 + SIGPIPE, as shells report it.
    OutputClosed = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends without its result.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Explained by `aurora explain`.
    pub code: Option<Code>,
    pub message: String,
    pub help: Option<String>,
    /// Already printed; do not print the message again.
    pub reported: bool,
}

impl Failure {
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Error,
            code: None,
            message: message.into(),
            help: None,
            reported: false,
        }
    }

    /// An error with all its causes.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::error(chain(error))
    }

    /// The command has already printed the reason.
    pub fn reported() -> Self {
        Self {
            reported: true,
            ..Self::error("")
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Prints the failure and returns its exit code.
    pub fn print(mut self, json: bool) -> Exit {
        if self.reported {
            return self.exit;
        }
        self.message = redact::message(&self.message).into_owned();
        if json {
            let code = self.code.map(Code::as_str);
            let error = serde_json::json!({ "code": code, "message": self.message, "help": self.help });
            // The exit code reports the failure even if nothing reads the document.
            let _ = out_json(&format!("{{\"format_version\":\"1.0\",\"error\":{error}}}"));
        }
        let code = self.code.map(|code| format!("[{code}]")).unwrap_or_default();
        let what = match self.exit {
            Exit::Resumable | Exit::Interrupted => "stopped",
            _ => "error",
        };
        errln!("{what}{code}: {}", self.message);
        if let Some(help) = self.help {
            errln!("  = help: {help}");
        }
        self.exit
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Stopped { .. } => Exit::Resumable,
            RunError::Killed => Exit::Interrupted,
            RunError::Lost { .. } | RunError::NotStarted { .. } => Exit::WorkerLost,
            _ => Exit::NodeFailed,
        };
        let mut message = chain(&error);
        if let RunError::Stopped { at: Some((node, step)) } = &error {
            message = format!("a checkpoint of `{node}` at step {step} is kept");
        }
        Self {
            help: error.help(),
            ..Self::error(message)
        }
        .exit(exit)
    }
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        RunError::from(error).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            help: error.help().map(String::from),
            ..Self::from_error(&error)
        }
        .exit(Exit::NodeFailed)
    }
}

impl From<PinError> for Failure {
    fn from(error: PinError) -> Self {
        let exit = match causes(&error).any(|cause| cause.is::<Cancelled>()) {
            true => Exit::Resumable,
            false => Exit::NodeFailed,
        };
        Self {
            help: error.help(),
            ..Self::from_error(&error)
        }
        .exit(exit)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Self {
            code: Some(error.code()),
            help: Some(error.help().to_string()),
            ..Self::from_error(&error)
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::from_error(&error)
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        if error.0.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::reported().exit(Exit::OutputClosed);
        }
        Self::from_error(&error)
    }
}
