//! The kernels of a device, compiled by the compilers of both vendors. These are fetched once into the user's cache; nothing
//! is installed.

#![allow(clippy::unwrap_used)]

#[path = "../../rccl-sys/tests/real/fetch.rs"]
mod fetch;
#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;

use std::path::Path;
use std::process::Command;

use aurora_train::gpu::{self, Vendor};
use missing_tools::missing_tool;

/// The compilers of both vendors accept the kernels, without a device: NVRTC for A100 and H100, hipRTC for MI250X and MI300X.
#[test]
fn both_vendors_compile_the_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let (tool, source) = (folder.path().join("compile"), folder.path().join("kernels.cu"));
    std::fs::write(&source, gpu::SOURCE).unwrap();
    let c = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/compile.c");
    let built = Command::new("cc")
        .arg("-o")
        .args([&tool, Path::new(c)])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(built.success());
    let compile = |start: &dyn Fn() -> Command, vendor: Vendor, architecture: &str| {
        for is_bf16 in [false, true] {
            let options = gpu::options(vendor, architecture, is_bf16);
            let output = start().arg(&source).args(&options).output().unwrap();
            let size = String::from_utf8_lossy(&output.stdout)
                .trim()
                .parse::<u64>()
                .unwrap_or(0);
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && size > 10_000,
                "{vendor:?} {architecture}: {log}"
            );
        }
    };
    match fetch::nvrtc() {
        Err(cause) => missing_tool(&format!("NVRTC ({cause})"), "that CUDA's compiler accepts the kernels"),
        Ok(root) => {
            let libraries = root.join("nvidia/cu13/lib");
            for architecture in ["sm_80", "sm_90"] {
                let start = || {
                    let mut command = Command::new(&tool);
                    command.env("LD_LIBRARY_PATH", &libraries);
                    command.arg(libraries.join("libnvrtc.so.13")).arg("nvrtc");
                    command
                };
                compile(&start, Vendor::Cuda, architecture);
            }
        }
    }
    match fetch::rccl() {
        Err(cause) => missing_tool(&format!("HIP ({cause})"), "that ROCm's compiler accepts the kernels"),
        Ok(root) => {
            // Debian trixie's library needs its C library.
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            for architecture in ["gfx90a", "gfx942"] {
                let start = || {
                    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
                    command.arg("--library-path").arg(&libraries).arg(&tool);
                    command.args(["libamdhip64.so.5", "hiprtc"]);
                    command
                };
                compile(&start, Vendor::Rocm, architecture);
            }
        }
    }
}
