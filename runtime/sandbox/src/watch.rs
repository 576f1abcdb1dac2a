//! Starts the process of a prepared sandbox, sets its user, and watches it until nothing of it is left.

use std::fs;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::c_long;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, getegid, geteuid, kill_process, kill_process_group, pidfd_open};

use crate::child::{NOBODY, PipeEnds, SetupStep, become_program, read_report};
use crate::filter::NAMESPACES;
use crate::prepared::{PreparedSandbox, ProgramFolder};
use crate::{Limits, ProgramEnd, ProgramOutcome, SandboxError};

/// Maximum wall-clock limit, so that the deadline can be represented.
const MAX_WALL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Result of a process: of the program, or a report instead.
pub enum ProcessResult {
    Program(ProgramOutcome),
    Report(SetupStep, i32),
}

/// A forked process that was not waited for.
struct ForkedProcess {
    pid: Pid,
    /// Without namespaces, the processes that it started are in its group, if anywhere.
    group: bool,
}

/// The kernel's status of an ended process.
struct EndStatus {
    wait: i32,
    cpu: Duration,
}

impl ForkedProcess {
    /// Forks.
    ///
    /// # Safety
    /// `child` may only do what is allowed after a fork in a program with threads, and must not return.
    unsafe fn start(flags: i32, group: bool, child: impl FnOnce()) -> io::Result<Self> {
        // No handler of this process may run in the new one.
        let old = unsafe {
            let mut all: libc::sigset_t = zeroed();
            let mut old: libc::sigset_t = zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut old);
            old
        };
        // SAFETY: without a new stack it is a fork.
        let pid = unsafe { fork(flags) };
        if pid == 0 {
            child();
        }
        let error = io::Error::last_os_error();
        // SAFETY: the previous set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
        // `Pid::from_raw` asserts that its argument is not negative.
        match i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) {
            Some(pid) => Ok(Self { pid, group }),
            None => Err(error),
        }
    }

    /// Ends it and everything that it started, if they have not ended, and waits for it. It was not waited for before,
    /// so its number is still valid.
    fn end(&self) -> EndStatus {
        let pid = self.pid.as_raw_nonzero().get();
        // Both fail only if there is nothing left to end.
        let _ = kill_process(self.pid, Signal::KILL);
        if self.group {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        let mut wait = 0;
        // SAFETY: a zeroed structure is valid; both pointers are to this stack.
        let used = unsafe {
            let mut used: libc::rusage = zeroed();
            while libc::wait4(pid, &mut wait, libc::__WALL, &mut used) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
            used
        };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        EndStatus {
            wait,
            cpu: time(used.ru_utime) + time(used.ru_stime),
        }
    }
}

/// `clone` with flags and the signal of a fork, without a stack and pointers.
///
/// # Safety
/// As for `fork`: the new process may only do what is allowed after one.
pub unsafe fn fork(flags: i32) -> c_long {
    const NONE: c_long = 0;
    // SAFETY: the kernel reads no memory for these arguments.
    unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(flags | libc::SIGCHLD),
            NONE,
            NONE,
            NONE,
            NONE,
        )
    }
}

/// Both ends of a pipe.
fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(SandboxError::set_up("create a pipe"))
}

/// Runs the process of a prepared sandbox until it ends; a probe replaces the program.
pub fn watch(
    prepared: &PreparedSandbox,
    limits: &Limits,
    probe: Option<&dyn Fn() -> i32>,
) -> Result<ProcessResult, SandboxError> {
    let start = Instant::now();
    let deadline = start + limits.wall.min(MAX_WALL);
    let (go_out, go) = pipe()?;
    let (output, output_in) = pipe()?;
    let (report, report_in) = pipe()?;
    for end in [&output, &report] {
        fcntl_setfl(end, OFlags::NONBLOCK).map_err(SandboxError::set_up("read from a pipe"))?;
    }
    let ends = PipeEnds {
        go: go_out.as_fd(),
        output: output_in.as_fd(),
        report: report_in.as_fd(),
    };
    let own = matches!(prepared.place, ProgramFolder::Own(_));
    // SAFETY: the closure is `become_program`, which is written for this and does not return.
    let process = unsafe {
        ForkedProcess::start(if own { NAMESPACES } else { 0 }, !own, || {
            become_program(prepared, ends, probe);
        })
    };
    let process = process.map_err(|source| SandboxError::SetUp {
        what: if own { "create namespaces" } else { "fork" },
        source,
    })?;
    drop((go_out, output_in, report_in));
    let watched = || -> Result<_, SandboxError> {
        let file = pidfd_open(process.pid, PidfdFlags::empty()).map_err(SandboxError::set_up("watch the program"))?;
        if own {
            map_users(process.pid).map_err(|source| SandboxError::SetUp {
                what: "set its user",
                source,
            })?;
            write(&go, &[1]).map_err(SandboxError::set_up("start the program"))?;
        }
        follow(&file, &output, deadline, limits.output).map_err(SandboxError::set_up("watch the program"))
    };
    let watched = watched();
    let status = process.end();
    let (mut output_so_far, cause) = watched?;
    let seconds = start.elapsed().as_secs_f64();
    // The process has ended, so its report is complete; a program has none.
    let mut bytes = [0; 8];
    if read(&report, &mut bytes) == Ok(bytes.len())
        && let Some((step, number)) = read_report(bytes)
    {
        return Ok(ProcessResult::Report(step, number));
    }
    let within = collect(&output, &mut output_so_far, limits.output);
    let within = within.map_err(SandboxError::set_up("read the program's output"))?;
    let ended = match cause {
        _ if within == Collected::TooMuch => ProgramEnd::TooMuchOutput,
        Some(cause) => cause,
        None if libc::WIFEXITED(status.wait) => ProgramEnd::Exit(libc::WEXITSTATUS(status.wait)),
        // The kernel ends a process that has used its CPU time with SIGKILL. It counts that time in clock ticks, which on a
        // loaded machine are far ahead of the precise time that is reported: half of the limit is enough to distinguish the two
        // causes of a SIGKILL.
        None if libc::WTERMSIG(status.wait) == libc::SIGKILL && status.cpu * 2 >= limits.cpu => ProgramEnd::OutOfTime,
        None => ProgramEnd::Signal(libc::WTERMSIG(status.wait)),
    };
    output_so_far.truncate(usize::try_from(limits.output).unwrap_or(usize::MAX));
    Ok(ProcessResult::Program(ProgramOutcome {
        ended,
        output: output_so_far,
        seconds,
    }))
}

/// Waits until the process ends or reaches a limit, and collects its output. Returns why it must be ended, if it has
/// not ended by itself.
fn follow(
    process: &OwnedFd,
    output: &OwnedFd,
    deadline: Instant,
    limit: u64,
) -> rustix::io::Result<(Vec<u8>, Option<ProgramEnd>)> {
    let mut collected = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut watched = [PollFd::new(process, PollFlags::IN), PollFd::new(output, PollFlags::IN)];
        let watched = if open { &mut watched[..] } else { &mut watched[..1] };
        match poll(watched, Some(&wait)) {
            Ok(0) if left.is_zero() => return Ok((collected, Some(ProgramEnd::OutOfTime))),
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let ended = !watched[0].revents().is_empty();
        if open {
            match collect(output, &mut collected, limit)? {
                Collected::TooMuch => return Ok((collected, Some(ProgramEnd::TooMuchOutput))),
                Collected::Closed => open = false,
                Collected::Empty => {}
            }
        }
        if ended {
            return Ok((collected, None));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Collected {
    /// Nothing to read at the moment.
    Empty,
    /// The pipe is closed.
    Closed,
    TooMuch,
}

/// Reads what is in the pipe, up to one byte more than the limit.
fn collect(output: &OwnedFd, collected: &mut Vec<u8>, limit: u64) -> rustix::io::Result<Collected> {
    let mut buffer = [0; 16384];
    while collected.len() as u64 <= limit {
        match read(output, &mut buffer) {
            Ok(0) => return Ok(Collected::Closed),
            Ok(count) => collected.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(Collected::Empty),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Collected::TooMuch)
}

/// Makes "nobody" the only user of the process's namespace. Outside, it is a user other than root, whose processes the
/// kernel would not count; a user who is not root can only map himself.
fn map_users(process: Pid) -> io::Result<()> {
    let set = |name: &str, text: String| fs::write(format!("/proc/{}/{name}", process.as_raw_nonzero()), text);
    if geteuid().is_root() && set("uid_map", format!("{NOBODY} {NOBODY} 1")).is_ok() {
        return set("gid_map", format!("{NOBODY} {NOBODY} 1"));
    }
    set("setgroups", "deny".to_owned())?;
    set("uid_map", format!("{NOBODY} {} 1", geteuid().as_raw()))?;
    set("gid_map", format!("{NOBODY} {} 1", getegid().as_raw()))
}
