//! What the forked process does until it is the program.
//!
//! The caller has other threads, and one of them may have held a lock at the moment of the fork: nothing here allocates,
//! locks or panics. All is system calls on what [`Plan`] has prepared. The order matters: each layer forbids what the
//! layers before it need.

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

use crate::plan::{Make, Place, Plan, Root};

/// The user and group that a program runs as, in its namespace; "nobody" on most machines.
pub const NOBODY: u32 = 65534;

/// The steps of the set-up, to report the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
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

impl Step {
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

    /// What could not be done, after "cannot".
    pub fn what(self) -> &'static str {
        match self {
            Self::Parent => "end together with this process",
            Self::User => "become another user in a user namespace",
            Self::Mount => "mount a file system in a mount namespace",
            Self::Files => "write the program's files",
            Self::Root => "change to a root of its own",
            Self::Host => "have a host name of its own",
            Self::Session => "open a session",
            Self::Folder => "enter the program's folder",
            Self::Landlock => "restrict itself with Landlock",
            Self::Streams => "connect stdin and stdout",
            Self::Limits => "limit its resources",
            Self::Capabilities => "give up its capabilities",
            Self::Seccomp => "filter its system calls",
            Self::Start => "start the program",
            Self::Probe => "probe itself",
        }
    }
}

/// The ends of the pipes that the forked process uses.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// A byte comes when this process has been given its user; nothing where that is not needed.
    pub go: BorrowedFd<'a>,
    pub output: BorrowedFd<'a>,
    pub report: BorrowedFd<'a>,
}

/// A step and its error number, or the bits of a probe, as eight bytes.
pub fn report(step: Step, number: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    let (first, second) = bytes.split_at_mut(4);
    first.copy_from_slice(&(step as i32).to_le_bytes());
    second.copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn read_report(bytes: [u8; 8]) -> Option<(Step, i32)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let step = i32::from_le_bytes([a, b, c, d]);
    let step = Step::ALL.get(usize::try_from(step).ok()?)?;
    Some((*step, i32::from_le_bytes([e, f, g, h])))
}

/// Becomes the program, or says in `report` why not and ends.
///
/// `probe` is called instead of the program when it is given; what it answers is reported.
///
/// # Safety
/// Only to be called in a process that has just been forked.
pub unsafe fn become_program(plan: &Plan, ends: Ends<'_>, probe: Option<&dyn Fn() -> i32>) -> ! {
    let (step, number) = match confine(plan, ends) {
        Err((step, error)) => (step, error.raw_os_error()),
        Ok(()) => match probe {
            Some(probe) => (Step::Probe, probe()),
            None => {
                // SAFETY: NUL-terminated strings and arrays that end with a null pointer, alive until exec.
                unsafe { libc::execve(plan.command.first(), plan.command.as_ptr(), plan.environment.as_ptr()) };
                (Step::Start, errno().raw_os_error())
            }
        },
    };
    // If nobody reads it any more there is nobody to tell.
    let _ = write(ends.report, &report(step, number));
    // SAFETY: ends this process without running what the caller has registered for its own end.
    unsafe { libc::_exit(1) }
}

fn errno() -> Errno {
    // SAFETY: the C library's own cell for this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The result of a call that rustix does not have.
fn called(result: c_long) -> Result<()> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn confine(plan: &Plan, ends: Ends<'_>) -> std::result::Result<(), (Step, Errno)> {
    let at = |step: Step| move |error: Errno| (step, error);
    default_signals();
    die_with(plan.parent.as_fd()).map_err(at(Step::Parent))?;
    let folder = match &plan.place {
        Place::Own(root) => {
            become_nobody(ends.go).map_err(at(Step::User))?;
            make_root(root).map_err(at(Step::Mount))?;
            write_files(root).map_err(at(Step::Files))?;
            enter_root(root).map_err(at(Step::Root))?;
            rustix::system::sethostname(b"sandbox").map_err(at(Step::Host))?;
            c"/program"
        }
        Place::Here { path, .. } => path.as_c_str(),
    };
    setsid().map_err(at(Step::Session))?;
    chdir(folder).map_err(at(Step::Folder))?;
    set_no_new_privs(true).map_err(at(Step::Landlock))?;
    landlock(plan).map_err(at(Step::Landlock))?;
    streams(plan, ends).map_err(at(Step::Streams))?;
    // The same addresses in every run, so that what is ordered by them is too. A container may forbid it; then only that
    // is lost.
    // SAFETY: changes a flag of this process.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    for (resource, limit) in &plan.limits {
        setrlimit(*resource, *limit).map_err(at(Step::Limits))?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(at(Step::Capabilities))?;
    // Once more: changes of the user and of capabilities have reset it.
    die_with(plan.parent.as_fd()).map_err(at(Step::Parent))?;
    if let Some(filter) = &plan.filter {
        seccompiler::apply_filter(filter).map_err(|_| (Step::Seccomp, errno()))?;
    }
    Ok(())
}

/// A program starts with no handler, and ignores only what it chooses to ignore.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler of the caller shall run here; signals that cannot be changed answer an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is a valid one.
    unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Ends with the caller, which may have ended already: a process file is readable when its process has ended.
fn die_with(parent: BorrowedFd<'_>) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut watched = [PollFd::new(&parent, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut watched, Some(&now))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Waits until the caller has written the map of users, then is the one user in it.
fn become_nobody(go: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    if read(go, &mut byte)? != 1 {
        return Err(Errno::SRCH);
    }
    // Refused where an unprivileged user has made the namespace. His groups then stay, and open nothing in the view that
    // others may not read.
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

/// A small file system in memory with the view in it; it is the working folder afterwards.
fn make_root(root: &Root) -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private)?;
    mount(c"root", c"/tmp", c"tmpfs", plain, c"size=256k,nr_inodes=128,mode=0755")?;
    chdir(c"/tmp")?;
    let folder = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    for step in &root.steps {
        match step {
            Make::Folder(path) => rustix::fs::mkdir(path.as_c_str(), folder)?,
            Make::Link { target, path } => rustix::fs::symlink(target.as_c_str(), path.as_c_str())?,
            Make::Empty(path) => drop(open(path.as_c_str(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?),
            Make::Bind { source, path, device } => {
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

/// Makes the working folder the root and lets go of the old one.
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

/// Adds the working folder, which has only now come to be, to the rules, and is bound by them.
fn landlock(plan: &Plan) -> Result<()> {
    let Some(ruleset) = &plan.ruleset else {
        return Ok(());
    };
    let here = open(c".", OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let rule = PathBeneath {
        allowed_access: plan.own_access,
        parent_fd: here.as_raw_fd(),
    };
    const PATH_BENEATH: i32 = 1;
    let ruleset = ruleset.as_raw_fd();
    // SAFETY: open descriptors and the structure that this kind of rule has.
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

fn streams(plan: &Plan, ends: Ends<'_>) -> Result<()> {
    rustix::stdio::dup2_stdin(&plan.stdin)?;
    rustix::stdio::dup2_stdout(ends.output)?;
    rustix::stdio::dup2_stderr(ends.output)?;
    // All others are closed by exec; the report is still to be sent if there is none.
    // SAFETY: sets a flag of descriptors.
    called(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}
