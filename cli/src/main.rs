//! The `aurora` command: reads arguments and the environment, prints, exits.
//!
//! One file per subcommand under `commands/`. Results go to standard output, everything else to standard error.

mod arguments;
mod checkpoint;
mod commands;
mod failure;
mod launching;
mod lsp;
mod output;
mod placement;
mod project;
mod watch;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    let ended = std::panic::catch_unwind(|| commands::run(arguments));
    match ended {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.print(json).into(),
        Err(_) => {
            eprintln!("this is a bug in Aurora; the lines above say where");
            failure::Exit::Bug.into()
        }
    }
}
