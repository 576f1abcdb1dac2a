//! Starts the process of a prepared sandbox, sets its user, and watches it until nothing of it is left.
//!
//! Limits of time are checked here, by the precise times that the kernel keeps of the process, and not by its resource
//! limit or a deadline: these depend on what else the machine does.

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

/// How often a running program's times are checked, at least.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Signals that a process can cause to itself although it may not send any: by an invalid instruction or access, a closed
/// pipe, a timer, or a limit of the size of files.
const OWN_SIGNALS: [i32; 12] = [
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGPIPE,
    libc::SIGPROF,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGVTALRM,
    libc::SIGXFSZ,
];

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

    /// The CPU time that it has used; `None` if the kernel does not say.
    fn cpu_time(&self) -> Option<Duration> {
        let pid = self.pid.as_raw_nonzero().get();
        // SAFETY: zeroed structures are valid; both pointers are to this stack.
        let time = unsafe {
            let mut clock: libc::clockid_t = zeroed();
            let mut time: libc::timespec = zeroed();
            if libc::clock_getcpuclockid(pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0 {
                return None;
            }
            time
        };
        let part = |part: i64| u64::try_from(part).unwrap_or_default();
        Some(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
    }

    /// How long it was ready to run and waited for a processor; nothing if the kernel does not say.
    fn waited(&self) -> Duration {
        // `TIME-ON-CPU TIME-WAITED TIMESLICES`, in nanoseconds.
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid.as_raw_nonzero())).unwrap_or_default();
        let waited = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        Duration::from_nanos(waited.unwrap_or_default())
    }

    /// Ends it and everything that it started, if they have not ended, and waits for it. It was not waited for before,
    /// so its number is still valid.
    ///
    /// # Errors
    /// It cannot be waited for: a parent of this process has made the kernel discard how its children end.
    fn end(&self) -> Result<EndStatus, SandboxError> {
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
            while libc::wait4(pid, &mut wait, libc::__WALL, &mut used) < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    let what = "wait for the program (is SIGCHLD ignored?)";
                    return Err(SandboxError::SetUp { what, source: error });
                }
            }
            used
        };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        Ok(EndStatus {
            wait,
            cpu: time(used.ru_utime) + time(used.ru_stime),
        })
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

/// Runs the process of a prepared sandbox until it ends or `cancelled` is true; a probe replaces the program.
pub fn watch(
    prepared: &PreparedSandbox,
    limits: &Limits,
    probe: Option<&dyn Fn() -> i32>,
    cancelled: &dyn Fn() -> bool,
) -> Result<ProcessResult, SandboxError> {
    let start = Instant::now();
    let (go_out, go) = pipe()?;
    let (output, output_in) = pipe()?;
    let (report, report_in) = pipe()?;
    let (errors, errors_in) = if prepared.errors_apart {
        let (errors, errors_in) = pipe()?;
        (Some(errors), Some(errors_in))
    } else {
        (None, None)
    };
    for end in [&output, &report].into_iter().chain(&errors) {
        fcntl_setfl(end, OFlags::NONBLOCK).map_err(SandboxError::set_up("read from a pipe"))?;
    }
    let mut streams = Streams::new([Some(output), errors], limits.output);
    let ends = PipeEnds {
        go: go_out.as_fd(),
        output: output_in.as_fd(),
        errors: errors_in.as_ref().unwrap_or(&output_in).as_fd(),
        report: report_in.as_fd(),
    };
    let own = matches!(prepared.place, ProgramFolder::Own(_));
    let namespaces = match (own, limits.network) {
        (false, _) => 0,
        (true, false) => NAMESPACES,
        (true, true) => NAMESPACES & !libc::CLONE_NEWNET,
    };
    // SAFETY: the closure is `become_program`, which is written for this and does not return.
    let process = unsafe {
        ForkedProcess::start(namespaces, !own, || {
            become_program(prepared, ends, probe);
        })
    };
    let process = process.map_err(|source| SandboxError::SetUp {
        what: if own { "create namespaces" } else { "fork" },
        source,
    })?;
    drop((go_out, output_in, errors_in, report_in));
    let mut watched = || -> Result<_, SandboxError> {
        let file = pidfd_open(process.pid, PidfdFlags::empty()).map_err(SandboxError::set_up("watch the program"))?;
        if own {
            map_users(process.pid).map_err(|source| SandboxError::SetUp {
                what: "set its user",
                source,
            })?;
            write(&go, &[1]).map_err(SandboxError::set_up("start the program"))?;
        }
        let following = Following {
            process: &process,
            file: &file,
            start,
            limits,
            cancelled,
        };
        following
            .follow(&mut streams)
            .map_err(SandboxError::set_up("watch the program"))
    };
    let watched = watched();
    let status = process.end();
    let (cause, status) = (watched?, status?);
    let seconds = start.elapsed().as_secs_f64();
    // The process has ended, so its report is complete; a program has none.
    let mut bytes = [0; 8];
    if read(&report, &mut bytes) == Ok(bytes.len())
        && let Some((step, number)) = read_report(bytes)
    {
        return Ok(ProcessResult::Report(step, number));
    }
    let within = streams
        .collect()
        .map_err(SandboxError::set_up("read the program's output"))?;
    let signal = libc::WIFSIGNALED(status.wait).then(|| libc::WTERMSIG(status.wait));
    let ended = match (cause, signal) {
        (Some(Cause::Cancelled), _) => return Err(SandboxError::Cancelled),
        _ if !within => ProgramEnd::TooMuchOutput,
        (Some(Cause::OutOfTime), _) => ProgramEnd::OutOfTime,
        // Also if it ended before this process had the time to see that.
        _ if status.cpu >= limits.cpu => ProgramEnd::OutOfTime,
        (_, None) => ProgramEnd::Exit(libc::WEXITSTATUS(status.wait)),
        // Neither it nor what it starts can send it a signal: the first process of a namespace does not receive them.
        (_, Some(signal)) if !OWN_SIGNALS.contains(&signal) => {
            return Err(SandboxError::Killed { signal });
        }
        (_, Some(signal)) => ProgramEnd::Signal(signal),
    };
    let [output, errors] = streams.into_texts();
    Ok(ProcessResult::Program(ProgramOutcome {
        ended,
        output,
        errors,
        seconds,
    }))
}

/// Why a process must be ended.
#[derive(PartialEq, Eq)]
enum Cause {
    OutOfTime,
    TooMuchOutput,
    Cancelled,
}

/// A running process, and its limits.
struct Following<'a> {
    process: &'a ForkedProcess,
    /// Readable when the process has ended.
    file: &'a OwnedFd,
    start: Instant,
    limits: &'a Limits,
    cancelled: &'a dyn Fn() -> bool,
}

impl Following<'_> {
    /// The time that is left to it. Wall-clock time that it waited for a processor does not count.
    fn left(&self) -> Duration {
        let elapsed = self.start.elapsed();
        let own = elapsed.saturating_sub(self.process.waited());
        let wall = self.limits.wall.min(MAX_WALL).saturating_sub(own);
        let cpu = self.process.cpu_time().map(|used| self.limits.cpu.saturating_sub(used));
        wall.min(cpu.unwrap_or(wall))
    }

    /// Waits until the process ends or reaches a limit, and collects its output. Returns why it must be ended, if it has not
    /// ended by itself.
    fn follow(&self, streams: &mut Streams) -> rustix::io::Result<Option<Cause>> {
        loop {
            // Measured before the process is known to run still: however late that is found out, it had this time.
            let left = self.left();
            let wait = Timespec::try_from(left.min(CHECK_INTERVAL)).map_err(|_| Errno::INVAL)?;
            let mut watched = vec![PollFd::new(self.file, PollFlags::IN)];
            watched.extend(streams.open().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            match poll(&mut watched, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            let ended = !watched[0].revents().is_empty();
            if !streams.collect()? {
                return Ok(Some(Cause::TooMuchOutput));
            }
            if ended {
                return Ok(None);
            }
            if left.is_zero() {
                return Ok(Some(Cause::OutOfTime));
            }
            if (self.cancelled)() {
                return Ok(Some(Cause::Cancelled));
            }
        }
    }
}

/// The pipes that a program writes to, and what it has written.
struct Streams {
    streams: [Stream; 2],
    /// Bytes of both.
    limit: u64,
}

struct Stream {
    /// `None` if it is closed.
    pipe: Option<OwnedFd>,
    text: Vec<u8>,
}

impl Streams {
    fn new(pipes: [Option<OwnedFd>; 2], limit: u64) -> Self {
        let streams = pipes.map(|pipe| Stream { pipe, text: Vec::new() });
        Self { streams, limit }
    }

    fn open(&self) -> impl Iterator<Item = &OwnedFd> {
        self.streams.iter().filter_map(|stream| stream.pipe.as_ref())
    }

    /// Reads what is in the pipes; `false` if that is more than the limit.
    fn collect(&mut self) -> rustix::io::Result<bool> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut total: usize = self.streams.iter().map(|stream| stream.text.len()).sum();
        let mut buffer = [0; 16384];
        for Stream { pipe, text } in &mut self.streams {
            while let Some(from) = pipe.as_ref().filter(|_| total <= limit) {
                match read(from, &mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(count) => {
                        text.extend_from_slice(&buffer[..count]);
                        total += count;
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(total <= limit)
    }

    /// What was written, up to the limit.
    fn into_texts(self) -> [Vec<u8>; 2] {
        let mut left = usize::try_from(self.limit).unwrap_or(usize::MAX);
        self.streams.map(|Stream { mut text, .. }| {
            text.truncate(left);
            left -= text.len();
            text
        })
    }
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
