//! GPT-BigCode and Llama: tensors to tensors, written for one device, one logical shard at a time.
//!
//! In: the logical shards of weights that a rank holds, a micro-batch of ids, the rank's peers. Out: losses, and
//! gradients added to one lane's buffer. Forward and backward passes are written out layer by layer, without autograd,
//! so that every sum over shards, row blocks and micro-batches has the order of the logical grid (`parallel`). Not
//! here: lanes, threads, the pipeline schedule, the optimizer (`train`), files.
//!
//! Shape letters, as suffixes of tensors and slices: `b` sequences of a micro-batch, `s` tokens of a sequence, `t` =
//! b·s rows, `r` rows of a block, `h` hidden, `n` query heads of a shard, `g` key and value heads, `d` head dimension,
//! `a` = n·d, `p` columns of a shard's query projection (with its own keys and values), `k` = 2·g·d columns of shared
//! keys and values, `e` = 2·d, `f` feed-forward of a shard, `u` outputs of the first feed-forward product (f, or 2·f
//! with gates), `v` vocabulary of a shard. A letter names a logical
//! dimension even if a rank holds only a part of it.

mod attention;
pub(crate) mod composed_attention;
mod decode;
mod device;
mod error;
mod fault;
pub(crate) mod fused_attention;
mod head;
mod host_access;
mod matmul;
mod network;
mod ops;
mod parameter_map;
mod pass_context;
mod passes;
mod portable;
mod positions;
mod record;
mod row_partition;
mod self_test;
mod shape_probe;
mod trace_recorder;
mod views;
pub(crate) mod workspace;

pub use decode::{KvCache, NextToken};
pub use device::{ComputeDevice, to_device, to_host};
pub use error::ModelError;
pub use fault::Fault;
pub(crate) use host_access::HostAccess;
pub use network::Network;
pub use ops::Kernels;
pub(crate) use ops::UpdateChunk;
pub use parameter_map::{Chunk, Holding, ModelShape, OwnedRange, ParameterMap, ParameterPart, Sharding, reported};
pub use pass_context::PassContext;
pub use positions::{Branches, Positions};
pub use self_test::{KernelCheck, self_test};
pub use trace_recorder::{TraceRecorder, TraceTarget};
pub use views::{Gradients, Weights};
pub use workspace::Workspace;

#[cfg(test)]
mod tests;
