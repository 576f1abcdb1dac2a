//! `aurora data`: inspects the training data.

mod at;
mod show;
mod stats;
mod r#where;

use aurora_runtime::lookup::Stage;

use crate::arguments::Data;
use crate::context::Context;
use crate::experiment::Experiment;
use crate::failure::{Exit, Failure};

pub fn run(context: &Context, what: &Data) -> Result<Exit, Failure> {
    match what {
        Data::Stats { of } => stats::run(context, of),
        Data::Show { of, corpus, which } => show::run(context, of, corpus, which),
        Data::At {
            of,
            step,
            stage,
            sample,
        } => at::run(context, of, *step, stage.as_deref(), *sample),
        Data::Where {
            of,
            what,
            corpus,
            stage,
            steps,
        } => {
            let only = r#where::Only {
                corpus: corpus.as_deref(),
                stage: stage.as_deref(),
            };
            r#where::run(context, of, what, only, *steps)
        }
    }
}

/// The failure of a stage that is named but does not train.
fn no_stage(experiment: &Experiment, stages: &[Stage], name: &str) -> Failure {
    let failure = Failure::error(format!(
        "`{}` does not train a stage `{name}`",
        experiment.loaded.spec.name
    ));
    failure.help(format!("its stages: {}", listed(stages)))
}

/// Stages as a list with their steps.
fn listed(stages: &[Stage]) -> String {
    let stage = |stage: &Stage| format!("`{}` (steps 1 to {})", stage.name, stage.steps);
    let stages: Vec<String> = stages.iter().map(stage).collect();
    if stages.is_empty() {
        return "none".to_owned();
    }
    stages.join(", ")
}
