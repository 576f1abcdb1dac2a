//! Layouts with devices: what is refused before any work, and the code for devices on simulated ones.

use crate::double;
use crate::project::{Done, Project, SPEC};

/// The spec with a layout for two devices of one node.
fn project() -> Project {
    let project = Project::new();
    let layout = "layout gpus {\n  machine = h100\n  devices = 2\n  data    = 2\n}\n";
    project.write("specs/small.aur", &format!("{SPEC}\n{layout}"));
    project
}

/// Runs a command with this number of simulated devices.
fn with_devices(project: &Project, count: &str, arguments: &[&str]) -> Done {
    let mut command = project.command(arguments);
    Done(
        command
            .env("AURORA_TEST_DEVICES", count)
            .output()
            .expect("the binary starts"),
    )
}

#[test]
fn a_run_on_devices_has_the_same_bits_under_any_layout() {
    let project = project();
    let run = ["run", "specs/small.aur", "--progress", "none"];
    let done = with_devices(&project, "3", &run);
    done.exits(0);
    done.prints("note: 1 of this machine's 3 devices have no worker");
    let lock = project.read("lockfiles/small.lock");
    assert!(lock.contains(", simulated device\"\n"), "{lock}");
    for layout in ["tensor=2,data=1", "pipeline=2,data=1", "data=1,recompute=full"] {
        let rerun = [
            "rerun",
            "lockfiles/small.lock",
            "--layout",
            layout,
            "--progress",
            "none",
        ];
        let done = with_devices(&project, "2", &rerun);
        done.exits(0);
        done.prints("rerun: identical");
    }
    // On CPUs the numbers are others, which a note says before.
    let layout = "machine=cpu,data=1";
    let done = project.aurora(&[
        "rerun",
        "lockfiles/small.lock",
        "--layout",
        layout,
        "--progress",
        "none",
    ]);
    done.exits(0);
    done.prints("note: the lock's results are of numerics class ");
    done.prints("rerun: agrees within 0.1%");
}

#[test]
fn missing_devices_are_reported_before_any_work() {
    let project = project();
    let refuse = |count: Option<&str>, text: &str, help: &str| {
        let run = ["run", "specs/small.aur", "--progress", "none"];
        let done = match count {
            Some(count) => with_devices(&project, count, &run),
            None => project.aurora(&run),
        };
        done.exits(1);
        done.prints(text);
        done.prints(help);
        assert!(!project.path("lockfiles/small.lock").exists(), "no work is done");
    };
    let cpus = "a layout for CPUs, or `--layout machine=cpu,…`";
    refuse(
        Some("0"),
        "needs 2 devices of the kind H100, and this machine has none",
        cpus,
    );
    let text = "needs 2 devices of the kind H100, and this machine has 1 (simulated H100)";
    refuse(Some("1"), text, "a layout of at most 1 workers");
    project.edit("invariant(", "portable(");
    refuse(
        Some("2"),
        "`portable` numerics are for CPUs, and the layout is for H100",
        cpus,
    );
}

#[test]
fn plan_states_whether_a_rank_fits_on_a_device() {
    let project = project();
    let done = project.aurora(&["plan", "specs/small.aur"]);
    done.exits(0);
    done.prints("GiB of the 74.506 GiB of a device: it fits");
    let document = project.aurora(&["plan", "specs/small.aur", "--json"]).json();
    assert_eq!(document["memory"]["device_memory"], 80_000_000_000u64);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_would_fit() {
    let project = project();
    let spec = project.read("specs/small.aur");
    let large = spec
        .replace("hidden       = 32", "hidden       = 704")
        .replace("micro_batch = 2 sequences", "micro_batch = 32768 sequences")
        .replace("global_batch  = 8 sequences", "global_batch  = 131072 sequences");
    project.write("specs/small.aur", &large);
    let done = with_devices(&project, "2", &["run", "specs/small.aur", "--progress", "none"]);
    done.exits(1);
    done.prints("of memory on a device, and the layout's H100 has 74.5 GiB");
    done.prints("= help: with `tensor = 1`, `pipeline = ");
    done.prints(", which fits");
    assert!(!project.path("lockfiles/small.lock").exists(), "no work is done");
    project.aurora(&["verify"]).exits(0);
}

/// The specs that a machine with a GPU runs.
#[test]
fn the_specs_of_the_proof_on_a_gpu_are_correct() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/device/specs");
    let project = Project::new();
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the folder") {
        let path = file.expect("a file").path();
        project.aurora(&["check", path.to_str().expect("UTF-8")]).exits(0);
        count += 1;
    }
    assert!(count >= 4, "{count} specs");
}

#[test]
fn doctor_tests_each_device() {
    let (project, kernels) = (Project::new(), tempfile::tempdir().expect("a folder"));
    let doctor = |more: &[&str]| {
        let arguments: Vec<&str> = ["doctor"].iter().chain(more).copied().collect();
        let mut command = project.command(&arguments);
        command
            .env("AURORA_TEST_DEVICES", "2")
            .env("AURORA_TEST_KERNELS", kernels.path())
            .env("AURORA_CACHE_DIR", kernels.path().join("cache"));
        let done = Done(command.output().expect("the binary starts"));
        done.exits(0);
        done
    };
    let done = doctor(&[]);
    done.prints("1: simulated device");
    done.prints("it cannot be used: ");
    double::build(kernels.path());
    let done = doctor(&[]);
    done.prints("devices   0: simulated device, 1,073,741,824 bytes");
    done.prints(" comparisons of kernels agree");
    let document = doctor(&["--json"]).json();
    assert_eq!(document["devices"][1]["memory"], 1u64 << 30);
    assert!(
        document["devices"][1]["test"]["comparisons"]
            .as_u64()
            .expect("a number")
            > 70
    );
}
