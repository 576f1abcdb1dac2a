//! The real RCCL (Debian) and the real NCCL (PyPI), as far as they work without a device: files, headers, versions,
//! error texts, ids, and refusals. Fetched once into the user's cache, about 500 MB; skipped if that fails.
//!
//! Debian trixie's libraries need its C library: this program restarts itself with that one to probe them.

#![allow(clippy::unwrap_used)]

#[path = "real/fetch.rs"]
mod fetch;
#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::ptr::null_mut;
use std::sync::Arc;

use missing_tools::missing_tool;
use rccl_sys::table::Collectives;
use rccl_sys::types::{self, Configuration};
use rccl_sys::{Communicator, Error, Library, Platform, Search, UniqueId, Version, survey};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, platform, collective, runtime] = &arguments[..]
        && word == "probe"
    {
        let platform = if platform == "rocm" {
            Platform::Rocm
        } else {
            Platform::Cuda
        };
        probe(platform, collective.into(), runtime.into());
        return ExitCode::SUCCESS;
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        missing_tool("Linux on x86-64", "rccl-sys against the vendors' libraries");
        return ExitCode::SUCCESS;
    }
    for (name, fetched, test) in [
        ("nccl", fetch::nccl(), nccl as fn(&Path)),
        ("rccl", fetch::rccl(), rccl as fn(&Path)),
    ] {
        match fetched {
            Ok(folder) => {
                test(&folder);
                println!("test {name} ... ok");
            }
            Err(cause) => missing_tool(
                &format!("the real {name} ({cause})"),
                "rccl-sys against the vendor's library",
            ),
        }
    }
    ExitCode::SUCCESS
}

/// Prints the libraries' answers, one per line.
fn probe(platform: Platform, collective: PathBuf, runtime: PathBuf) {
    let search = Search {
        collective: Some(collective.clone()),
        runtime: Some(runtime),
        folders: Vec::new(),
    };
    println!("survey: {}", survey(platform, &search).to_string().replace('\n', " | "));
    let library = Arc::new(Library::open(platform, &search).unwrap());
    println!("version: {}", library.version().unwrap());
    let words: Vec<String> = (0..7).map(|code| library.error_string(code)).collect();
    println!("errors: {}", words.join(" | "));
    match library.device_count() {
        Ok(count) => println!("devices: {count}"),
        Err(error) => println!("devices: {error}"),
    }
    let refused = |error: Option<Error>| matches!(error, Some(Error::NoDevice { .. }));
    let id = UniqueId::from_bytes([0; 128]);
    println!(
        "refused: {} {}",
        refused(library.unique_id().err()),
        refused(Communicator::join(&library, id, 1, 0).err())
    );
    // Below the safe layer, which requires a device.
    unsafe {
        let loaded = libloading::Library::new(&collective).unwrap();
        let table = Collectives::load(&loaded, "nccl");
        println!("missing: {}", table.missing().join(" "));
        let mut id = UniqueId::from_bytes([0; 128]);
        let code = table.GetUniqueId.unwrap()(&mut id);
        println!("id: {code} {}", id.to_bytes().iter().any(|byte| *byte != 0));
        let mut communicator = null_mut();
        let code = table.CommInitRank.unwrap()(&mut communicator, 1, id, 0);
        println!("init: {code} {}", communicator.is_null());
        let mut state = -1;
        println!("async: {}", table.CommGetAsyncError.unwrap()(null_mut(), &mut state));
        println!(
            "end: {} {}",
            table.CommDestroy.unwrap()(null_mut()),
            table.CommAbort.unwrap()(null_mut())
        );
    }
}

/// Runs the probe and returns its answers by name.
fn probe_results(command: &mut Command, platform: &str, collective: &Path, runtime: &Path) -> BTreeMap<String, String> {
    let output = command
        .args(["probe", platform])
        .args([collective, runtime])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text.lines().filter_map(|line| line.split_once(": "));
    answers
        .map(|(name, answer)| (name.to_owned(), answer.to_owned()))
        .collect()
}

/// This crate's numbers, for the C compiler.
fn numbers() -> Vec<String> {
    let configuration = Configuration::nonblocking();
    let number = |name: &str, value: i64| format!("-DRUST_{name}=({value})");
    [
        ("UNIQUE_ID", size_of::<UniqueId>() as i64),
        ("U8", types::U8.into()),
        ("SUCCESS", types::SUCCESS.into()),
        ("REMOTE_ERROR", types::REMOTE_ERROR.into()),
        ("IN_PROGRESS", types::IN_PROGRESS.into()),
        ("NOT_READY", types::NOT_READY.into()),
        ("NO_DEVICE", types::NO_DEVICE.into()),
        ("INSUFFICIENT_DRIVER", types::INSUFFICIENT_DRIVER.into()),
        ("STREAM_NON_BLOCKING", types::STREAM_NON_BLOCKING.into()),
        ("EVENT_DISABLE_TIMING", types::EVENT_DISABLE_TIMING.into()),
        ("CONFIG_SIZE", std::mem::offset_of!(Configuration, size) as i64),
        ("CONFIG_MAGIC", std::mem::offset_of!(Configuration, magic) as i64),
        ("CONFIG_VERSION", std::mem::offset_of!(Configuration, version) as i64),
        ("CONFIG_BLOCKING", std::mem::offset_of!(Configuration, blocking) as i64),
        ("CONFIG_UNUSED", configuration.unused.into()),
        ("MAGIC", configuration.magic.into()),
    ]
    .map(|(name, value)| number(name, value))
    .to_vec()
}

/// Compiles `interface.c` against the vendor's headers and returns their version.
fn header_version(define: &[&str], includes: &[PathBuf]) -> Version {
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-std=gnu11", "-o"])
        .arg(folder.path().join("interface"))
        .args(define)
        .args(numbers());
    for include in [here.join("stubs")].iter().chain(includes) {
        compiler.arg("-I").arg(include);
    }
    let output = compiler.arg(here.join("interface.c")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(folder.path().join("interface")).output().unwrap();
    Version::from_code(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// Codes have the same meaning in both libraries; one of them adds advice to the texts.
fn errors(words: &str) {
    let expected = [
        "no error",
        "unhandled cuda error",
        "unhandled system error",
        "internal error",
        "invalid argument",
        "invalid usage",
        "remote process exited",
    ];
    let words: Vec<&str> = words.split(" | ").collect();
    assert!(
        words.len() == 7 && words.iter().zip(expected).all(|(word, start)| word.starts_with(start)),
        "{words:?}"
    );
}

/// Results of both libraries on a machine without a device.
fn without_a_device(answers: &BTreeMap<String, String>) {
    if answers["devices"].chars().all(|digit| digit.is_ascii_digit()) {
        println!("skipped: this machine has devices, so no call is refused");
        return;
    }
    assert_eq!(answers["refused"], "true true");
    assert_eq!(answers["init"], "1 true", "unhandled error, and no communicator");
    assert_eq!(answers["async"], "4", "invalid argument");
    assert_eq!(answers["end"], "0 0");
    assert!(
        answers["survey"].ends_with(&format!(" | {}", answers["devices"])),
        "{answers:?}"
    );
}

fn nccl(folder: &Path) {
    let nvidia = folder.join("nvidia");
    let library = nvidia.join("nccl/lib/libnccl.so.2");
    let runtime = nvidia.join("cu13/lib/libcudart.so.13");
    let answers = probe_results(
        &mut Command::new(std::env::current_exe().unwrap()),
        "cuda",
        &library,
        &runtime,
    );
    let version = header_version(&[], &[nvidia.join("nccl/include"), nvidia.join("cu13/include")]);
    assert_eq!(
        (answers["version"].as_str(), version.to_string().as_str()),
        ("2.32.3", "2.32.3")
    );
    let start = format!(
        "NCCL 2.32.3 ({}) | CUDA runtime 13.5 ({}) | ",
        library.display(),
        runtime.display()
    );
    assert!(answers["survey"].starts_with(&start), "{answers:?}");
    assert_eq!(answers["missing"], "");
    assert_eq!(answers["id"], "0 true");
    errors(&answers["errors"]);
    without_a_device(&answers);
}

fn rccl(root: &Path) {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut loader = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    loader
        .arg("--library-path")
        .arg(&libraries)
        .arg(std::env::current_exe().unwrap());
    let (library, runtime) = (libraries.join("librccl.so.1"), libraries.join("libamdhip64.so.5"));
    let answers = probe_results(&mut loader, "rocm", &library, &runtime);
    let version = header_version(&["-DROCM", "-D__HIP_PLATFORM_AMD__"], &[root.join("usr/include")]);
    assert_eq!(answers["version"], version.to_string());
    assert!(
        answers["survey"].starts_with(&format!("RCCL {version} (")),
        "{answers:?}"
    );
    assert!(answers["survey"].contains(" | HIP runtime 5."), "{answers:?}");
    assert_eq!(answers["missing"], "CommInitRankConfig CommFinalize");
    assert_eq!(answers["id"], "0 true");
    errors(&answers["errors"]);
    without_a_device(&answers);
}
