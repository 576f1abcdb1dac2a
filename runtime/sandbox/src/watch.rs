//! Starts the process of a plan, gives it its user, and watches it until nothing of it is left.

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

use crate::child::{Ends, NOBODY, Step, become_program, read_report};
use crate::filter::NAMESPACES;
use crate::plan::{Place, Plan};
use crate::{Ended, Limits, Outcome, SandboxError};

/// No program is waited for longer, so that a time stays one that the clock can count to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// By how much the CPU time that is reported may lag behind what was limited: that is counted in ticks of the clock.
const TICKS: Duration = Duration::from_millis(100);

/// How a process ended: as a program, or with a report instead of one.
pub enum Run {
    Program(Outcome),
    Report(Step, i32),
}

/// A process that has been forked and not waited for.
struct Process {
    pid: Pid,
    /// Where there are no namespaces, what it has started is in its group, if at all.
    group: bool,
}

/// What the kernel says of a process that has ended.
struct Status {
    wait: i32,
    cpu: Duration,
}

impl Process {
    /// Forks.
    ///
    /// # Safety
    /// `child` may only do what is allowed after a fork in a program with threads, and must not return.
    unsafe fn start(flags: i32, group: bool, child: impl FnOnce()) -> io::Result<Self> {
        // No handler of this process shall run in the new one.
        // SAFETY: sets of signals on the stack.
        let old = unsafe {
            let mut all: libc::sigset_t = zeroed();
            let mut old: libc::sigset_t = zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut old);
            old
        };
        // SAFETY: without a stack of its own it is a fork.
        let pid = unsafe { fork(flags) };
        if pid == 0 {
            child();
        }
        let error = io::Error::last_os_error();
        // SAFETY: the set that was there before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
        match Pid::from_raw(pid as i32) {
            Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Self { pid, group }),
            _ => Err(error),
        }
    }

    /// Ends it with all that it has started, if it has not ended, and waits for it. It is not waited for before, so its
    /// number is still its own.
    fn end(&self) -> Status {
        let pid = self.pid.as_raw_nonzero().get();
        // Both fail only where there is nothing left to end.
        let _ = kill_process(self.pid, Signal::KILL);
        if self.group {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        let mut wait = 0;
        // SAFETY: a zeroed structure is a valid one; both pointers are to this stack.
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
        Status {
            wait,
            cpu: time(used.ru_utime) + time(used.ru_stime),
        }
    }
}

/// `clone` with flags and the signal of a fork, no stack and no pointers.
///
/// # Safety
/// As with `fork`: in the new process only what is allowed after one.
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
    pipe_with(PipeFlags::CLOEXEC).map_err(SandboxError::set_up("make a pipe"))
}

/// Runs the process of a plan to its end; a probe takes the program's place.
pub fn watch(plan: &Plan, limits: &Limits, probe: Option<&dyn Fn() -> i32>) -> Result<Run, SandboxError> {
    let start = Instant::now();
    let deadline = start + limits.wall.min(LONGEST);
    let (go_out, go) = pipe()?;
    let (output, output_in) = pipe()?;
    let (report, report_in) = pipe()?;
    for end in [&output, &report] {
        fcntl_setfl(end, OFlags::NONBLOCK).map_err(SandboxError::set_up("read from a pipe"))?;
    }
    let ends = Ends {
        go: go_out.as_fd(),
        output: output_in.as_fd(),
        report: report_in.as_fd(),
    };
    let own = matches!(plan.place, Place::Own(_));
    // SAFETY: the closure is `become_program`, which is written for this and does not return.
    let process = unsafe {
        Process::start(if own { NAMESPACES } else { 0 }, !own, || {
            become_program(plan, ends, probe);
        })
    };
    let process = process.map_err(|source| SandboxError::SetUp {
        what: if own { "make namespaces" } else { "fork" },
        source,
    })?;
    drop((go_out, output_in, report_in));
    let watched = || -> Result<_, SandboxError> {
        let file = pidfd_open(process.pid, PidfdFlags::empty()).map_err(SandboxError::set_up("watch the program"))?;
        if own {
            map_users(process.pid).map_err(|source| SandboxError::SetUp {
                what: "give it a user of its own",
                source,
            })?;
            write(&go, &[1]).map_err(SandboxError::set_up("let the program go"))?;
        }
        follow(&file, &output, deadline, limits.output).map_err(SandboxError::set_up("watch the program"))
    };
    let watched = watched();
    let status = process.end();
    let (mut output_so_far, cause) = watched?;
    let seconds = start.elapsed().as_secs_f64();
    // The process has ended, so what there is of its report is there; a program leaves none.
    let mut bytes = [0; 8];
    if read(&report, &mut bytes) == Ok(bytes.len())
        && let Some((step, number)) = read_report(bytes)
    {
        return Ok(Run::Report(step, number));
    }
    let within = collect(&output, &mut output_so_far, limits.output);
    let within = within.map_err(SandboxError::set_up("read the program's output"))?;
    let ended = match cause {
        _ if within == Collected::TooMuch => Ended::TooMuchOutput,
        Some(cause) => cause,
        None if libc::WIFEXITED(status.wait) => Ended::Exit(libc::WEXITSTATUS(status.wait)),
        // The kernel ends a process that has used up its CPU time with the signal that nobody can catch.
        None if libc::WTERMSIG(status.wait) == libc::SIGKILL && status.cpu + TICKS >= limits.cpu => Ended::OutOfTime,
        None => Ended::Signal(libc::WTERMSIG(status.wait)),
    };
    output_so_far.truncate(usize::try_from(limits.output).unwrap_or(usize::MAX));
    Ok(Run::Program(Outcome {
        ended,
        output: output_so_far,
        seconds,
    }))
}

/// Waits for the end of the process or of its limits, and takes its output meanwhile. Says why it has to be ended, if it
/// has not ended by itself.
fn follow(
    process: &OwnedFd,
    output: &OwnedFd,
    deadline: Instant,
    limit: u64,
) -> rustix::io::Result<(Vec<u8>, Option<Ended>)> {
    let mut taken = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut watched = [PollFd::new(process, PollFlags::IN), PollFd::new(output, PollFlags::IN)];
        let watched = if open { &mut watched[..] } else { &mut watched[..1] };
        match poll(watched, Some(&wait)) {
            Ok(0) if left.is_zero() => return Ok((taken, Some(Ended::OutOfTime))),
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let ended = !watched[0].revents().is_empty();
        if open {
            match collect(output, &mut taken, limit)? {
                Collected::TooMuch => return Ok((taken, Some(Ended::TooMuchOutput))),
                Collected::Closed => open = false,
                Collected::Empty => {}
            }
        }
        if ended {
            return Ok((taken, None));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Collected {
    /// There is nothing now.
    Empty,
    /// Nothing will come any more.
    Closed,
    TooMuch,
}

/// Takes what is in the pipe, up to one byte more than the limit.
fn collect(output: &OwnedFd, taken: &mut Vec<u8>, limit: u64) -> rustix::io::Result<Collected> {
    let mut buffer = [0; 16384];
    while taken.len() as u64 <= limit {
        match read(output, &mut buffer) {
            Ok(0) => return Ok(Collected::Closed),
            Ok(count) => taken.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(Collected::Empty),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Collected::TooMuch)
}

/// Lets "nobody" be the one user of the process's namespace. Outside he is another user than root, whose processes the
/// kernel would not count; of the user who is not root, only he himself can be had.
fn map_users(process: Pid) -> io::Result<()> {
    let set = |name: &str, text: String| fs::write(format!("/proc/{}/{name}", process.as_raw_nonzero()), text);
    if geteuid().is_root() && set("uid_map", format!("{NOBODY} {NOBODY} 1")).is_ok() {
        return set("gid_map", format!("{NOBODY} {NOBODY} 1"));
    }
    set("setgroups", "deny".to_owned())?;
    set("uid_map", format!("{NOBODY} {} 1", geteuid().as_raw()))?;
    set("gid_map", format!("{NOBODY} {} 1", getegid().as_raw()))
}
