//! GPT-BigCode and Llama: tensors to tensors, written for one device, one logical shard at a time.
//!
//! In: the logical shards of weights that a rank holds, a micro-batch of ids, the rank's peers. Out: losses, and
//! gradients added to one lane's buffer. Forward and backward are written out layer by layer (no autograd), so that
//! every sum across shards, row blocks and micro-batches has the order of the logical grid (`parallel`). Not here: lanes,
//! threads, the order of a pipeline's micro-batches, the optimizer (`train`), files.
//!
//! Shape letters: `b` sequences of a micro-batch, `s` tokens of a sequence, `t` = b·s rows, `h` hidden, `n` heads of a
//! shard, `g` key and value heads, `d` head dimension, `f` feed-forward of a shard, `v` vocabulary of a shard.

mod access;
mod attention;
mod decode;
mod error;
mod head;
mod layout;
mod network;
mod ops;
mod portable;
mod positions;
mod product;
mod record;
mod views;
pub(crate) mod workspace;

pub use access::{elements, elements_mut, part, part_mut};
pub use decode::{Cache, Next};
pub use error::ModelError;
pub use layout::{Chunk, Holding, Layout, Part, Shape, Share, Split, reported};
pub use network::{Network, Pass};
pub use ops::Kernels;
pub use positions::{Branches, Positions};
pub use record::{Recorder, Spot};
pub use views::{Gradients, Weights};
pub use workspace::Workspace;

#[cfg(test)]
mod tests;
