//! Simulates other machines: restarts this test in a process to which the kernel refuses what a machine may lack.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use aurora_sandbox::{ProgramEnd, SandboxError, Unprotected, protection};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{limits, output_text, python};

/// Variable with the features that the restarted test lacks.
const LACKS: &str = "AURORA_SANDBOX_TEST_LACKS";
pub const NAMESPACES: &str = "namespaces";
pub const LANDLOCK: &str = "landlock";

/// This test program, for one test in a process that lacks some features and has its temporary files in `folder`.
pub fn again(test: &str, lacks: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]);
    command.env(LACKS, lacks.join(" ")).env("TMPDIR", folder);
    command
}

/// In a test that was started by [`again`]: makes the kernel refuse the features to this thread and threads that it
/// starts, as a container's filter does. Returns whether this is such a test.
pub fn apply_lacks() -> bool {
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
    if !apply_lacks() {
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
        text.contains("with namespaces, the sandbox was not set up: cannot create namespaces"),
        "{text}"
    );
    assert!(
        text.contains("with Landlock, the sandbox was not set up: Landlock:"),
        "{text}"
    );
    // With accepted risk, the limits and the filter still apply.
    let anyway = why.anyway();
    assert!(!anyway.contained());
    assert_eq!(
        anyway.to_string(),
        "not contained; seccomp; one process; resource limits"
    );
    let code = "import socket\ntry: socket.socket()\nexcept OSError as error: print(error)";
    let outcome = anyway
        .run(&python(&["-c", code], &[]), &limits(), &|| false)
        .expect("it runs");
    assert_eq!(
        (outcome.ended, output_text(&outcome).as_str()),
        (ProgramEnd::Exit(0), "[Errno 38] Function not implemented\n")
    );
}

#[test]
fn without_namespaces_only_one_process_without_files_is_run() {
    if !apply_lacks() {
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
        protection.run(&program, &more, &|| false),
        Err(SandboxError::NeedsNamespaces)
    ));
    let mut more = limits();
    more.files = 1;
    assert!(matches!(
        protection.run(&program, &more, &|| false),
        Err(SandboxError::NeedsNamespaces)
    ));
    assert_eq!(
        output_text(&protection.run(&program, &limits(), &|| false).expect("it runs")),
        "1\n"
    );
}
