//! Machines of Slurm jobs: cores and devices of each task, and settings of the network.
//!
//! A node of LUMI-G and of Frontier has one 64-core EPYC and four MI250X, which are eight GCDs. The order of the GCDs
//! differs from that of the nearest cores, and the first core of every group of eight belongs to the system.
//! Sources: LUMI AI Guide (github.com/Lumi-supercomputer/LUMI-AI-Guide) for masks, wrapper and LUMI's variables; OLCF,
//! "PyTorch on Frontier" (docs.olcf.ornl.gov/software/analytics/pytorch_frontier.html) for Frontier's.

use std::num::NonZeroU32;

/// More tasks on a node than it has devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} tasks do not fit on a node with {most} devices")]
pub struct TooManyTasks {
    pub wanted: u32,
    pub most: u32,
}

/// The kind of a job's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// LUMI-G, with exclusive nodes.
    Lumi,
    Frontier,
    /// Any other Slurm cluster: without devices and binding.
    Plain {
        cpus_per_task: NonZeroU32,
    },
}

/// Cores of local rank 0 to 7: those next to GCD 0 to 7, without the first of each group.
const CORES_OF_GCD: [&str; 8] = [
    "0x00fe000000000000",
    "0xfe00000000000000",
    "0x0000000000fe0000",
    "0x00000000fe000000",
    "0x00000000000000fe",
    "0x000000000000fe00",
    "0x000000fe00000000",
    "0x0000fe0000000000",
];

/// MIOpen's caches are on each node, in a folder that the batch script names; each task creates it.
const OWN_FOLDER: &str = r#"mkdir -p "${MIOPEN_USER_DB_PATH:-/tmp}""#;

/// Gives each task its own GCD. Slurm's binding uses cgroups, which would keep the tasks of a node from accessing each
/// other's memory. The variable applies before HIP_VISIBLE_DEVICES; with both set, a task might see no device.
const OWN_GCD: &str = "unset HIP_VISIBLE_DEVICES; export ROCR_VISIBLE_DEVICES=$SLURM_LOCALID";

const EXEC: &str = r#"exec "$0" "$@""#;

impl Machine {
    /// Tasks that fit on a node; `None` if unknown.
    pub(super) fn most_tasks(self) -> Option<u32> {
        match self {
            Self::Lumi | Self::Frontier => Some(CORES_OF_GCD.len() as u32),
            Self::Plain { .. } => None,
        }
    }

    pub(super) fn cpus_per_task(self) -> u32 {
        match self {
            Self::Lumi | Self::Frontier => 7,
            Self::Plain { cpus_per_task } => cpus_per_task.get(),
        }
    }

    /// `#SBATCH` directives of the job besides nodes, tasks and cores.
    pub(super) fn directives(self) -> &'static [&'static str] {
        match self {
            // Masks refer to the node's cores, so the job needs the complete node.
            Self::Lumi => &["--gpus-per-node=8", "--mem=480G", "--exclusive"],
            // With FI_CXI_RDZV_PROTO=alt_read.
            Self::Frontier => &["--network=disable_rdzv_get"],
            Self::Plain { .. } => &[],
        }
    }

    /// Settings of RCCL and of libfabric on Slingshot.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Lumi => &[
                ("NCCL_SOCKET_IFNAME", "hsn0,hsn1,hsn2,hsn3"),
                ("NCCL_NET_GDR_LEVEL", "PHB"),
                ("NCCL_CROSS_NIC", "1"),
                ("FI_CXI_DEFAULT_CQ_SIZE", "131072"),
                ("FI_MR_CACHE_MONITOR", "userfaultfd"),
                ("FI_CXI_DISABLE_HOST_REGISTER", "1"),
                ("CXI_FORK_SAFE", "1"),
                ("GLOO_SOCKET_IFNAME", "hsn0"),
            ],
            Self::Frontier => &[
                ("NCCL_SOCKET_IFNAME", "hsn0,hsn1,hsn2,hsn3"),
                ("NCCL_NET_GDR_LEVEL", "PHB"),
                ("NCCL_CROSS_NIC", "1"),
                ("HSA_FORCE_FINE_GRAIN_PCIE", "1"),
                ("FI_MR_CACHE_MONITOR", "kdreg2"),
                ("FI_CXI_DISABLE_HOST_REGISTER", "1"),
                ("FI_CXI_DEFAULT_CQ_SIZE", "131072"),
                ("FI_CXI_DEFAULT_TX_SIZE", "2048"),
                ("FI_CXI_RDZV_PROTO", "alt_read"),
                ("FI_CXI_RDZV_EAGER_SIZE", "0"),
                ("FI_CXI_RDZV_THRESHOLD", "0"),
                ("FI_CXI_RDZV_GET_MIN", "0"),
                ("FI_CXI_RX_MATCH_MODE", "hybrid"),
                ("GLOO_SOCKET_IFNAME", "hsn0"),
            ],
            Self::Plain { .. } => &[],
        }
    }

    /// Whether tasks may use MIOpen, whose caches must not be on a parallel file system.
    pub(super) fn has_miopen(self) -> bool {
        matches!(self, Self::Lumi | Self::Frontier)
    }
}

/// Tasks on the nodes of a machine, checked to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    machine: Machine,
    nodes: NonZeroU32,
    per_node: NonZeroU32,
}

impl Tasks {
    /// # Errors
    /// A node has fewer devices than tasks.
    pub fn new(machine: Machine, nodes: NonZeroU32, per_node: NonZeroU32) -> Result<Self, TooManyTasks> {
        match machine.most_tasks() {
            Some(most) if per_node.get() > most => Err(TooManyTasks {
                wanted: per_node.get(),
                most,
            }),
            _ => Ok(Self {
                machine,
                nodes,
                per_node,
            }),
        }
    }

    pub fn machine(&self) -> Machine {
        self.machine
    }

    pub fn nodes(&self) -> u32 {
        self.nodes.get()
    }

    pub fn per_node(&self) -> u32 {
        self.per_node.get()
    }
}

/// Arguments with which `srun` starts `command` once for every task, inside a job that has the nodes.
///
/// A failed task ends all tasks. Output is line-buffered. Each task sees one device, as number 0, and runs on the cores
/// next to it.
pub fn srun_arguments(tasks: &Tasks, command: &[String]) -> Vec<String> {
    let num_tasks = u64::from(tasks.nodes()) * u64::from(tasks.per_node());
    let mut arguments = vec![
        format!("--nodes={}", tasks.nodes()),
        format!("--ntasks={num_tasks}"),
        format!("--ntasks-per-node={}", tasks.per_node()),
        // Slurm 22.05 and later do not inherit this from the job.
        format!("--cpus-per-task={}", tasks.machine.cpus_per_task()),
        "--kill-on-bad-exit=1".to_owned(),
        "--unbuffered".to_owned(),
        "--export=ALL".to_owned(),
    ];
    match tasks.machine {
        Machine::Lumi => {
            let masks = &CORES_OF_GCD[..tasks.per_node() as usize];
            arguments.push("--gpus-per-node=8".to_owned());
            arguments.push(format!("--cpu-bind=mask_cpu:{}", masks.join(",")));
            arguments.extend(wrapper(&[OWN_FOLDER, OWN_GCD, EXEC]));
        }
        Machine::Frontier => {
            arguments.push("--gpus-per-task=1".to_owned());
            arguments.push("--gpu-bind=closest".to_owned());
            arguments.extend(wrapper(&[OWN_FOLDER, EXEC]));
        }
        Machine::Plain { .. } => {}
    }
    arguments.extend_from_slice(command);
    arguments
}

/// A shell that prepares each task and then executes the command.
fn wrapper(lines: &[&str]) -> [String; 3] {
    ["sh".to_owned(), "-c".to_owned(), lines.join("; ")]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("not zero")
    }

    fn arguments(machine: Machine, nodes: u32, per_node: u32) -> Vec<String> {
        let tasks = Tasks::new(machine, count(nodes), count(per_node)).expect("they fit");
        srun_arguments(&tasks, &["aurora-worker".to_owned(), "--rank from=launcher".to_owned()])
    }

    #[test]
    fn arguments_of_srun() {
        let plain = Machine::Plain {
            cpus_per_task: count(2),
        };
        let all = [
            ("lumi", arguments(Machine::Lumi, 2, 8)),
            ("lumi, half nodes", arguments(Machine::Lumi, 1, 4)),
            ("frontier", arguments(Machine::Frontier, 2, 8)),
            ("plain", arguments(plain, 2, 2)),
        ];
        let text: Vec<String> = all
            .iter()
            .map(|(name, arguments)| format!("{name}\n  {}\n", arguments.join("\n  ")))
            .collect();
        insta::assert_snapshot!(text.concat());
    }

    /// GCD n has the cores of the guide, seven of a group of eight, and no two GCDs share a core.
    #[test]
    fn masks_are_the_guides() {
        let groups = [48, 56, 16, 24, 0, 8, 32, 40];
        let mut all = 0u64;
        for (mask, first) in CORES_OF_GCD.iter().zip(groups) {
            let mask = u64::from_str_radix(mask.trim_start_matches("0x"), 16).expect("hexadecimal");
            assert_eq!(mask, 0xfe << first);
            all |= mask;
        }
        assert_eq!(all.count_ones(), 56);
    }

    /// The wrapper passes arguments unchanged, with only the device of the local rank, and creates the folder.
    #[test]
    fn the_wrapper_prepares_a_task() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let caches = folder.path().join("caches");
        let all = arguments(Machine::Lumi, 1, 8);
        let shell = all.iter().position(|word| word == "sh").expect("a wrapper");
        let output = Command::new("sh")
            .args(&all[shell + 1..shell + 3])
            .args(["sh", "-c", r#"echo "$ROCR_VISIBLE_DEVICES $HIP_VISIBLE_DEVICES $1""#])
            .args(["sh", "two  words"])
            .env("SLURM_LOCALID", "5")
            .env("HIP_VISIBLE_DEVICES", "3")
            .env("MIOPEN_USER_DB_PATH", &caches)
            .output()
            .expect("ran");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "5  two  words\n");
        assert!(caches.is_dir());
    }

    #[test]
    fn more_tasks_than_devices_are_refused() {
        let error = Tasks::new(Machine::Lumi, count(1), count(9)).expect_err("too many");
        assert_eq!(error.to_string(), "9 tasks do not fit on a node with 8 devices");
    }
}
