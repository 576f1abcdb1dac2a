//! The logical grid, the mesh of ranks, the collectives of a rank (`peers`), and the transports that they use.
//!
//! `grid` and `mesh` are plain functions of numbers: computing a rank needs no connection. A `transport` moves bytes
//! and never adds: this crate computes every sum, in the order of the grid.

mod grid;
pub mod mesh;
mod peers;
pub mod transport;

pub use grid::{Grid, TreeAccumulator, tree_by, tree_split, tree_sum};
pub use mesh::{Coordinates, Mesh};
pub use peers::{Peers, PendingParts};
