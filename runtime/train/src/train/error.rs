//! What can go wrong in a segment.

use aurora_runtime::checkpoint::CheckpointError;
use aurora_runtime::data::documents::DocumentsError;
use aurora_runtime::data::order::OrderError;
use aurora_runtime::data::tokens::TokensError;

use crate::model::ModelError;
use crate::parallel::transport::TransportError;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("cannot compute")]
    Model(#[from] ModelError),
    #[error("cannot use the checkpoint")]
    Checkpoint(#[from] CheckpointError),
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
    #[error("cannot make the data order")]
    Order(#[from] OrderError),
    #[error("`{file}` of the checkpoint is damaged: {cause}")]
    State { file: &'static str, cause: String },
    #[error("the job does not fit: {0}")]
    Unfit(String),
    #[error("token {token} at position {position} of `{component}` lies outside the vocabulary of {vocabulary}")]
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
