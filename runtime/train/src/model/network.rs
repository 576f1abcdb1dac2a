//! A model on one rank: its division into shards and row blocks. Its passes are in `passes`, `attention` and `head`.

use std::ops::Range;

use tch::{Device, Kind};

use super::row_partition::RowPartition;
use super::{Fault, Kernels, ParameterMap};
use crate::parallel::{Grid, Mesh, mesh};

/// The model's arithmetic on one rank; holds no weights.
#[derive(Clone, Debug)]
pub struct Network {
    pub parameters: ParameterMap,
    pub grid: Grid,
    pub mesh: Mesh,
    pub kernels: Kernels,
    /// Element type of weights and activations; the residual stream and all sums are always `f32`.
    pub kind: Kind,
    pub device: Device,
    /// Each tensor rank keeps only the residual stream's rows of its own blocks.
    pub sequence_parallel: bool,
    pub fault: Fault,
}

impl Network {
    /// All rows as one block: a sharded tensor's gradient is one sum over them.
    #[allow(clippy::single_range_in_vec_init)] // one block, not its elements
    pub(super) fn one_block(rows: usize) -> [Range<usize>; 1] {
        [0..rows]
    }

    /// The row blocks over which a replicated tensor's gradient is summed.
    pub(super) fn blocks(&self, rows: usize) -> Vec<Range<usize>> {
        (0..self.grid.tensor).map(|i| self.grid.row_block(rows, i)).collect()
    }

    /// The blocks that this rank sums, relative to its first row.
    pub(super) fn own_blocks(&self, rows: &RowPartition) -> Vec<Range<usize>> {
        let of = |i| {
            let Range { start, end } = self.grid.row_block(rows.all, i);
            start - rows.own.start..end - rows.own.start
        };
        self.parameters.holding.shards.clone().map(of).collect()
    }

    /// How `all` rows are divided among tensor ranks.
    pub(super) fn rows(&self, all: usize) -> RowPartition {
        let of = |shards: &Range<usize>| {
            self.grid.row_block(all, shards.start).start..self.grid.row_block(all, shards.end - 1).end
        };
        let ranks = 0..self.mesh.tensor;
        let by_rank: Vec<_> = ranks
            .map(|rank| of(&mesh::split_range(self.grid.tensor, self.mesh.tensor, rank)))
            .collect();
        let own = of(&self.parameters.holding.shards);
        RowPartition {
            all,
            held: if self.sequence_parallel { own.clone() } else { 0..all },
            own,
            by_rank,
        }
    }

    /// The first id of a shard of the vocabulary.
    pub(super) fn first_id(&self, shard: usize) -> i64 {
        (shard * (self.parameters.shape.vocabulary / self.grid.tensor)) as i64
    }
}
