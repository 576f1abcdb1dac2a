//! Programs that try to break out, programs that must run to their end, and what remains after a caller dies.

mod callers;
mod elsewhere;
mod hostile;
#[path = "../../../../tests/missing_tools.rs"]
mod missing_tools;
mod ordinary;
mod outside;

use std::path::Path;
use std::time::Duration;

use missing_tools::missing_tool;

use aurora_sandbox::{Limits, Program, ProgramOutcome, Protection, protection};

/// Limits for an ordinary small program.
fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(10),
        cpu: Duration::from_secs(5),
        memory: 256 << 20,
        processes: 1,
        output: 64 << 10,
        files: 0,
        network: false,
    }
}

/// The protection of this machine; without one the tests of the sandbox have no meaning.
fn available(hidden: &[&Path]) -> Option<Protection> {
    let found = protection(hidden);
    if let Err(why) = &found {
        missing_tool(&format!("a sandbox ({why}; {})", why.help()), "programs in it");
    }
    found.ok()
}

fn python(arguments: &[&str], files: &[(&str, &str)]) -> Program {
    let words = ["/usr/bin/python3", "-s", "-S", "-B"].iter().chain(arguments);
    Program {
        command: words.map(|word| (*word).to_owned()).collect(),
        files: files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect(),
        stdin: Vec::new(),
        errors_apart: false,
    }
}

fn output_text(outcome: &ProgramOutcome) -> String {
    String::from_utf8_lossy(&outcome.output).into_owned()
}
