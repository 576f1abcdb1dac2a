//! The command line.

mod data;

use aurora_compiler::compose::Choice;
use aurora_compiler::file_source::named_root;
use aurora_compiler::lock::Lock;
use aurora_compiler::spec::Spec;
use aurora_runtime::job::Recompute;
use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use data::{Data, ExperimentArgument, PathArguments, Shown, Sought};

const AFTER: &str = "\
Exit codes: 0 done · 1 error in the spec, the lock or a result · 2 error in the command line · 3 bug in Aurora · \
4 a node failed · 5 a gate (expect) failed · 75 stopped; run the same command to resume · 130 stopped at once · \
141 output pipe closed

Start with:  aurora check specs/demo.aur
             aurora run specs/demo.aur";

/// Compiles experiment specs for pretraining to a content-keyed graph, runs it, and repeats it bitwise identically.
#[derive(Debug, Parser)]
#[command(name = "aurora", version, after_help = AFTER)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder of the store [default: .aurora in the folder of the project].
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<Utf8PathBuf>,
    /// Bind the root NAME of sources such as `file:NAME:/corpora/*.jsonl` to a folder of this machine; may be repeated
    /// [default: the lines of `aurora/roots.toml` in your configuration folder].
    #[arg(long, global = true, value_name = "NAME=FOLDER")]
    pub root: Vec<RootArgument>,
}

/// The value of `--root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootArgument {
    pub name: String,
    pub folder: Utf8PathBuf,
}

impl RootArgument {
    /// The name and its folder.
    pub fn bound(self) -> (String, Utf8PathBuf) {
        (self.name, self.folder)
    }
}

impl std::str::FromStr for RootArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME=FOLDER, such as scratch=/scratch/me");
        let (name, folder) = text.split_once('=').ok_or_else(wrong)?;
        let is_name = named_root(&format!("{name}:")).is_some_and(|(found, _)| found == name);
        match is_name && !folder.is_empty() {
            true => Ok(Self {
                name: name.to_owned(),
                folder: Utf8PathBuf::from(folder),
            }),
            false => Err(wrong()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check specs: names, units, ranges, layout. Reports all errors at once.
    #[command(after_help = "Examples:  aurora check specs/*.aur\n           aurora check specs/demo.aur --fix")]
    Check {
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<Utf8PathBuf>,
        #[command(flatten)]
        selection: VariantSelection,
        /// Apply suggested fixes that are unambiguous.
        #[arg(long)]
        fix: bool,
        /// Also apply fixes that may change the meaning.
        #[arg(long, requires = "fix")]
        unsafe_fixes: bool,
        /// Output format of diagnostics: text, annotations of a GitHub workflow, or SARIF 2.1.0.
        #[arg(long, value_enum, default_value = "text", conflicts_with = "json")]
        format: DiagnosticFormat,
    },
    /// Format specs in the canonical style.
    #[command(after_help = "Example:  aurora fmt --check specs/*.aur")]
    Fmt {
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<Utf8PathBuf>,
        /// Write nothing; exit 1 if a file would change.
        #[arg(long)]
        check: bool,
    },
    /// Compile a spec to its graph: every node with its key and state.
    #[command(after_help = "Example:  aurora build specs/demo.aur --json")]
    Build {
        #[command(flatten)]
        spec: SpecArgument,
    },
    /// Print what a run would do, why, and at what cost.
    #[command(after_help = "Example:  aurora plan specs/demo.aur --exit-code")]
    Plan {
        #[command(flatten)]
        spec: SpecArgument,
        /// Exit 1 if anything would run.
        #[arg(long)]
        exit_code: bool,
    },
    /// Print why a node would run, and what its key is made of.
    #[command(after_help = "Example:  aurora why specs/demo.aur cat@120")]
    Why {
        #[command(flatten)]
        spec: SpecArgument,
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Print the resolved spec.
    #[command(after_help = "Example:  aurora show specs/demo.aur stage.cap --origins")]
    Show {
        #[command(flatten)]
        spec: SpecArgument,
        /// Print only values under this path, such as `stage.cap`.
        path: Option<String>,
        /// Also print where each value comes from, and the evidence for it.
        #[arg(long)]
        origins: bool,
        /// Print the complete spec as one file without imports, parameters and defaults, for review.
        #[arg(long, conflicts_with_all = ["origins", "path"])]
        resolved: bool,
    },
    /// Inspect the training data: which documents a step reads, and which steps read a document.
    Data {
        #[command(subcommand)]
        what: Data,
    },
    /// Print the paths of the files of a node's result in the store, one per line.
    ///
    /// The files are verified and read-only. `aurora build SPEC` lists the nodes.
    #[command(after_help = "\
Examples:  aurora path filter/english specs/demo.aur
           aurora path tokens/bpe/english lockfiles/demo.lock --file tokens.bin")]
    Path(PathArguments),
    /// List the points of a spec's sweeps: what each changes, and how many of its nodes are its own.
    #[command(after_help = "Example:  aurora sweep specs/replay.aur")]
    Sweep {
        #[command(flatten)]
        spec: SpecArgument,
    },
    /// Compare resolved specs with their snapshots: shows what a change of a library changes in each experiment.
    #[command(after_help = "\
The snapshot of specs/NAME.aur is specs/snapshots/NAME.aur, as `aurora show --resolved` prints it. Exit code 1 when one \
differs or is missing.

Examples:  aurora test
           aurora test --update poro")]
    Test {
        /// Specs, by name or path [default: every spec of the project's `specs` folder].
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Write the snapshots of these specs.
        #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with = "names")]
        update: Vec<String>,
    },
    /// Pin every source by version and content, and write the lock.
    #[command(
        after_help = "Examples:  aurora lock specs/demo.aur\n           aurora lock specs/demo.aur --upgrade sympy"
    )]
    Lock {
        #[command(flatten)]
        spec: SpecArgument,
        /// Write nothing; exit 1 if the lock would change.
        #[arg(long)]
        check: bool,
        /// Pin this source, or the import from this address, to its newest content.
        #[arg(long, value_name = "SOURCE|ADDRESS")]
        upgrade: Vec<String>,
        /// Fetch nothing.
        #[arg(long)]
        offline: bool,
    },
    /// Allow what a spec does outside of Aurora: programs that judge, and servers that receive answers and keys.
    ///
    /// `run`, `rerun` and `eval` need this consent once. It is for the content of the program's files, its command and what it
    /// may do, or for the address and the variable whose value is sent there: an edit needs it again. It is kept in
    /// `aurora/trust` in your configuration folder.
    #[command(after_help = "Examples:  aurora trust specs/demo.aur --list\n           aurora trust specs/demo.aur")]
    Trust {
        #[command(flatten)]
        spec: SpecArgument,
        /// Print what it does and whether you have allowed it; change nothing.
        #[arg(long, conflicts_with = "revoke")]
        list: bool,
        /// Withdraw the consent.
        #[arg(long)]
        revoke: bool,
    },
    /// Run a spec: build what is missing, write the lock and the report.
    #[command(
        after_help = "Examples:  aurora run specs/demo.aur\n           aurora run specs/demo.aur --layout tensor=2,pipeline=2 --restarts 3"
    )]
    Run {
        #[command(flatten)]
        spec: SpecArgument,
        #[command(flatten)]
        options: RunArguments,
        /// Fail if the lock would have to change.
        #[arg(long)]
        locked: bool,
    },
    /// Repeat a locked run in an empty store, and compare every result.
    #[command(
        after_help = "Examples:  aurora rerun lockfiles/demo.lock\n           aurora rerun lockfiles/demo.lock --layout tensor=2,pipeline=2"
    )]
    Rerun {
        #[arg(value_name = "LOCK")]
        lock: Utf8PathBuf,
        #[command(flatten)]
        options: RunArguments,
        /// Also fetch the sources again, instead of taking the pinned bytes from the store.
        #[arg(long)]
        fresh: bool,
        /// Apply this profile to the spec; it may change the layout only.
        #[arg(long)]
        profile: Option<String>,
        /// Keep the store of the repetition in this folder.
        #[arg(long, value_name = "DIR")]
        into: Option<Utf8PathBuf>,
    },
    /// Find the first operation in which two executions of one lock differ, by executing it again.
    #[command(after_help = "\
An execution is the id of a run, as `aurora status` prints it, or a folder kept with `aurora rerun LOCK --into DIR`. The \
steps in which the two diverge are executed again under the layout of each, from the last checkpoint on which both agree. \
Exit code 1 if they differ, 0 if they are identical.

Example:  aurora rerun lockfiles/demo.lock --layout tensor=4,data=2 --into again
          aurora bisect 7f3a again")]
    Bisect {
        #[arg(value_name = "RUN|DIR")]
        a: String,
        #[arg(value_name = "RUN|DIR")]
        b: String,
        /// The lock of both executions [default: the lock of A].
        #[arg(long, value_name = "LOCK")]
        lock: Option<Utf8PathBuf>,
        /// How to show progress.
        #[arg(long, value_enum, default_value = "auto")]
        progress: ProgressMode,
    },
    /// Evaluate a checkpoint with an eval of its experiment, even if the spec does not evaluate it there.
    ///
    /// A checkpoint is EXPERIMENT/NODE of the project of this folder, as for `aurora export hf`.
    #[command(
        after_help = "Example:  aurora eval tiny/cap@10 heldout --json",
        verbatim_doc_comment
    )]
    Eval {
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: String,
        #[arg(value_name = "EVAL")]
        eval: String,
        #[command(flatten)]
        options: RunArguments,
    },
    /// Read every byte of the store, and list what is damaged.
    Verify {
        /// A spec or lock of the project [default: the project of this folder].
        #[arg(value_name = "SPEC|LOCK")]
        of: Option<Utf8PathBuf>,
    },
    /// List the runs and their states.
    Status {
        #[arg(value_name = "SPEC|LOCK")]
        of: Option<Utf8PathBuf>,
    },
    /// Compare specs, locks or runs: changed values and assumptions, nodes that rerun, reused nodes, the cost.
    #[command(after_help = "Example:  aurora diff HEAD~1:specs/demo.aur specs/demo.aur")]
    Diff {
        /// A spec or a lock, REV:path in the git repository, or a run.
        old: String,
        new: String,
        #[command(flatten)]
        selection: VariantSelection,
        #[arg(long, value_enum, default_value_t = DiffFormat::Text)]
        format: DiffFormat,
    },
    /// Print the closing table of the last finished run and the path of its report, or write the report as one HTML file.
    #[command(after_help = "Example:  aurora report specs/demo.aur -o report.html")]
    Report {
        #[command(flatten)]
        spec: SpecArgument,
        /// Specs, locks or runs to compare it with; the first argument may then be one of these too.
        #[arg(value_name = "OTHER")]
        others: Vec<String>,
        /// Write the page to this file.
        #[arg(short, long, value_name = "FILE")]
        output: Option<Utf8PathBuf>,
    },
    /// Delete store objects that no node name, no lock and no unfinished checkpoint refers to.
    Gc {
        #[arg(value_name = "SPEC|LOCK")]
        of: Option<Utf8PathBuf>,
        /// Delete nothing; print what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Let git compare and merge specs and locks by their meaning.
    #[command(after_help = "Example:  aurora git install")]
    Git {
        #[command(subcommand)]
        what: Git,
    },
    /// Read a published model or a launch script, check it, and print it as a spec.
    Import {
        #[command(subcommand)]
        from: Import,
    },
    /// Write a model, results or a job for another system.
    Export {
        #[command(subcommand)]
        to: Export,
    },
    /// Run the language server for an editor, on standard input and output.
    #[command(after_help = "Editors start it; the book describes how to set them up.")]
    Lsp {
        /// Accepted because some editors pass it; there is no other transport.
        #[arg(long, hide = true)]
        stdio: bool,
    },
    /// Print what this machine offers, and the current settings.
    Doctor,
    /// Print the JSON Schema of a document that Aurora writes.
    #[command(after_help = "Example:  aurora schema lock > aurora-lock.schema.json")]
    Schema { of: SchemaDocument },
    /// Explain a diagnostic code.
    #[command(after_help = "Example:  aurora explain E0203")]
    Explain { code: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DiffFormat {
    Text,
    /// For a comment on a pull request.
    Markdown,
}

#[derive(Debug, Subcommand)]
pub enum Git {
    /// Set up the repository of this folder: `.gitattributes` and the drivers in its configuration.
    Install,
    /// Called by git to merge a file (`%O %A %B %P`).
    #[command(hide = true)]
    Merge(MergeDriver),
    /// Called by git to show the difference of a file: path, old file, hash and mode, new file, hash and mode.
    #[command(hide = true)]
    Diff {
        #[arg(num_args = 7..)]
        arguments: Vec<Utf8PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct MergeDriver {
    pub base: Utf8PathBuf,
    /// The result is written here.
    pub ours: Utf8PathBuf,
    pub theirs: Utf8PathBuf,
    /// The path of the file in the repository.
    pub path: Utf8PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Import {
    /// A folder in Hugging Face's format: config.json, safetensors, tokenizer.json. Pickles are never opened.
    #[command(after_help = "\
Example:  aurora import hf ~/models/tiny-llama
          aurora import hf ~/models/tiny-llama checkpoint")]
    Hf {
        #[arg(value_name = "PATH")]
        path: Utf8PathBuf,
        #[command(flatten)]
        into: ImportArguments,
    },
    /// A GGUF file of a llama model: F32, F16, BF16, Q8_0, Q4_0 and Q4_1.
    #[command(after_help = "Example:  aurora import gguf SmolLM2-135M-Instruct.Q4_1.gguf checkpoint")]
    Gguf {
        #[arg(value_name = "PATH")]
        path: Utf8PathBuf,
        #[command(flatten)]
        into: ImportArguments,
    },
    /// A shell script that starts Megatron-LM's `pretrain_gpt.py` (BigCode's fork or Megatron-Core). Nothing is executed.
    ///
    /// Prints a spec in which every value names the line that it comes from. The end of the spec lists what it leaves out:
    /// flags that Aurora cannot express, flags without effect, unknown flags and values.
    #[command(after_help = "\
Example:  aurora import megatron pretrain.slurm --vocabulary 49152 -o specs/pretrain.aur
          aurora check specs/pretrain.aur")]
    Megatron {
        #[arg(value_name = "SCRIPT")]
        script: Utf8PathBuf,
        /// Write the spec to this new file [default: standard output].
        #[arg(short, long, value_name = "SPEC")]
        output: Option<Utf8PathBuf>,
        /// Entries of the tokenizer's vocabulary; scripts only name the tokenizer's file.
        #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
        vocabulary: Option<u64>,
    },
}

#[derive(Args, Debug)]
pub struct ImportArguments {
    /// Write the weights and the tokenizer to this folder, which `aurora export hf` accepts.
    #[arg(value_name = "DIR")]
    pub folder: Option<Utf8PathBuf>,
    /// The token that ends a document.
    #[arg(long, value_name = "TOKEN", default_value = "<|endoftext|>")]
    pub end_of_document: String,
}

#[derive(Debug, Subcommand)]
pub enum Export {
    /// Write a checkpoint as a model that Hugging Face's tools load, with a model card.
    ///
    /// A checkpoint is EXPERIMENT/NODE of the project of this folder (`tiny/cat@10`, `tiny/cat` for the last one of a
    /// stage, `tiny/small` for a model's initial weights), or a folder that `aurora import` has written.
    #[command(after_help = "Example:  aurora export hf tiny/cat@10 exported", verbatim_doc_comment)]
    Hf {
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: String,
        #[arg(value_name = "DIR")]
        folder: Utf8PathBuf,
    },
    /// Write the results of a spec's evals in the format of lm-evaluation-harness.
    ///
    /// Writes a folder for each evaluated checkpoint, with `results_aurora.json` and `samples_EVAL_aurora.jsonl`.
    #[command(
        after_help = "Example:  aurora export lm-eval specs/demo.aur results",
        verbatim_doc_comment
    )]
    LmEval {
        #[command(flatten)]
        spec: SpecArgument,
        #[arg(value_name = "DIR")]
        folder: Utf8PathBuf,
    },
    /// Send a run's metrics to an MLflow tracking server: every step and every score, by tokens trained.
    #[command(after_help = "Example:  aurora export mlflow specs/demo.aur http://127.0.0.1:5000")]
    Mlflow {
        #[command(flatten)]
        spec: SpecArgument,
        /// The server's address.
        url: String,
        /// The id of the run, as `aurora status` prints it [default: the spec's last run].
        #[arg(long)]
        run: Option<String>,
        /// The environment variable with the server's token.
        #[arg(long, value_name = "VARIABLE")]
        token: Option<String>,
    },
    /// Write a batch script for `sbatch`: it runs the spec, saves a checkpoint before the time limit, and requeues itself.
    #[command(after_help = "\
Example:  aurora export slurm specs/demo.aur --layout tensor=2,pipeline=2 --nodes 2 --partition debug > job.sh
          sbatch job.sh")]
    Slurm {
        #[command(flatten)]
        spec: SpecArgument,
        #[command(flatten)]
        job: Box<SlurmArguments>,
    },
    /// Write a workflow for GitHub Actions that comments on every pull request with what its specs change.
    #[command(after_help = "\
Example:  aurora export github --install 'cargo install --locked --git URL aurora-cli --no-default-features' \\
            > .github/workflows/aurora.yml")]
    Github {
        /// The command that installs `aurora` on the runner.
        #[arg(long, value_name = "COMMAND")]
        install: String,
    },
}

#[derive(Args, Debug)]
pub struct SlurmArguments {
    /// The account that the job is charged to.
    #[arg(short = 'A', long)]
    pub account: Option<String>,
    /// The partition [default: the cluster's default].
    #[arg(short, long)]
    pub partition: Option<String>,
    /// The time limit of one start, in Slurm's format: MINUTES, [DAYS-]HOURS:MINUTES:SECONDS.
    #[arg(short, long, value_name = "TIME", default_value = "01:00:00", value_parser = slurm_time)]
    pub time: std::time::Duration,
    /// How long before the limit the run saves a checkpoint. Must cover a step, a checkpoint, and a minute.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub grace: u64,
    /// How often the job may requeue itself.
    #[arg(long, value_name = "TIMES", default_value_t = 100)]
    pub requeues: u32,
    /// How many starts in a row may lose a worker and be requeued: a failed node is replaced, another cause would occur again.
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    pub losses: u32,
    /// The name of the job [default: the experiment's name].
    #[arg(short = 'J', long, value_name = "NAME")]
    pub job_name: Option<String>,
    /// Nodes that the workers are spread over [default: the layout's].
    #[arg(short = 'N', long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: Option<u32>,
    /// Threads, and therefore cores, of each worker [default: the layout's, or 1].
    #[arg(short = 'c', long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Use another layout than the spec's, as for `aurora run`.
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<LayoutArgument>,
    /// The cluster that has the layout's devices.
    #[arg(long, value_enum, default_value = "plain")]
    pub cluster: Cluster,
    /// A shell command before the run: modules, a virtual environment. May be repeated.
    #[arg(long, value_name = "LINE")]
    pub setup: Vec<String>,
    /// More arguments of `aurora run`.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub run: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cluster {
    /// Any cluster of CPUs.
    Plain,
    Lumi,
    Frontier,
}

/// Parses a time in the formats of `--time` in sbatch(1).
fn slurm_time(text: &str) -> Result<std::time::Duration, String> {
    let wrong =
        || "expected MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]]".to_owned();
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(days.parse::<u32>().map_err(|_| wrong())?), clock),
        None => (None, text),
    };
    let parts: Vec<u32> = clock
        .split(':')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong())?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return Err(wrong()),
    };
    let minutes = (u64::from(days.unwrap_or(0)) * 24 + u64::from(hours)) * 60 + u64::from(minutes);
    Ok(std::time::Duration::from_secs(minutes * 60 + u64::from(seconds)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaDocument {
    /// A file of `lockfiles/`, in TOML.
    Lock,
    /// `aurora build --json`.
    Graph,
    /// `run.json` of a run.
    Record,
    /// `aurora check --json`.
    Diagnostics,
    /// `aurora plan --json`.
    Plan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiagnosticFormat {
    Text,
    Github,
    Sarif,
}

#[derive(Args, Debug)]
pub struct SpecArgument {
    #[arg(value_name = "SPEC")]
    pub spec: Utf8PathBuf,
    #[command(flatten)]
    pub selection: VariantSelection,
}

/// Options of `run`, `rerun` and `eval`; those of `run` alone are in [`Command::Run`]. No option changes a bit of the result.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Threads of each worker [default: the layout's, or this machine's cores divided by its workers].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Use another layout than the spec's, such as `tensor=2,pipeline=2,data=1`; also `recompute=full`,
    /// `sequence_parallel`, `distributed_optimizer`, `machine=cpu`.
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<LayoutArgument>,
    /// What starts the workers.
    #[arg(long, value_enum, default_value = "local")]
    pub launcher: LauncherArgument,
    /// When a worker is lost, resume from the last checkpoint with new workers, at most this many times.
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    pub restarts: u32,
    /// Halve the number of workers at each restart.
    #[arg(long, requires = "restarts")]
    pub fewer: bool,
    /// Treat a worker as lost after this many seconds without a heartbeat.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = heartbeat_timeout)]
    pub heartbeat_timeout: f64,
    /// Fetch nothing.
    #[arg(long)]
    pub offline: bool,
    /// Allow what the spec does outside of Aurora, as `aurora trust` does.
    #[arg(long)]
    pub trust: bool,
    /// How to show progress.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
}

fn heartbeat_timeout(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (1.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 1 to 3600".to_owned()),
    }
}

/// The value of `--layout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayoutArgument {
    pub tensor: Option<u32>,
    pub pipeline: Option<u32>,
    pub data: Option<u32>,
    pub recompute: Option<Recompute>,
    pub sequence_parallel: Option<bool>,
    pub distributed_optimizer: Option<bool>,
    /// Run on CPUs, whatever machine the spec's layout is for.
    pub cpu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LauncherArgument {
    /// This process, on this machine.
    Local,
    /// srun, inside a Slurm allocation.
    Srun,
    /// torchrun, which has started this process and the other workers.
    Torchrun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A live line on a terminal, plain lines otherwise.
    Auto,
    Plain,
    None,
}

/// The variant of a spec that the command line or a lock selects.
#[derive(Args, Clone, Debug, Default)]
pub struct VariantSelection {
    /// Apply this profile to the spec.
    #[arg(long)]
    pub profile: Option<String>,
    /// Use this point of a sweep; `aurora sweep SPEC` lists the points.
    #[arg(long)]
    pub point: Option<String>,
    /// Set a parameter (`peak=1e-4`), or any field by its path (`stage.cap.budget=1M tokens`).
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl VariantSelection {
    pub fn of(lock: &Lock) -> Self {
        Self {
            profile: lock.profile.clone(),
            point: lock.point.clone(),
            set: lock.set.clone(),
        }
    }

    pub fn of_spec(spec: &Spec) -> Self {
        Self {
            profile: spec.profile.clone(),
            point: spec.point.clone(),
            set: spec.settings.clone(),
        }
    }

    pub fn choice(&self) -> Choice<'_> {
        Choice {
            profile: self.profile.as_deref(),
            point: self.point.as_deref(),
        }
    }

    /// The same selection as arguments of a command.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let named = [("--profile", &self.profile), ("--point", &self.point)];
        for (name, value) in named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            words.extend([name.to_owned(), value.clone()]);
        }
        for setting in &self.set {
            words.extend(["--set".to_owned(), setting.clone()]);
        }
        words
    }
}

impl std::str::FromStr for LayoutArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut layout = Self::default();
        for word in text.split(',').map(str::trim) {
            let (name, value) = word.split_once('=').unwrap_or((word, "true"));
            let degree = || match value.parse() {
                Ok(degree @ 1..) => Ok(Some(degree)),
                _ => Err(format!("`{name}` must be a whole number of at least 1, not `{value}`")),
            };
            let flag = || match value {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(format!("`{name}` must be true or false, not `{value}`")),
            };
            match name {
                "tensor" => layout.tensor = degree()?,
                "pipeline" => layout.pipeline = degree()?,
                "data" => layout.data = degree()?,
                "sequence_parallel" => layout.sequence_parallel = flag()?,
                "distributed_optimizer" => layout.distributed_optimizer = flag()?,
                "recompute" => {
                    let wrong = || format!("`recompute` must be none, selective or full, not `{value}`");
                    layout.recompute = Some(Recompute::from_word(value).ok_or_else(wrong)?);
                }
                "machine" if value == "cpu" => layout.cpu = true,
                _ => {
                    return Err(format!(
                        "unknown entry `{word}`; a layout has tensor, pipeline, data, recompute, sequence_parallel, \
                         distributed_optimizer and machine=cpu"
                    ));
                }
            }
        }
        Ok(layout)
    }
}
