//! Errors of training and evaluation.

use aurora_runtime::checkpoint::CheckpointError;
use aurora_runtime::data::documents::DocumentsError;
use aurora_runtime::data::order::OrderError;
use aurora_runtime::data::tokenizer::TokenizerError;
use aurora_runtime::data::tokens::TokensError;
use aurora_runtime::errors::BoxedError;
use aurora_runtime::errors::FileError;
use aurora_runtime::task::TaskError;

use crate::model::ModelError;
use crate::parallel::transport::TransportError;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("cannot compute")]
    Model(#[from] ModelError),
    #[error("cannot use the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read tokens of `{component}`")]
    Tokens {
        component: String,
        #[source]
        source: TokensError,
    },
    #[error("cannot read documents of `{set}`")]
    Documents {
        set: String,
        #[source]
        source: DocumentsError,
    },
    #[error("cannot compute the data order")]
    Order(#[from] OrderError),
    #[error("cannot parse `{file}` of the checkpoint")]
    StateSyntax {
        file: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{file}` of the checkpoint is damaged: {problem}")]
    State { file: &'static str, problem: String },
    /// The job's settings contradict each other or this worker's layout.
    #[error("invalid job: {0}")]
    Job(String),
    #[error("cannot read the task")]
    Task(#[from] TaskError),
    #[error("cannot read the tokenizer")]
    Tokenizer(#[from] TokenizerError),
    #[error("cannot score the answers")]
    Scoring(#[source] BoxedError),
    #[error("cannot resolve host `{host}`")]
    Host {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{0}` is not a valid HOST:PORT")]
    Address(String),
    #[error("cannot exchange answers with the other workers")]
    Answers(#[source] serde_json::Error),
    #[error("another worker sent a malformed report")]
    Report,
    #[error("bug in Aurora: {0}")]
    Bug(&'static str),
    #[error("token {token} at position {position} of `{component}` is not in the vocabulary of {vocabulary}")]
    Token {
        component: String,
        position: u64,
        token: i64,
        vocabulary: usize,
    },
    #[error("the {what} of step {step} is {value} (the batch holds {batch})")]
    NotFinite {
        what: &'static str,
        step: u64,
        value: f64,
        batch: String,
    },
    #[error("a thread of the worker panicked: {0}")]
    Panicked(String),
    #[error("cannot start thread {index}")]
    Thread {
        index: usize,
        #[source]
        source: std::io::Error,
    },
}

impl From<TransportError> for TrainError {
    fn from(error: TransportError) -> Self {
        Self::Model(error.into())
    }
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}
