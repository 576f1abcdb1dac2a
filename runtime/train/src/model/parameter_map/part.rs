//! A part of a model's parameters: a tensor of the checkpoint, or some of its rows, and where its logical shards are.

use std::ops::Range;

/// How a tensor is divided into logical shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharding {
    /// Each shard holds some rows (outputs): column-parallel layers and the vocabulary.
    Rows,
    /// Each shard holds some columns (inputs): row-parallel layers.
    Columns,
    /// One shard with all elements.
    Replicated,
}

/// Where the shards of a part, or the row blocks of its gradient, are in a flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardOffsets {
    /// The shards or blocks in this buffer.
    pub held: Range<usize>,
    /// Offset of the first; the others follow at `stride`.
    pub offset: usize,
    pub stride: usize,
}

impl ShardOffsets {
    /// Elements of shard or block `index`, which has `length` of them.
    pub fn range(&self, index: usize, length: usize) -> Range<usize> {
        let start = self.offset + (index - self.held.start) * self.stride;
        start..start + length
    }
}

/// A parameter, or the rows of a checkpoint's tensor that are sharded in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterPart {
    /// The checkpoint's tensor, and the first row of this part.
    pub tensor: String,
    pub first_row: usize,
    pub rows: usize,
    /// 0 for a vector.
    pub columns: usize,
    pub split: Sharding,
    /// Logical shards on all ranks.
    pub shards: usize,
    /// In a buffer of weights, or of gradients whose row blocks have been added.
    pub weights: ShardOffsets,
    /// In a lane's buffer of gradients: shards, or row blocks if the part is replicated.
    pub gradients: ShardOffsets,
}

impl ParameterPart {
    /// Elements of one shard.
    pub fn shard_length(&self) -> usize {
        self.rows * self.columns.max(1) / self.shards
    }

    /// Elements of shard `index`, which this rank holds, in a buffer of weights.
    pub fn shard(&self, index: usize) -> Range<usize> {
        self.weights.range(index, self.shard_length())
    }

    /// Whether weight decay applies: to matrices only.
    pub fn decays(&self) -> bool {
        self.columns > 0
    }

    /// Elements of the checkpoint's tensor before this part.
    pub fn first_element(&self) -> usize {
        self.first_row * self.columns.max(1)
    }

    /// The contiguous ranges of the checkpoint's tensor that contain elements `range` of shard `index`: offset in the
    /// tensor, and the elements of the shard.
    pub fn tensor_ranges(
        &self,
        index: usize,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (length, step, first) = match self.split {
            // One range: the shard is contiguous in the tensor.
            Sharding::Rows | Sharding::Replicated => (
                self.shard_length().max(1),
                self.shard_length(),
                self.first_element() + index * self.shard_length(),
            ),
            Sharding::Columns => {
                let width = self.columns / self.shards;
                (width, self.columns, self.first_element() + index * width)
            }
        };
        (range.start / length..range.end.div_ceil(length)).map(move |row| {
            let own = range.start.max(row * length)..range.end.min((row + 1) * length);
            (first + row * step + (own.start - row * length), own)
        })
    }
}
