//! The division of a micro-batch's rows among tensor ranks.

use std::ops::Range;

use tch::Tensor;

use super::ModelError;

/// How the rows of a micro-batch are divided among tensor ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowPartition {
    pub all: usize,
    /// Rows of the residual stream on this rank: all, or its own with sequence parallelism.
    pub held: Range<usize>,
    /// This rank's row blocks.
    pub own: Range<usize>,
    /// The own rows of each tensor rank.
    pub by_rank: Vec<Range<usize>>,
}

impl RowPartition {
    /// The own rows of a tensor with the held rows.
    pub fn own_of(&self, held: &Tensor) -> Result<Tensor, ModelError> {
        let start = self.own.start - self.held.start;
        Ok(held.f_narrow(0, start as i64, self.own.len() as i64)?)
    }

    /// The own rows of a tensor with all rows.
    pub fn own_of_all(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        Ok(all.f_narrow(0, self.own.start as i64, self.own.len() as i64)?)
    }

    /// The held rows of a tensor with all rows.
    pub fn held_of_all(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        Ok(all.f_narrow(0, self.held.start as i64, self.held.len() as i64)?)
    }

    /// Whether this rank holds its own rows only.
    pub fn holds_own_only(&self) -> bool {
        self.held.len() < self.all
    }
}
