//! Chunks: the units of the optimizer update, the gradient norm, weight digests and checkpoint writing.
//!
//! A chunk is a range of one logical shard and has a number that is the same on every rank of every mesh. Sums over
//! chunks are taken in the order of these numbers.

use std::ops::Range;

use super::{Holding, ModelShape, ParameterMap, ParameterPart, Sharding};
use crate::parallel::Mesh;

/// Elements of a chunk, at most.
pub const CHUNK: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position in the order (part, shard, chunk) of the complete model.
    pub number: usize,
    /// Index into [`ParameterMap::parts`].
    pub part: usize,
    pub shard: usize,
    /// Elements within the shard.
    pub of_shard: Range<usize>,
    /// The same elements in a buffer of weights.
    pub range: Range<usize>,
}

/// The chunks that one data-parallel replica reduces and updates: a range of the word embedding (the same on the first
/// and last pipeline rank), and a range of all other parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRange {
    pub chunks: Vec<Chunk>,
    /// Elements of the chunks and padding between them, in a buffer of weights; both may be empty.
    pub word: Range<usize>,
    pub rest: Range<usize>,
}

impl ParameterPart {
    /// Chunks of all shards, on all ranks.
    pub fn num_chunks(&self) -> usize {
        self.shards * self.shard_length().div_ceil(CHUNK)
    }
}

impl ParameterMap {
    /// The chunks on this rank, in order.
    pub fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut number = 0;
        for (index, part) in self.parts.iter().enumerate() {
            let length = part.shard_length();
            let each = part.num_chunks() / part.shards;
            for shard in part.weights.held.clone() {
                let start = part.shard(shard).start;
                chunks.extend((0..each).map(|i| {
                    let of_shard = i * CHUNK..length.min((i + 1) * CHUNK);
                    Chunk {
                        number: number + shard * each + i,
                        part: index,
                        shard,
                        range: start + of_shard.start..start + of_shard.end,
                        of_shard,
                    }
                }));
            }
            number += part.num_chunks();
        }
        chunks
    }

    /// Chunks of the complete model.
    pub fn num_chunks(&self) -> usize {
        self.parts.iter().map(ParameterPart::num_chunks).sum()
    }

    /// The range of replica `index` out of `replicas`.
    pub fn owned_range(&self, replicas: usize, index: usize) -> OwnedRange {
        let mut chunks = self.chunks();
        // In the order of the buffer, which differs if parts are fused: the result is one contiguous range.
        chunks.sort_unstable_by_key(|chunk| chunk.range.start);
        let (word, rest): (Vec<Chunk>, Vec<Chunk>) =
            chunks.into_iter().partition(|chunk| chunk.part == self.word.first);
        // By elements, not by chunks: chunks of norms and biases are small.
        let own_chunks = |chunks: &[Chunk]| -> Vec<Chunk> {
            let total: usize = chunks.iter().map(|chunk| chunk.range.len()).sum();
            let mut before = 0;
            let own = |chunk: &&Chunk| {
                let middle = before + chunk.range.len() / 2;
                before += chunk.range.len();
                middle * replicas / total == index
            };
            chunks.iter().filter(own).cloned().collect()
        };
        let bounds = |chunks: &[Chunk]| match (chunks.first(), chunks.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => 0..0,
        };
        let (word, rest) = (own_chunks(&word), own_chunks(&rest));
        OwnedRange {
            word: bounds(&word),
            rest: bounds(&rest),
            chunks: word.into_iter().chain(rest).collect(),
        }
    }
}

impl OwnedRange {
    /// Elements of a buffer for this range alone.
    pub fn length(&self) -> usize {
        self.word.len() + self.rest.len()
    }

    /// Maps a range of a buffer of weights to a buffer for this range alone.
    pub fn local(&self, range: &Range<usize>) -> Range<usize> {
        let start = if self.word.contains(&range.start) {
            range.start - self.word.start
        } else {
            range.start - self.rest.start + self.word.len()
        };
        start..start + range.len()
    }
}

/// The chunks that `rank` counts, digests and writes: those of its range that no other rank reports. Every chunk is
/// reported by exactly one rank of a mesh.
pub fn reported(shape: &ModelShape, of: &Mesh, rank: usize) -> Vec<Chunk> {
    let at = of.coordinates(rank);
    let holding = Holding::new(shape, of, rank);
    let word_elsewhere = !holding.first;
    let parameters = ParameterMap::new(*shape, holding);
    let own = |chunk: &Chunk| {
        let replicated = parameters.parts[chunk.part].split == Sharding::Replicated;
        (!replicated || at.tensor == 0) && !(chunk.part == parameters.word.first && word_elsewhere)
    };
    parameters
        .owned_range(of.data, at.data)
        .chunks
        .into_iter()
        .filter(own)
        .collect()
}
