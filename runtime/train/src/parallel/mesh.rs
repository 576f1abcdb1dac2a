//! Ranks and their coordinates on the mesh: plain arithmetic.
//!
//! Rank order: the tensor axis varies fastest, then data, then pipeline, as in Megatron-LM, so that ranks that
//! communicate most are adjacent.

use std::ops::Range;

/// Degrees of the three mesh axes. `world = tensor × data × pipeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    pub tensor: usize,
    pub data: usize,
    pub pipeline: usize,
}

/// Coordinates of a rank on each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates {
    pub tensor: usize,
    pub data: usize,
    pub pipeline: usize,
}

impl Mesh {
    /// One worker.
    pub const ONE: Self = Self {
        tensor: 1,
        data: 1,
        pipeline: 1,
    };

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.tensor * self.data * self.pipeline
    }

    /// Coordinates of a rank, which is below [`Mesh::world`].
    pub fn coordinates(&self, rank: usize) -> Coordinates {
        Coordinates {
            tensor: rank % self.tensor,
            data: rank / self.tensor % self.data,
            pipeline: rank / (self.tensor * self.data),
        }
    }

    /// The rank with the given coordinates.
    pub fn rank(&self, at: Coordinates) -> usize {
        (at.pipeline * self.data + at.data) * self.tensor + at.tensor
    }

    /// The ranks that differ from `at` at most on the tensor axis, in its order.
    pub fn tensor_ranks(&self, at: Coordinates) -> Vec<usize> {
        let of = |tensor| self.rank(Coordinates { tensor, ..at });
        (0..self.tensor).map(of).collect()
    }

    /// As [`Mesh::tensor_ranks`], on the data axis.
    pub fn data_ranks(&self, at: Coordinates) -> Vec<usize> {
        let of = |data| self.rank(Coordinates { data, ..at });
        (0..self.data).map(of).collect()
    }

    /// The rank with the same coordinates on another pipeline rank.
    pub fn on_pipeline_rank(&self, at: Coordinates, pipeline: usize) -> usize {
        self.rank(Coordinates { pipeline, ..at })
    }
}

/// The `index`-th of `parts` contiguous ranges of `0..count`, whose lengths differ by one at most; longer ones come
/// last.
pub fn split_range(count: usize, parts: usize, index: usize) -> Range<usize> {
    count * index / parts..count * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn coordinates_have_one_rank(tensor in 1usize..5, data in 1usize..5, pipeline in 1usize..5) {
            let mesh = Mesh { tensor, data, pipeline };
            for rank in 0..mesh.world() {
                let at = mesh.coordinates(rank);
                prop_assert!(at.tensor < tensor && at.data < data && at.pipeline < pipeline);
                prop_assert_eq!(mesh.rank(at), rank);
                let tensors = mesh.tensor_ranks(at);
                // The ranks of a tensor group are adjacent.
                prop_assert!(tensors.windows(2).all(|pair| pair[1] == pair[0] + 1));
                prop_assert_eq!(tensors[at.tensor], rank);
                prop_assert_eq!(mesh.data_ranks(at)[at.data], rank);
                prop_assert_eq!(mesh.on_pipeline_rank(at, at.pipeline), rank);
            }
        }

        #[test]
        fn ranges_cover_everything_once(count in 0usize..100, parts in 1usize..9) {
            let all: Vec<usize> = (0..parts).flat_map(|i| split_range(count, parts, i)).collect();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
