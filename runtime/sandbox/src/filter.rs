//! The system calls that a program may make; every other one returns ENOSYS, as on a kernel without it.
//!
//! An allow list, so that calls of newer kernels are not included. ENOSYS, so that the C library uses its alternative
//! if it has one (`clone3` → `clone`). Without the network no sockets, no signals to other processes, no changes of a file's owner, mode,
//! times or name: Landlock does not cover those.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::Limits;

/// Needed by every program.
const ALWAYS: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Files by descriptor.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Files by name; the root and Landlock decide which are accessible.
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_getcwd,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statx,
    // Time and timers.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    libc::SYS_times,
    // The process itself.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_umask,
    libc::SYS_uname,
];

/// Older equivalents.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_getpgrp,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[c_long] = &[];

/// With files of its own; the root then lets it change only those.
const WITH_FILES: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];
#[cfg(target_arch = "x86_64")]
const WITH_FILES_OLD: &[c_long] = &[
    libc::SYS_chmod,
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const WITH_FILES_OLD: &[c_long] = &[libc::SYS_renameat];

/// With its own processes or threads; it then sees only those.
const WITH_PROCESSES: &[c_long] = &[
    libc::SYS_kill,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
#[cfg(target_arch = "x86_64")]
const WITH_PROCESSES_OLD: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const WITH_PROCESSES_OLD: &[c_long] = &[];

/// With the network: connections that it opens itself.
const WITH_NETWORK: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];
#[cfg(target_arch = "x86_64")]
const WITH_NETWORK_OLD: &[c_long] = &[libc::SYS_epoll_create, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const WITH_NETWORK_OLD: &[c_long] = &[];
/// No sockets of this machine's services, and no raw ones.
const FAMILIES: &[u64] = &[libc::AF_INET as u64, libc::AF_INET6 as u64];

/// Tests for a terminal, and close-on-exec.
const IOCTLS: &[u64] = &[libc::TCGETS, libc::FIOCLEX, libc::FIONCLEX];
/// No owner, which receives signals, and no locks and leases, which affect other readers of a file.
const FCNTLS: &[u64] = &[
    libc::F_DUPFD as u64,
    libc::F_DUPFD_CLOEXEC as u64,
    libc::F_GETFD as u64,
    libc::F_SETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
];
/// All kinds of namespaces that a program may be given, and may not create.
pub(crate) const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// A rule that matches if argument `index` compares with `value`. The kernel uses 32 bits for commands and flags.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

/// The filter for a program with these limits.
pub fn filter(limits: &Limits) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut allow = |calls: &[c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    allow(ALWAYS);
    allow(ALWAYS_OLD);
    if limits.files > 0 {
        allow(WITH_FILES);
        allow(WITH_FILES_OLD);
    }
    if limits.processes > 1 {
        allow(WITH_PROCESSES);
        allow(WITH_PROCESSES_OLD);
        let plain = SeccompCmpOp::MaskedEq(NAMESPACES as u32 as u64);
        rules.insert(libc::SYS_clone, vec![argument(0, plain, 0)?]);
    }
    let among = |index, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values
            .iter()
            .map(|value| argument(index, SeccompCmpOp::Eq, *value))
            .collect()
    };
    let mut ioctls = IOCTLS.to_vec();
    if limits.network {
        ioctls.push(libc::FIONBIO);
        rules.extend(
            WITH_NETWORK
                .iter()
                .chain(WITH_NETWORK_OLD)
                .map(|call| (*call, Vec::new())),
        );
        rules.insert(libc::SYS_socket, among(0, FAMILIES)?);
    }
    rules.insert(libc::SYS_ioctl, among(1, &ioctls)?);
    rules.insert(libc::SYS_fcntl, among(1, FCNTLS)?);
    // Its own limits only, not those of another process; and it may only read that of processor time: the kernel ends a
    // program at that limit with a signal that the program could not have sent itself.
    let own_limits = |condition| -> Result<SeccompRule, BackendError> {
        let itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?;
        SeccompRule::new(vec![itself, condition])
    };
    let other = SeccompCmpOp::Ne;
    rules.insert(
        libc::SYS_prlimit64,
        vec![
            own_limits(SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?)?,
            own_limits(SeccompCondition::new(
                1,
                SeccompCmpArgLen::Dword,
                other,
                u64::from(libc::RLIMIT_CPU),
            )?)?,
        ],
    );
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, machine)?.try_into()
}
