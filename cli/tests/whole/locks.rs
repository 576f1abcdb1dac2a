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
    let project = with_lock(|lock| lock.replacen("version = 3", "version = 4", 1));
    refused(&project, "E0503", "version 4");
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

/// The lock, as if its results were of another numerics class.
fn with_another_class(lock: &str) -> String {
    let at = lock.find("class = \"").expect("a class") + 9;
    format!("{}0000000000000000{}", &lock[..at], &lock[at + 16..])
}

#[test]
fn results_of_another_class_are_reported() {
    let project = with_lock(|lock| {
        let at = lock.find("\"cap@8\" = \"").expect("a result") + 11;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        let edited = format!("{}{digit}{}", &lock[..at], &lock[at + 1..]);
        with_another_class(&edited)
    });
    std::fs::remove_dir_all(project.path(".aurora")).expect("a store");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "plain"]);
    done.exits(0);
    done.prints("numerics class 0000000000000000");
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
    rerun.prints("rerun: identical");
}

/// The names of the lock's nodes.
fn nodes(lock: &str) -> usize {
    lock.matches("\n[node.").count()
}

/// The lock with only the first of its results.
fn one_result(lock: &str) -> String {
    let (head, results) = lock.split_once("[result]\n").expect("results");
    let first = results.lines().next().expect("a result");
    format!("{head}[result]\n{first}\n")
}

#[test]
fn lost_results_are_found() {
    refused(&with_lock(one_result), "E0505", "does not have a result");
    let all = with_lock(|lock| lock.split_once("[result]").expect("results").0.to_owned());
    refused(&all, "E0505", "does not have a result");
}

#[test]
fn a_rerun_of_a_partial_lock_says_how_much_it_compared() {
    let project = with_lock(|lock| one_result(lock).replacen("results = \"complete\"", "results = \"partial\"", 1));
    let all = nodes(&project.read("lockfiles/small.lock"));
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
    rerun.exits(0);
    rerun.prints(&format!("1 of {all} nodes compared"));
    assert!(!rerun.out().contains("identical"), "{}", rerun.out());
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none", "--json"]);
    let document = rerun.json();
    assert_eq!(document["identical"], false);
    assert_eq!(
        (&document["nodes_compared"], &document["nodes"]),
        (&1.into(), &all.into())
    );
}

#[test]
fn a_lost_data_order() {
    let project = with_lock(|lock| {
        let at = lock.find("[order.cat]").expect("an order");
        let end = at + lock[at..].find("\n\n").expect("the next table") + 2;
        format!("{}{}", &lock[..at], &lock[end..])
    });
    refused(&project, "E0505", "order `cat`");
}

#[test]
fn an_edited_number_of_samples() {
    let project = with_lock(|lock| lock.replacen("samples = 64\n", "samples = 65\n", 1));
    refused(&project, "E0505", "order `cat`");
}

#[test]
fn an_edited_commitment_is_found_and_kept() {
    for more in [&[][..], &["--locked"]] {
        let project = with_lock(|lock| {
            let at = lock.find("commitment = \"").expect("an order") + 14;
            let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
            format!("{}{digit}{}", &lock[..at], &lock[at + 1..])
        });
        let edited = project.read("lockfiles/small.lock");
        let mut arguments = vec!["run", "specs/small.aur", "--progress", "none"];
        arguments.extend(more);
        let done = project.aurora(&arguments);
        done.exits(4);
        done.prints("the data order differs from the lock");
        assert_eq!(project.read("lockfiles/small.lock"), edited);
        let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
        rerun.exits(4);
        rerun.prints("the data order differs from the lock");
    }
}

#[test]
fn an_edited_intent() {
    let project = with_lock(|lock| {
        let at = lock.find("intent = \"").expect("the intent") + 10;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &lock[..at], &lock[at + 1..])
    });
    refused(&project, "E0505", "intent");
}

#[test]
fn a_locked_run_leaves_the_lock_as_it_is() {
    let project = Project::new();
    project.run();
    let complete = project.read("lockfiles/small.lock");
    let edited = |lock: &str| {
        let at = lock.find("\"cap@8\" = \"").expect("a result") + 11;
        let digit = if &lock[at..=at] == "0" { "1" } else { "0" };
        let edited = format!("{}{digit}{}", &lock[..at], &lock[at + 1..]);
        with_another_class(&edited)
    };
    project.write("lockfiles/small.lock", &edited(&complete));
    std::fs::remove_dir_all(project.path(".aurora")).expect("a store");
    let done = project.aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"]);
    done.exits(1);
    done.prints("cap@8");
    assert_eq!(project.read("lockfiles/small.lock"), edited(&complete));
}

#[test]
fn a_lock_without_its_fingerprint() {
    let project = with_lock(|lock| {
        let lines = lock.lines().filter(|line| !line.starts_with("fingerprint"));
        lines.map(|line| format!("{line}\n")).collect()
    });
    refused(&project, "E0505", "fingerprint");
    let project = with_lock(|lock| {
        let lines = lock.lines().filter(|line| !line.starts_with("class"));
        lines.map(|line| format!("{line}\n")).collect()
    });
    refused(&project, "E0505", "class");
}

#[test]
fn a_run_without_workers_records_the_fingerprint() {
    let project = Project::new();
    project.run();
    let lock = project.read("lockfiles/small.lock");
    assert!(lock.contains("\nfingerprint = "));
    std::fs::remove_file(project.path("lockfiles/small.lock")).expect("a lock");
    project.run().prints("0 built");
    assert_eq!(project.read("lockfiles/small.lock"), lock);
}

#[test]
fn a_changed_budget_gives_a_lock_that_can_be_used() {
    let project = Project::new();
    project.run();
    project.edit("budget        = 16 steps", "budget        = 24 steps");
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    project.run();
    assert!(project.read("lockfiles/small.lock").contains("results = \"complete\""));
    project
        .aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"])
        .prints("rerun: identical");
}

/// A check of a lock needs no store, and makes none.
#[test]
fn a_lock_is_checked_without_a_store() {
    let project = Project::new();
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    std::fs::remove_dir_all(project.path(".aurora")).expect("the store");
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    assert!(!project.path(".aurora").exists());
    // What is in the place of a folder of the store is named.
    project.write(".aurora/rerun", "");
    project.run();
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock"]);
    rerun.exits(4);
    rerun.prints(".aurora/rerun/");
    std::fs::remove_dir_all(project.path(".aurora/runs")).expect("runs");
    project.write(".aurora/runs", "");
    for command in [&["status"][..], &["run", "specs/small.aur"]] {
        let done = project.aurora(command);
        assert!(done.err().contains("/.aurora"), "{command:?}: {}", done.err());
    }
}
