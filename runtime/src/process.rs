//! Identifies a process, for records and locks that outlive it.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process. Its start time distinguishes it from a later one with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Process")]
pub struct ProcessIdentity {
    pub host: String,
    pub id: u32,
    /// Clock ticks from the start of the host to that of the process; none if the host does not report it.
    pub started: Option<u64>,
}

impl ProcessIdentity {
    pub(crate) fn own() -> Self {
        let id = std::process::id();
        Self {
            host: host(),
            id,
            started: started(id),
        }
    }

    /// Whether it runs; `None` for a process of another host, and for one that this host hides.
    pub(crate) fn is_running(&self) -> Option<bool> {
        if self.host != host() {
            return None;
        }
        match started(self.id) {
            Some(now) => Some(self.started == Some(now)),
            // `/proc` may hide the processes of other users (hidepid); whether there is one can be asked all the same.
            None => {
                let id = i32::try_from(self.id).ok().and_then(Pid::from_raw)?;
                (test_kill_process(id) == Err(Errno::SRCH)).then_some(false)
            }
        }
    }
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// The start time of a process that runs (proc_pid_stat(5), field 22).
fn started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the program's name in brackets, which may contain spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_until_it_has_ended() {
        assert_eq!(ProcessIdentity::own().is_running(), Some(true));
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let of = |id, started| ProcessIdentity {
            id,
            started,
            ..ProcessIdentity::own()
        };
        let ended = of(child.id(), started(child.id()));
        child.wait().expect("ended");
        assert_eq!(ended.is_running(), Some(false));
        let another = of(std::process::id(), Some(1));
        assert_eq!(another.is_running(), Some(false), "a later process with the same id");
    }
}
