//! Injects failures of system calls into a command, with the library of the attack tools (`tests/attack/failing_calls.c`).

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::missing_tools::missing_tool;

/// The compiled library; `None` without a C compiler.
fn library() -> Option<&'static PathBuf> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compile = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/attack/failing_calls.c");
        let library =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("libfailing-calls-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"]);
        match compiler.status() {
            Ok(status) => {
                assert!(status.success(), "{source} cannot be compiled");
                Some(library)
            }
            Err(_) => {
                missing_tool("cc", "failures of system calls");
                None
            }
        }
    };
    LIBRARY.get_or_init(compile).as_ref()
}

/// Makes the calls that `which` describes fail in a command, as `tests/attack/failing_calls.c` says; false if that cannot be done here.
pub fn inject(command: &mut Command, which: &str) -> bool {
    let Some(library) = library() else { return false };
    command.env("LD_PRELOAD", library).env("AURORA_FAILING_CALLS", which);
    true
}
