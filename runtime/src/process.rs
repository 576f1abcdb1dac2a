//! Identifies a process, for records and locks that outlive it.

use std::fs;

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

    /// Whether it runs; `None` for a process of another host.
    pub(crate) fn is_running(&self) -> Option<bool> {
        (self.host == host()).then(|| self.started.is_some() && started(self.id) == self.started)
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
