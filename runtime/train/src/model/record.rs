//! Records a digest of every operation's result while a step is traced. Names are logical, the same for every layout.
//!
//! In: results of the model's operations. Out: entries, in any order. A rank records what it holds: shards, its own
//! rows of sums over shards, all rows after an all-gather. Not here: comparisons ([`aurora_runtime::trace`]).

use std::ops::Range;

use aurora_runtime::trace::{Operation, TraceName, TracedRange};
use tch::Tensor;

use super::pass_context::PassContext;
use super::trace_recorder::{TraceRecorder, TraceTarget};
use super::{Chunk, ModelError, Network, OwnedRange, ParameterPart, to_host};

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Network {
    /// Name of a result. `layer` is relative to the first layer on this rank.
    fn name(
        &self,
        target: &TraceTarget<'_>,
        layer: Option<usize>,
        operation: Operation,
        piece: TracedRange,
    ) -> TraceName {
        TraceName {
            micro_batch: Some(number(target.micro_batch)),
            layer: layer.map(|layer| number(self.parameters.holding.layers.start + layer)),
            piece,
            ..target.recorder.name(operation)
        }
    }

    /// Records the result of shard `shard`, relative to the first on this rank.
    pub(super) fn record_shard(
        &self,
        pass: &PassContext<'_>,
        layer: Option<usize>,
        operation: Operation,
        shard: usize,
        result: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(target) = &pass.trace else { return Ok(()) };
        let piece = TracedRange::Shard(number(self.parameters.holding.shards.start + shard));
        target
            .recorder
            .tensor(self.name(target, layer, operation, piece), result)
    }

    /// Records one shard's logits, or their gradient, for a block of rows that starts at `row`.
    pub(super) fn record_logits(
        &self,
        pass: &PassContext<'_>,
        operation: Operation,
        shard: usize,
        row: usize,
        result: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(target) = &pass.trace else { return Ok(()) };
        let shard = number(self.parameters.holding.shards.start + shard);
        let row = number(row);
        target.recorder.tensor(
            self.name(target, None, operation, TracedRange::ShardRows { shard, row }),
            result,
        )
    }

    /// Records all rows by row blocks.
    pub(super) fn record_rows(
        &self,
        pass: &PassContext<'_>,
        layer: Option<usize>,
        operation: Operation,
        all: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(target) = &pass.trace else { return Ok(()) };
        for (block, rows) in self.blocks(pass.workspace.rows()).into_iter().enumerate() {
            let name = self.name(target, layer, operation, TracedRange::Block(number(block)));
            target
                .recorder
                .tensor(name, &all.f_narrow(0, rows.start as i64, rows.len() as i64)?)?;
        }
        Ok(())
    }

    /// Records this rank's own rows by row blocks.
    pub(super) fn record_own(
        &self,
        pass: &PassContext<'_>,
        layer: Option<usize>,
        operation: Operation,
        own: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(target) = &pass.trace else { return Ok(()) };
        let blocks = self.own_blocks(&pass.workspace.rows);
        for (block, rows) in self.parameters.holding.shards.clone().zip(blocks) {
            let name = self.name(target, layer, operation, TracedRange::Block(number(block)));
            target
                .recorder
                .tensor(name, &own.f_narrow(0, rows.start as i64, rows.len() as i64)?)?;
        }
        Ok(())
    }

    /// Records the losses of a micro-batch's rows.
    pub(super) fn record_losses(&self, pass: &PassContext<'_>, losses_t: &Tensor) -> Result<(), ModelError> {
        let Some(target) = &pass.trace else { return Ok(()) };
        let bytes: Vec<u8> = to_host::<f64>(losses_t)?
            .iter()
            .flat_map(|loss| loss.to_le_bytes())
            .collect();
        target
            .recorder
            .add(self.name(target, None, Operation::Losses, TracedRange::Whole), &bytes);
        Ok(())
    }

    /// Records a lane's gradients: shards, and row blocks of replicated parts.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn record_lane(&self, recorder: &TraceRecorder, lane: usize, gradients: &Tensor) -> Result<(), ModelError> {
        let parameters = &self.parameters;
        let flat = to_host::<f32>(gradients)?;
        for (index, part) in parameters.parts.iter().enumerate() {
            let by_blocks = parameters.by_blocks(part);
            for piece in part.gradients.held.clone() {
                let range = part.gradients.range(piece, part.shard_length());
                let piece = if by_blocks {
                    TracedRange::Block(number(piece))
                } else {
                    TracedRange::Shard(number(piece))
                };
                for (tensor, range) in self.accumulators(index, range) {
                    let name = TraceName {
                        lane: Some(number(lane)),
                        tensor: Some(tensor),
                        piece,
                        ..recorder.name(Operation::LaneGradient)
                    };
                    recorder.add_elements(name, &flat[range]);
                }
            }
        }
        Ok(())
    }

    /// Records the sums over lanes: the chunks of `owned`, and the row blocks of replicated parts.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn record_lanes(
        &self,
        recorder: &TraceRecorder,
        owned: &OwnedRange,
        gradients: &Tensor,
    ) -> Result<(), ModelError> {
        let parameters = &self.parameters;
        let flat = to_host::<f32>(gradients)?;
        let name = |tensor: String, piece: TracedRange| TraceName {
            tensor: Some(tensor),
            piece,
            ..recorder.name(Operation::LanesGradient)
        };
        for chunk in &owned.chunks {
            if parameters.by_blocks(&parameters.parts[chunk.part]) {
                continue;
            }
            for (tensor, range) in self.accumulators(chunk.part, chunk.range.clone()) {
                recorder.add_elements(name(tensor, TracedRange::Chunk(number(chunk.number))), &flat[range]);
            }
        }
        for part in parameters.blocked() {
            for block in part.gradients.held.clone() {
                let range = part.gradients.range(block, part.shard_length());
                recorder.add_elements(name(part_name(part), TracedRange::Block(number(block))), &flat[range]);
            }
        }
        Ok(())
    }

    /// Records digests of chunks.
    pub fn record_chunks<'c>(
        &self,
        recorder: &TraceRecorder,
        operation: Operation,
        chunks: impl Iterator<Item = (&'c Chunk, blake3::Hash)>,
    ) {
        for (chunk, digest) in chunks {
            let name = TraceName {
                tensor: Some(part_name(&self.parameters.parts[chunk.part])),
                piece: TracedRange::Chunk(number(chunk.number)),
                ..recorder.name(operation)
            };
            recorder.add_digest(name, digest.to_hex().to_string());
        }
    }

    /// The accumulators that contain a range of a part's gradient. The word embedding has one for its input side (first
    /// pipeline rank) and, if it is tied, one for the output layer (last pipeline rank).
    fn accumulators(&self, part: usize, range: Range<usize>) -> Vec<(String, Range<usize>)> {
        let parameters = &self.parameters;
        let name = part_name(&parameters.parts[part]);
        if part != parameters.word.first {
            return vec![(name, range)];
        }
        let tied = parameters.tied.start + range.start..parameters.tied.start + range.end;
        let as_output = format!("{name} as output layer");
        let mut found = Vec::new();
        if parameters.holding.first {
            found.push((name, range));
        }
        if !parameters.tied.is_empty() {
            found.push((as_output, tied));
        }
        found
    }
}

/// Name of the checkpoint's tensor, with the first row if there are several parts.
fn part_name(part: &ParameterPart) -> String {
    match part.first_row {
        0 => part.tensor.clone(),
        row => format!("{} from row {row} on", part.tensor),
    }
}
