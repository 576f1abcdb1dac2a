//! Callers run programs from several threads, are busy meanwhile, and die.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aurora_sandbox::{Limits, ProgramEnd};

use crate::elsewhere::{NAMESPACES, again, apply_lacks};
use crate::outside::processes;
use crate::{available, limits, python};

const MARKER: &str = "AURORA_SANDBOX_TEST_MARKER";

/// A forked process inherits locks that other threads hold at that moment.
#[test]
fn a_caller_may_allocate_in_other_threads() {
    let Some(protection) = available(&[]) else { return };
    let mut program = python(&[], &[("note", "a note")]);
    program.command = ["/usr/bin/cat", "note"].map(str::to_owned).to_vec();
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    std::hint::black_box((0..50).map(|size| vec![0u8; size * 100]).collect::<Vec<_>>());
                }
            });
        }
        let runs: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..20).map(|_| protection.run(&program, &limits())).collect::<Vec<_>>()))
            .collect();
        let outcomes: Vec<_> = runs.into_iter().flat_map(|run| run.join().expect("no panic")).collect();
        running.store(false, Ordering::Relaxed);
        for outcome in outcomes {
            let outcome = outcome.expect("it runs");
            assert_eq!(
                (outcome.ended, outcome.output.as_slice()),
                (ProgramEnd::Exit(0), &b"a note"[..])
            );
        }
    });
}

/// Waits until a condition is true, up to five minutes.
fn becomes(is: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        if is() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_program_ends_with_its_caller() {
    if apply_lacks() {
        let marker = std::env::var(MARKER).expect("a marker");
        let long = Limits {
            wall: Duration::from_secs(600),
            ..limits()
        };
        if let Some(protection) = available(&[]) {
            let outcome = protection.run(&python(&["-c", "import time; time.sleep(600)", &marker], &[]), &long);
            panic!("{outcome:?}");
        }
        return;
    }
    if available(&[]).is_none() {
        return;
    }
    for lacks in [&[][..], &[NAMESPACES]] {
        let folder = tempfile::tempdir().expect("a folder");
        let marker = format!("orphan-{}-{}", std::process::id(), lacks.len());
        let mut caller = again("callers::a_program_ends_with_its_caller", lacks, folder.path());
        let mut caller = caller.env(MARKER, &marker).spawn().expect("it starts");
        assert!(becomes(|| !processes(&marker).is_empty()), "it has not started");
        caller.kill().expect("it may be killed");
        caller.wait().expect("it is a child");
        assert!(becomes(|| processes(&marker).is_empty()), "{:?}", processes(&marker));
    }
}
