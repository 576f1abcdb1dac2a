//! Training: batches, steps, the optimizer, checkpoints, the step log.
//!
//! In: a job and its token files. Out: step metrics, checkpoints. Not here: a layer's arithmetic (`model`), messages
//! (`worker`).

pub mod batch;
mod batch_log;
pub mod checkpoint;
mod error;
mod lanes;
pub mod pipeline;
pub mod rank_report;
pub mod schedule;
pub mod step;
pub mod step_log;
pub mod thread_pool;
pub mod train_state;

pub use error::TrainError;

#[cfg(test)]
mod tests;
