//! Builds the double of a device's driver: `driver.cpp` with the kernels of `gpu/kernels.cu` for a CPU.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The source that the worker compiles on a device.
const SOURCE: &str = include_str!("../../src/gpu/kernels.cu");

/// The names of the kernels in their source.
pub fn kernels() -> Vec<&'static str> {
    let after = SOURCE.split("__global__ void ").skip(1);
    after.filter_map(|text| text.split('(').next()).collect()
}

/// The kernels for one element type, renamed so that both fit into one library, and their table.
fn unit(element: &str, define: &str) -> String {
    let mut text = format!("#include \"emulator.h\"\n{define}\n");
    for kernel in kernels() {
        writeln!(text, "#define {kernel} {element}_{kernel}").expect("a string");
    }
    text.push_str("#include \"kernels.cu\"\n");
    writeln!(
        text,
        "extern const Entry {element}_KERNELS[];\nconst Entry {element}_KERNELS[] = {{"
    )
    .expect("a string");
    for kernel in kernels() {
        writeln!(text, "  ENTRY(\"{kernel}\", {kernel}),").expect("a string");
    }
    text.push_str("  {nullptr, nullptr}};\n");
    text
}

/// Builds the library into a folder, under the name that Aurora looks for in libtorch's folder.
pub fn build(folder: &Path) -> PathBuf {
    // Test programs of other crates include this file.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests/double", "../runtime/train/tests/double"].map(|folder| manifest.join(folder));
    let here = folders.iter().find(|folder| folder.exists()).unwrap_or(&folders[0]);
    std::fs::write(folder.join("kernels.cu"), SOURCE).expect("the source is written");
    let units = [("F32", ""), ("BF16", "#define ELEMENT_BF16")].map(|(element, define)| {
        let path = folder.join(format!("{element}.cpp"));
        std::fs::write(&path, unit(element, define)).expect("a unit is written");
        path
    });
    let library = folder.join("libcaffe2_nvrtc.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w", "-I"])
        .arg(here)
        .arg("-o")
        .arg(&library)
        .arg(here.join("driver.cpp"))
        .args(units)
        .output()
        .unwrap_or_else(|error| panic!("cannot run `{compiler}`: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}
