//! `aurora-worker`: the process that computes. Started by `aurora`, never by hand.
fn main() -> std::process::ExitCode {
    aurora_train::worker::main()
}
