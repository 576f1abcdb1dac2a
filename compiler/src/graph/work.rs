//! The work of a node: one variant per kind, each with the fields that define the work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::{
    EvalFields, ExpectFields, ExtractFields, FilterFields, JudgeFields, OrderFields, ReportFields, SourceFields,
    TokenizerFields, TokensFields, TrainFields, WeightsFields,
};

/// What a node does. With the kind's version and the inputs, it is what the key is computed from.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    Source(SourceFields),
    Extract(ExtractFields),
    Filter(FilterFields),
    Tokenizer(TokenizerFields),
    Tokens(TokensFields),
    Order(OrderFields),
    Weights(WeightsFields),
    Train(TrainFields),
    /// Perplexity, or a task whose answers are scored by comparison, in the same worker.
    Eval(EvalFields),
    /// The answers to a task that a judge scores.
    Answers(EvalFields),
    Judge(JudgeFields),
    Expect(ExpectFields),
    Report(ReportFields),
}

impl Work {
    /// The fields of a training segment.
    pub fn train(&self) -> Option<&TrainFields> {
        match self {
            Self::Train(fields) => Some(fields),
            _ => None,
        }
    }

    /// The fields of a data order.
    pub fn order(&self) -> Option<&OrderFields> {
        match self {
            Self::Order(fields) => Some(fields),
            _ => None,
        }
    }

    /// The fields of an eval whose answers a worker computes, judged or not.
    pub fn eval(&self) -> Option<&EvalFields> {
        match self {
            Self::Eval(fields) | Self::Answers(fields) => Some(fields),
            _ => None,
        }
    }

    pub fn kind(&self) -> NodeKind {
        match self {
            Self::Source(_) => NodeKind::Source,
            Self::Extract(_) => NodeKind::Extract,
            Self::Filter(_) => NodeKind::Filter,
            Self::Tokenizer(_) => NodeKind::Tokenizer,
            Self::Tokens(_) => NodeKind::Tokens,
            Self::Order(_) => NodeKind::Order,
            Self::Weights(_) => NodeKind::Weights,
            Self::Train(_) => NodeKind::Train,
            Self::Eval(_) => NodeKind::Eval,
            Self::Answers(_) => NodeKind::Answers,
            Self::Judge(_) => NodeKind::Judge,
            Self::Expect(_) => NodeKind::Expect,
            Self::Report(_) => NodeKind::Report,
        }
    }
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Kind")]
pub enum NodeKind {
    Source,
    Extract,
    Filter,
    Tokenizer,
    Tokens,
    Order,
    Weights,
    Train,
    Eval,
    Answers,
    Judge,
    Expect,
    Report,
}

impl NodeKind {
    /// The word in the encoding and in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Extract => "extract",
            Self::Filter => "filter",
            Self::Tokenizer => "tokenizer",
            Self::Tokens => "tokens",
            Self::Order => "order",
            Self::Weights => "weights",
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Answers => "answers",
            Self::Judge => "judge",
            Self::Expect => "expect",
            Self::Report => "report",
        }
    }

    /// Whether workers compute it: its result depends on the numerics class of the machine.
    pub fn runs_on_workers(self) -> bool {
        matches!(self, Self::Train | Self::Eval | Self::Answers)
    }

    /// Version of the kind's semantics. It is raised when the same fields and inputs give another result than before, so
    /// that a result of the older semantics is never used for the newer.
    pub fn version(self) -> u32 {
        match self {
            // 2: the content of a single file is its manifest, which has its name.
            Self::Source => 2,
            // 2: gradients of replicated parts are accumulated by row blocks through a lane and joined once a step.
            Self::Train => 2,
            // 2: the filter counts what it keeps of each input, tokens have an index of their documents, the order's file has
            // the size of each component by name.
            Self::Filter | Self::Tokens | Self::Order => 2,
            // 2: documents stay as they are, every row is counted, and members may be compressed in more ways.
            Self::Extract => 2,
            // 2: perplexity records each document's score; gates and the report state the noise. 3: the report counts every row.
            Self::Expect | Self::Report => 3,
            // 3: a document's last window reads earlier tokens again. 4: the choices of an item reuse one pass over its prompt.
            // 5: tables have no comments, and JSON files may be lists.
            Self::Eval => 5,
            // 2: a decoding step uses the matrix products for few rows. 3: as 5 of evals.
            Self::Answers => 3,
            Self::Judge => 2,
            _ => 1,
        }
    }
}
