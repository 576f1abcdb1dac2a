//! `aurora-worker`: the process that computes. Started by `aurora`, or by `srun` or torchrun on its behalf; never by hand.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => aurora_train::worker::main(None),
        (Some(argument), None) if argument.starts_with("--join=") => {
            aurora_train::worker::main(argument.strip_prefix("--join="))
        }
        _ => {
            eprintln!("error: a worker takes nothing but `--join=HOST:PORT`\n  = help: `aurora run` starts it");
            ExitCode::from(2)
        }
    }
}
