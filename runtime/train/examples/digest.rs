//! Prints digests of this crate's kernels with every instruction set of this machine, to compare machines.
//!
//! Exits with 1 if the instruction sets of this machine differ. QEMU's user mode (7.2 or later) emulates other
//! processors: `qemu-x86_64 -cpu Haswell digest`, and `-cpu EPYC`, `-cpu Nehalem`.

use std::process::ExitCode;

use aurora_train::kernels::{Level, level, probe_at};

fn main() -> ExitCode {
    let expected = probe_at(Level::Baseline);
    let mut agree = true;
    for at in [Level::Baseline, Level::Avx2, Level::Avx512] {
        if at > level() {
            continue;
        }
        for ((name, digest), (_, expected)) in probe_at(at).iter().zip(&expected) {
            println!("{:<8} {name:<16} {}", format!("{at:?}"), digest.to_hex());
            agree &= digest == expected;
        }
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
