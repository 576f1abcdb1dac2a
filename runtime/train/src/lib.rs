//! The worker process: model, training and evaluation on libtorch.
//!
//! In: orders on standard input ([`aurora_runtime::job`]). Out: events on standard output, files in the folders that
//! orders name. Not here: the store, the graph, what runs when (`aurora-runtime`).

pub mod eval;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod parallel;
pub mod train;
pub mod worker;
