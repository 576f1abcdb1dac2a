//! The `aurora` command: reads arguments and the environment, prints, exits.
//!
//! One file per subcommand under `commands/`. Results go to standard output, everything else to standard error.

mod arguments;
mod commands;
mod failure;
mod output;
mod project;
mod watch;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    match commands::run(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(json).into(),
    }
}
