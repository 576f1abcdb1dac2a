//! Killing, stopping, and going on.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::project::Project;

/// Waits until the store holds so many results, or the run ends.
fn until(project: &Project, child: &mut Child, reached: impl Fn(usize) -> bool) {
    let began = Instant::now();
    loop {
        let results = std::fs::read_dir(project.path(".aurora/actions")).map_or(0, Iterator::count);
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
fn killed_at_any_moment_it_goes_on_and_ends_the_same() {
    let undisturbed = Project::new();
    undisturbed.run();
    let project = Project::new();
    let total = undisturbed.keys().len();
    // After every second result: while fetching, extracting, tokenizing, training, writing, evaluating.
    for after in (1..total).step_by(2) {
        let mut child = project.start();
        until(&project, &mut child, |results| results >= after);
        drop(child.kill());
        drop(child.wait());
        project.aurora(&["verify"]).exits(0);
    }
    project.run();
    assert_eq!(project.results(), undisturbed.results());
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn told_to_stop_it_saves_and_exits_with_75() {
    let undisturbed = Project::new();
    undisturbed.edit("budget        = 16 steps", "budget        = 400 steps");
    undisturbed.edit("checkpoint    = every 8 steps", "checkpoint    = every 400 steps");
    undisturbed.edit("[start, every 8 steps, end]", "[start, end]");
    let spec = undisturbed.read("specs/small.aur");
    undisturbed.run();
    let project = Project::new();
    project.write("specs/small.aur", &spec);
    let mut child = project.start();
    let began = Instant::now();
    let metrics = project.path(".aurora/runs/latest/metrics.jsonl");
    while std::fs::metadata(&metrics).map_or(0, |file| file.len()) == 0 && began.elapsed() < Duration::from_secs(120) {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    let told = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .expect("kill");
    assert!(told.success());
    assert_eq!(child.wait().expect("the run ends").code(), Some(75));
    project.aurora(&["verify"]).exits(0);
    project.aurora(&["plan", "specs/small.aur"]).says("goes on from step");
    let done = project.run();
    done.says("resuming cap@400 at step");
    assert_eq!(project.results(), undisturbed.results());
}
