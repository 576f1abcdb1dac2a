//! Finding libtorch: copies of the binaries in another folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{Done, Project, libtorch};

/// Copies of the binaries in `bin`.
fn installed(project: &Project) -> PathBuf {
    let folder = project.path("bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    for binary in [env!("CARGO_BIN_EXE_aurora"), env!("CARGO_BIN_EXE_aurora-worker")] {
        let name = Path::new(binary).file_name().expect("a name");
        std::fs::copy(binary, folder.join(name)).expect("a copy");
    }
    folder.join("aurora")
}

/// A command of the copy, for a user without a cache and without a Python environment.
fn command(project: &Project, aurora: &Path, arguments: &[&str]) -> Command {
    let mut command = project.command_of(aurora, arguments);
    for name in ["AURORA_LIBTORCH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command.env("AURORA_CACHE_DIR", project.path("cache"));
    command
}

fn done(mut command: Command) -> Done {
    Done(command.output().expect("the binary starts"))
}

const RUN: [&str; 4] = ["run", "specs/small.aur", "--progress", "none"];

/// The Python package `torch`, as far as the search reads it.
fn package(project: &Project, version: &str) {
    let folder = "venv/lib/python3.11/site-packages/torch";
    project.write(&format!("{folder}/lib/libtorch_cpu.so"), "");
    project.write(&format!("{folder}/lib/libtorch_cuda.so"), "");
    project.write(&format!("{folder}/version.py"), &format!("__version__ = '{version}'\n"));
}

#[test]
fn copied_binaries_run_with_the_libtorch_next_to_them() {
    let project = Project::new();
    let aurora = installed(&project);
    // The error is reported before workers start, and data that was prepared before is kept.
    let without = done(command(&project, &aurora, &RUN));
    without.exits(4);
    let errors = without.err();
    for part in [
        "no libtorch 2.13 was found; looked in:\n",
        "\n  | next to aurora: ",
        "\n  | cache: ",
        "run `make libtorch`",
        "torch 2.13",
        "`AURORA_LIBTORCH`",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let lib = Path::new(libtorch()).join("lib");
    std::os::unix::fs::symlink(lib, project.path("bin/lib")).expect("a link");
    let with = done(command(&project, &aurora, &RUN));
    with.exits(0);
    let lock = project.read("lockfiles/small.lock");
    assert!(lock.contains("libtorch = \"2.13.0\""), "{lock}");
    // Results that are in the store need no worker, and no libtorch.
    std::fs::remove_file(project.path("bin/lib")).expect("the link");
    let cached = done(command(&project, &aurora, &RUN));
    cached.exits(0);
    cached.prints("0 built");
    assert_eq!(project.read("lockfiles/small.lock"), lock);
}

#[test]
fn an_explicit_libtorch_that_does_not_fit_is_refused_before_any_work() {
    let project = Project::new();
    package(&project, "2.9.1+cu128");
    let torch = project.path("venv/lib/python3.11/site-packages/torch");
    let mut run = project.command(&RUN);
    let refused = done({
        run.env("AURORA_LIBTORCH", torch);
        run
    });
    refused.exits(1);
    let errors = refused.err();
    assert!(errors.contains("has libtorch 2.9.1+cu128"), "{errors}");
    assert!(errors.contains("the workers next to `aurora` load 2.13"), "{errors}");
    assert!(errors.contains("unset `AURORA_LIBTORCH`"), "{errors}");
    assert!(!project.path(".aurora/cas").exists(), "nothing was done");
}

#[test]
fn doctor_lists_every_candidate() {
    let project = Project::new();
    let aurora = installed(&project);
    package(&project, "2.11.0+cu130");
    let mut doctor = command(&project, &aurora, &["doctor"]);
    doctor.env("VIRTUAL_ENV", project.path("venv"));
    let printed = done(doctor);
    printed.exits(0);
    let root = std::fs::canonicalize(project.root()).expect("the project's folder");
    let printed = printed.out().replace(&root.display().to_string(), "");
    for line in [
        "worker    /bin/aurora-worker, for libtorch 2.13",
        "libtorch  next to aurora: /bin/lib: no libtorch_cpu.so",
        "          Python (VIRTUAL_ENV): /venv/lib/python3.11/site-packages/torch/lib, 2.11.0+cu130, with CUDA: no \
         aurora-worker-2.11 next to aurora",
        "          cache: /cache/libtorch-2.13.0-cpu/lib: no libtorch_cpu.so",
        "          none is used: in a checkout of Aurora run `make libtorch`; else",
    ] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
    // A worker for that version, and the package is used.
    project.write("bin/aurora-worker-2.11", "");
    let mut doctor = command(&project, &aurora, &["doctor", "--json"]);
    doctor.env("VIRTUAL_ENV", project.path("venv"));
    let found = done(doctor).json();
    let candidates = found["libtorch"]["candidates"].as_array().expect("candidates");
    let used: Vec<&str> = candidates
        .iter()
        .filter(|candidate| candidate["used"] == true)
        .filter_map(|candidate| candidate["version"].as_str())
        .collect();
    assert_eq!(used, ["2.11.0+cu130"]);
    assert_eq!(candidates[1]["devices"], "cuda");
    assert_eq!(found["libtorch"]["workers"].as_array().map(Vec::len), Some(2));
    assert!(found["libtorch"]["error"].is_null());
}

#[test]
fn a_locked_run_keeps_the_version_of_its_lock() {
    let project = Project::new();
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    let lock = project.read("lockfiles/small.lock");
    project.write(
        "lockfiles/small.lock",
        &lock.replace("libtorch = \"2.13.0\"", "libtorch = \"2.11.0\""),
    );
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    let refused = project.aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"]);
    refused.exits(1);
    assert!(
        refused.err().contains("libtorch: `2.11.0` → `2.13.0`"),
        "{}",
        refused.err()
    );
}
