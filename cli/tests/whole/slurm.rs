//! A Slurm of two nodes on this host: its daemons and commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The programs that must be installed.
const PROGRAMS: [&str; 6] = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol"];

pub struct Slurm {
    folder: tempfile::TempDir,
}

/// What is missing on this machine; `None` if nothing is.
pub fn lacks(programs: &[&str]) -> Option<String> {
    // A process owns its files in /proc.
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Some("root".to_owned());
    }
    let there = |program: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(program).is_file())
    };
    programs
        .iter()
        .find(|program| !there(program))
        .map(|program| (*program).to_owned())
}

/// Waits until a condition holds; `false` after ten minutes, which a busy machine does not need either.
pub fn until(mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(600);
    while !so() {
        if Instant::now() > end {
            return false;
        }
        // Leave the processor to the workers.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    true
}

/// Live processes in this folder.
pub fn working_in(folder: &Path) -> Vec<u32> {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let there = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()? == folder;
        (there && crate::layouts::lives(pid)).then_some(pid)
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(of)
        .collect()
}

impl Slurm {
    pub fn lacks() -> Option<String> {
        // Slurm 22.05 always reads it.
        let cgroups =
            std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(" /sys/fs/cgroup "));
        lacks(&PROGRAMS).or((!cgroups).then(|| "mounted /sys/fs/cgroup".to_owned()))
    }

    pub fn start() -> Self {
        let slurm = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        for folder in ["munge", "log", "state", "spool.node1", "spool.node2"] {
            std::fs::create_dir(slurm.path(folder)).expect("a folder");
        }
        open_to_all(&slurm.path(""));
        open_to_all(&slurm.path("munge"));
        let mut key = [0; 1024];
        std::io::Read::read_exact(
            &mut std::fs::File::open("/dev/urandom").expect("random numbers"),
            &mut key,
        )
        .expect("random numbers");
        std::fs::write(slurm.path("munge/key"), key).expect("a key");
        set_mode(&slurm.path("munge/key"), 0o600);
        std::fs::write(slurm.path("slurm.conf"), slurm.settings()).expect("settings");
        let at = |inside: &str| slurm.path(inside).display().to_string();
        slurm.done(
            "munged",
            &[
                "--force",
                &format!("--key-file={}", at("munge/key")),
                &format!("--socket={}", at("munge/sock")),
                &format!("--pid-file={}", at("munge.pid")),
                &format!("--log-file={}", at("log/munged.log")),
                &format!("--seed-file={}", at("munge/seed")),
            ],
        );
        slurm.done("slurmctld", &["-f", &at("slurm.conf")]);
        for node in ["node1", "node2"] {
            slurm.done("slurmd", &["-f", &at("slurm.conf"), "-N", node]);
        }
        let idle = || {
            slurm
                .answer("sinfo", &["-h", "-N", "-o", "%T"])
                .lines()
                .filter(|state| *state == "idle")
                .count()
        };
        assert!(
            until(|| idle() == 2),
            "two nodes: {}",
            slurm.answer("sinfo", &["-N", "-l"])
        );
        slurm
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn settings(&self) -> String {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        let host = name.trim().split('.').next().unwrap_or_default();
        let [control, one, two] = free_ports();
        let folder = self.folder.path().display();
        format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={control}\nSlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={folder}/munge/sock\nCredType=cred/munge\nMpiDefault=none\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1\n\
             ReturnToService=2\nSlurmdTimeout=600\nKillWait=5\nStateSaveLocation={folder}/state\n\
             SlurmctldPidFile={folder}/slurmctld.pid\nSlurmctldLogFile={folder}/log/slurmctld.log\n\
             SlurmdSpoolDir={folder}/spool.%n\nSlurmdPidFile={folder}/slurmd.%n.pid\n\
             SlurmdLogFile={folder}/log/slurmd.%n.log\nSlurmdParameters=config_overrides\n\
             NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=2 RealMemory=2000\n\
             NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={two} CPUs=2 RealMemory=2000\n\
             PartitionName=debug Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP\n"
        )
    }

    /// One of its programs, with its settings.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Runs one of its programs successfully.
    #[track_caller]
    pub fn done(&self, program: &str, arguments: &[&str]) {
        let output = self.output(program, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    }

    pub fn answer(&self, program: &str, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.output(program, arguments).stdout).into_owned()
    }

    /// A field of a job, such as its `JobState`.
    pub fn of_job(&self, job: &str, field: &str) -> String {
        let all = self.answer("scontrol", &["show", "job", "-o", job]);
        let mut words = all.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(field)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether a job has ended for good.
    pub fn has_ended(&self, job: &str) -> bool {
        let state = self.of_job(job, "JobState");
        ![
            "PENDING",
            "CONFIGURING",
            "RUNNING",
            "COMPLETING",
            "REQUEUED",
            "NODE_FAIL",
        ]
        .contains(&state.as_str())
    }

    /// Starts a requeued job now; Slurm would wait for two minutes.
    pub fn begins_again(&self, job: &str, restart: &str) {
        let came = || self.of_job(job, "JobState") == "PENDING" && self.of_job(job, "Restarts") == restart;
        until(|| came() || self.has_ended(job));
        assert!(came(), "{}", self.answer("scontrol", &["show", "job", job]));
        // Not in the second in which it ended: the nodes would treat its credential as the revoked one.
        let reported = || {
            self.output("scontrol", &["update", &format!("JobId={job}"), "StartTime=now+3"])
                .status
                .success()
        };
        assert!(until(reported), "{}", self.answer("scontrol", &["show", "job", job]));
        until(|| self.of_job(job, "JobState") != "PENDING");
        assert_eq!(self.of_job(job, "JobState"), "RUNNING");
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        drop(self.output("scancel", &["--user=root"]));
        let empty = until(|| self.answer("squeue", &["-h"]).trim().is_empty());
        if !empty {
            eprintln!("jobs are left: {}", self.answer("squeue", &[]));
        }
        for daemon in ["slurmd.node1", "slurmd.node2", "slurmctld", "munge"] {
            let Ok(pid) = std::fs::read_to_string(self.path(&format!("{daemon}.pid"))) else {
                continue;
            };
            drop(Command::new("kill").arg(pid.trim()).status());
            let Ok(pid) = pid.trim().parse() else { continue };
            until(|| !crate::layouts::lives(pid));
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
}

fn open_to_all(folder: &Path) {
    set_mode(folder, 0o755);
}

fn free_ports() -> [u16; 3] {
    let taken = [(); 3].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    taken.map(|listener| listener.local_addr().expect("its address").port())
}
