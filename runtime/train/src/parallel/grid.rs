//! The logical grid and the fixed summation tree: plain functions of numbers.
//!
//! In: the numbers of shards, lanes, rows and micro-batches. Out: the rows of a block, the micro-batches of a lane, the
//! order of sums. The results hold for any number of workers and threads.

use std::ops::{Add, Range};

use aurora_compiler::fields::Numerics;

/// The grid that defines the order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Logical tensor shards; also the row blocks of replicated tensors' gradients.
    pub tensor: usize,
    /// Logical gradient lanes.
    pub lanes: usize,
    /// Sequences of one micro-batch.
    pub micro_batch: usize,
}

impl Grid {
    /// The grid of a numerics contract.
    pub fn new(numerics: &Numerics) -> Self {
        Self {
            tensor: numerics.tensor as usize,
            lanes: numerics.lanes as usize,
            micro_batch: numerics.micro_batch as usize,
        }
    }

    /// Rows of block `index` out of `tensor` blocks of `rows` rows.
    pub fn row_block(&self, rows: usize, index: usize) -> Range<usize> {
        rows * index / self.tensor..rows * (index + 1) / self.tensor
    }

    /// The micro-batches of a lane, in the order in which they are added, out of `count` in a step.
    pub fn micro_batches(&self, lane: usize, count: usize) -> impl Iterator<Item = usize> + use<> {
        (lane..count).step_by(self.lanes)
    }
}

/// Leaves in the left subtree of a tree over `count > 1` leaves: the largest power of two below `count`.
///
/// For a power of two this adds neighbours: (0+1), (2+3), and so on.
#[inline(always)]
pub fn tree_split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// The tree sum of `count` leaves.
#[inline(always)]
pub fn tree_by<T: Add<Output = T> + Default>(count: usize, leaf: &impl Fn(usize) -> T) -> T {
    fn below<T: Add<Output = T>>(start: usize, count: usize, leaf: &impl Fn(usize) -> T) -> T {
        if count == 1 {
            return leaf(start);
        }
        let half = tree_split(count);
        below(start, half, leaf) + below(start + half, count - half, leaf)
    }
    if count == 0 {
        T::default()
    } else {
        below(0, count, leaf)
    }
}

/// The tree sum of a slice.
pub fn tree_sum<T: Copy + Add<Output = T> + Default>(leaves: &[T]) -> T {
    tree_by(leaves.len(), &|i| leaves[i])
}

/// Adds leaves one after the other in the order of the tree: two subtrees are added as soon as both are complete, so at
/// most log2(leaves) + 1 values exist. A worker sums its block of leaves this way.
#[derive(Debug)]
pub struct TreeAccumulator<T> {
    /// Subtrees and the number of their leaves, largest first.
    held: Vec<(usize, T)>,
}

impl<T> Default for TreeAccumulator<T> {
    fn default() -> Self {
        Self { held: Vec::new() }
    }
}

impl<T> TreeAccumulator<T> {
    /// Adds the next leaf. `join(left, right)` returns the sum of two neighbouring subtrees.
    pub fn push<E>(&mut self, leaf: T, mut join: impl FnMut(T, T) -> Result<T, E>) -> Result<(), E> {
        let (mut count, mut value) = (1, leaf);
        while self.held.last().is_some_and(|(held, _)| *held == count) {
            let Some((_, left)) = self.held.pop() else { break };
            value = join(left, value)?;
            count *= 2;
        }
        self.held.push((count, value));
        Ok(())
    }

    /// The sum of all leaves, if there are any.
    pub fn finish<E>(mut self, mut join: impl FnMut(T, T) -> Result<T, E>) -> Result<Option<T>, E> {
        let Some((_, mut value)) = self.held.pop() else {
            return Ok(None);
        };
        while let Some((_, left)) = self.held.pop() {
            value = join(left, value)?;
        }
        Ok(Some(value))
    }

    /// Number of values that exist.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(left: f32, right: f32) -> Result<f32, ()> {
        Ok(left + right)
    }

    /// A worker's sum of its block of leaves.
    fn block(leaves: &[f32]) -> f32 {
        let mut accumulator = TreeAccumulator::default();
        for &leaf in leaves {
            accumulator.push(leaf, join).unwrap();
            assert!(accumulator.held() <= leaves.len().ilog2() as usize + 1);
        }
        accumulator.finish(join).unwrap().unwrap()
    }

    proptest! {
        /// The sum has the bits of the tree over all leaves, for any number of workers.
        #[test]
        fn the_tree_does_not_depend_on_the_number_of_workers(
            leaves in (0u32..6).prop_flat_map(|log| prop::collection::vec(-1e6f32..1e6, 1 << log)),
        ) {
            let complete = tree_sum(&leaves);
            let mut workers = 1;
            while workers <= leaves.len() {
                let roots: Vec<f32> = leaves.chunks(leaves.len() / workers).map(block).collect();
                prop_assert_eq!(tree_sum(&roots).to_bits(), complete.to_bits());
                workers *= 2;
            }
        }

        /// Adding one leaf after the other gives the same tree for any number of leaves.
        #[test]
        fn accumulation_matches_the_tree(leaves in prop::collection::vec(-1e6f32..1e6, 1..70)) {
            prop_assert_eq!(block(&leaves).to_bits(), tree_sum(&leaves).to_bits());
        }

        #[test]
        fn row_blocks_and_lanes_cover_everything_once(rows in 0usize..500, log in 0u32..5, count in 0usize..60) {
            let grid = Grid { tensor: 1 << log, lanes: 1 << log, micro_batch: 1 };
            let all: Vec<usize> = (0..grid.tensor).flat_map(|i| grid.row_block(rows, i)).collect();
            prop_assert_eq!(all, (0..rows).collect::<Vec<_>>());
            let mut owned: Vec<usize> = (0..grid.lanes).flat_map(|lane| grid.micro_batches(lane, count)).collect();
            owned.sort_unstable();
            prop_assert_eq!(owned, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_tree_adds_neighbours() {
        let leaves: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        let mut accumulator = TreeAccumulator::default();
        let join = |left: String, right: String| Ok::<_, ()>(format!("({left}+{right})"));
        for leaf in leaves {
            accumulator.push(leaf, join).unwrap();
        }
        assert_eq!(accumulator.finish(join).unwrap().unwrap(), "(((0+1)+(2+3))+4)");
        assert!(tree_sum::<f32>(&[]) == 0.0);
        // The order matters: added from left to right this would be 0.
        assert_eq!(
            tree_sum(&[1e8f32, 3.0, -1e8, 3.0]),
            0.0 + ((1e8f32 + 3.0) + (-1e8 + 3.0))
        );
    }
}
