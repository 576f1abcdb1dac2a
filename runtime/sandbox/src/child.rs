//! What the forked process does before it becomes the program.
//!
//! The caller has other threads, one of which may have held a lock during the fork: this code must not allocate, lock
//! or panic. It only makes system calls with what is in the [`PreparedSandbox`]. The order matters: each layer forbids
//! what earlier layers need.

use std::ffi::CStr;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::c_long;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result, read, write};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{Signal, chdir, pivot_root, set_parent_process_death_signal, setrlimit, setsid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::prepared::{PreparedSandbox, ProgramFolder, Root, RootStep};

/// The user and group of a program in its namespace; "nobody" on most machines.
pub const NOBODY: u32 = 65534;

/// Steps of the set-up, to report the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum SetupStep {
    Parent,
    User,
    Mount,
    Files,
    Root,
    Host,
    Session,
    Folder,
    Landlock,
    Streams,
    Limits,
    Capabilities,
    Seccomp,
    Start,
    Probe,
}

impl SetupStep {
    const ALL: [Self; 15] = [
        Self::Parent,
        Self::User,
        Self::Mount,
        Self::Files,
        Self::Root,
        Self::Host,
        Self::Session,
        Self::Folder,
        Self::Landlock,
        Self::Streams,
        Self::Limits,
        Self::Capabilities,
        Self::Seccomp,
        Self::Start,
        Self::Probe,
    ];

    /// The failed action, after "cannot".
    pub fn what(self) -> &'static str {
        match self {
            Self::Parent => "end together with this process",
            Self::User => "become another user in a user namespace",
            Self::Mount => "mount a file system in a mount namespace",
            Self::Files => "write the program's files",
            Self::Root => "change its root",
            Self::Host => "set its host name",
            Self::Session => "open a session",
            Self::Folder => "enter the program's folder",
            Self::Landlock => "restrict itself with Landlock",
            Self::Streams => "connect stdin and stdout",
            Self::Limits => "limit its resources",
            Self::Capabilities => "drop its capabilities",
            Self::Seccomp => "filter its system calls",
            Self::Start => "start the program",
            Self::Probe => "probe itself",
        }
    }
}

/// The ends of the pipes that the forked process uses.
#[derive(Clone, Copy)]
pub struct PipeEnds<'a> {
    /// Receives a byte when this process has its user; unused without namespaces.
    pub go: BorrowedFd<'a>,
    pub output: BorrowedFd<'a>,
    /// stderr; the same as `output` if they are not apart.
    pub errors: BorrowedFd<'a>,
    pub report: BorrowedFd<'a>,
}

/// Encodes a step and its error number, or the bits of a probe, as eight bytes.
pub fn report(step: SetupStep, number: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    let (first, second) = bytes.split_at_mut(4);
    first.copy_from_slice(&(step as i32).to_le_bytes());
    second.copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn read_report(bytes: [u8; 8]) -> Option<(SetupStep, i32)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let step = i32::from_le_bytes([a, b, c, d]);
    let step = SetupStep::ALL.get(usize::try_from(step).ok()?)?;
    Some((*step, i32::from_le_bytes([e, f, g, h])))
}

/// Becomes the program, or reports why not and ends.
///
/// If `probe` is given, it is called instead of the program and its result is reported.
///
/// # Safety
/// Call it only in a process that has just been forked.
pub unsafe fn become_program(prepared: &PreparedSandbox, ends: PipeEnds<'_>, probe: Option<&dyn Fn() -> i32>) -> ! {
    let (step, number) = match confine(prepared, ends) {
        Err((step, error)) => (step, error.raw_os_error()),
        Ok(()) => match probe {
            Some(probe) => (SetupStep::Probe, probe()),
            None => {
                // SAFETY: NUL-terminated strings and arrays that end with a null pointer, alive until exec.
                unsafe {
                    libc::execve(
                        prepared.command.first(),
                        prepared.command.as_ptr(),
                        prepared.environment.as_ptr(),
                    )
                };
                (SetupStep::Start, errno().raw_os_error())
            }
        },
    };
    // A failed report cannot be handled.
    let _ = write(ends.report, &report(step, number));
    // SAFETY: ends this process without running the caller's exit handlers.
    unsafe { libc::_exit(1) }
}

fn errno() -> Errno {
    // SAFETY: the C library's own cell for this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Result of a system call that rustix does not have.
fn called(result: c_long) -> Result<()> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn confine(prepared: &PreparedSandbox, ends: PipeEnds<'_>) -> std::result::Result<(), (SetupStep, Errno)> {
    let at = |step: SetupStep| move |error: Errno| (step, error);
    reset_signals();
    die_with(prepared.parent.as_fd()).map_err(at(SetupStep::Parent))?;
    let folder = match &prepared.place {
        ProgramFolder::Own(root) => {
            become_nobody(ends.go).map_err(at(SetupStep::User))?;
            make_root(root).map_err(at(SetupStep::Mount))?;
            write_files(root).map_err(at(SetupStep::Files))?;
            enter_root(root).map_err(at(SetupStep::Root))?;
            rustix::system::sethostname(b"sandbox").map_err(at(SetupStep::Host))?;
            c"/program"
        }
        ProgramFolder::Here { path, .. } => path.as_c_str(),
    };
    setsid().map_err(at(SetupStep::Session))?;
    chdir(folder).map_err(at(SetupStep::Folder))?;
    set_no_new_privs(true).map_err(at(SetupStep::Landlock))?;
    landlock(prepared).map_err(at(SetupStep::Landlock))?;
    streams(prepared, ends).map_err(at(SetupStep::Streams))?;
    // The same addresses in every run, so that orders that depend on them are equal. A container may forbid it; then
    // only this property is lost.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    for (resource, limit) in &prepared.limits {
        setrlimit(*resource, *limit).map_err(at(SetupStep::Limits))?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(at(SetupStep::Capabilities))?;
    // Again: changes of the user and of capabilities have reset it.
    die_with(prepared.parent.as_fd()).map_err(at(SetupStep::Parent))?;
    if let Some(filter) = &prepared.filter {
        seccompiler::apply_filter(filter).map_err(|_| (SetupStep::Seccomp, errno()))?;
    }
    Ok(())
}

/// A program starts without signal handlers and ignores no signal.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler of the caller may run here; signals that cannot be changed return an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is a valid one.
    unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Makes this process end with the caller, which may have ended already: a process's descriptor is readable after it
/// has ended.
fn die_with(parent: BorrowedFd<'_>) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut watched = [PollFd::new(&parent, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut watched, Some(&now))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Waits until the caller has written the user map, then becomes its only user.
fn become_nobody(go: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    if read(go, &mut byte)? != 1 {
        return Err(Errno::SRCH);
    }
    // Refused if an unprivileged user created the namespace. The user's groups then remain, and give no access to
    // any visible file that others cannot read.
    let _ = set_thread_groups(&[]);
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

fn set_mount(path: &CStr, attributes: u64, below: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if below { libc::AT_RECURSIVE } else { 0 };
    let size = size_of::<libc::mount_attr>();
    // SAFETY: a NUL-terminated path and a structure of the size stated.
    called(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &attributes,
            size,
        )
    })
}

/// Creates a small file system in memory with the visible files, and makes it the working folder.
fn make_root(root: &Root) -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private)?;
    mount(c"root", c"/tmp", c"tmpfs", plain, c"size=256k,nr_inodes=128,mode=0755")?;
    chdir(c"/tmp")?;
    let folder = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    for step in &root.steps {
        match step {
            RootStep::Folder(path) => rustix::fs::mkdir(path.as_c_str(), folder)?,
            RootStep::Link { target, path } => rustix::fs::symlink(target.as_c_str(), path.as_c_str())?,
            RootStep::Empty(path) => drop(open(path.as_c_str(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?),
            RootStep::Bind { source, path, device } => {
                mount_bind_recursive(source.as_c_str(), path.as_c_str())?;
                let nodev = if *device {
                    libc::MOUNT_ATTR_NOEXEC
                } else {
                    libc::MOUNT_ATTR_NODEV
                };
                let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | nodev;
                set_mount(path, attributes, true)?;
            }
        }
    }
    rustix::fs::mkdir(c"program", folder)?;
    mount(c"program", c"program", c"tmpfs", plain, root.options.as_c_str())
}

fn write_files(root: &Root) -> Result<()> {
    let here = open(
        c"program",
        OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let folder = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    for name in &root.folders {
        rustix::fs::mkdirat(&here, name.as_c_str(), folder)?;
    }
    for (name, bytes) in &root.files {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&here, name.as_c_str(), flags, mode)?;
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let written = write(&file, left)?;
            left = left.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Makes the working folder the root and unmounts the old one.
fn enter_root(root: &Root) -> Result<()> {
    if !root.writable {
        set_mount(c"program", libc::MOUNT_ATTR_RDONLY, false)?;
    }
    set_mount(c".", libc::MOUNT_ATTR_RDONLY, false)?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// `struct landlock_path_beneath_attr` of the kernel.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Adds the working folder, which exists only now, to the rules, and applies them.
fn landlock(prepared: &PreparedSandbox) -> Result<()> {
    let Some(ruleset) = &prepared.ruleset else {
        return Ok(());
    };
    let here = open(c".", OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let rule = PathBeneath {
        allowed_access: prepared.own_access,
        parent_fd: here.as_raw_fd(),
    };
    const PATH_BENEATH: i32 = 1;
    let ruleset = ruleset.as_raw_fd();
    // SAFETY: open descriptors and the structure of this rule type.
    unsafe {
        called(libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset,
            PATH_BENEATH,
            &rule,
            0,
        ))?;
        called(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0))
    }
}

fn streams(prepared: &PreparedSandbox, ends: PipeEnds<'_>) -> Result<()> {
    rustix::stdio::dup2_stdin(&prepared.stdin)?;
    rustix::stdio::dup2_stdout(ends.output)?;
    rustix::stdio::dup2_stderr(ends.errors)?;
    // `exec` closes all others; if it fails, the report still has to be sent.
    called(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}
