//! Numerics classes: machines of one class that have other names, and machines of another class.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::layouts::{long_project, signal, start_until_step};
use crate::project::{Done, Project};

/// The class of [`OTHER_CLASS`] and [`OTHER_BITS`].
const CLASS: &str = "0123456789abcdef";

/// What workers elsewhere report about themselves.
struct Elsewhere<'a> {
    processor: &'a str,
    /// The digits of their probe, if it is not this machine's.
    class: Option<&'a str>,
    /// They add one sum over shards in another order.
    fault: bool,
}

const SAME_CLASS: Elsewhere<'_> = Elsewhere {
    processor: "with another name",
    class: None,
    fault: false,
};

const OTHER_CLASS: Elsewhere<'_> = Elsewhere {
    processor: "of another class",
    class: Some(CLASS),
    fault: false,
};

const OTHER_BITS: Elsewhere<'_> = Elsewhere {
    fault: true,
    ..OTHER_CLASS
};

impl Elsewhere<'_> {
    /// A command of a copy of the program, next to a worker of this machine.
    fn command(&self, project: &Project, arguments: &[&str]) -> Command {
        let folder = project.path("elsewhere");
        std::fs::create_dir_all(&folder).expect("a folder");
        let aurora = folder.join("aurora");
        if !aurora.exists() {
            std::fs::copy(Path::new(env!("CARGO_BIN_EXE_aurora")), &aurora).expect("the program");
        }
        let mut edits = format!("s/\"cpu\":\"[^\"]*\"/\"cpu\":\"{}\"/", self.processor);
        let (mut fault, mut layout) = ("", &[][..]);
        if let Some(class) = self.class {
            let digest = class.repeat(4);
            edits += &format!(";s/\"probe\":\"[^\"]*\"/\"probe\":\"{digest}\"/");
        }
        if self.fault {
            fault = "--fault feed-forward-down-sum-over-shards";
            // The sum over the shards of one worker has only one order.
            layout = &["--layout", "tensor=4", "--threads", "1"];
        }
        let worker = env!("CARGO_BIN_EXE_aurora-worker");
        let script = format!("#!/bin/sh\n'{worker}' {fault} \"$@\" | sed -u '{edits}'\n");
        project.write("elsewhere/aurora-worker", &script);
        let script = folder.join("aurora-worker");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a program");
        project.command_of(&aurora, &[arguments, layout].concat())
    }

    /// Runs the spec there. What the store knows about the class of this machine is forgotten, because the test runs on one
    /// machine.
    fn run(&self, project: &Project) -> Done {
        forget_classes(project);
        let run = ["run", "specs/small.aur", "--progress", "plain"];
        let done = Done(self.command(project, &run).output().expect("the binary starts"));
        forget_classes(project);
        done
    }
}

fn forget_classes(project: &Project) {
    drop(std::fs::remove_dir_all(project.path(".aurora/classes")));
}

/// Four shards, so that the order of a sum changes its bits.
fn project() -> Project {
    let project = Project::new();
    project.edit("tensor = 2, lanes = 2", "tensor = 4, lanes = 2");
    project
}

const LOCK: &str = "lockfiles/small.lock";

/// The value of an entry in the header of the lock.
fn entry(lock: &str, name: &str) -> String {
    let start = format!("{name} = \"");
    let line = lock.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {name} in {lock}"))
        .trim_end_matches('"')
        .to_owned()
}

#[test]
fn results_of_the_same_class_are_used_whatever_the_names_are() {
    let project = project();
    project.run();
    let lock = project.read(LOCK);
    let done = SAME_CLASS.run(&project);
    done.exits(0);
    done.prints("0 built");
    assert_eq!(project.read(LOCK), lock, "the same class and the same results");
    let rerun = ["rerun", LOCK, "--progress", "plain"];
    let rerun = Done(
        SAME_CLASS
            .command(&project, &rerun)
            .output()
            .expect("the binary starts"),
    );
    rerun.exits(0);
    rerun.prints("rerun: identical");
    rerun.prints("with another name");
}

#[test]
fn a_run_resumes_on_a_machine_of_the_same_class_only() {
    for (elsewhere, resumes) in [(OTHER_CLASS, false), (SAME_CLASS, true)] {
        let project = long_project();
        let mut child = start_until_step(&project, &[], 60);
        signal(child.id(), "-TERM");
        assert_eq!(child.wait().expect("the run ends").code(), Some(75));
        let done = elsewhere.run(&project);
        done.exits(0);
        let all = done.out() + &done.err();
        assert_eq!(all.contains("resuming cap@"), resumes, "{all}");
        assert_eq!(all.contains("built    cap@50 "), !resumes, "{all}");
    }
}

#[test]
fn results_of_two_classes_are_kept_side_by_side() {
    let project = project();
    project.run();
    let first = project.read(LOCK);
    let own = entry(&first, "class");
    let done = OTHER_BITS.run(&project);
    done.exits(0);
    done.prints(&format!(
        "they are of numerics class {own}, and this machine is of class {CLASS}"
    ));
    for node in ["cap@8", "cat@8", "eval/heldout/tiny", "learned", "report"] {
        done.prints(node);
    }
    let second = project.read(LOCK);
    assert_eq!(entry(&second, "class"), CLASS);
    assert!(entry(&second, "fingerprint").contains("of another class"), "{second}");
    assert_ne!(project.results(), first.split_once("[result]").expect("results").1);
    project.aurora(&["verify"]).exits(0);
    // Nothing that a lock refers to by its key is garbage, in any class.
    project.aurora(&["gc"]).exits(0);
    let back = project.run();
    back.prints("0 built");
    assert_eq!(project.read(LOCK), first);
    OTHER_BITS.run(&project).prints("0 built");
    assert_eq!(project.read(LOCK), second);
}

#[test]
fn a_plan_assumes_the_only_class_until_a_worker_has_reported_one() {
    let project = project();
    let plan = |text: &str| {
        let done = project.aurora(&["plan", "specs/small.aur"]);
        done.exits(0);
        done.prints(text);
        done
    };
    assert!(!plan("0 cached").err().contains("note:"));
    project.run();
    let own = entry(&project.read(LOCK), "class");
    assert!(!plan("0 to run, 0 changed").err().contains("note:"));
    forget_classes(&project);
    plan(&format!("assumes {own}, the class of the results in the store"));
    OTHER_CLASS.run(&project).exits(0);
    let unknown = plan("are used only where the class agrees");
    unknown.prints(&format!("+ cap@8: its result is of numerics class {CLASS}, {own}"));
    project.aurora(&["report", "specs/small.aur"]).exits(0);
    project.run();
    assert!(!plan("0 to run, 0 changed").err().contains("note:"));
}

#[test]
fn a_run_whose_workers_report_another_class_than_expected_uses_none_of_the_results() {
    let project = project();
    project.run();
    project.edit("peak = 1e-3", "peak = 2e-3");
    // The store expects the class of the first run for a machine with this name.
    let run = ["run", "specs/small.aur", "--progress", "plain"];
    let done = Done(OTHER_CLASS.command(&project, &run).output().expect("the binary starts"));
    done.exits(0);
    for node in ["cap@8", "cap@16", "cat@8", "eval/heldout/tiny"] {
        done.prints(&format!("built    {node} "));
    }
    assert_eq!(entry(&project.read(LOCK), "class"), CLASS);
    let evaluated = ["eval", "small/cap@8", "heldout", "--progress", "none"];
    Done(
        OTHER_CLASS
            .command(&project, &evaluated)
            .output()
            .expect("the binary starts"),
    )
    .exits(0);
}

#[test]
fn a_checkpoint_of_another_class_is_not_evaluated() {
    let project = project();
    project.run();
    forget_classes(&project);
    let evaluated = ["eval", "small/cap@8", "heldout", "--progress", "none"];
    let done = Done(
        OTHER_CLASS
            .command(&project, &evaluated)
            .output()
            .expect("the binary starts"),
    );
    done.exits(4);
    done.prints(&format!(
        "no result of `cap@8` of this machine's numerics class, {CLASS}"
    ));
}

#[test]
fn an_eval_decides_what_it_needs_when_the_class_is_known() {
    let project = project();
    project.run();
    forget_classes(&project);
    // The scores are in the store, and nothing else is needed.
    for record in std::fs::read_dir(project.path(".aurora/actions"))
        .expect("records")
        .flatten()
    {
        if record.path().is_file() {
            std::fs::remove_file(record.path()).expect("a record");
        }
    }
    let evaluated = ["eval", "small/cap@8", "heldout", "--progress", "plain"];
    let done = Done(
        SAME_CLASS
            .command(&project, &evaluated)
            .output()
            .expect("the binary starts"),
    );
    done.exits(0);
    done.prints("bits_per_byte");
    assert!(!done.err().contains("built "), "{}", done.err());
}

#[test]
fn a_rerun_on_another_class_compares_within_a_tolerance() {
    let project = project();
    project.run();
    let lock = project.read(LOCK);
    let own = entry(&lock, "class");
    let rerun = |more: &[&str]| {
        let arguments = [&["rerun", LOCK, "--progress", "plain"], more].concat();
        let output = OTHER_BITS.command(&project, &arguments).output();
        Done(output.expect("the binary starts"))
    };
    let done = rerun(&[]);
    done.exits(0);
    let note = format!("the lock's results are of numerics class {own}, and this machine is of class {CLASS}");
    let all = done.err();
    let (at, first) = (all.find(&note), all.find("built    cap@8"));
    assert!(at.is_some() && at < first, "{all}");
    done.prints("another class: not compared bit by bit: cap@8, ");
    done.prints(&format!(
        "rerun: agrees within 0.1% (class {CLASS}, the lock's is {own}; "
    ));
    assert!(!done.out().contains("identical"), "{}", done.out());
    let document = rerun(&["--json"]).json();
    assert_eq!(document["identical"], false);
    assert_eq!(document["classes"]["lock"], own.as_str());
    assert_eq!(document["classes"]["tolerance"], 1e-3);
    // Without the results of the lock's class there is nothing to compare losses with.
    std::fs::remove_dir_all(project.path(&format!(".aurora/actions/{own}"))).expect("results");
    let without = rerun(&[]);
    without.exits(0);
    without.prints("rerun: no losses or scores compared");
}

#[test]
fn a_lock_of_the_earlier_version_is_rewritten_with_all_results() {
    let project = Project::new();
    project.run();
    let lock = project.read(LOCK);
    let class = entry(&lock, "class");
    let machine = entry(&lock, "fingerprint");
    let earlier = lock.replacen("version = 3", "version = 1", 1);
    let earlier = earlier.replacen(&format!("class = \"{class}\"\n"), "", 1);
    let earlier = earlier.replacen(&machine, &format!("{machine}, probe {class}"), 1);
    // A single file was pinned by its bytes alone.
    let table: toml::Table = toml::from_str(&lock).expect("a lock");
    let files = [
        ("english", "english.txt"),
        ("finnish", "finnish.txt"),
        ("program", "program.py"),
    ];
    let earlier = files.iter().fold(earlier, |earlier, (source, file)| {
        let content = table["source"][source]["content"].as_str().expect("a digest");
        let bytes = project.read(&format!("data/{file}")).into_bytes();
        earlier.replace(content, &aurora_runtime::content_of(&bytes))
    });
    project.write(LOCK, &earlier);
    let check = project.aurora(&["lock", "specs/small.aur", "--check"]);
    check.exits(1);
    check.prints("version: `1` → `3`");
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    assert_eq!(project.read(LOCK), lock);
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
}

#[test]
fn portable_numerics_have_one_class_on_all_processors() {
    let project = Project::new();
    project.edit("invariant(", "portable(");
    project.run();
    let lock = project.read(LOCK);
    assert!(entry(&lock, "class").starts_with("portable-"), "{lock}");
    assert_eq!(entry(&lock, "fingerprint"), "portable kernels");
    // Another probe of libtorch's kernels, and the same of Aurora's own.
    OTHER_CLASS.run(&project).prints("0 built");
    assert_eq!(project.read(LOCK), lock);
}
