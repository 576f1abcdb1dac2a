//! Compiles the shim against libtorch's headers and links it with libtorch. No header of a device's vendor is needed, so
//! the same shim serves libtorch for CPUs, CUDA and ROCm.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=shim");
    let Some(libtorch) = libtorch() else {
        println!("cargo:warning=LIBTORCH names no libtorch folder with headers; `make libtorch` fetches one");
        return ExitCode::FAILURE;
    };
    let include = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file("shim/shim.cpp")
        // As system headers, to suppress their warnings.
        .flag("-isystem")
        .flag(&include)
        .compile("aurora_aten");
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // For this crate's own tests; other binaries set their own.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    ExitCode::SUCCESS
}

fn libtorch() -> Option<PathBuf> {
    let folder = std::fs::canonicalize(std::env::var_os("LIBTORCH")?).ok()?;
    folder.join("include/ATen/Context.h").is_file().then_some(folder)
}
