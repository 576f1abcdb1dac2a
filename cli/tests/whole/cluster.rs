//! Several hosts: a real Slurm, and two hosts in network namespaces.
//!
//! Both need root and tools that not every machine has; missing tools are reported.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::layouts::{long_project as longer_project, until_step};
use crate::missing_tools::missing_tool;
use crate::project::{Done, Project, libtorch};
use crate::slurm::{Slurm, lacks, until, working_in};

const LAYOUT: &str = "tensor=2,pipeline=2";

/// Long enough for two interruptions.
fn long_project() -> Project {
    let project = longer_project();
    project.edit("budget        = 200 steps", "budget        = 80 steps");
    project.edit("every 50 steps", "every 20 steps");
    project
}

/// Waits until a run of this project other than `before` has done `steps` steps, or the job has ended. Returns the run.
fn until_steps(project: &Project, slurm: &Slurm, job: &str, steps: usize, before: &Path) -> PathBuf {
    let latest = || std::fs::canonicalize(project.path(".aurora/runs/latest")).unwrap_or_default();
    let done = || std::fs::read_to_string(latest().join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let came = || latest() != before && done() >= steps;
    until(|| came() || slurm.has_ended(job));
    assert!(came(), "{steps} steps: {}", output(project, job));
    latest()
}

fn output(project: &Project, job: &str) -> String {
    std::fs::read_to_string(project.path(&format!("small-{job}.out"))).unwrap_or_default()
}

/// Two nodes of two workers; a signal before the time limit, a lost worker, and a lost node.
#[test]
fn a_job_of_slurm_resumes_after_requeues_with_the_same_results() {
    if let Some(why) = Slurm::lacks() {
        return missing_tool(&why, "jobs of Slurm");
    }
    let uninterrupted = long_project();
    uninterrupted.run();
    let slurm = Slurm::start();
    let project = long_project();
    let script = project.aurora(&[
        "export",
        "slurm",
        "specs/small.aur",
        "--layout",
        LAYOUT,
        "--nodes",
        "2",
        "--time",
        "10",
        "--grace",
        "60",
        "-p",
        "debug",
        "--",
        "--heartbeat-timeout",
        "600",
    ]);
    script.exits(0);
    project.write("job.sh", &script.out());
    let submitted = slurm
        .command("sbatch", &["--parsable", "job.sh"])
        .env("AURORA_LIBTORCH", libtorch())
        .current_dir(project.root())
        .output()
        .expect("sbatch");
    let job = String::from_utf8_lossy(&submitted.stdout).trim().to_owned();
    assert!(
        submitted.status.success(),
        "{}",
        String::from_utf8_lossy(&submitted.stderr)
    );

    let run = until_steps(&project, &slurm, &job, 25, Path::new(""));
    let nodes = slurm.answer("squeue", &["-h", "-s", "-o", "%N"]);
    assert!(
        nodes.contains("node[1-2]"),
        "workers are on both nodes: {nodes} {}",
        output(&project, &job)
    );
    slurm.done("scancel", &["--signal=USR1", "--batch", &job]);
    slurm.begins_again(&job, "1");
    let first = output(&project, &job);
    assert!(
        first.contains("is kept") && first.contains("resumes in restart 1 of at most 100"),
        "{first}"
    );

    // Slurm does not notice the loss of one process: the script requeues the job.
    let run = until_steps(&project, &slurm, &job, 10, &run);
    let of_worker = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "aurora-worker")
    };
    let workers = working_in(project.root());
    let worker = workers.into_iter().find(of_worker);
    crate::layouts::signal(worker.expect("a worker in the folder of the job"), "-KILL");
    slurm.begins_again(&job, "2");
    let second = output(&project, &job);
    assert!(
        second.contains("aurora lost a worker and resumes in restart 2 of at most 100"),
        "{second}"
    );

    until_steps(&project, &slurm, &job, 10, &run);
    slurm.done("scontrol", &["update", "nodename=node2", "state=down", "reason=test"]);
    assert!(
        until(|| slurm.of_job(&job, "JobState") == "PENDING"),
        "{}",
        output(&project, &job)
    );
    // The node may already be available again, because its daemon answers.
    let back = || {
        slurm.answer("scontrol", &["update", "nodename=node2", "state=resume"]);
        !slurm.answer("sinfo", &["-h", "-N", "-o", "%T"]).contains("down")
    };
    assert!(until(back), "{}", slurm.answer("sinfo", &["-N", "-l"]));
    slurm.begins_again(&job, "3");

    until(|| slurm.has_ended(&job));
    assert_eq!(
        slurm.of_job(&job, "JobState"),
        "COMPLETED",
        "{}",
        output(&project, &job)
    );
    let all = output(&project, &job);
    assert!(all.contains("resuming cap@"), "{all}");
    assert_eq!(project.results(), uninterrupted.results(), "{all}");
    project.aurora(&["verify"]).exits(0);
    assert!(until(|| working_in(project.root()).is_empty()), "no process is left");
}

/// Two hosts: network namespaces with a virtual cable between them.
struct Hosts {
    names: [String; 2],
}

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

fn ip(arguments: &str) -> bool {
    let words = arguments.split_whitespace();
    Command::new("ip")
        .args(words)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Hosts {
    /// `None` if this machine does not allow it.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let hosts = Self {
            names: [format!("aurora-{id}-a"), format!("aurora-{id}-b")],
        };
        let [a, b] = &hosts.names;
        let wire = format!("link add wire netns {a} type veth peer name wire netns {b}");
        let mut made = ip(&format!("netns add {a}")) && ip(&format!("netns add {b}")) && ip(&wire);
        for (name, address) in hosts.names.iter().zip(ADDRESSES) {
            made = made
                && ip(&format!("-n {name} addr add {address}/24 dev wire"))
                && ip(&format!("-n {name} link set wire up"))
                && ip(&format!("-n {name} link set lo up"));
        }
        made.then_some(hosts)
    }

    /// A program on a host, with the name of the host.
    fn on(&self, host: usize, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        let name = ["one", "two"][host];
        let as_host = format!("hostname {name}; exec \"$0\" \"$@\"");
        command
            .args([
                "netns",
                "exec",
                &self.names[host],
                "unshare",
                "--uts",
                "sh",
                "-c",
                &as_host,
                program,
            ])
            .args(arguments);
        command
    }

    /// Starts two processes on each host with torchrun's variables.
    fn start(&self, project: &Project, port: u16) -> Vec<Child> {
        let start = |rank: usize| {
            let arguments = [
                "run",
                "specs/small.aur",
                "--progress",
                "none",
                "--launcher",
                "torchrun",
                "--layout",
                LAYOUT,
            ];
            self.on(rank / 2, env!("CARGO_BIN_EXE_aurora"), &arguments)
                .current_dir(project.root())
                .env("AURORA_LIBTORCH", libtorch())
                .env("AURORA_TOKEN", "a secret of these two hosts")
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", "4")
                .env("LOCAL_RANK", (rank % 2).to_string())
                .env("LOCAL_WORLD_SIZE", "2")
                .env("GROUP_RANK", (rank / 2).to_string())
                .env("GROUP_WORLD_SIZE", "2")
                .env("ROLE_RANK", rank.to_string())
                .env("ROLE_WORLD_SIZE", "4")
                .env("MASTER_ADDR", ADDRESSES[0])
                .env("MASTER_PORT", port.to_string())
                .env("TORCHELASTIC_RUN_ID", "test")
                .env("TORCHELASTIC_RESTART_COUNT", "0")
                .env("TORCHELASTIC_MAX_RESTARTS", "0")
                .env("OMP_NUM_THREADS", "1")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary starts")
        };
        (0..4).map(start).collect()
    }

    /// Ports with a listener.
    fn listening(&self, host: usize) -> String {
        let table = self
            .on(host, "cat", &["/proc/net/tcp", "/proc/net/tcp6"])
            .output()
            .expect("its connections");
        let text = String::from_utf8_lossy(&table.stdout).into_owned();
        let listens = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
        text.lines().filter(listens).collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns delete {name}"));
        }
    }
}

/// The results of the processes of a run, by rank.
fn ended(project: &Project, processes: Vec<Child>) -> Vec<Done> {
    let gone = until(|| working_in(project.root()).is_empty());
    for pid in working_in(project.root()) {
        crate::layouts::signal(pid, "-KILL");
    }
    assert!(gone, "no process is left on either host");
    processes
        .into_iter()
        .map(|process| Done(process.wait_with_output().expect("a child")))
        .collect()
}

#[test]
fn two_hosts_give_the_same_bits_and_a_cut_connection_is_reported() {
    let hosts = match lacks(&["ip", "unshare"]) {
        None => Hosts::new().ok_or_else(|| "no network namespace can be made".to_owned()),
        Some(why) => Err(why),
    };
    let hosts = match hosts {
        Ok(hosts) => hosts,
        Err(why) => return missing_tool(&why, "two hosts"),
    };
    let uninterrupted = long_project();
    uninterrupted.run();
    let project = long_project();
    let mut processes = hosts.start(&project, 29_500);
    until_step(&project, &mut processes[0], None, 50);
    assert!(
        ip(&format!("-n {} link set wire down", hosts.names[0])),
        "the wire is cut"
    );
    let cut = Instant::now();
    assert!(
        until(|| processes[0].try_wait().expect("a child").is_some()),
        "the engine ends"
    );
    eprintln!("the engine ended {:.2} s after the cut", cut.elapsed().as_secs_f64());
    let all = ended(&project, processes);
    eprintln!(
        "the last worker ended {:.2} s after the cut",
        cut.elapsed().as_secs_f64()
    );
    all[0].exits(6);
    let errors = all[0].err();
    let named = errors.contains("rank 2 on two (10.77.0.2)") || errors.contains("rank 3 on two (10.77.0.2)");
    assert!(named && errors.contains("after step "), "{errors}");
    for host in 0..2 {
        assert_eq!(hosts.listening(host), "", "no port is left");
    }
    project.aurora(&["verify"]).exits(0);

    assert!(
        ip(&format!("-n {} link set wire up", hosts.names[0])),
        "the link is up again"
    );
    let all = ended(&project, hosts.start(&project, 29_500));
    for done in &all {
        done.exits(0);
    }
    assert_eq!(project.results(), uninterrupted.results());
    // With nothing left to do, connected workers are dismissed.
    for done in ended(&project, hosts.start(&project, 29_500)) {
        done.exits(0);
    }
}
