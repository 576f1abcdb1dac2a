//! Identity of a worker: rank, world and rendezvous, from the environment variables of its launcher.
//!
//! In: a function that reads a variable. Out: an [`Identity`], or `None` without a launcher. Contradictory variables are
//! errors: a worker with a wrong rank would wait for ever, or overwrite the work of another one.
//! Sources: torchrun's documentation (docs.pytorch.org/docs/stable/elastic/run.html, Environment Variables) and the man
//! page srun(1), OUTPUT ENVIRONMENT VARIABLES; checked against Slurm 22.05.

use std::fmt;

use super::hostlist::{self, HostListError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    Torchrun,
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torchrun => "torchrun",
            Self::Slurm => "srun",
        })
    }
}

/// One worker of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub launcher: Launcher,
    /// `0..world`.
    pub rank: usize,
    /// Number of workers on all nodes.
    pub world: usize,
    /// `0..local_world`: the rank among the workers of this node.
    pub local_rank: usize,
    /// Number of workers on this node.
    pub local_world: usize,
    /// Index of this node among those of the run.
    pub node: usize,
    pub rendezvous: Rendezvous,
    /// How often the workers have been restarted.
    pub restarts: u32,
    /// Threads that the launcher assigns to this worker, if it sets them.
    pub threads: Option<usize>,
}

/// The address where the workers of a run connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Names or addresses of the node of the engine, in order of preference: use the first one that answers.
    pub hosts: Vec<String>,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("{} but not {}", list(set, "is set", "are set"), list(missing, "", ""))]
    HalfSet {
        launcher: Launcher,
        set: Vec<&'static str>,
        missing: Vec<&'static str>,
    },
    #[error("`{name}` is `{value}`, not {wanted}")]
    Value {
        name: &'static str,
        value: String,
        wanted: &'static str,
    },
    #[error("{cause}")]
    Contradiction { launcher: Launcher, cause: String },
    #[error("cannot parse `{name}`")]
    List {
        name: &'static str,
        #[source]
        source: HostListError,
    },
}

impl EnvironmentError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::HalfSet {
                launcher: Launcher::Torchrun,
                set,
                ..
            } => format!(
                "start workers with `torchrun`, which sets all of them, or unset {}",
                list(set, "", "")
            ),
            Self::HalfSet {
                launcher: Launcher::Slurm,
                missing,
                ..
            } => format!(
                "start workers with `srun --export=ALL`, which sets {} in every task",
                list(missing, "", "")
            ),
            Self::Value { name, .. } => format!("unset `{name}`, or let the launcher set it"),
            Self::Contradiction { launcher, .. } => {
                format!(
                    "let `{launcher}` set these variables: a shell or a profile that exports them changes them for all workers"
                )
            }
            Self::List { name, .. } => format!("unset `{name}` and let `srun` set it"),
        }
    }
}

/// "`A` is set", "`A` and `B` are set".
fn list(names: &[&'static str], one: &str, many: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let joined = match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    };
    format!("{joined} {}", if names.len() == 1 { one } else { many })
        .trim_end()
        .to_owned()
}

/// Reads an environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The identity that a launcher gave this process; `None` without a launcher.
///
/// torchrun takes precedence over Slurm, because it may run inside a step. The batch script of a Slurm job is not a worker,
/// although Slurm gives it rank 0: only a step counts.
///
/// # Errors
/// [`EnvironmentError`] for variables that are incomplete, not numbers, or contradictory.
pub fn identity(lookup: Lookup<'_>) -> Result<Option<Identity>, EnvironmentError> {
    let variables = Variables { lookup };
    if ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]
        .iter()
        .any(|name| variables.text(name).is_some())
    {
        return torchrun(&variables).map(Some);
    }
    if variables.text("SLURM_STEP_ID").is_some() {
        return slurm(&variables).map(Some);
    }
    Ok(None)
}

fn torchrun(variables: &Variables<'_>) -> Result<Identity, EnvironmentError> {
    let launcher = Launcher::Torchrun;
    variables.complete(
        launcher,
        &[
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
        ],
    )?;
    let rank = variables.below(launcher, "RANK", "WORLD_SIZE")?;
    let local_rank = variables.below(launcher, "LOCAL_RANK", "LOCAL_WORLD_SIZE")?;
    let (world, local_world) = (variables.need("WORLD_SIZE")?, variables.need("LOCAL_WORLD_SIZE")?);
    if local_world > world {
        let cause = format!("`LOCAL_WORLD_SIZE` is {local_world} but `WORLD_SIZE` is only {world}");
        return Err(EnvironmentError::Contradiction { launcher, cause });
    }
    // Without GROUP_RANK, all nodes have the same number of workers, as with torchrun.
    let node = variables.number("GROUP_RANK")?.unwrap_or(rank / local_world);
    Ok(Identity {
        launcher,
        rank,
        world,
        local_rank,
        local_world,
        node,
        rendezvous: Rendezvous {
            hosts: variables.text("MASTER_ADDR").into_iter().collect(),
            port: variables.port()?.unwrap_or_default(),
        },
        restarts: variables.count("TORCHELASTIC_RESTART_COUNT")?,
        threads: variables.number("OMP_NUM_THREADS")?,
    })
}

fn slurm(variables: &Variables<'_>) -> Result<Identity, EnvironmentError> {
    let launcher = Launcher::Slurm;
    // Older and newer names; those of a step take precedence over those of the job.
    let world = variables.first_of("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS");
    let nodes = variables.first_of("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST");
    let tasks = variables.first_of("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE");
    variables.complete(
        launcher,
        &[
            "SLURM_STEP_ID",
            "SLURM_JOB_ID",
            "SLURM_PROCID",
            "SLURM_LOCALID",
            "SLURM_NODEID",
            world,
            nodes,
            tasks,
        ],
    )?;
    let contradiction = |cause: String| EnvironmentError::Contradiction { launcher, cause };
    let rank = variables.below(launcher, "SLURM_PROCID", world)?;
    let (num_tasks, node) = (variables.need(world)?, variables.need("SLURM_NODEID")?);
    if let Some(other) = variables.number("SLURM_NTASKS")?
        && other != num_tasks
    {
        let cause = format!("`{world}` is {num_tasks} but `SLURM_NTASKS` is {other}");
        return Err(contradiction(cause));
    }
    let read = |name: &'static str| move |source| EnvironmentError::List { name, source };
    let (node_list, task_list) = (variables.text(nodes), variables.text(tasks));
    let hosts = hostlist::expand(&node_list.unwrap_or_default()).map_err(read(nodes))?;
    let per_node = hostlist::tasks_per_node(&task_list.unwrap_or_default()).map_err(read(tasks))?;
    if hosts.len() != per_node.len() {
        let (one, other) = (hosts.len(), per_node.len());
        return Err(contradiction(format!(
            "`{nodes}` has {one} nodes but `{tasks}` has {other}"
        )));
    }
    if per_node.iter().sum::<usize>() != num_tasks {
        let sum: usize = per_node.iter().sum();
        let cause = format!("`{tasks}` adds up to {sum} tasks but `{world}` is {num_tasks}");
        return Err(contradiction(cause));
    }
    let Some(&local_world) = per_node.get(node) else {
        let cause = format!("`SLURM_NODEID` is {node} but `{nodes}` has only {} nodes", hosts.len());
        return Err(contradiction(cause));
    };
    let local_rank = variables.need("SLURM_LOCALID")?;
    if local_rank >= local_world {
        let cause = format!("`SLURM_LOCALID` is {local_rank} but `{tasks}` puts only {local_world} tasks on this node");
        return Err(contradiction(cause));
    }
    let job = variables.need("SLURM_JOB_ID")?;
    let mut meeting: Vec<String> = variables.text("MASTER_ADDR").into_iter().collect();
    if meeting.is_empty() {
        // The engine starts `srun`, so it is on the host where `srun` was started: the first node of a batch job, or perhaps
        // a login node with an interactive allocation. An address needs no name resolution.
        meeting.extend(variables.text("SLURM_LAUNCH_NODE_IPADDR"));
        meeting.extend(hosts.into_iter().next());
    }
    Ok(Identity {
        launcher,
        rank,
        world: num_tasks,
        local_rank,
        local_world,
        node,
        rendezvous: Rendezvous {
            hosts: meeting,
            // Jobs that share a node have neighbouring ids: their last four digits differ. Below the ephemeral ports.
            port: variables.port()?.unwrap_or(10_000 + (job % 10_000) as u16),
        },
        restarts: variables.count("SLURM_RESTART_COUNT")?,
        threads: variables.number("SLURM_CPUS_PER_TASK")?,
    })
}

struct Variables<'a> {
    lookup: Lookup<'a>,
}

impl Variables<'_> {
    /// A variable's text; an empty one counts as unset.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn first_of(&self, name: &'static str, other: &'static str) -> &'static str {
        if self.text(name).is_none() && self.text(other).is_some() {
            other
        } else {
            name
        }
    }

    fn complete(&self, launcher: Launcher, names: &[&'static str]) -> Result<(), EnvironmentError> {
        let (set, missing): (Vec<_>, Vec<_>) = names.iter().partition(|name| self.text(name).is_some());
        if missing.is_empty() {
            return Ok(());
        }
        Err(EnvironmentError::HalfSet { launcher, set, missing })
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>, EnvironmentError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let value = |_| EnvironmentError::Value {
            name,
            value: text.clone(),
            wanted: "a whole number",
        };
        text.parse().map(Some).map_err(value)
    }

    /// A number that [`Variables::complete`] has checked.
    fn need(&self, name: &'static str) -> Result<usize, EnvironmentError> {
        Ok(self.number(name)?.unwrap_or_default())
    }

    /// A rank below the number of ranks.
    fn below(&self, launcher: Launcher, name: &'static str, of: &'static str) -> Result<usize, EnvironmentError> {
        let (rank, size) = (self.need(name)?, self.need(of)?);
        if rank >= size {
            let cause = format!("`{name}` is {rank} but `{of}` is {size}");
            return Err(EnvironmentError::Contradiction { launcher, cause });
        }
        Ok(rank)
    }

    fn count(&self, name: &'static str) -> Result<u32, EnvironmentError> {
        Ok(u32::try_from(self.need(name)?).unwrap_or(u32::MAX))
    }

    fn port(&self) -> Result<Option<u16>, EnvironmentError> {
        let name = "MASTER_PORT";
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(EnvironmentError::Value {
                name,
                value: text,
                wanted: "a port between 1 and 65535",
            }),
        }
    }
}

#[cfg(test)]
mod tests;
