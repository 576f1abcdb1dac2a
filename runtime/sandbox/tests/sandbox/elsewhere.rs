//! Other machines: this test started again, in a process to which the kernel refuses what a machine may lack.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use aurora_sandbox::{Ended, SandboxError, Unprotected, protection};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{limits, python, said};

/// Names what the started test lacks.
const LACKS: &str = "AURORA_SANDBOX_TEST_LACKS";
pub const NAMESPACES: &str = "namespaces";
pub const LANDLOCK: &str = "landlock";

/// This test program, to run one test in a process that lacks some things and keeps temporary files in `folder`.
pub fn again(test: &str, lacks: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]);
    command.env(LACKS, lacks.join(" ")).env("TMPDIR", folder);
    command
}

/// In a test that was started by [`again`]: makes the kernel refuse it to this thread and those that it starts, as the
/// filter of a container does. Says whether this is such a test.
pub fn lack_what_is_said() -> bool {
    let Ok(lacks) = std::env::var(LACKS) else {
        return false;
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    if lacks.contains(NAMESPACES) {
        let flag = libc::CLONE_NEWUSER as u64;
        let new_user = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag);
        let rule = SeccompRule::new(vec![new_user.expect("a condition")]).expect("a rule");
        rules.insert(libc::SYS_clone, vec![rule.clone()]);
        rules.insert(libc::SYS_unshare, vec![rule]);
    }
    if lacks.contains(LANDLOCK) {
        rules.insert(libc::SYS_landlock_create_ruleset, Vec::new());
    }
    if !rules.is_empty() {
        let machine = std::env::consts::ARCH.try_into().expect("a known machine");
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine).expect("a filter");
        let filter: BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&filter).expect("a filter may be set");
    }
    true
}

#[test]
fn nothing_runs_where_nothing_protects() {
    if !lack_what_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let test = "elsewhere::nothing_runs_where_nothing_protects";
        let output = again(test, &[NAMESPACES, LANDLOCK], folder.path())
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let why = protection(&[]).expect_err("neither is there");
    let text = why.to_string();
    assert!(matches!(why, Unprotected::Machine { .. }));
    assert!(
        text.contains("with namespaces, the sandbox was not set up: cannot make namespaces"),
        "{text}"
    );
    assert!(
        text.contains("with Landlock, the sandbox was not set up: Landlock:"),
        "{text}"
    );
    // Whoever takes the risk still has the limits and the filter.
    let anyway = why.anyway();
    assert!(!anyway.contained());
    assert_eq!(
        anyway.to_string(),
        "not contained; seccomp; one process; resource limits"
    );
    let code = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error)";
    let outcome = anyway.run(&python(&["-c", code], &[]), &limits()).expect("it runs");
    assert_eq!(
        (outcome.ended, said(&outcome).as_str()),
        (Ended::Exit(0), "[Errno 38] Function not implemented\n")
    );
}

#[test]
fn without_namespaces_only_one_process_without_files_is_run() {
    if !lack_what_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let test = "elsewhere::without_namespaces_only_one_process_without_files_is_run";
        let output = again(test, &[NAMESPACES], folder.path()).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let Ok(protection) = protection(&[]) else { return };
    let program = python(&["-c", "print(1)"], &[]);
    let mut more = limits();
    more.processes = 2;
    assert!(matches!(
        protection.run(&program, &more),
        Err(SandboxError::NeedsNamespaces)
    ));
    let mut more = limits();
    more.files = 1;
    assert!(matches!(
        protection.run(&program, &more),
        Err(SandboxError::NeedsNamespaces)
    ));
    assert_eq!(said(&protection.run(&program, &limits()).expect("it runs")), "1\n");
}
