//! Reports tools that a test needs and this machine lacks. Test programs include this file by `#[path]`.
//!
//! A message is written at once, and appended to the file that `AURORA_MISSING_TOOLS` names, which `make test` prints at the
//! end. With `AURORA_TESTS=all` a missing tool is a failure.

use std::fs::OpenOptions;
use std::io::Write;

/// Reports that `tool` is missing, so the test of `purpose` is not run.
///
/// # Panics
/// With `AURORA_TESTS=all`.
pub fn missing_tool(tool: &str, purpose: &str) {
    let line = format!("missing tool: {tool}, needed to test {purpose}\n");
    assert!(
        std::env::var("AURORA_TESTS").as_deref() != Ok("all"),
        "AURORA_TESTS=all: {line}"
    );
    // Not `eprint!`, which the test harness captures.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("AURORA_MISSING_TOOLS")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
