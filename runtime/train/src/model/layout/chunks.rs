//! Chunks: the pieces of optimizer work, of the gradient norm, of digests and of checkpoint writing.
//!
//! A chunk is some elements of one logical shard and has a number that is the same on every rank of every mesh. Sums
//! over chunks are taken in the order of these numbers.

use std::ops::Range;

use super::{Holding, Layout, Part, Shape, Split};
use crate::parallel::Mesh;

/// Elements of a chunk, at most.
pub const CHUNK: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the order (part, shard, chunk) of the whole model.
    pub number: usize,
    /// Place in [`Layout::parts`].
    pub part: usize,
    pub shard: usize,
    /// Elements of the shard.
    pub of_shard: Range<usize>,
    /// The same elements in a buffer of weights.
    pub range: Range<usize>,
}

/// What one data-parallel replica does of a rank's optimizer work: chunks of the word embedding (which the first and
/// last stage cut alike), and of the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub chunks: Vec<Chunk>,
    /// The chunks' elements and what lies between, in a buffer of weights; both may be empty.
    pub word: Range<usize>,
    pub rest: Range<usize>,
}

impl Part {
    /// Chunks of all its shards, wherever they are.
    pub fn num_chunks(&self) -> usize {
        self.shards * self.shard_length().div_ceil(CHUNK)
    }
}

impl Layout {
    /// The chunks held here, in order.
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

    /// Chunks of the whole model.
    pub fn num_chunks(&self) -> usize {
        self.parts.iter().map(Part::num_chunks).sum()
    }

    /// The share of replica `index` of `replicas`.
    pub fn share(&self, replicas: usize, index: usize) -> Share {
        let mut chunks = self.chunks();
        // As they stand in the buffer, which is another order where parts are fused: a share is one stretch of it.
        chunks.sort_unstable_by_key(|chunk| chunk.range.start);
        let (word, rest): (Vec<Chunk>, Vec<Chunk>) =
            chunks.into_iter().partition(|chunk| chunk.part == self.word.first);
        // By elements, not by chunks: those of norms and biases are small.
        let cut = |chunks: &[Chunk]| -> Vec<Chunk> {
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
        let (word, rest) = (cut(&word), cut(&rest));
        Share {
            word: bounds(&word),
            rest: bounds(&rest),
            chunks: word.into_iter().chain(rest).collect(),
        }
    }
}

impl Share {
    /// Elements of a buffer that holds nothing but this share.
    pub fn length(&self) -> usize {
        self.word.len() + self.rest.len()
    }

    /// Where a range of a buffer of weights stands in a buffer of this share alone.
    pub fn inside(&self, range: &Range<usize>) -> Range<usize> {
        let start = if self.word.contains(&range.start) {
            range.start - self.word.start
        } else {
            range.start - self.rest.start + self.word.len()
        };
        start..start + range.len()
    }
}

/// The chunks that `rank` speaks for: those of its share that no other rank speaks for. Over all ranks of a mesh every
/// chunk has one speaker.
pub fn reported(shape: &Shape, of: &Mesh, rank: usize) -> Vec<Chunk> {
    let at = of.coordinates(rank);
    let holding = Holding::new(shape, of, rank);
    let word_is_elsewhere = !holding.first;
    let layout = Layout::new(*shape, holding);
    let own = |chunk: &Chunk| {
        let replicated = layout.parts[chunk.part].split == Split::Replicated;
        (!replicated || at.tensor == 0) && !(chunk.part == layout.word.first && word_is_elsewhere)
    };
    layout.share(of.data, at.data).chunks.into_iter().filter(own).collect()
}
