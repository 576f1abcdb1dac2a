//! Random ranks are lost at random moments: every run stops cleanly, or continues with new workers to the same bits.
//!
//! `AURORA_KILLS` is their number, `AURORA_SEED` the seed; `--nocapture` prints each.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::layouts::{lives, long_project as longer_project, workers};
use crate::project::{Done, Project};
use crate::slurm::until;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Pseudo-random numbers from a seed (Knuth's MMIX constants).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn long_project() -> Project {
    let project = longer_project();
    project.edit("budget        = 200 steps", "budget        = 40 steps");
    project.edit("every 50 steps", "every 10 steps");
    project
}

#[test]
fn a_lost_rank_never_causes_a_hang_or_another_result() {
    let mut draw = Draw(setting("AURORA_SEED", 1));
    let layout = [
        "--layout",
        "tensor=2,pipeline=2",
        "--threads",
        "1",
        "--heartbeat-timeout",
        "6",
    ];
    let uninterrupted = long_project();
    let began = Instant::now();
    let mut first = uninterrupted.start_with(&layout);
    assert!(first.wait().expect("the run ends").success());
    let length = u64::try_from(began.elapsed().as_millis()).expect("a short run");
    let expected = uninterrupted.results();
    // The engine waits two minutes for a worker that is stopped before its first message: not in every test.
    let early = std::env::var_os("AURORA_KILLS").is_some();
    let stepped = |project: &Project| {
        std::fs::metadata(project.path(".aurora/runs/latest/metrics.jsonl")).is_ok_and(|metrics| metrics.len() > 0)
    };
    for kill in 1..=setting("AURORA_KILLS", 4) {
        let project = long_project();
        let how = ["-KILL", "-STOP"][(kill % 2) as usize];
        let restarts = (kill / 2 % 2).to_string();
        let (rank, moment) = (draw.below(4) as usize, Duration::from_millis(draw.below(length)));
        let mut more = layout.to_vec();
        more.extend(["--restarts", &restarts]);
        let mut child = project.start_with(&more);
        let began = Instant::now();
        let mut over = false;
        until(|| {
            over = child.try_wait().expect("a child").is_some();
            over || workers(&child).len() == 4 && began.elapsed() >= moment && (early || stepped(&project))
        });
        let all = workers(&child);
        if let Some(pid) = all.get(rank) {
            drop(
                Command::new("kill")
                    .args([how, &pid.to_string()])
                    .stderr(Stdio::null())
                    .status(),
            );
        }
        let since = Instant::now();
        let place = format!("kill {kill}: {how} of rank {rank} after {moment:?}, {restarts} restarts");
        // The engine waits two minutes for a worker that was stopped before its first message, because it may be starting.
        let mut gone = || until(|| child.try_wait().expect("a child").is_some());
        let ended = gone() || gone();
        let took = since.elapsed().as_secs_f64();
        if !ended {
            drop(child.kill());
        }
        let done = Done(child.wait_with_output().expect("a child"));
        assert!(ended, "{place}: it hangs: {}", done.err());
        assert!(!all.iter().any(|pid| lives(*pid)), "{place}: a worker is left");
        project.aurora(&["verify"]).exits(0);
        let result = match done.0.status.code() {
            Some(0) if over => "it had ended",
            Some(0) if done.err().contains("resuming from the last checkpoint") => "resumed",
            Some(0) => "no worker was lost",
            Some(6) => "stopped",
            code => panic!("{place}: {code:?}: {}", done.err()),
        };
        eprintln!("{place}: {result}, {took:.2} s");
        if result == "stopped" {
            assert!(
                done.err().contains(&format!("rank {rank} on 127.0.0.1")),
                "{place}: {}",
                done.err()
            );
            project.run();
        }
        assert_eq!(project.results(), expected, "{place}");
    }
}
