//! Each program in `hostile/` tries what its first line states: with and without namespaces, and with namespaces also
//! with several processes and files. The result is observed from outside and in its output.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use aurora_sandbox::{Limits, ProgramEnd, Protection};

use crate::elsewhere::{NAMESPACES, again, apply_lacks};
use crate::outside::{CANARY, Outside, litter, processes};
use crate::{available, limits, output_text, python};

/// Programs that run at a time.
const AT_ONCE: usize = 4;

/// Numbers of the system calls that the programs use.
fn calls() -> String {
    macro_rules! numbers {
        ($($name:ident)*) => { [$((&stringify!($name)["SYS_".len()..], libc::$name)),*] };
    }
    let known = numbers!(
        SYS_add_key SYS_bpf SYS_clone SYS_finit_module SYS_fsopen SYS_inotify_init1 SYS_io_uring_setup SYS_ioctl
        SYS_kexec_load SYS_keyctl SYS_memfd_secret SYS_mknodat SYS_mlock SYS_mlockall SYS_mount SYS_mq_open SYS_msgget
        SYS_name_to_handle_at SYS_open_by_handle_at SYS_open_tree SYS_perf_event_open SYS_pivot_root SYS_prctl
        SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_reboot SYS_rt_sigqueueinfo SYS_seccomp SYS_semget
        SYS_sethostname SYS_setns SYS_shmget SYS_swapoff SYS_syslog SYS_tgkill SYS_umount2 SYS_unshare SYS_userfaultfd
    );
    let entries: Vec<String> = known
        .iter()
        .map(|(name, number)| format!("{name:?}: {number}"))
        .collect();
    format!("calls = {{{}}}\n", entries.join(", "))
}

/// Expected ends of programs that do not end by themselves.
fn expected(name: &str) -> Option<ProgramEnd> {
    match name {
        "fork_bomb" | "regular_expression" => Some(ProgramEnd::OutOfTime),
        "output_endless" | "output_errors" => Some(ProgramEnd::TooMuchOutput),
        name => name.starts_with("hang_").then_some(ProgramEnd::OutOfTime),
    }
}

/// Runs one program and returns what it broke.
fn attack(protection: &Protection, outside: &Outside, path: &Path, limits: &Limits) -> Vec<String> {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let marker = format!("hostile-{}-{name}-{}", std::process::id(), limits.processes);
    let expected = expected(&name);
    let constants = format!(
        "{}{}{}marker = {marker:?}\nmemory = {}\nprocesses = {}\nfiles = {}\n",
        include_str!("target.py"),
        outside.python_constants(),
        calls(),
        limits.memory / u64::from(limits.processes),
        limits.processes,
        limits.files,
    );
    let code = fs::read_to_string(path).expect("a program");
    let program = python(
        &["hostile.py", &marker],
        &[("hostile.py", &code), ("target.py", &constants)],
    );
    let wall = if expected == Some(ProgramEnd::OutOfTime) {
        Duration::from_secs(1)
    } else {
        limits.wall
    };
    let limits = Limits { wall, ..limits.clone() };
    let outcome = match protection.run(&program, &limits, &|| false) {
        Ok(outcome) => outcome,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let text = output_text(&outcome);
    let mut failures = Vec::new();
    if outcome.output.len() as u64 > limits.output || text.contains(CANARY) || text.contains("BROKEN") {
        failures.push(format!("{:?}", outcome.ended));
    }
    // An error in the program would prove nothing.
    let program_errors = [
        "SyntaxError",
        "NameError",
        "AttributeError",
        "TypeError",
        "ImportError",
        "KeyError",
    ];
    if program_errors.iter().any(|error| text.contains(error)) {
        failures.push("the program has an error".to_owned());
    }
    let as_expected = match expected {
        // If it cannot fork, its loop reaches the limit.
        Some(expected) => outcome.ended == expected,
        None => !matches!(outcome.ended, ProgramEnd::OutOfTime | ProgramEnd::TooMuchOutput),
    };
    if !as_expected {
        failures.push(format!("ended by {:?}", outcome.ended));
    }
    failures.extend(
        processes(&marker)
            .into_iter()
            .map(|left| format!("left behind: {left}")),
    );
    failures.extend(
        litter(&marker)
            .into_iter()
            .map(|left| format!("left behind: {}", left.display())),
    );
    if !failures.is_empty() {
        failures.push(text);
    }
    failures
        .into_iter()
        .map(|failure| format!("{name} with {} processes: {failure}", limits.processes))
        .collect()
}

#[test]
fn hostile_programs_are_contained() {
    apply_lacks();
    let outside = Outside::new();
    let Some(protection) = available(&[&outside.path("store"), &outside.path("home")]) else {
        return;
    };
    println!("with {protection}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("programs")
        .map(|entry| entry.expect("one").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 40, "{} programs", paths.len());
    let mut work: Vec<_> = paths.iter().map(|path| (path, limits())).collect();
    let some_space = Limits {
        memory: 512 << 20,
        processes: 8,
        files: 1 << 20,
        ..limits()
    };
    if protection
        .run(&python(&["-c", ""], &[]), &some_space, &|| false)
        .is_ok()
    {
        work.extend(paths.iter().map(|path| (path, some_space.clone())));
    }
    let work = Mutex::new(work);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = work.lock().expect("no thread has panicked").pop();
                    let Some((path, limits)) = next else { break };
                    let found = attack(&protection, &outside, path, &limits);
                    failures.lock().expect("no thread has panicked").extend(found);
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no thread has panicked");
    failures.extend(outside.reached());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// As in a plain container. Nothing remains of the folders that programs then have on the machine.
#[test]
fn hostile_programs_are_contained_without_namespaces() {
    if available(&[]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut again = again("hostile::hostile_programs_are_contained", &[NAMESPACES], folder.path());
    let output = again.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let contained = text.contains("with Landlock; seccomp; one process; resource limits");
    assert!(contained || text.contains("missing tool: "), "{text}");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
