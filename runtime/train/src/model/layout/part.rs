//! A part of the model: a tensor of the checkpoint, or some of its rows, and where its logical shards stand.

use std::ops::Range;

/// How a tensor is cut into logical shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each shard holds some rows (outputs): column-parallel layers and the vocabulary.
    Rows,
    /// Each shard holds some columns (inputs): row-parallel layers.
    Columns,
    /// There is one shard, and it is whole.
    Replicated,
}

/// Where the pieces of a part stand in a flat buffer: its shards, or the row blocks of its gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which pieces stand here.
    pub held: Range<usize>,
    /// Place of the first of them; the next ones follow at `stride`.
    pub offset: usize,
    pub stride: usize,
}

impl Place {
    /// Where piece `index`, of `length` elements, stands.
    pub fn piece(&self, index: usize, length: usize) -> Range<usize> {
        let start = self.offset + (index - self.held.start) * self.stride;
        start..start + length
    }
}

/// A parameter, or the part of a checkpoint's tensor that is cut in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The checkpoint's tensor, and the first of its rows that belong here.
    pub tensor: String,
    pub first_row: usize,
    pub rows: usize,
    /// 0 for a vector.
    pub columns: usize,
    pub split: Split,
    /// Logical shards of the whole part, wherever they are.
    pub shards: usize,
    /// In a buffer of weights, or of gradients that have been joined.
    pub weights: Place,
    /// In a lane's buffer of gradients: shards, or row blocks of a replicated part.
    pub gradients: Place,
}

impl Part {
    /// Elements of one shard.
    pub fn shard_length(&self) -> usize {
        self.rows * self.columns.max(1) / self.shards
    }

    /// Where shard `index`, which is held here, stands in a buffer of weights.
    pub fn shard(&self, index: usize) -> Range<usize> {
        self.weights.piece(index, self.shard_length())
    }

    /// Weight decay is for matrices only.
    pub fn decays(&self) -> bool {
        self.columns > 0
    }

    /// Elements of the part in the checkpoint's tensor before its own.
    pub fn first_element(&self) -> usize {
        self.first_row * self.columns.max(1)
    }

    /// The runs of the checkpoint's tensor that elements `range` of shard `index` stand in: place in the tensor, and the
    /// elements of the shard.
    pub fn runs(&self, index: usize, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (run, step, first) = match self.split {
            // One run: the shard is contiguous in the tensor.
            Split::Rows | Split::Replicated => (
                self.shard_length().max(1),
                self.shard_length(),
                self.first_element() + index * self.shard_length(),
            ),
            Split::Columns => {
                let width = self.columns / self.shards;
                (width, self.columns, self.first_element() + index * width)
            }
        };
        (range.start / run..range.end.div_ceil(run)).map(move |row| {
            let own = range.start.max(row * run)..range.end.min((row + 1) * run);
            (first + row * step + (own.start - row * run), own)
        })
    }
}
