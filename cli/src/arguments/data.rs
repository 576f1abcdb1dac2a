//! The arguments of `aurora data` and `aurora path`.

use clap::{Args, Subcommand};

use super::VariantSelection;

#[derive(Debug, Subcommand)]
pub enum Data {
    /// Print what became of every row of the sources: read, kept, dropped by reason, with the first places.
    ///
    /// The counts are those of results in the store: `aurora run` makes them.
    #[command(after_help = "\
Examples:  aurora data stats specs/demo.aur
           aurora data stats lockfiles/demo.lock --json")]
    Stats {
        #[command(flatten)]
        of: ExperimentArgument,
    },
    /// Print documents of a corpus, as training reads them.
    ///
    /// With --json one object per line: `id`, `source`, `split`, `text`. A document that a step of `prepare` dropped is shown as it
    /// was before that step.
    #[command(after_help = "\
Examples:  aurora data show specs/demo.aur english --sample 3
           aurora data show specs/demo.aur english --document usr/share/man/man2/open.2
           aurora data show specs/demo.aur english --dropped duplicate --json")]
    Show {
        #[command(flatten)]
        of: ExperimentArgument,
        /// The name of a `corpus` block.
        #[arg(value_name = "CORPUS")]
        corpus: String,
        #[command(flatten)]
        which: Shown,
    },
    /// Print the documents that a training step reads, with source, licence and token spans.
    ///
    /// They are computed from the data order: the step need not have run. A step is that of the stage, counted from 1, as in
    /// the names of checkpoints. A sample reads one token more than its length: the last one is only a target.
    #[command(after_help = "\
Examples:  aurora data at specs/demo.aur --stage cap --step 120
           aurora data at lockfiles/demo.lock --stage cat --step 7 --sample 3 --json")]
    At {
        #[command(flatten)]
        of: ExperimentArgument,
        /// The step of the stage, counted from 1.
        #[arg(long, value_name = "N")]
        step: u64,
        /// The stage [default: the only one].
        #[arg(long, value_name = "STAGE")]
        stage: Option<String>,
        /// Only this sample of the step's global batch, counted from 0, with the text of its documents.
        #[arg(long, value_name = "I")]
        sample: Option<u64>,
    },
    /// Print the steps and epochs that read a document or a source, and the checkpoints that contain it.
    ///
    /// They are computed from the data order, for all steps of the stages, also for those that have not run.
    #[command(after_help = "\
Examples:  aurora data where specs/demo.aur --document english.txt:17
           aurora data where lockfiles/demo.lock --source sympy --stage cap --json")]
    Where {
        #[command(flatten)]
        of: ExperimentArgument,
        #[command(flatten)]
        what: Sought,
        /// Only this corpus.
        #[arg(long, value_name = "CORPUS")]
        corpus: Option<String>,
        /// Only this stage.
        #[arg(long, value_name = "STAGE")]
        stage: Option<String>,
        /// List every step instead of ranges; for a document, also the sample and the epoch of each.
        #[arg(long)]
        steps: bool,
    },
}

/// Which documents `aurora data show` prints.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct Shown {
    /// N documents at equal distances [default: 5].
    #[arg(long, value_name = "N")]
    pub sample: Option<usize>,
    /// The document with this id.
    #[arg(long, value_name = "ID")]
    pub document: Option<String>,
    /// What `prepare` dropped for this reason, such as `duplicate`.
    #[arg(long, value_name = "REASON")]
    pub dropped: Option<String>,
}

/// What `aurora data where` looks for.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Sought {
    /// The id of a document, as `aurora data at` prints it.
    #[arg(long, value_name = "ID")]
    pub document: Option<String>,
    /// The name of a `source` block.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
}

#[derive(Args, Debug)]
pub struct ExperimentArgument {
    /// The id of a run, as `aurora status` prints it, a lock, or a spec.
    #[arg(value_name = "RUN|LOCK|SPEC")]
    pub name: String,
    #[command(flatten)]
    pub selection: VariantSelection,
}

#[derive(Args, Debug)]
pub struct PathArguments {
    #[arg(value_name = "NODE")]
    pub node: String,
    /// The spec, lock or run that the node is of [default: the only lock of the project; or NODE is EXPERIMENT/NODE].
    #[arg(value_name = "SPEC|LOCK|RUN")]
    pub of: Option<String>,
    #[command(flatten)]
    pub selection: VariantSelection,
    /// Only the file with this name.
    #[arg(long, value_name = "NAME")]
    pub file: Option<String>,
}
