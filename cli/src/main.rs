//! The `aurora` command: reads arguments and the environment, prints, exits.
//!
//! One file per subcommand under `commands/`. Results go to standard output, everything else to standard error.

mod arguments;
mod checkpoint;
mod commands;
mod consent;
mod context;
mod device_test;
mod devices;
mod diff;
mod execution;
mod experiment;
mod failure;
mod layout;
mod libtorch;
mod lsp;
mod numerics;
mod output;
mod plan_nodes;
mod progress_display;
mod project;
mod stdio;
mod worker_launch;
mod worker_memory;

use clap::Parser;

use crate::stdio::errln;

fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    // With a handler, the write that exceeds a limit on the size of files (`ulimit -f`) returns an error; without one the
    // signal ends the process. A handler that cannot be set changes nothing.
    let exceeded = std::sync::Arc::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, exceeded);
    // A parent that ignores this signal makes the kernel discard how our children end.
    let child_ended = std::sync::Arc::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGCHLD, child_ended);
    match std::panic::catch_unwind(|| commands::run(arguments)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.print(json).into(),
        Err(_) => {
            errln!("this is a bug in Aurora; the lines above show where it occurred");
            failure::Exit::Bug.into()
        }
    }
}
