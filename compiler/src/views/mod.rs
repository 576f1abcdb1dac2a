//! Typed views of a checked spec: what each block means, as types that lowering uses directly.
//!
//! In: a [`Spec`] and the name of a block. Out: a view with typed values and the [`Trace`] of the values that it was read
//! from. `check` reads every view once, so that a value of the wrong type becomes a diagnostic there and never a panic
//! later. This is the only module that looks fields up by name for lowering.
//! Not here: rules between blocks (`check`), nodes (`graph`).

mod corpus;
mod eval;
mod expect;
mod model;
mod reader;
mod stage;

use aurora_lang::ast::Span;

pub use corpus::{CorpusView, ExtractionView, SourceView, TokenizerInputs, TokenizerView, corpus, source, tokenizer};
pub use eval::{EvalView, JudgeView, MeasuredAt, eval};
pub use expect::{ExpectView, expect};
pub use model::{ExperimentView, ModelView, WeightsView, experiment, hub_source, model};
pub use reader::Trace;
pub use stage::{MixtureComponent, MixtureView, StageView, Weight, mixture, stage};

use crate::spec::{BlockId, BlockKind, Spec};

/// A value that does not have the type that its view needs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{path}` is not {expected}")]
pub struct ViewError {
    pub block: BlockId,
    /// Path in the spec: `stage.cap.budget`.
    pub path: String,
    pub span: Option<Span>,
    pub expected: &'static str,
}

/// Reads the views of these blocks, and returns the first value of the wrong type in each.
pub fn verify<'s>(spec: &'s Spec, blocks: impl Iterator<Item = &'s BlockId>) -> Vec<ViewError> {
    let mut errors = Vec::new();
    for id in blocks {
        let read = match id.kind {
            BlockKind::Experiment => experiment(spec).map(drop),
            BlockKind::Source => source(spec, id).map(drop),
            BlockKind::Corpus => corpus(spec, id).map(drop),
            BlockKind::Tokenizer => tokenizer(spec, id).map(drop),
            BlockKind::Model => model(spec, id).map(drop),
            BlockKind::Mixture => mixture(spec, id).map(drop),
            BlockKind::Stage => stage(spec, id).map(drop),
            BlockKind::Eval => eval(spec, id).map(drop),
            BlockKind::Expect => expect(spec, id).map(drop),
            BlockKind::Layout => Ok(()),
        };
        errors.extend(read.err());
    }
    errors
}
