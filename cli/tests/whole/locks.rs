//! Locks with changes that Aurora did not write.

use crate::project::Project;

/// A run project whose lock has been changed.
fn with_lock(change: impl FnOnce(&str) -> String) -> Project {
    let project = Project::new();
    project.run();
    let lock = project.read("lockfiles/small.lock");
    let changed = change(&lock);
    assert_ne!(lock, changed);
    project.write("lockfiles/small.lock", &changed);
    project
}

#[track_caller]
fn refused(project: &Project, code: &str, message: &str) {
    for arguments in [
        &["run", "specs/small.aur", "--progress", "none"][..],
        &["rerun", "lockfiles/small.lock", "--progress", "none"],
        &["lock", "specs/small.aur", "--check"],
    ] {
        let done = project.aurora(arguments);
        done.exits(1);
        done.prints(message);
        done.prints(code);
    }
    project.aurora(&["explain", code]).exits(0);
}

#[test]
fn conflict_markers() {
    let project = with_lock(|lock| lock.replacen("[node.", "<<<<<<< ours\n=======\n>>>>>>> theirs\n[node.", 1));
    refused(&project, "E0502", "merge conflicts");
}

#[test]
fn a_newer_version() {
    let project = with_lock(|lock| lock.replacen("version = 1", "version = 2", 1));
    refused(&project, "E0503", "version 2");
}

#[test]
fn not_a_lock() {
    refused(
        &with_lock(|lock| lock[..lock.len() / 2].trim_end_matches('"').to_string() + "x"),
        "E0501",
        "cannot be read",
    );
    refused(
        &with_lock(|lock| lock.replacen("libtorch", "libtorhc", 1)),
        "E0501",
        "libtorhc",
    );
}

#[test]
fn an_edited_pin() {
    let project = with_lock(|lock| {
        let at = lock.find("content = \"").expect("a pin") + 11;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &lock[..at], &lock[at + 1..])
    });
    refused(&project, "E0505", "differs");
}

#[test]
fn an_edited_key() {
    let project = with_lock(|lock| {
        let at = lock.rfind("key = \"").expect("a key") + 7;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &lock[..at], &lock[at + 1..])
    });
    refused(&project, "E0505", "differs");
}

#[test]
fn an_edited_result() {
    let project = with_lock(|lock| {
        let at = lock.find("\"cap@8\" = \"").expect("a result") + 11;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &lock[..at], &lock[at + 1..])
    });
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(1);
    done.prints("E0505");
    done.prints("cap@8");
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
    rerun.exits(1);
    rerun.prints("first difference: node `cap@8`");
}

#[test]
fn the_lock_of_another_spec() {
    let project = with_lock(|lock| lock.replacen("experiment = \"small\"", "experiment = \"large\"", 1));
    let done = project.aurora(&["run", "specs/small.aur"]);
    done.exits(1);
    done.prints("E0504");
}

#[test]
fn a_changed_spec() {
    let project = Project::new();
    project.run();
    project.edit("peak = 1e-3", "peak = 2e-3");
    let locked = project.aurora(&["run", "specs/small.aur", "--locked"]);
    locked.exits(1);
    locked.prints("E0506");
    locked.prints("cat@8");
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock"]);
    rerun.exits(1);
    rerun.prints("has changed since the lock was written");
}

#[test]
fn results_of_another_kind_of_machine_are_reported() {
    let project = with_lock(|lock| {
        let at = lock.find("\"cap@8\" = \"").expect("a result") + 11;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        let edited = format!("{}{digit}{}", &lock[..at], &lock[at + 1..]);
        edited.replacen("fingerprint = \"", "fingerprint = \"another, ", 1)
    });
    std::fs::remove_dir_all(project.path(".aurora")).expect("a store");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "plain"]);
    done.exits(0);
    done.prints("made on another kind of machine");
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
    rerun.prints("rerun: identical");
}
