//! The `aurora` command: reads arguments and the environment, prints, exits.
//!
//! One file per subcommand under `commands/`. Results go to standard output, everything else to standard error.

mod arguments;
mod checkpoint;
mod commands;
mod context;
mod diff;
mod execution;
mod failure;
mod lsp;
mod output;
mod placement;
mod plan_nodes;
mod project;
mod watch;
mod worker_launch;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !reader_left(info.payload()) {
            usual(info);
        }
    }));
    let ended = std::panic::catch_unwind(|| commands::run(arguments));
    match ended {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.print(json).into(),
        Err(payload) if reader_left(&*payload) => std::process::ExitCode::from(READER_LEFT),
        Err(_) => {
            eprintln!("this is a bug in Aurora; the lines above say where");
            failure::Exit::Bug.into()
        }
    }
}

/// As the shell tells of a program that a closed pipe ended: 128 + SIGPIPE.
const READER_LEFT: u8 = 141;

/// Whether a panic is that of `println!` into a pipe whose reader has gone (`aurora build SPEC | head`): no fault.
fn reader_left(payload: &(dyn std::any::Any + Send)) -> bool {
    let text = payload.downcast_ref::<String>();
    text.is_some_and(|text| text.starts_with("failed printing to std") && text.contains("Broken pipe"))
}
