//! Runs a graph: store, sources, data, tokens, order and the engine.
//!
//! In: a planned graph. Out: artifacts in the store, a lock, a run record. Not here: tensors (`aurora-train`, the worker
//! process), printing (`cli`).

pub mod checkpoint;
pub mod data;
pub mod job;
pub mod progress;
pub mod weights;
