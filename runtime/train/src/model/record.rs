//! Records what every operation gives while a step is traced: digests by logical names, the same under every layout.
//!
//! In: tensors as the model's arithmetic leaves them. Out: entries, in any order. A rank records what it holds: shards,
//! its own rows of sums over shards, all rows of what it has gathered. Not here: comparing ([`aurora_runtime::trace`]).

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_runtime::trace::{Entry, Name, Operation, Piece};
use tch::{Device, Tensor};

use super::network::Pass;
use super::{Chunk, ModelError, Network, Part, Share};

/// What one rank records; its threads share it.
#[derive(Debug, Default)]
pub struct Recorder {
    step: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

/// A micro-batch, and where its results go.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    pub recorder: &'a Recorder,
    /// Its place in the batch.
    pub micro_batch: usize,
}

impl Recorder {
    /// Begins the step after which so many steps of the stage are done.
    pub fn begin(&self, step: u64) {
        self.step.store(step, Ordering::SeqCst);
    }

    /// The name of an operation's whole result in the present step.
    pub fn name(&self, operation: Operation) -> Name {
        Name::new(self.step.load(Ordering::SeqCst), operation)
    }

    pub fn add(&self, name: Name, bytes: &[u8]) {
        self.put(name, blake3::hash(bytes).to_hex().to_string());
    }

    /// Takes a digest that has been made elsewhere.
    pub fn put(&self, name: Name, digest: String) {
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.push(Entry { name, digest });
    }

    /// Numbers on the CPU, as they stand in memory.
    pub fn numbers(&self, name: Name, numbers: &[f32]) {
        self.add(name, &aurora_runtime::checkpoint::as_bytes(numbers));
    }

    /// # Errors
    /// [`ModelError::Torch`] if it cannot be brought to the CPU.
    fn tensor(&self, name: Name, tensor: &Tensor) -> Result<(), ModelError> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
        // SAFETY: a contiguous tensor on the CPU has so many initialised bytes there as long as it lives.
        let bytes = match length {
            0 => &[][..],
            _ => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) },
        };
        self.add(name, bytes);
        Ok(())
    }

    /// Everything recorded so far.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Network {
    /// `layer` counts from the first that stands here.
    fn name(&self, spot: &Spot<'_>, layer: Option<usize>, operation: Operation, piece: Piece) -> Name {
        Name {
            micro_batch: Some(number(spot.micro_batch)),
            layer: layer.map(|layer| number(self.layout.holding.layers.start + layer)),
            piece,
            ..spot.recorder.name(operation)
        }
    }

    /// Records the result of shard `shard`, counted from the first that stands here.
    pub(super) fn record_shard(
        &self,
        pass: &Pass<'_>,
        layer: Option<usize>,
        operation: Operation,
        shard: usize,
        result: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(spot) = &pass.spot else { return Ok(()) };
        let piece = Piece::Shard(number(self.layout.holding.shards.start + shard));
        spot.recorder.tensor(self.name(spot, layer, operation, piece), result)
    }

    /// Records one shard's logits, or their gradient, of the rows from `row` on.
    pub(super) fn record_logits(
        &self,
        pass: &Pass<'_>,
        operation: Operation,
        shard: usize,
        row: usize,
        result: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(spot) = &pass.spot else { return Ok(()) };
        let shard = number(self.layout.holding.shards.start + shard);
        let row = number(row);
        spot.recorder.tensor(
            self.name(spot, None, operation, Piece::ShardRows { shard, row }),
            result,
        )
    }

    /// Records all rows, by the blocks of the grid.
    pub(super) fn record_rows(
        &self,
        pass: &Pass<'_>,
        layer: Option<usize>,
        operation: Operation,
        all: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(spot) = &pass.spot else { return Ok(()) };
        for (block, rows) in self.blocks(pass.workspace.rows()).into_iter().enumerate() {
            let name = self.name(spot, layer, operation, Piece::Block(number(block)));
            spot.recorder
                .tensor(name, &all.f_narrow(0, rows.start as i64, rows.len() as i64)?)?;
        }
        Ok(())
    }

    /// Records this rank's own rows, by the blocks of the grid.
    pub(super) fn record_own(
        &self,
        pass: &Pass<'_>,
        layer: Option<usize>,
        operation: Operation,
        own: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(spot) = &pass.spot else { return Ok(()) };
        let blocks = self.own_blocks(&pass.workspace.rows);
        for (block, rows) in self.layout.holding.shards.clone().zip(blocks) {
            let name = self.name(spot, layer, operation, Piece::Block(number(block)));
            spot.recorder
                .tensor(name, &own.f_narrow(0, rows.start as i64, rows.len() as i64)?)?;
        }
        Ok(())
    }

    /// Records the losses of a micro-batch's rows.
    pub(super) fn record_losses(&self, pass: &Pass<'_>, losses: &[f64]) {
        let Some(spot) = &pass.spot else { return };
        let bytes: Vec<u8> = losses.iter().flat_map(|loss| loss.to_le_bytes()).collect();
        spot.recorder
            .add(self.name(spot, None, Operation::Losses, Piece::Whole), &bytes);
    }

    /// Records a lane's gradients: shards, and row blocks of replicated parts.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn record_lane(&self, recorder: &Recorder, lane: usize, gradients: &Tensor) -> Result<(), ModelError> {
        let (layout, flat) = (&self.layout, super::elements::<f32>(gradients)?);
        for (index, part) in layout.parts.iter().enumerate() {
            let by_blocks = layout.by_blocks(part);
            for piece in part.gradients.held.clone() {
                let range = part.gradients.piece(piece, part.shard_length());
                let piece = if by_blocks {
                    Piece::Block(number(piece))
                } else {
                    Piece::Shard(number(piece))
                };
                for (tensor, range) in self.accumulators(index, range) {
                    let name = Name {
                        lane: Some(number(lane)),
                        tensor: Some(tensor),
                        piece,
                        ..recorder.name(Operation::LaneGradient)
                    };
                    recorder.numbers(name, &flat[range]);
                }
            }
        }
        Ok(())
    }

    /// Records the sums over lanes: the chunks of `share`, and the row blocks of replicated parts.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn record_lanes(&self, recorder: &Recorder, share: &Share, gradients: &Tensor) -> Result<(), ModelError> {
        let (layout, flat) = (&self.layout, super::elements::<f32>(gradients)?);
        let name = |tensor: String, piece: Piece| Name {
            tensor: Some(tensor),
            piece,
            ..recorder.name(Operation::LanesGradient)
        };
        for chunk in &share.chunks {
            if layout.by_blocks(&layout.parts[chunk.part]) {
                continue;
            }
            for (tensor, range) in self.accumulators(chunk.part, chunk.range.clone()) {
                recorder.numbers(name(tensor, Piece::Chunk(number(chunk.number))), &flat[range]);
            }
        }
        for part in layout.blocked() {
            for block in part.gradients.held.clone() {
                let range = part.gradients.piece(block, part.shard_length());
                recorder.numbers(name(part_name(part), Piece::Block(number(block))), &flat[range]);
            }
        }
        Ok(())
    }

    /// Records chunks whose digests are given by their numbers.
    pub fn record_chunks<'c>(
        &self,
        recorder: &Recorder,
        operation: Operation,
        chunks: impl Iterator<Item = (&'c Chunk, blake3::Hash)>,
    ) {
        for (chunk, digest) in chunks {
            let name = Name {
                tensor: Some(part_name(&self.layout.parts[chunk.part])),
                piece: Piece::Chunk(number(chunk.number)),
                ..recorder.name(operation)
            };
            recorder.put(name, digest.to_hex().to_string());
        }
    }

    /// Where a range of a part's gradient stands. The word embedding may have two accumulators, or, on the last stage,
    /// the output layer's alone.
    fn accumulators(&self, part: usize, range: Range<usize>) -> Vec<(String, Range<usize>)> {
        let layout = &self.layout;
        let name = part_name(&layout.parts[part]);
        if part != layout.word.first {
            return vec![(name, range)];
        }
        let tied = layout.tied.start + range.start..layout.tied.start + range.end;
        let as_output = format!("{name} as output layer");
        let mut found = Vec::new();
        if layout.holding.first {
            found.push((name, range));
        }
        if !layout.tied.is_empty() {
            found.push((as_output, tied));
        }
        found
    }
}

/// The checkpoint's tensor, and the rows that tell parts of one tensor apart.
fn part_name(part: &Part) -> String {
    match part.first_row {
        0 => part.tensor.clone(),
        row => format!("{} from row {row} on", part.tensor),
    }
}
