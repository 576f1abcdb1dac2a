//! Exit codes, and failures that end a command.

use std::process::ExitCode;

use aurora_runtime::engine::{RunError, chain};
use aurora_runtime::store::StoreError;

/// The exit codes, as the book states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The spec, the lock or a result is at fault.
    Fault = 1,
    /// A bug in Aurora.
    Bug = 3,
    /// A node failed while running.
    NodeFailed = 4,
    /// A gate (`expect`) failed.
    GateFailed = 5,
    /// Stopped, and the same command goes on from there.
    Resumable = 75,
    /// Stopped by a signal at once.
    Interrupted = 130,
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
    /// A code that `aurora explain` knows.
    pub code: Option<String>,
    pub message: String,
    pub help: Option<String>,
    /// Everything has been said already (diagnostics are printed where they are found).
    pub said: bool,
}

impl Failure {
    pub fn fault(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Fault,
            code: None,
            message: message.into(),
            help: None,
            said: false,
        }
    }

    /// The command has already printed why.
    pub fn said() -> Self {
        Self {
            said: true,
            ..Self::fault("")
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
    pub fn print(self, json: bool) -> Exit {
        if self.said {
            return self.exit;
        }
        if json {
            let document = serde_json::json!({
                "format_version": "1.0",
                "error": { "code": self.code, "message": self.message, "help": self.help },
            });
            println!("{document}");
        }
        let code = self.code.map(|code| format!("[{code}]")).unwrap_or_default();
        let what = match self.exit {
            Exit::Resumable | Exit::Interrupted => "stopped",
            _ => "error",
        };
        eprintln!("{what}{code}: {}", self.message);
        if let Some(help) = self.help {
            eprintln!("  = help: {help}");
        }
        self.exit
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Stopped { .. } => Exit::Resumable,
            RunError::Killed => Exit::Interrupted,
            _ => Exit::NodeFailed,
        };
        let mut message = chain(&error);
        if let RunError::Stopped { at: Some((node, step)) } = &error {
            message = format!("a checkpoint of `{node}` at step {step} is kept");
        }
        Self {
            exit,
            code: None,
            message,
            help: error.help(),
            said: false,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            help: error.help().map(String::from),
            ..Self::fault(chain(&error))
        }
        .exit(Exit::NodeFailed)
    }
}

impl From<aurora_compiler::lock::LockError> for Failure {
    fn from(error: aurora_compiler::lock::LockError) -> Self {
        Self {
            code: Some(error.code().to_string()),
            help: Some(error.help().to_string()),
            ..Self::fault(chain(&error))
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::fault(error.to_string())
    }
}
