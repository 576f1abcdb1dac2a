//! The search in temporary folders.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::{BUILT_FOR, Devices, LibtorchError, Origin, Place, Search, VARIABLE, Version};

/// A machine in a temporary folder: `bin` with the programs, `cache`, and environments.
struct Machine {
    folder: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
}

impl Machine {
    /// A machine with these worker programs.
    fn with_workers(workers: &[&str]) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            variables: BTreeMap::new(),
        };
        machine.write("bin/aurora", "");
        for worker in workers {
            machine.write(&format!("bin/{worker}"), "");
        }
        machine
    }

    fn path(&self, inside: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path())
            .expect("a UTF-8 path")
            .join(inside)
    }

    fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        std::fs::write(path, text).expect("a file");
    }

    /// A libtorch folder.
    fn libtorch(&self, folder: &str, version: &str) {
        self.write(&format!("{folder}/lib/libtorch_cpu.so"), "");
        self.write(&format!("{folder}/build-version"), &format!("{version}\n"));
    }

    /// The Python package `torch` in the environment `folder`.
    fn package(&self, folder: &str, version: &str) -> String {
        let package = format!("{folder}/lib/python3.12/site-packages/torch");
        self.write(&format!("{package}/lib/libtorch_cpu.so"), "");
        let text = format!(
            "from typing import Optional\n\n__all__ = ['__version__']\n__version__ = '{version}'\ncuda = None\n"
        );
        self.write(&format!("{package}/version.py"), &text);
        format!("{package}/lib")
    }

    fn set(&mut self, variable: &'static str, inside: &str) {
        let path = self.path(inside).into_string();
        self.variables.insert(variable, path);
    }

    fn search(&self, pinned: Option<&str>) -> Search {
        let place = Place {
            variable: &|name| self.variables.get(name).cloned(),
            programs: &self.path("bin"),
            cache: &self.path("cache"),
        };
        Search::new(place, pinned)
    }

    /// Origin, library folder and worker of the choice, relative to the machine.
    fn choice(&self, pinned: Option<&str>) -> (Origin, String, String) {
        let search = self.search(pinned);
        let (chosen, worker) = search.choice().expect("a libtorch");
        let inside = |path: &Utf8Path| path.strip_prefix(self.path("")).expect("inside").to_string();
        (chosen.origin, inside(&chosen.folder), inside(&worker.path))
    }
}

fn cached() -> String {
    format!("cache/libtorch-{BUILT_FOR}-cpu")
}

#[test]
fn versions_are_parsed() {
    for (text, release, series) in [
        ("2.13.0+cu130\n", "2.13.0", "2.13"),
        ("2.9.1", "2.9.1", "2.9"),
        ("2.8.0+rocm6.4", "2.8.0", "2.8"),
        ("2.14.0a0+git1234", "2.14.0a0", "2.14"),
    ] {
        let version = Version::parse(text).expect("a version");
        assert_eq!((version.release(), version.series().as_str()), (release, series));
        assert_eq!(version.to_string(), text.trim());
    }
    for text in ["", "two", "2", "2.x", "+cpu"] {
        assert_eq!(Version::parse(text), None, "{text}");
    }
}

#[test]
fn the_version_is_the_one_that_is_fetched() {
    let fetch = include_str!("../../train/libtorch/fetch.py");
    assert!(fetch.contains(&format!("VERSION = \"{BUILT_FOR}\"")));
}

/// Each place is used if those before it have no libtorch.
#[test]
fn places_are_searched_in_order() {
    let mut machine = Machine::with_workers(&["aurora-worker"]);
    machine.libtorch(&cached(), BUILT_FOR);
    let worker = "bin/aurora-worker".to_owned();
    assert_eq!(
        machine.choice(None),
        (Origin::Cache, format!("{}/lib", cached()), worker.clone())
    );
    let conda = machine.package("conda", "2.13.1+cu130");
    machine.set("CONDA_PREFIX", "conda");
    assert_eq!(
        machine.choice(None),
        (Origin::Python("CONDA_PREFIX"), conda, worker.clone())
    );
    let environment = machine.package("venv", "2.13.0+cpu");
    machine.set("VIRTUAL_ENV", "venv");
    assert_eq!(
        machine.choice(None),
        (Origin::Python("VIRTUAL_ENV"), environment, worker.clone())
    );
    // A copied `lib` has its version in it.
    machine.write("bin/lib/libtorch_cpu.so", "");
    machine.write("bin/lib/build-version", BUILT_FOR);
    assert_eq!(
        machine.choice(None),
        (Origin::Programs, "bin/lib".to_owned(), worker.clone())
    );
    machine.libtorch("own", "2.13.0+rocm7.0");
    machine.set(VARIABLE, "own");
    assert_eq!(
        machine.choice(None),
        (Origin::Variable, "own/lib".to_owned(), worker.clone())
    );
    // The variable may name the libraries themselves.
    machine.set(VARIABLE, "own/lib");
    assert_eq!(machine.choice(None), (Origin::Variable, "own/lib".to_owned(), worker));
}

#[test]
fn a_linked_lib_has_the_version_of_its_target() {
    let machine = Machine::with_workers(&["aurora-worker"]);
    machine.libtorch("elsewhere", "2.13.0+cu130");
    std::os::unix::fs::symlink(machine.path("elsewhere/lib"), machine.path("bin/lib")).expect("a link");
    assert_eq!(machine.choice(None).0, Origin::Programs);
}

/// Outside `AURORA_LIBTORCH`, a libtorch without a worker, without a version or without the library is skipped.
#[test]
fn what_does_not_fit_is_skipped() {
    let mut machine = Machine::with_workers(&["aurora-worker"]);
    machine.libtorch(&cached(), BUILT_FOR);
    machine.write("bin/lib/libtorch_cpu.so", "");
    machine.package("venv", "2.11.0+cu130");
    machine.set("VIRTUAL_ENV", "venv");
    machine.set("CONDA_PREFIX", "none");
    assert_eq!(machine.choice(None).0, Origin::Cache);
    let reasons: Vec<Option<String>> = machine
        .search(None)
        .candidates
        .into_iter()
        .map(|candidate| candidate.worker.err())
        .collect();
    let reasons: Vec<Option<&str>> = reasons.iter().map(Option::as_deref).collect();
    assert_eq!(
        reasons,
        [
            Some("no build-version and no version.py, so its version is not known"),
            Some("no aurora-worker-2.11 next to aurora"),
            Some("no libtorch_cpu.so"),
            None
        ]
    );
}

#[test]
fn the_worker_follows_the_version() {
    let mut machine = Machine::with_workers(&[
        "aurora-worker",
        "aurora-worker-2.11",
        "aurora-worker-2.x",
        "aurora-work",
    ]);
    machine.libtorch(&cached(), BUILT_FOR);
    machine.package("venv", "2.11.0+cu130");
    machine.set("VIRTUAL_ENV", "venv");
    assert_eq!(machine.choice(None).2, "bin/aurora-worker-2.11");
    assert_eq!(machine.search(None).workers.len(), 2);
    // A version in the name is preferred to the plain name.
    machine.write("bin/aurora-worker-2.13", "");
    machine.variables.clear();
    assert_eq!(machine.choice(None).2, "bin/aurora-worker-2.13");
}

#[test]
fn the_pinned_version_is_preferred_to_the_order() {
    let mut machine = Machine::with_workers(&["aurora-worker", "aurora-worker-2.11"]);
    machine.libtorch(&cached(), "2.13.0+cpu");
    machine.package("venv", "2.11.0+cu130");
    machine.set("VIRTUAL_ENV", "venv");
    assert_eq!(machine.choice(None).0, Origin::Python("VIRTUAL_ENV"));
    assert_eq!(machine.choice(Some("2.13.0")).0, Origin::Cache);
    // Nothing has this version: the order decides.
    assert_eq!(machine.choice(Some("2.12.0")).0, Origin::Python("VIRTUAL_ENV"));
    // An explicit choice is used as it is.
    machine.libtorch("own", "2.11.0");
    machine.set(VARIABLE, "own");
    assert_eq!(machine.choice(Some("2.13.0")).0, Origin::Variable);
}

#[test]
fn an_explicit_choice_that_does_not_fit_is_an_error() {
    let mut machine = Machine::with_workers(&["aurora-worker", "aurora-worker-2.11"]);
    machine.libtorch(&cached(), BUILT_FOR);
    machine.libtorch("own", "2.9.1+cu128");
    machine.set(VARIABLE, "own");
    let error = machine.search(Some("2.13.0")).choice().expect_err("no worker for 2.9");
    assert_eq!(
        error.to_string(),
        format!(
            "`AURORA_LIBTORCH` does not fit: `{}` has libtorch 2.9.1+cu128, and the workers next to `aurora` load 2.13 \
             or 2.11; the lock pins 2.13.0",
            machine.path("own/lib")
        )
    );
    assert!(error.help().contains("build `aurora-worker-2.9`"), "{}", error.help());
    machine.set(VARIABLE, "nothing");
    let error = machine.search(None).choice().expect_err("no libtorch");
    let text = error.to_string();
    assert!(text.contains("has no libtorch_cpu.so"), "{text}");
    assert!(
        error.help().starts_with("name a libtorch folder with"),
        "{}",
        error.help()
    );
    // An empty variable is not a choice.
    machine.variables.insert(VARIABLE, String::new());
    assert_eq!(machine.choice(None).0, Origin::Cache);
}

#[test]
fn without_a_libtorch_the_error_lists_every_place() {
    let mut machine = Machine::with_workers(&["aurora-worker"]);
    machine.set("VIRTUAL_ENV", "venv");
    machine.libtorch("cache/libtorch-2.12.0-cpu", "2.12.0+cpu");
    let search = machine.search(None);
    let error = search.choice().expect_err("no libtorch");
    let text = error.to_string().replace(machine.path("").as_str(), "/");
    insta::assert_snapshot!(format!("{text}\nhelp: {}", error.help()));
    let machine = Machine::with_workers(&[]);
    let error = machine.search(None).choice().expect_err("no worker");
    assert_eq!(
        error,
        LibtorchError::NoWorker {
            path: machine.path("bin/aurora-worker")
        }
    );
}

#[test]
fn devices_are_those_of_the_libraries() {
    let mut machine = Machine::with_workers(&["aurora-worker"]);
    machine.libtorch("own", BUILT_FOR);
    machine.set(VARIABLE, "own");
    let devices = |machine: &Machine| machine.search(None).candidates[0].devices;
    assert_eq!(devices(&machine), Some(Devices::Cpu));
    machine.write("own/lib/libtorch_hip.so", "");
    assert_eq!(devices(&machine), Some(Devices::Rocm));
    machine.write("own/lib/libtorch_cuda.so", "");
    assert_eq!(devices(&machine), Some(Devices::Cuda));
    let text = machine.search(None).candidates[0].to_string();
    assert_eq!(
        text,
        format!("AURORA_LIBTORCH: {}, {BUILT_FOR}, with CUDA", machine.path("own/lib"))
    );
}
