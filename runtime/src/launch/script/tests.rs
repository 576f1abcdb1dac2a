use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use super::super::Machine;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

fn script(machine: Machine) -> BatchScript {
    let per_node = if machine == Machine::Lumi || machine == Machine::Frontier {
        8
    } else {
        2
    };
    BatchScript {
        job_name: "aurora_m".to_owned(),
        account: None,
        partition: None,
        tasks: Tasks::new(machine, count(2), count(per_node)).expect("they fit"),
        time_limit: 48 * HOUR,
        grace: Duration::from_secs(600),
        max_restarts: 20,
        max_losses: 3,
        setup: Vec::new(),
        command: ["aurora", "run", "specs/aurora_m.aur", "--launcher", "srun"]
            .map(str::to_owned)
            .to_vec(),
    }
}

const PLAIN: Machine = Machine::Plain {
    cpus_per_task: NonZeroU32::MIN,
};

/// The three machines, each with what its users give.
fn examples() -> [(&'static str, BatchScript); 3] {
    let lumi = BatchScript {
        account: Some("project_465000001".to_owned()),
        partition: Some("standard-g".to_owned()),
        setup: vec![
            "module use /appl/local/containers/ai-modules".to_owned(),
            "module load singularity-AI-bindings".to_owned(),
        ],
        ..script(Machine::Lumi)
    };
    let frontier = BatchScript {
        account: Some("abc123".to_owned()),
        partition: Some("batch".to_owned()),
        time_limit: 2 * HOUR,
        setup: vec!["module load rocm/7.1.1 rccl-net-plugin".to_owned()],
        ..script(Machine::Frontier)
    };
    let mut plain = BatchScript {
        time_limit: Duration::from_secs(90 * 60 - 1),
        ..script(PLAIN)
    };
    plain.command[2] = "specs/my run's.aur".to_owned();
    [("lumi", lumi), ("frontier", frontier), ("plain", plain)]
}

#[test]
fn scripts_for_three_machines() {
    for (name, script) in examples() {
        insta::assert_snapshot!(name, script.text().expect("a script"));
    }
}

/// Runs a checker on each script; `false` if it is not installed.
fn checked_by(program: &str, arguments: &[&str]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, script) in examples() {
        let path = folder.path().join(name);
        std::fs::write(&path, script.text().expect("a script")).expect("written");
        let Ok(output) = Command::new(program).args(arguments).arg(&path).output() else {
            println!("skipped: `{program}` is not installed");
            return false;
        };
        let messages = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && messages.is_empty(), "{name}: {messages}");
    }
    true
}

#[test]
fn scripts_are_sound_bash() {
    assert!(checked_by("bash", &["-n"]));
    checked_by("shellcheck", &[]);
}

#[test]
fn values_that_are_invalid_in_a_script_are_refused() {
    let error = |change: &dyn Fn(&mut BatchScript)| {
        let mut script = script(PLAIN);
        change(&mut script);
        script.text().expect_err("an error").to_string()
    };
    for name in ["", "two words", "-x", "a\n#SBATCH --wrap=x", "a$b", "naïve", "%j"] {
        let message = error(&|script| script.job_name = name.to_owned());
        assert!(
            message.starts_with(&format!("job name `{name}` is not valid in a batch script")),
            "{message}"
        );
    }
    assert!(error(&|script| script.account = Some("a b".to_owned())).starts_with("account `a b`"));
    assert!(error(&|script| script.partition = Some("a;b".to_owned())).starts_with("partition `a;b`"));
    assert_eq!(
        error(&|script| script.grace = 48 * HOUR),
        "a grace time of 172800 s is more than Slurm's maximum of 65535 s"
    );
    assert_eq!(
        error(&|script| (script.grace, script.time_limit) = (Duration::from_secs(540), Duration::from_secs(541))),
        "a grace time of 540 s leaves no time to work in 600 s"
    );
    assert_eq!(error(&|script| script.command.clear()), "there is no command to run");
    assert_eq!(
        error(&|script| script.command.push("a\0b".to_owned())),
        "the command has an argument with a NUL byte"
    );
}

/// A script in which shell functions replace the engine and Slurm's program. Executable files could be busy: a process
/// that another thread forks may still have them open for writing.
struct Job {
    engine: String,
    scontrol: u8,
    /// Where the job runs.
    folder: tempfile::TempDir,
    /// What Slurm says about the job.
    state: &'static str,
}

/// The result of a job.
#[derive(Debug, PartialEq, Eq)]
struct End {
    status: Option<i32>,
    out: String,
    error: String,
    requeued: Vec<String>,
}

impl Job {
    /// `engine` is what bash runs for the engine, `scontrol` the status with which Slurm's program ends.
    fn new(engine: &str, scontrol: u8) -> Self {
        Self {
            engine: engine.to_owned(),
            scontrol,
            folder: tempfile::tempdir().expect("a folder"),
            state: "RUNNING",
        }
    }

    /// Runs the script as Slurm would, and sends `signal` to the batch shell whenever the engine says that it is ready.
    fn run(&self, restarts: Option<&str>, signal: Option<&str>) -> End {
        let mut requeued = tempfile::NamedTempFile::new().expect("a temporary file");
        let scontrol = format!("() {{ echo \"$@\" >> \"$REQUEUED\"; return {}; }}", self.scontrol);
        let mut command = Command::new("bash");
        command
            .args(["-c", &script(PLAIN).text().expect("a script")])
            .env("BASH_FUNC_aurora%%", r#"() { exec bash -c "$ENGINE" aurora "$@"; }"#)
            .env("BASH_FUNC_scontrol%%", scontrol)
            .env("BASH_FUNC_squeue%%", format!("() {{ echo {}; }}", self.state))
            .current_dir(self.folder.path())
            .env("ENGINE", &self.engine)
            .env("REQUEUED", requeued.path())
            .env("SLURM_JOB_ID", "42")
            .env("SLURM_JOB_NAME", "small")
            .env_remove("SLURM_RESTART_COUNT");
        if let Some(restarts) = restarts {
            command.env("SLURM_RESTART_COUNT", restarts);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash started");
        let id = child.id().to_string();
        let mut out = String::new();
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("read");
            if let Some(signal) = signal.filter(|_| line.starts_with("ready")) {
                let sent = Command::new("kill")
                    .args(["-s", signal, &id])
                    .status()
                    .expect("kill ran");
                assert!(sent.success());
            }
            out += &format!("{line}\n");
        }
        let output = child.wait_with_output().expect("waited for");
        let mut calls = String::new();
        requeued.read_to_string(&mut calls).expect("read");
        End {
            status: output.status.code(),
            out,
            error: String::from_utf8(output.stderr).expect("UTF-8"),
            requeued: calls.lines().map(str::to_owned).collect(),
        }
    }
}

/// Ready, then saves on USR1 or TERM and ends resumable. It waits for an idle child, so that a signal is handled at once.
const SAVES: &str = "trap 'echo saved; kill $!; exit 75' USR1 TERM\nsleep 60 >/dev/null & echo ready \"$@\"\nwait";

fn requeued() -> Vec<String> {
    vec!["requeue 42".to_owned()]
}

#[test]
fn a_warning_reaches_the_engine_and_the_job_resumes() {
    let end = Job::new(SAVES, 0).run(None, Some("USR1"));
    let expected = End {
        status: Some(75),
        out: "ready run specs/aurora_m.aur --launcher srun\nsaved\n".to_owned(),
        error: "aurora saved a checkpoint and resumes in restart 1 of at most 20\n".to_owned(),
        requeued: requeued(),
    };
    assert_eq!(end, expected);
}

/// An engine that continues after a warning gets the next one too, and its exit status is the result.
#[test]
fn warnings_may_come_again() {
    let engine = "trap 'kill $!' USR1\nfor saw in 1 2 3; do sleep 60 >/dev/null & echo ready $saw; wait; done\nexit 5";
    let end = Job::new(engine, 0).run(None, Some("USR1"));
    assert_eq!((end.status, end.requeued), (Some(5), Vec::new()));
    assert_eq!(end.out, "ready 1\nready 2\nready 3\n");
}

#[test]
fn restarts_are_counted() {
    let end = Job::new(SAVES, 0).run(Some("20"), Some("USR1"));
    assert_eq!((end.status, end.requeued), (Some(75), Vec::new()));
    assert_eq!(
        end.error,
        "aurora can resume, but the job has already been restarted 20 times: not requeued\n"
    );
    let end = Job::new(SAVES, 0).run(Some("19"), Some("USR1"));
    assert_eq!((end.status, end.requeued), (Some(75), requeued()));
}

/// A lost worker: the job comes back, but not for ever.
#[test]
fn a_lost_worker_requeues_the_job_a_few_times_in_a_row() {
    let job = |engine: &str, from: Job| Job {
        engine: engine.to_owned(),
        ..from
    };
    let lost = "echo ready; exit 6";
    let mut own = Job::new(lost, 0);
    for restart in ["0", "1", "2"] {
        let end = own.run(Some(restart), None);
        assert_eq!((end.status, end.requeued), (Some(6), requeued()), "{}", end.error);
        assert!(
            end.error.starts_with("aurora lost a worker and resumes in restart"),
            "{}",
            end.error
        );
    }
    let end = own.run(Some("3"), None);
    assert_eq!(
        end.error,
        "aurora can resume, but 4 starts in a row have lost a worker: not requeued\n"
    );
    assert_eq!((end.status, end.requeued), (Some(6), Vec::new()));
    // A start that saves at the time limit ends the row.
    own = job(SAVES, own);
    assert_eq!(own.run(Some("4"), Some("USR1")).requeued, requeued());
    own = job(lost, own);
    assert_eq!(own.run(Some("5"), None).requeued, requeued());
    assert_eq!(
        own.run(Some("20"), None).requeued,
        Vec::<String>::new(),
        "the limit of all restarts"
    );
    own = job("echo ready; exit 0", own);
    own.run(Some("6"), None);
    assert!(!own.folder.path().join("small-42.lost").exists());
}

/// Slurm has noticed the loss of the node, or the job was cancelled: it does what follows.
#[test]
fn a_job_that_slurm_ends_is_not_requeued() {
    let mut own = Job::new("echo ready; exit 6", 0);
    own.state = "COMPLETING";
    let end = own.run(None, None);
    assert_eq!((end.status, end.requeued), (Some(6), Vec::new()));
    assert!(end.error.contains("its state is 'COMPLETING'"), "{}", end.error);
}

#[test]
fn a_failed_requeue_is_reported() {
    let end = Job::new(SAVES, 1).run(None, Some("USR1"));
    assert_eq!(
        end.error,
        "aurora can resume, but the job cannot be requeued: submit it again\n"
    );
    assert_eq!((end.status, end.requeued), (Some(75), requeued()));
}

/// `scancel` ends a job for good, although the engine has saved.
#[test]
fn an_ended_job_does_not_come_back() {
    let end = Job::new(SAVES, 0).run(None, Some("TERM"));
    assert_eq!((end.status, end.requeued), (Some(75), Vec::new()));
    assert!(end.out.ends_with("saved\n"), "{}", end.out);
}

#[test]
fn other_statuses_end_the_job() {
    for status in [0, 1, 4, 5, 74, 76, 143] {
        let end = Job::new(&format!("echo ready; exit {status}"), 0).run(None, None);
        assert_eq!(
            (end.status, end.requeued, end.error),
            (Some(status), Vec::new(), String::new())
        );
    }
}
