//! Callers run programs from several threads, are busy meanwhile, and die.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aurora_sandbox::{Limits, ProgramEnd, SandboxError};

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
            .map(|_| {
                scope.spawn(|| {
                    (0..20)
                        .map(|_| protection.run(&program, &limits(), &|| false))
                        .collect::<Vec<_>>()
                })
            })
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

/// Makes this thread, and the processes that it starts, share one processor.
fn share_a_processor() {
    // SAFETY: a zeroed set is empty; the pointers are to this stack.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed);
        let first = (0..libc::CPU_SETSIZE as usize).find(|processor| libc::CPU_ISSET(*processor, &allowed));
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first.unwrap_or_default(), &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0);
    }
}

/// Six programs that need 0.6 s of CPU time each share a processor: each takes longer than its limit of wall-clock time, and
/// none is out of time, because the time in which it waits for the processor does not count.
#[test]
fn load_does_not_change_how_a_program_ends() {
    let Some(protection) = available(&[]) else { return };
    let code = "import time\nwhile time.process_time() < 0.6: pass";
    let short = Limits {
        wall: Duration::from_secs(2),
        cpu: Duration::from_secs(1),
        ..limits()
    };
    std::thread::scope(|scope| {
        let run = || {
            share_a_processor();
            protection.run(&python(&["-c", code], &[]), &short, &|| false)
        };
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(run)).collect();
        for run in runs {
            let outcome = run.join().expect("no panic").expect("it runs");
            assert_eq!(outcome.ended, ProgramEnd::Exit(0), "after {} s", outcome.seconds);
        }
    });
}

/// A signal from outside is not something that the program did: it is an error, and no outcome is recorded.
#[test]
fn a_program_that_something_else_ends_has_no_outcome() {
    let Some(protection) = available(&[]) else { return };
    let marker = format!("ended-{}", std::process::id());
    let long = Limits {
        wall: Duration::from_secs(600),
        ..limits()
    };
    let program = python(&["-c", "import time; time.sleep(600)", &marker], &[]);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| protection.run(&program, &long, &|| false));
        assert!(becomes(|| !processes(&marker).is_empty()), "it has not started");
        for found in processes(&marker) {
            let pid = found
                .trim_start_matches('"')
                .split('"')
                .next()
                .and_then(|pid| pid.parse().ok());
            // SAFETY: sends a signal to the process that was found.
            assert_eq!(unsafe { libc::kill(pid.expect("a number"), libc::SIGKILL) }, 0);
        }
        let error = run.join().expect("no panic").expect_err("it was ended");
        assert!(
            matches!(error, SandboxError::Killed { signal: libc::SIGKILL }),
            "{error}"
        );
    });
    let cancelled = protection.run(&program, &long, &|| true).expect_err("it is cancelled");
    assert!(matches!(cancelled, SandboxError::Cancelled), "{cancelled}");
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
            let outcome = protection.run(
                &python(&["-c", "import time; time.sleep(600)", &marker], &[]),
                &long,
                &|| false,
            );
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
