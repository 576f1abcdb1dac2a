//! Records of the store that are missing, exchanged, damaged or not files: `verify` names them, `run` writes them
//! again, and `gc` deletes nothing because of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::missing_tools::missing_tool;
use crate::project::{Done, Project};
use crate::slurm::until;

/// The files of a folder of the store and of its folders for numerics classes, by name.
pub fn records(project: &Project, folder: &str) -> Vec<PathBuf> {
    let listed = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    };
    let all = listed(&project.path(".aurora").join(folder));
    let (classes, mut found): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(|path| path.is_dir());
    found.extend(classes.iter().flat_map(|class| listed(class)));
    found.sort();
    found
}

fn inside_store(project: &Project, path: &Path) -> String {
    let inside = path.strip_prefix(project.path(".aurora")).expect("a path in the store");
    inside.to_string_lossy().into_owned()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file");
}

const FOLDERS: [&str; 3] = ["actions", "realised", "names/small"];

/// Every path below the store, without what `gc` may delete.
fn kept(project: &Project) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in FOLDERS {
        found.extend(records(project, folder).iter().map(|path| inside_store(project, path)));
    }
    found.extend(project.objects().iter().map(|path| inside_store(project, path)));
    found
}

/// `verify` names these paths; a run repairs the store without another result.
#[track_caller]
fn reported_and_repaired(project: &Project, paths: &[PathBuf], results: &str) {
    let verified = project.aurora(&["verify"]);
    verified.exits(1);
    for path in paths {
        verified.prints(&format!("damaged: {}", inside_store(project, path)));
    }
    project.run();
    assert_eq!(project.results(), results);
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn exchanged_records_are_reported_and_not_used() {
    let project = Project::new();
    project.run();
    let results = project.results();
    for folder in FOLDERS {
        let all = records(&project, folder);
        let (first, second) = (&all[0], &all[1]);
        let (a, b) = (fs::read(first).expect("a record"), fs::read(second).expect("a record"));
        assert_ne!(a, b);
        fs::write(first, b).expect("a record");
        fs::write(second, a).expect("a record");
        reported_and_repaired(&project, &[first.clone(), second.clone()], &results);
    }
    // A record of another kind under the right name.
    let action = records(&project, "actions").remove(0);
    let name = records(&project, "names/small").remove(0);
    fs::copy(&name, &action).expect("a record");
    reported_and_repaired(&project, &[action], &results);
}

#[test]
fn deleted_records_are_reported_and_written_again() {
    let project = Project::new();
    project.run();
    let results = project.results();
    for folder in FOLDERS {
        let path = records(&project, folder).remove(0);
        fs::remove_file(&path).expect("a record");
        reported_and_repaired(&project, &[path], &results);
    }
}

#[test]
fn folders_and_pipes_in_place_of_files_are_reported_and_replaced() {
    let project = Project::new();
    project.run();
    let results = project.results();
    let mut paths: Vec<PathBuf> = FOLDERS
        .iter()
        .map(|folder| records(&project, folder).remove(0))
        .collect();
    paths.push(project.objects().remove(0));
    for path in &paths {
        fs::remove_file(path).expect("a file");
        fs::create_dir(path).expect("a folder");
    }
    reported_and_repaired(&project, &paths, &results);
    for path in &paths {
        fs::remove_file(path).expect("a file");
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    }
    reported_and_repaired(&project, &paths, &results);
}

#[test]
fn gc_stops_at_a_record_that_it_cannot_read() {
    let project = Project::new();
    project.run();
    for folder in FOLDERS {
        let path = records(&project, folder).remove(0);
        let record = fs::read(&path).expect("a record");
        fs::remove_file(&path).expect("a record");
        // Opening it fails, also for root.
        std::os::unix::fs::symlink(&path, &path).expect("a link to itself");
        let before = kept(&project);
        let collected = project.aurora(&["gc"]);
        assert_eq!(kept(&project), before);
        collected.exits(4);
        collected.prints(&inside_store(&project, &path));
        collected.prints("nothing was deleted");
        fs::remove_file(&path).expect("the link");
        fs::write(&path, record).expect("a record");
    }
    // Without this name, the results that it refers to would be deleted.
    let name = records(&project, "names/small").remove(0);
    flip(&name);
    let before = kept(&project);
    let collected = project.aurora(&["gc"]);
    assert_eq!(kept(&project), before);
    collected.exits(4);
    collected.prints(&inside_store(&project, &name));
}

#[test]
fn gc_keeps_a_damaged_record_that_is_in_use() {
    let project = Project::new();
    project.run();
    let action = records(&project, "actions").remove(0);
    flip(&action);
    let before = kept(&project);
    let collected = project.aurora(&["gc"]);
    assert_eq!(kept(&project), before);
    collected.exits(0);
    collected.prints(&format!("kept: {}", inside_store(&project, &action)));
    let part = format!("record {}", inside_store(&project, &action));
    project
        .aurora(&["plan", "specs/small.aur"])
        .prints(&format!("{part} of its result is damaged"));
    // A result that nothing refers to is deleted, damaged or not.
    project.run().prints(&format!("note: {part} of the result of"));
    project.edit("peak = 1e-3", "peak = 2e-3");
    let before: BTreeSet<PathBuf> = records(&project, "actions").into_iter().collect();
    project.run();
    project.edit("peak = 2e-3", "peak = 3e-3");
    let new = records(&project, "actions")
        .into_iter()
        .find(|path| !before.contains(path));
    project.run();
    let new = new.expect("a result of the changed spec");
    flip(&new);
    project.aurora(&["gc"]).exits(0);
    assert!(!new.exists());
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn gc_keeps_what_is_younger_than_a_run_that_may_be_running() {
    let project = Project::new();
    project.run();
    fs::remove_dir_all(project.path(".aurora/names")).expect("the names");
    fs::remove_dir_all(project.path("lockfiles")).expect("the locks");
    project.write("lockfiles/none.txt", "");
    let all = project.objects();
    let text = project.read(".aurora/runs/latest/run.json");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["id"] = "aaaaaaaa".into();
    record["status"] = "running".into();
    record["started"] = 1.into();
    record["process"]["host"] = "elsewhere.example".into();
    project.write(".aurora/runs/aaaaaaaa/run.json", &record.to_string());
    let collected = project.aurora(&["gc"]);
    assert_eq!(project.objects(), all);
    collected.exits(0);
    collected.prints("run aaaaaaaa");
    // Without that run, everything is deleted.
    fs::remove_dir_all(project.path(".aurora/runs/aaaaaaaa")).expect("the run");
    project.aurora(&["gc"]).exits(0);
    assert_eq!(project.objects(), [""; 0].map(PathBuf::from));
}

#[test]
fn damaged_runs_and_imports_are_reported() {
    let project = Project::new();
    project.run();
    let id = fs::read_link(project.path(".aurora/runs/latest")).expect("a link");
    let id = id.to_string_lossy().into_owned();
    for file in ["run.json", "metrics.jsonl", "run.lock", "report.html"] {
        let path = project.path(&format!(".aurora/runs/{id}/{file}"));
        let bytes = fs::read(&path).expect("a file of the run");
        // One digit, so that the text is still well-formed.
        let digit = bytes.iter().position(u8::is_ascii_digit).expect("a digit");
        let mut changed = bytes.clone();
        changed[digit] = if changed[digit] == b'0' { b'1' } else { b'0' };
        fs::write(&path, changed).expect("a file of the run");
        let verified = project.aurora(&["verify"]);
        verified.exits(1);
        verified.prints(&format!("damaged: runs/{id}/{file}"));
        let diff = project.aurora(&["diff", &id, &id]);
        diff.exits(1);
        diff.prints(&id);
        fs::remove_file(&path).expect("a file of the run");
        let verified = project.aurora(&["verify"]);
        verified.exits(1);
        verified.prints(&format!("damaged: runs/{id}/{file}"));
        fs::write(&path, bytes).expect("a file of the run");
    }
    project.aurora(&["verify"]).exits(0);
    let text = format!(".aurora/imports/{}", "0".repeat(64));
    project.write(&text, "let rate = 9\n");
    let verified = project.aurora(&["verify"]);
    verified.exits(1);
    verified.prints(&format!("damaged: imports/{}", "0".repeat(64)));
}

/// A library that makes flock fail, as on file systems without it. `None` without a compiler.
fn without_flock(project: &Project) -> Option<PathBuf> {
    let (source, library) = (project.path("flock.c"), project.path("flock.so"));
    let text = "#include <errno.h>\nint flock(int file, int operation) { errno = ENOLCK; return -1; }\n";
    fs::write(&source, text).expect("a source");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]);
    let compiled = compiler.status().is_ok_and(|status| status.success());
    compiled.then_some(library)
}

#[test]
fn a_store_without_flock_uses_lock_files_that_do_not_outlive_their_process() {
    let project = Project::new();
    let Some(library) = without_flock(&project) else {
        return missing_tool("cc", "file systems without flock");
    };
    let command = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        command
            .env("LD_PRELOAD", &library)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let run = ["run", "specs/small.aur", "--progress", "none"];
    let refused = Done(command(&run).output().expect("the binary starts"));
    refused.exits(4);
    refused.prints("does not support locks of files (flock): No locks available");
    refused.prints("= help: write the line `store_lock = file` to the file `settings` in the folder of the store");

    project.write(".aurora/settings", "store_lock = file\n");
    let mut killed = command(&run).spawn().expect("the binary starts");
    assert!(until(|| !records(&project, "actions").is_empty()));
    // Stopped, it cannot end before `gc` has begun.
    crate::layouts::signal(killed.id(), "-STOP");
    let gc = Done(command(&["gc"]).output().expect("the binary starts"));
    killed.kill().expect("a child");
    killed.wait().expect("a child");
    gc.exits(4);
    gc.prints(&format!(
        "another process is using the store `{}`",
        project.path(".aurora").display()
    ));
    gc.prints(&format!(": process {} on ", killed.id()));
    gc.prints("(`aurora run specs/small.aur`)");
    // Its claims are stale at once, because it has ended on this host.
    Done(command(&["gc"]).output().expect("the binary starts")).exits(0);

    let both = [run, run].map(|run| command(&run).spawn().expect("the binary starts"));
    for child in both {
        Done(child.wait_with_output().expect("a child")).exits(0);
    }
    project.aurora(&["verify"]).exits(0);
    let rerun = ["rerun", "lockfiles/small.lock", "--progress", "none"];
    let rerun = Done(command(&rerun).output().expect("the binary starts"));
    rerun.exits(0);
    rerun.prints("rerun: identical");
    // Nothing but the lock of the whole store has been left.
    Done(command(&["gc"]).output().expect("the binary starts")).exits(0);
    let names = |folder: &str| -> Vec<_> {
        let entries = fs::read_dir(project.path(folder)).expect("a folder");
        entries.flatten().map(|entry| entry.file_name()).collect()
    };
    assert_eq!(names(".aurora/locks"), ["store"]);
    assert_eq!(names(".aurora/locks/store"), ["flock"], "of the first attempt");
}

#[test]
fn a_limit_of_open_files_is_named() {
    let project = Project::new();
    let mut named = 0;
    for limit in 6..14 {
        let limited = format!("ulimit -n {limit}; exec \"$0\" run specs/small.aur --progress none --threads 1");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_aurora")]);
        command
            .current_dir(project.root())
            .env("AURORA_LIBTORCH", crate::project::libtorch());
        let done = Done(command.output().expect("sh"));
        if done.err().contains("Too many open files") {
            done.exits(4);
            done.prints("= help: raise the limit of open files (`ulimit -n`)");
            named += 1;
        }
    }
    assert!(named > 3, "{named}");
    project.run();
}
