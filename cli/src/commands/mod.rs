//! One file per subcommand.

mod bisect;
mod build;
mod check;
mod data;
mod diff;
mod doctor;
mod eval;
mod explain;
mod export;
mod fmt;
mod gc;
mod git;
mod import;
mod lock;
mod path;
mod plan;
mod report;
mod rerun;
mod run;
mod schema;
mod show;
mod status;
mod sweep;
mod test;
mod trust;
mod verify;
mod why;

use crate::arguments::{Arguments, Command, Export, Git, Import, RootArgument};
use crate::context::Context;
use crate::failure::{Exit, Failure};

pub fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let context = Context {
        json: arguments.json,
        store: arguments.store,
        roots: arguments.root.into_iter().map(RootArgument::bound).collect(),
    };
    match arguments.command {
        Command::Check {
            specs,
            selection,
            fix,
            unsafe_fixes,
            format,
        } => {
            let fix = match (fix, unsafe_fixes) {
                (false, _) => check::Fix::None,
                (true, false) => check::Fix::Safe,
                (true, true) => check::Fix::Unsafe,
            };
            check::run(&context, &specs, &selection, fix, format)
        }
        Command::Fmt { specs, check } => fmt::run(&context, &specs, check),
        Command::Build { spec } => build::run(&context, &spec),
        Command::Plan { spec, exit_code } => plan::run(&context, &spec, exit_code),
        Command::Why { spec, node } => why::run(&context, &spec, &node),
        Command::Show {
            spec, resolved: true, ..
        } => show::resolved(&context, &spec),
        Command::Show {
            spec, path, origins, ..
        } => show::run(&context, &spec, path.as_deref(), origins),
        Command::Data { what } => data::run(&context, &what),
        Command::Path(arguments) => path::run(&context, &arguments),
        Command::Sweep { spec } => sweep::run(&context, &spec),
        Command::Test { names, update } => test::run(&context, &names, &update),
        Command::Trust { spec, list, revoke } => trust::run(&context, &spec, trust::Change::of(list, revoke)),
        Command::Lock {
            spec,
            check,
            upgrade,
            offline,
        } => lock::run(&context, &spec, check, &upgrade, offline),
        Command::Run { spec, options, locked } => run::run(&context, &spec, &options, locked),
        Command::Rerun {
            lock,
            options,
            fresh,
            profile,
            into,
        } => rerun::run(&context, &lock, &options, fresh, into.as_deref(), profile.as_deref()),
        Command::Bisect { a, b, lock, progress } => bisect::run(&context, [&a, &b], lock.as_deref(), progress),
        Command::Eval {
            checkpoint,
            eval,
            options,
        } => eval::run(&context, &checkpoint, &eval, &options),
        Command::Verify { of } => verify::run(&context, of.as_deref()),
        Command::Status { of } => status::run(&context, of.as_deref()),
        Command::Diff {
            old,
            new,
            selection,
            format,
        } => diff::run(&context, [&old, &new], &selection, format),
        Command::Report { spec, others, output } if others.is_empty() => {
            report::run(&context, &spec, output.as_deref())
        }
        Command::Report { spec, others, output } => report::compare(&context, &spec, &others, output.as_deref()),
        Command::Gc { of, dry_run } => gc::run(&context, of.as_deref(), dry_run),
        Command::Import { from } => match from {
            Import::Hf { path, into } => import::hf(&context, &path, &into),
            Import::Gguf { path, into } => import::gguf(&context, &path, &into),
            Import::Megatron {
                script,
                output,
                vocabulary,
            } => import::megatron(&context, &script, output.as_deref(), vocabulary),
        },
        Command::Export { to } => match to {
            Export::Hf { checkpoint, folder } => export::hf(&context, &checkpoint, &folder),
            Export::LmEval { spec, folder } => export::lm_eval(&context, &spec, &folder),
            Export::Mlflow { spec, url, run, token } => {
                export::mlflow(&context, &spec, &url, run.as_deref(), token.as_deref())
            }
            Export::Slurm { spec, job } => export::slurm(&context, &spec, &job),
            Export::Github { install } => export::github(&context, &install),
        },
        Command::Git { what } => match what {
            Git::Install => git::install(&context),
            Git::Merge(arguments) => git::merge_driver(&arguments),
            Git::Diff { arguments } => git::diff_driver(&context, &arguments),
        },
        Command::Lsp { stdio: _ } => crate::lsp::run(),
        Command::Schema { of } => schema::run(of),
        Command::Doctor => doctor::run(&context),
        Command::Explain { code } => explain::run(&context, &code),
    }
}
