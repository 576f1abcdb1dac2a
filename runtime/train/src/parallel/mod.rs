//! The logical grid, the mesh of ranks, and what moves bytes between them.
//!
//! `grid` and `mesh` are plain functions of numbers: nobody opens a connection to work out a rank. `transport` moves
//! bytes and never adds: every sum is taken by this crate, in the order of the grid.

mod grid;
pub mod mesh;
mod peers;
pub mod transport;

pub use grid::{Carry, Grid, tree_by, tree_split, tree_sum};
pub use mesh::{Coordinates, Mesh};
pub use peers::{Arriving, Peers};
