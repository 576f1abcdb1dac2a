//! A short form of the attacks of `make attack`: kills, damage, limits, hostile input, failing system calls, races.

use std::process::Command;

#[path = "../../tests/missing_tools.rs"]
mod missing_tools;

/// Each campaign takes part in every round.
const ROUNDS: &str = "4";

#[test]
fn nothing_breaks_under_a_short_attack() {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/attack/attack.py");
    let mut attack = Command::new("python3");
    attack
        .args([tool, env!("CARGO_BIN_EXE_aurora"), "--rounds", ROUNDS, "--seed", "1"])
        .env("AURORA_LIBTORCH", env!("LIBTORCH"));
    match attack.output() {
        Ok(done) => assert!(
            done.status.success(),
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ),
        Err(_) => missing_tools::missing_tool("python3", "attacks"),
    }
}
