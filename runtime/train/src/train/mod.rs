//! Training: batches, steps, the optimizer, checkpoints, the trail.
//!
//! In: a job and its token files. Out: steps' figures, checkpoints. Not here: a layer's arithmetic (`model`), messages
//! (`worker`).

pub mod batch;
pub mod checkpoint;
mod error;
mod lanes;
pub mod pipeline;
pub mod report;
pub mod schedule;
pub mod state;
pub mod step;
pub mod team;
pub mod trail;

pub use error::TrainError;

#[cfg(test)]
mod tests;
