//! The same run on many layouts: the workers are processes, and no bit depends on the layout.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::project::{Project, SPEC};
use crate::slurm::until;

/// The architectures, each with four logical shards and four lanes.
#[derive(Clone, Copy)]
enum Family {
    Bigcode,
    Llama,
}

fn project(family: Family, precision: &str) -> Project {
    let project = Project::new();
    project.write("specs/small.aur", SPEC);
    project.edit(
        "invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)",
        &format!("invariant(tensor = 4, lanes = 4, micro_batch = 1 sequences)\n  precision = {precision}"),
    );
    project.edit("layers       = 2", "layers       = 5");
    project.edit("budget        = 16 steps", "budget        = 4 steps");
    project.edit("checkpoint    = every 8 steps", "checkpoint    = every 2 steps");
    project.edit("warmup = 4 steps", "warmup = 1 steps");
    project.edit("budget        = 8 steps", "budget        = 2 steps");
    project.edit("[start, every 8 steps, end]", "[end]");
    project.edit(
        "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }",
        "",
    );
    if let Family::Llama = family {
        project.edit(
            "architecture = gpt_bigcode",
            "architecture = llama\n  kv_heads = 2\n  tied_embeddings = false",
        );
    }
    project
}

/// Layouts and thread counts: every degree alone, and pairs of all others.
const LAYOUTS: [(&str, &str); 12] = [
    ("tensor=2", "1"),
    ("tensor=4,sequence_parallel", "1"),
    ("pipeline=2", "2"),
    ("pipeline=4,recompute=selective", "1"),
    ("data=2", "1"),
    ("data=4,distributed_optimizer", "1"),
    (
        "tensor=2,pipeline=2,data=2,sequence_parallel,distributed_optimizer,recompute=full",
        "1",
    ),
    ("tensor=2,pipeline=4,recompute=full", "1"),
    ("tensor=4,data=2", "2"),
    ("pipeline=2,data=4,recompute=selective", "1"),
    ("tensor=2,data=2,sequence_parallel,recompute=selective", "2"),
    ("recompute=full", "2"),
];

fn same_under(project: &Project, layouts: &[(&str, &str)]) {
    project
        .aurora(&["run", "specs/small.aur", "--threads", "1", "--progress", "none"])
        .exits(0);
    for (layout, threads) in layouts {
        let done = project.aurora(&[
            "rerun",
            "lockfiles/small.lock",
            "--layout",
            layout,
            "--threads",
            threads,
            "--json",
            "--progress",
            "none",
        ]);
        assert!(done.0.status.success(), "{layout}: {} {}", done.out(), done.err());
        let document = done.json();
        assert_eq!(document["identical"], true, "{layout}: {document}");
        assert_eq!(document["nodes_compared"], project.keys().len());
    }
}

#[test]
fn gpt_bigcode_has_the_same_bits_under_every_layout() {
    same_under(&project(Family::Bigcode, "f32"), &LAYOUTS);
}

#[test]
fn llama_has_the_same_bits_under_every_layout() {
    same_under(&project(Family::Llama, "f32"), &LAYOUTS);
}

#[test]
fn bf16_has_the_same_bits_under_every_layout() {
    same_under(&project(Family::Bigcode, "bf16"), &LAYOUTS[1..7]);
    same_under(&project(Family::Llama, "bf16"), &LAYOUTS[5..11]);
}

/// The folder of the last run.
fn latest(project: &Project) -> Option<PathBuf> {
    std::fs::canonicalize(project.path(".aurora/runs/latest")).ok()
}

/// Starts a run and waits until it has done `step` steps, or has ended.
pub fn start_until_step(project: &Project, more: &[&str], step: usize) -> Child {
    let before = latest(project);
    let mut child = project.start_with(more);
    until_step(project, &mut child, before.as_deref(), step);
    child
}

/// Waits until a later run has done `step` steps, or has ended.
pub fn until_step(project: &Project, child: &mut Child, before: Option<&Path>, step: usize) {
    let steps = || {
        let own = latest(project).filter(|own| Some(own.as_path()) != before)?;
        Some(std::fs::read_to_string(own.join("metrics.jsonl")).ok()?.lines().count())
    };
    until(|| steps().unwrap_or(0) >= step || child.try_wait().expect("a child").is_some());
}

pub fn signal(pid: u32, name: &str) {
    let signalled = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .expect("kill");
    assert!(signalled.success(), "kill {name} {pid}");
}

pub fn long_project() -> Project {
    let project = project(Family::Bigcode, "f32");
    project.edit("budget        = 4 steps", "budget        = 200 steps");
    project.edit("checkpoint    = every 2 steps", "checkpoint    = every 50 steps");
    project.edit("layers       = 5", "layers       = 2");
    project
}

#[test]
fn a_run_changes_its_layout_at_every_interruption() {
    let uninterrupted = long_project();
    uninterrupted.run();
    let project = long_project();
    let layouts = ["tensor=2", "pipeline=2,data=2", "data=4,distributed_optimizer"];
    for (at, layout) in layouts.iter().enumerate() {
        let mut child = start_until_step(&project, &["--layout", layout], 30 + 10 * at);
        signal(child.id(), if at == 1 { "-USR1" } else { "-TERM" });
        assert_eq!(child.wait().expect("the run ends").code(), Some(75), "{layout}");
        project.aurora(&["verify"]).exits(0);
    }
    let done = project.aurora(&[
        "run",
        "specs/small.aur",
        "--layout",
        "tensor=2,pipeline=2",
        "--progress",
        "plain",
    ]);
    done.exits(0);
    done.prints("resuming cap@");
    assert_eq!(project.results(), uninterrupted.results());
}

/// The worker processes of a run, by rank: they are started in that order.
pub fn workers(child: &Child) -> Vec<u32> {
    let parent = format!(" {} ", child.id());
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name: state, then the parent.
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.get(1..)?.starts_with(&parent).then_some(pid)
    };
    let mut all: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(of)
        .collect();
    all.sort_unstable();
    all
}

/// Whether a process runs and is not a zombie.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_lost_worker_is_reported_and_the_run_continues_with_fewer() {
    let uninterrupted = long_project();
    uninterrupted.run();
    for how in ["-KILL", "-STOP"] {
        let project = long_project();
        // It stops cleanly, and reports the lost worker.
        let child = start_until_step(
            &project,
            &["--layout", "pipeline=2,data=2", "--heartbeat-timeout", "6"],
            70,
        );
        let all = workers(&child);
        assert_eq!(all.len(), 4, "one process per rank");
        signal(all[2], how);
        let output = child.wait_with_output().expect("the run ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{how}: {errors}");
        let cause = if how == "-KILL" {
            "has ended (signal: 9"
        } else {
            "has sent no heartbeat for 6 s"
        };
        assert!(
            errors.contains("rank 2 on 127.0.0.1") && errors.contains(cause),
            "{how}: {errors}"
        );
        assert!(errors.contains("after step "), "{how}: {errors}");
        assert!(!all.iter().any(|pid| lives(*pid)), "{how}: no worker is left");
        project.aurora(&["verify"]).exits(0);
        // Another worker is lost, and half of the workers complete the run.
        let more = [
            "--layout",
            "pipeline=2,data=2",
            "--heartbeat-timeout",
            "6",
            "--restarts",
            "2",
            "--fewer",
        ];
        let child = start_until_step(&project, &more, 20);
        signal(workers(&child)[1], how);
        let output = child.wait_with_output().expect("the run ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{how}: {errors}");
        assert!(
            errors.contains("resuming from the last checkpoint with 2 workers"),
            "{how}: {errors}"
        );
        assert_eq!(project.results(), uninterrupted.results(), "{how}");
    }
}

#[test]
fn an_impossible_layout_is_an_error() {
    let project = project(Family::Bigcode, "f32");
    let refuse = |arguments: &[&str], code: i32, text: &str| {
        let mut all = vec!["run", "specs/small.aur", "--progress", "none"];
        all.extend_from_slice(arguments);
        let done = project.aurora(&all);
        done.exits(code);
        assert!(done.err().contains(text), "{}", done.err());
    };
    refuse(&["--layout", "tensor=3"], 1, "tensor 3 does not divide");
    refuse(&["--layout", "data=8"], 1, "data 8 does not divide");
    refuse(&["--layout", "pipeline=6"], 1, "6 pipeline ranks are more");
    refuse(
        &["--layout", "tensr=2"],
        2,
        "unknown entry `tensr=2`; a layout has tensor, pipeline, data",
    );
    refuse(&["--launcher", "torchrun"], 1, "torchrun's variables are not set");
    let spec = format!(
        "{}\nlayout big {{\n  machine  = mi250x\n  tensor   = 4\n  pipeline = 2\n}}\n",
        project.read("specs/small.aur")
    );
    project.write("specs/small.aur", &spec);
    refuse(&[], 1, "the layout needs 8 devices of the kind MI250X");
}

#[test]
fn the_plan_has_the_memory_of_a_worker() {
    let project = Project::new();
    let without = project.aurora(&["plan", "specs/small.aur", "--json"]).json();
    assert!(without["memory"].is_null(), "no layout, no memory");
    let spec = project.read("specs/small.aur") + "layout four { tensor = 2 pipeline = 2 }\n";
    project.write("specs/small.aur", &spec);
    project
        .aurora(&["plan", "specs/small.aur"])
        .prints("tensor 2 × pipeline 2 × data 1, threads 1), GiB:");
    let plan = project.aurora(&["plan", "specs/small.aur", "--json"]).json();
    let ranks = plan["memory"]["ranks"].as_array().expect("a rank of each stage");
    let stages: Vec<_> = ranks.iter().map(|rank| rank["pp_rank"].as_u64()).collect();
    assert_eq!(stages, [Some(0), Some(1)]);
    for rank in ranks {
        let bytes = rank["bytes"].as_object().expect("bytes by purpose");
        let sum: u64 = bytes.values().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(rank["total"].as_u64(), Some(sum));
        assert!(sum > 0);
    }
}
