//! `aurora-worker`: the process that computes. Started by `aurora`, or by `srun` or torchrun on its behalf; never by hand.
//!
//! `--fault NAME` is for tests of the search for faults: the sum of that name (an operation of the trace whose words end
//! with "sum over shards", written with `-`) is added from the last rank to the first, which gives other bits as soon as
//! three ranks meet in it.
use std::process::ExitCode;

use aurora_runtime::trace::Operation;

fn main() -> ExitCode {
    let mut engine = None;
    let mut fault = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let taken = if let Some(place) = argument.strip_prefix("--join=") {
            engine.replace(place.to_owned()).is_none()
        } else if argument == "--fault" {
            let name = arguments.next().unwrap_or_default();
            let named = |sum: &&Operation| sum.is_sum_over_shards() && sum.argument() == name;
            fault = Operation::ALL.iter().find(named).copied();
            fault.is_some()
        } else {
            false
        };
        if !taken {
            eprintln!("error: a worker takes nothing but `--join=HOST:PORT`\n  = help: `aurora run` starts it");
            return ExitCode::from(2);
        }
    }
    aurora_train::worker::main(engine.as_deref(), fault)
}
