//! `aurora-worker`: the process that computes. Started by `aurora`, or by `srun` or torchrun for it; never by hand.

use std::process::ExitCode;

use aurora_train::worker::{Arguments, main as run};

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1)) else {
        eprintln!("error: a worker accepts only `--join=HOST:PORT`\n  = help: `aurora run` starts it");
        return ExitCode::from(2);
    };
    run(&arguments)
}
