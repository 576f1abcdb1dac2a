//! Killing, stopping and resuming runs and reruns.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use aurora_compiler::hash::Key;
use aurora_compiler::numerics_class::NumericsClass;
use aurora_runtime::store::lock::{Attempt, Held};
use aurora_runtime::store::{ResultId, Store};
use camino::Utf8Path;

use crate::failing_calls;
use crate::layouts::signal;
use crate::project::{Done, Project};
use crate::slurm::until as eventually;
use crate::stores::records;

/// Waits until the number of results in the store satisfies `reached`, or the run ends.
fn until(project: &Project, child: &mut Child, reached: impl Fn(usize) -> bool) {
    eventually(|| reached(records(project, "actions").len()) || child.try_wait().expect("a child").is_some());
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

/// A parent that ignores SIGCHLD makes the kernel discard how children end, which would also be inherited by the workers.
#[test]
fn a_run_whose_parent_ignores_the_ends_of_children_is_like_any_other() {
    let project = Project::new();
    let ignoring =
        "import os, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nos.execv(sys.argv[1], sys.argv[1:])";
    let usual = project.command(&["run", "specs/small.aur"]);
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", ignoring])
        .arg(usual.get_program())
        .args(usual.get_args());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(usual.get_current_dir().expect("the project"));
    let done = Done(command.output().expect("python3 starts"));
    done.exits(0);
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
    // In the middle of the second segment, so that an earlier checkpoint exists.
    let metrics = project.path(".aurora/runs/latest/metrics.jsonl");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    assert!(eventually(|| steps() >= 120));
    signal(child.id(), "-TERM");
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

/// The results of the small project in its store, as another process would lock them.
struct OtherProcess {
    store: Store,
    project: Project,
    class: NumericsClass,
}

impl OtherProcess {
    /// `class` is the numerics class of this machine.
    fn of(project: Project, class: NumericsClass) -> Self {
        let root = project.path(".aurora");
        let store = Store::open(Utf8Path::from_path(&root).expect("UTF-8")).expect("a store");
        Self { store, project, class }
    }

    fn lock(&self, node: &str) -> Option<Held> {
        let key = Key::from_hex(&self.project.keys()[node]).expect("a key");
        let class = Some(self.class);
        match self.store.try_hold(ResultId { key, class }).expect("a lock") {
            Attempt::Locked(held) => Some(held),
            Attempt::HeldBy(_) => None,
        }
    }
}

/// Reads the messages of a run until one begins so.
#[track_caller]
fn message(child: &mut Child, begins: &str) -> String {
    let lines = BufReader::new(child.stderr.as_mut().expect("piped")).lines();
    let found = lines.map_while(Result::ok).find(|line| line.starts_with(begins));
    found.unwrap_or_else(|| panic!("no message begins with `{begins}`"))
}

/// Two runs that need each other's results cannot wait for each other: a run that has to wait finishes what it has begun first.
#[test]
fn a_run_that_waits_for_another_one_holds_nothing_that_it_needs() {
    let finished = Project::new();
    finished.run();
    let lock: toml::Table = toml::from_str(&finished.read("lockfiles/small.lock")).expect("a lock");
    let class = NumericsClass::parse(lock["class"].as_str().expect("a class")).expect("a class");
    let other = OtherProcess::of(Project::new(), class);
    let held = other.lock("cat@8").expect("it is free");
    let waiting = "waiting for `cat@8`, built by process ";
    let mut child = other.project.start_with(&[]);
    assert!(message(&mut child, waiting).contains(&std::process::id().to_string()));
    // The checkpoint before it is finished, and free for the process that it waits for.
    drop(other.lock("cap@16").expect("it is not locked"));
    signal(child.id(), "-INT");
    assert_eq!(child.wait().expect("the run ends").code(), Some(75));
    let mut child = other.project.start_with(&[]);
    message(&mut child, waiting);
    drop(held);
    assert_eq!(child.wait().expect("the run ends").code(), Some(0));
    assert_eq!(other.project.results(), finished.results());
}

/// The second signal ends a run even if its work does not ask for signals, here a read that does not return.
#[test]
fn a_second_signal_always_ends_a_run() {
    let project = Project::new();
    let mut command = project.command(&["run", "specs/small.aur", "--progress", "none"]);
    let reached = project.path("reached");
    command.env("AURORA_FAILING_CALLS_REACHED", &reached);
    if !failing_calls::inject(&mut command, "read:hang:1:0:data/english.txt") {
        return;
    }
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
    while !reached.exists() && child.try_wait().expect("a child").is_none() {
        std::thread::yield_now();
    }
    // Two signals of one kind may arrive as one.
    signal(child.id(), "-INT");
    signal(child.id(), "-TERM");
    message(&mut child, "stopped at once");
    assert_eq!(child.wait().expect("the run ends").code(), Some(130));
    project.run();
    project.aurora(&["verify"]).exits(0);
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The stores of reruns.
fn reruns(project: &Project) -> Vec<PathBuf> {
    listed(&project.path(".aurora/rerun"))
}

const RERUN: [&str; 4] = ["rerun", "lockfiles/small.lock", "--progress", "plain"];

/// Starts a rerun, and waits until a node of this kind is built: `trained`, or one that does not train.
fn started_rerun(project: &Project, trained: bool) -> Child {
    let mut command = project.command(&RERUN);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let is_built = |store: &PathBuf| {
        let results = listed(&store.join("actions"));
        // Trained results are in the folder of their numerics class.
        results.iter().any(|path| path.is_dir() == trained)
    };
    assert!(eventually(|| {
        reruns(project).iter().any(is_built) || child.try_wait().expect("a child").is_some()
    }));
    child
}

#[test]
fn a_stopped_or_killed_rerun_resumes_and_gc_keeps_its_store_for_a_while() {
    let project = Project::new();
    project.edit("budget        = 16 steps", "budget        = 400 steps");
    project.edit("checkpoint    = every 8 steps", "checkpoint    = every 100 steps");
    project.edit("[start, every 8 steps, end]", "[start, end]");
    project.run();

    // SIGTERM: code 75 says that the same command resumes.
    let child = started_rerun(&project, true);
    signal(child.id(), "-STOP");
    let gc = project.aurora(&["gc"]);
    signal(child.id(), "-TERM");
    signal(child.id(), "-CONT");
    gc.exits(0);
    gc.prints("has it open");
    let stopped = Done(child.wait_with_output().expect("the rerun ends"));
    stopped.exits(75);
    stopped.prints("note: what was computed is in `");
    let gc = project.aurora(&["gc"]);
    gc.exits(0);
    gc.prints("`aurora rerun lockfiles/small.lock` resumes it; kept for 7 more days");
    assert_eq!(reruns(&project).len(), 1);
    let resumed = project.aurora(&RERUN);
    resumed.exits(0);
    resumed.prints("note: resuming the rerun of this lock that did not end");
    resumed.prints("resuming cap@");
    resumed.prints("rerun: identical");
    assert_eq!(
        reruns(&project),
        [""; 0].map(PathBuf::from),
        "its results were compared"
    );

    // SIGKILL: the store stays, until it is too old.
    let mut child = started_rerun(&project, false);
    child.kill().expect("a child");
    child.wait().expect("a child");
    let [store] = &reruns(&project)[..] else {
        panic!("one store is left")
    };
    project.aurora(&["gc"]).exits(0);
    assert!(store.is_dir());
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    for path in listed(store).iter().chain([store]) {
        File::open(path)
            .and_then(|file| file.set_modified(old))
            .expect("a time");
    }
    let listed = project.aurora(&["gc", "--dry-run", "--json"]).json();
    assert_eq!(listed["reruns"].as_array().map(Vec::len), Some(1));
    let gc = project.aurora(&["gc"]);
    gc.exits(0);
    gc.prints("and 1 stores of reruns");
    assert!(!store.exists());
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn a_project_that_is_moved_away_is_not_made_again() {
    let project = Project::new();
    project.edit("budget        = 16 steps", "budget        = 4000 steps");
    let own = project.path("own");
    fs::create_dir(&own).expect("a folder");
    for name in ["specs", "data", "lockfiles"] {
        fs::rename(project.path(name), own.join(name)).expect("a folder");
    }
    let arguments = ["run", "specs/small.aur", "--progress", "none"];
    let mut command = project.command(&arguments);
    command.current_dir(&own).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let trained = || listed(&own.join(".aurora/actions")).iter().any(|path| path.is_dir());
    assert!(eventually(|| trained() || child.try_wait().expect("a child").is_some()));
    fs::rename(&own, project.path("moved")).expect("moved");
    let done = Done(child.wait_with_output().expect("the run ends"));
    assert_eq!(done.0.status.code(), Some(4), "{}", done.err());
    done.prints(&own.display().to_string());
    assert!(!own.exists(), "{:?}", listed(&own));
}
