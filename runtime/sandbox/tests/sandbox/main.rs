//! Programs that try to break out, programs that have to come to their end, and what is left when a caller dies.

mod callers;
mod elsewhere;
mod hostile;
mod ordinary;
mod outside;

use std::path::Path;
use std::time::Duration;

use aurora_sandbox::{Limits, Outcome, Program, Protection, protection};

/// Room for an ordinary small program.
fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(10),
        cpu: Duration::from_secs(5),
        memory: 256 << 20,
        processes: 1,
        output: 64 << 10,
        files: 0,
    }
}

/// What this machine offers; the tests of the sandbox mean nothing where it offers none.
fn offered(hidden: &[&Path]) -> Option<Protection> {
    let found = protection(hidden);
    if let Err(why) = &found {
        println!("skipped: {why}; {}", why.help());
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
    }
}

fn said(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.output).into_owned()
}
