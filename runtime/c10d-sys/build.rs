//! Compiles the shim against libtorch's headers and links it with libtorch.
//!
//! The headers of Gloo are not part of a libtorch folder. `shim/gloo` replaces them: c10d keeps everything of Gloo
//! behind `shared_ptr`, so the memory layout of its classes does not depend on them (`tests/c10d.rs` checks that).

use std::path::{Path, PathBuf};
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
        .include("shim")
        // As system headers, to suppress their warnings.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        // Without it the headers declare no Gloo.
        .define("USE_C10D_GLOO", None)
        .compile("aurora_c10d");
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // For this crate's own tests; other binaries set their own.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if let Some(out) = std::env::var_os("OUT_DIR") {
        let archive = Path::new(&out).join("libaurora_c10d.a");
        println!("cargo:rustc-env=C10D_SHIM={}", archive.display());
    }
    ExitCode::SUCCESS
}

fn libtorch() -> Option<PathBuf> {
    let folder = std::fs::canonicalize(std::env::var_os("LIBTORCH")?).ok()?;
    folder
        .join("include/torch/csrc/distributed/c10d")
        .is_dir()
        .then_some(folder)
}
