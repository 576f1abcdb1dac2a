//! `aurora bisect`: a run on one worker, its repetition on several, and a worker that adds one sum in another order.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::project::{Done, Project};

/// Four shards, so that the order of a sum changes its bits.
fn project() -> Project {
    let project = Project::new();
    project.edit("tensor = 2, lanes = 2", "tensor = 4, lanes = 2");
    project.edit("budget        = 8 steps", "budget        = 4 steps");
    project
        .aurora(&["run", "specs/small.aur", "--threads", "1", "--progress", "none"])
        .exits(0);
    project
}

fn run_id(project: &Project) -> String {
    let latest = std::fs::read_link(project.path(".aurora/runs/latest")).expect("a run");
    latest.to_string_lossy().into_owned()
}

/// A copy of the program next to a worker with `--fault`.
fn faulty(project: &Project, fault: &str, arguments: &[&str]) -> Done {
    let own = Path::new(env!("CARGO_BIN_EXE_aurora"));
    let folder = project.path("faulty");
    let aurora = folder.join("aurora");
    if !aurora.exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(own, &aurora).expect("a copy");
    }
    let worker = env!("CARGO_BIN_EXE_aurora-worker");
    project.write(
        "faulty/aurora-worker",
        &format!("#!/bin/sh\nexec '{worker}' --fault {fault} \"$@\"\n"),
    );
    let script = folder.join("aurora-worker");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let mut command = project.command_of(&aurora, arguments);
    Done(command.output().expect("the binary starts"))
}

const REPEAT: [&str; 8] = [
    "rerun",
    "lockfiles/small.lock",
    "--layout",
    "tensor=4,data=2",
    "--threads",
    "1",
    "--progress",
    "none",
];

#[test]
fn the_first_operation_that_differs_is_named() {
    let project = project();
    let run = run_id(&project);
    let fault = "feed-forward-down-sum-over-shards";
    let rerun = faulty(&project, fault, &[&REPEAT[..], &["--into", "again"]].concat());
    rerun.exits(1);
    rerun.prints("rerun: DIFFERENT");
    rerun.prints("node `cap@8`, step 1 (loss), tensor `");

    let found = faulty(
        &project,
        fault,
        &["bisect", &run, "again", "--json", "--progress", "none"],
    );
    found.exits(1);
    let document = found.json();
    assert_eq!(document["identical"], false);
    assert_eq!(document["node"], "cap@8");
    assert_eq!(document["steps"], serde_json::json!({ "first": 1, "last": 1 }));
    let first = &document["first_difference"];
    let text = "step 1, micro-batch 0, forward, layer 0, feed-forward down, sum over shards, rows of block 0";
    assert_eq!(first["text"], text);
    assert_eq!(first["operation"]["operation"], "feed-forward down, sum over shards");
    assert_ne!(first["operation"]["a"], first["operation"]["b"]);
    assert_eq!(document["repeats"], serde_json::json!([true, true]));
    assert!(document["operations"]["agreeing_before"].as_u64().expect("a number") > 20);
    assert_eq!(document["executions"][1]["layout"]["data"], 2);

    let text_output = faulty(&project, fault, &["bisect", &run[..6], "again", "--progress", "none"]);
    text_output.exits(1);
    text_output.prints(&format!("first difference: {text}\n"));
    text_output.prints("tensor=4,pipeline=1,data=2 threads=1)");
    text_output.prints("operations before it agree");

    // A worker without `--fault`: no difference.
    let correct = project.aurora(&["bisect", &run, "again", "--progress", "none"]);
    correct.exits(1);
    correct.prints("not repeatable: the cause was not the arithmetic of this build on this machine");
    correct.prints(&format!("the repetition agrees with {run}\n"));
}

#[test]
fn identical_executions_are_reported_and_invalid_names_are_errors() {
    let project = project();
    let run = run_id(&project);
    project.aurora(&[&REPEAT[..], &["--into", "again"]].concat()).exits(0);
    let done = project.aurora(&["bisect", &run, "again", "--json"]);
    done.exits(0);
    let document = done.json();
    assert_eq!(document["identical"], true);
    assert_eq!(document["nodes_compared"], project.keys().len());
    project.aurora(&["bisect", ".", "again"]).prints("bisect: identical");

    let one = project.aurora(&["bisect", &run, "."]);
    one.exits(1);
    one.prints("are the same store");
    let none = project.aurora(&["bisect", "zz", "again"]);
    none.exits(1);
    none.prints("neither a folder with an execution nor a run");
    project.run();
    let cached = project.aurora(&["bisect", &run_id(&project), "again"]);
    cached.exits(1);
    cached.prints("has computed nothing");
    let folder = project.aurora(&["bisect", "data", "again"]);
    folder.exits(1);
}
