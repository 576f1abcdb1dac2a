use super::*;

/// Names and values.
type Set = [(&'static str, &'static str)];

/// What torchrun gives the last of four workers on two nodes.
const TORCHRUN: &Set = &[
    ("RANK", "3"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "1"),
    ("LOCAL_WORLD_SIZE", "2"),
    ("GROUP_RANK", "1"),
    ("MASTER_ADDR", "nid0001"),
    ("MASTER_PORT", "29500"),
    ("TORCHELASTIC_RESTART_COUNT", "2"),
    ("OMP_NUM_THREADS", "1"),
];

/// What Slurm 22.05 gives the last of three tasks on two nodes, as printed by `srun -N2 -n3 env` in a batch job.
const STEP: &Set = &[
    ("SLURM_JOB_ID", "123456"),
    ("SLURM_JOB_NODELIST", "node[1-2]"),
    ("SLURM_LAUNCH_NODE_IPADDR", "10.79.0.1"),
    ("SLURM_LOCALID", "0"),
    ("SLURM_NODEID", "1"),
    ("SLURM_NTASKS", "3"),
    ("SLURM_NTASKS_PER_NODE", "2"),
    ("SLURM_PROCID", "2"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_STEP_NODELIST", "node[1-2]"),
    ("SLURM_STEP_NUM_TASKS", "3"),
    ("SLURM_STEP_TASKS_PER_NODE", "2,1"),
    ("SLURM_TASKS_PER_NODE", "2,1"),
];

/// The batch part of a job: Slurm calls it rank 0 of 4, and it is no worker.
const BATCH: &Set = &[
    ("SLURM_JOB_ID", "1"),
    ("SLURM_JOB_NODELIST", "node[1-2]"),
    ("SLURM_LOCALID", "0"),
    ("SLURM_NODEID", "0"),
    ("SLURM_NTASKS", "4"),
    ("SLURM_PROCID", "0"),
    ("SLURM_TASKS_PER_NODE", "2(x2)"),
];

/// Variables with some replaced; an empty value counts as unset.
fn read(base: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Option<Identity>, EnvironmentError> {
    identity(&|name| {
        let mut all = base.iter().chain(changes).rev();
        all.find(|(other, _)| *other == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn message(base: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let error = read(base, changes).expect_err("an error");
    assert!(!error.help().is_empty());
    error.to_string()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn torchruns_variables_are_read() {
    let found = read(TORCHRUN, &[]).expect("sound");
    let expected = Identity {
        launcher: Launcher::Torchrun,
        rank: 3,
        world: 4,
        local_rank: 1,
        local_world: 2,
        node: 1,
        rendezvous: Rendezvous {
            hosts: strings(&["nid0001"]),
            port: 29500,
        },
        restarts: 2,
        threads: Some(1),
    };
    assert_eq!(found, Some(expected.clone()));
    // What torchrun may leave out.
    let less = [
        ("GROUP_RANK", ""),
        ("TORCHELASTIC_RESTART_COUNT", ""),
        ("OMP_NUM_THREADS", ""),
    ];
    let expected = Identity {
        restarts: 0,
        threads: None,
        ..expected
    };
    assert_eq!(read(TORCHRUN, &less), Ok(Some(expected)));
}

#[test]
fn a_steps_variables_are_read() {
    let expected = Identity {
        launcher: Launcher::Slurm,
        rank: 2,
        world: 3,
        local_rank: 0,
        local_world: 1,
        node: 1,
        rendezvous: Rendezvous {
            hosts: strings(&["10.79.0.1", "node1"]),
            port: 13456,
        },
        restarts: 0,
        threads: None,
    };
    assert_eq!(read(STEP, &[]), Ok(Some(expected.clone())));
    // A Slurm that names only what belongs to the job.
    let old = [
        ("SLURM_STEP_NODELIST", ""),
        ("SLURM_STEP_NUM_TASKS", ""),
        ("SLURM_STEP_TASKS_PER_NODE", ""),
    ];
    assert_eq!(read(STEP, &old), Ok(Some(expected.clone())));
    let more = [
        ("MASTER_ADDR", "hsn"),
        ("MASTER_PORT", "4000"),
        ("SLURM_RESTART_COUNT", "3"),
        ("SLURM_CPUS_PER_TASK", "7"),
    ];
    let expected = Identity {
        rendezvous: Rendezvous {
            hosts: strings(&["hsn"]),
            port: 4000,
        },
        restarts: 3,
        threads: Some(7),
        ..expected
    };
    assert_eq!(read(STEP, &more), Ok(Some(expected)));
}

/// Every task of a large step gets a different place.
#[test]
fn every_task_has_its_place() {
    let mut places = std::collections::BTreeSet::new();
    for rank in 0..32 {
        let (procid, local, node) = (rank.to_string(), (rank % 8).to_string(), (rank / 8).to_string());
        let changes = [
            ("SLURM_STEP_NODELIST", "nid[005021-005023,005030]"),
            ("SLURM_STEP_NUM_TASKS", "32"),
            ("SLURM_NTASKS", "32"),
            ("SLURM_STEP_TASKS_PER_NODE", "8(x4)"),
            ("SLURM_PROCID", &procid),
            ("SLURM_LOCALID", &local),
            ("SLURM_NODEID", &node),
        ];
        let found = read(STEP, &changes).expect("sound").expect("a worker");
        assert_eq!((found.rank, found.world, found.local_world), (rank, 32, 8));
        assert_eq!(found.rendezvous.hosts, ["10.79.0.1", "nid005021"]);
        places.insert((found.node, found.local_rank));
    }
    assert_eq!(places.len(), 32);
}

#[test]
fn without_a_launcher_there_is_no_identity() {
    assert_eq!(read(&[], &[]), Ok(None));
    assert_eq!(read(BATCH, &[]), Ok(None));
    // Often exported for other programs.
    assert_eq!(
        read(BATCH, &[("MASTER_ADDR", "node1"), ("MASTER_PORT", "29500")]),
        Ok(None)
    );
}

#[test]
fn torchrun_inside_a_step_goes_first() {
    let both: Vec<_> = STEP.iter().chain(TORCHRUN).copied().collect();
    assert_eq!(read(&both, &[]), read(TORCHRUN, &[]));
}

#[test]
fn half_set_variables_are_named() {
    assert_eq!(
        message(&[], &[("RANK", "0")]),
        "`RANK` is set but not `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`"
    );
    let error = read(STEP, &[("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2")]).expect_err("half set");
    assert_eq!(
        error.help(),
        "start workers with `torchrun`, which sets all of them, or unset `WORLD_SIZE` and `LOCAL_WORLD_SIZE`"
    );
    for (name, _) in &TORCHRUN[..7] {
        let left_out = read(TORCHRUN, &[(name, "")]);
        if *name == "GROUP_RANK" {
            assert!(left_out.is_ok());
        } else {
            let cause = left_out.expect_err(name).to_string();
            assert!(cause.ends_with(&format!("but not `{name}`")), "{cause}");
        }
    }
    assert_eq!(
        message(STEP, &[("SLURM_LOCALID", ""), ("SLURM_JOB_ID", "")]),
        "`SLURM_STEP_ID`, `SLURM_PROCID`, `SLURM_NODEID`, `SLURM_STEP_NUM_TASKS`, `SLURM_STEP_NODELIST` and \
         `SLURM_STEP_TASKS_PER_NODE` are set but not `SLURM_JOB_ID` and `SLURM_LOCALID`"
    );
}

#[test]
fn contradictions_are_reported() {
    let cases: &[(&Set, &str, &str, &str)] = &[
        (TORCHRUN, "RANK", "4", "`RANK` is 4 but `WORLD_SIZE` is 4"),
        (
            TORCHRUN,
            "LOCAL_RANK",
            "2",
            "`LOCAL_RANK` is 2 but `LOCAL_WORLD_SIZE` is 2",
        ),
        (
            TORCHRUN,
            "LOCAL_WORLD_SIZE",
            "5",
            "`LOCAL_WORLD_SIZE` is 5 but `WORLD_SIZE` is only 4",
        ),
        (TORCHRUN, "WORLD_SIZE", "0", "`RANK` is 3 but `WORLD_SIZE` is 0"),
        (TORCHRUN, "RANK", "-1", "`RANK` is `-1`, not a whole number"),
        (
            TORCHRUN,
            "MASTER_PORT",
            "70000",
            "`MASTER_PORT` is `70000`, not a port between 1 and 65535",
        ),
        (
            TORCHRUN,
            "MASTER_PORT",
            "0",
            "`MASTER_PORT` is `0`, not a port between 1 and 65535",
        ),
        (
            STEP,
            "SLURM_PROCID",
            "3",
            "`SLURM_PROCID` is 3 but `SLURM_STEP_NUM_TASKS` is 3",
        ),
        (
            STEP,
            "SLURM_NTASKS",
            "4",
            "`SLURM_STEP_NUM_TASKS` is 3 but `SLURM_NTASKS` is 4",
        ),
        (
            STEP,
            "SLURM_STEP_TASKS_PER_NODE",
            "2(x2)",
            "`SLURM_STEP_TASKS_PER_NODE` adds up to 4 tasks but `SLURM_STEP_NUM_TASKS` is 3",
        ),
        (
            STEP,
            "SLURM_STEP_NODELIST",
            "node[1-3]",
            "`SLURM_STEP_NODELIST` has 3 nodes but `SLURM_STEP_TASKS_PER_NODE` has 2",
        ),
        (
            STEP,
            "SLURM_NODEID",
            "2",
            "`SLURM_NODEID` is 2 but `SLURM_STEP_NODELIST` has only 2 nodes",
        ),
        (
            STEP,
            "SLURM_LOCALID",
            "1",
            "`SLURM_LOCALID` is 1 but `SLURM_STEP_TASKS_PER_NODE` puts only 1 tasks on this node",
        ),
        (
            STEP,
            "SLURM_STEP_NODELIST",
            "node[1",
            "cannot parse `SLURM_STEP_NODELIST`",
        ),
        (
            STEP,
            "SLURM_STEP_TASKS_PER_NODE",
            "two",
            "cannot parse `SLURM_STEP_TASKS_PER_NODE`",
        ),
        (
            STEP,
            "SLURM_CPUS_PER_TASK",
            "7x",
            "`SLURM_CPUS_PER_TASK` is `7x`, not a whole number",
        ),
    ];
    for (base, name, value, expected) in cases {
        assert_eq!(message(base, &[(name, value)]), *expected);
    }
}
