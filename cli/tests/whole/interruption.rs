//! Killing, stopping and resuming runs.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::project::Project;
use crate::stores::records;

/// Waits until the number of results in the store satisfies `reached`, or the run ends.
fn until(project: &Project, child: &mut Child, reached: impl Fn(usize) -> bool) {
    let began = Instant::now();
    loop {
        let results = records(project, "actions").len();
        if reached(results)
            || child.try_wait().expect("a child").is_some()
            || began.elapsed() > Duration::from_secs(120)
        {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_run_resumes_with_the_same_results() {
    let uninterrupted = Project::new();
    uninterrupted.run();
    let project = Project::new();
    let total = uninterrupted.keys().len();
    // After every second result: while fetching, extracting, tokenizing, training, writing, evaluating.
    for after in (1..total).step_by(2) {
        let mut child = project.start();
        until(&project, &mut child, |results| results >= after);
        drop(child.kill());
        drop(child.wait());
        project.aurora(&["verify"]).exits(0);
    }
    project.run();
    assert_eq!(project.results(), uninterrupted.results());
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn a_stopped_run_saves_and_exits_with_75() {
    let uninterrupted = Project::new();
    uninterrupted.edit("budget        = 16 steps", "budget        = 400 steps");
    uninterrupted.edit("checkpoint    = every 8 steps", "checkpoint    = every 100 steps");
    uninterrupted.edit("[start, every 8 steps, end]", "[start, end]");
    let spec = uninterrupted.read("specs/small.aur");
    uninterrupted.run();
    let project = Project::new();
    project.write("specs/small.aur", &spec);
    let mut child = project.start();
    let began = Instant::now();
    // In the middle of the second segment, so that an earlier checkpoint exists.
    let metrics = project.path(".aurora/runs/latest/metrics.jsonl");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while steps() < 120 && began.elapsed() < Duration::from_secs(120) {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    let signalled = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .expect("kill");
    assert!(signalled.success());
    assert_eq!(child.wait().expect("the run ends").code(), Some(75));
    project.aurora(&["verify"]).exits(0);
    project.aurora(&["plan", "specs/small.aur"]).prints("resumes from step");
    let done = project.run();
    done.prints("resuming cap@200 at step");
    assert_eq!(project.results(), uninterrupted.results());
}

#[test]
fn checkpoint_intervals_change_no_result() {
    let often = Project::new();
    often.edit("[start, every 8 steps, end]", "[start, end]");
    let rarely = Project::new();
    rarely.write("specs/small.aur", &often.read("specs/small.aur"));
    often.edit("every 8 steps", "every 2 steps");
    rarely.edit("every 8 steps", "every 16 steps");
    often.run();
    rarely.run();
    let (often, rarely) = (often.results(), rarely.results());
    for node in ["cap@16", "cat@8", "eval/heldout/cat@8"] {
        let line = |results: &str| {
            results
                .lines()
                .find(|line| line.starts_with(&format!("\"{node}\" = ")))
                .map(String::from)
        };
        assert!(line(&often).is_some());
        assert_eq!(line(&often), line(&rarely), "{node}");
    }
}
