//! Memory of each worker in training, calculated from a model's shape and a layout.
//!
//! In: a training node's fields and a layout. Out: bytes by purpose, for each pipeline rank. They cover the
//! buffers that the runtime keeps from step to step. Not here: temporary buffers of kernels, and libtorch itself.

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::{Architecture, ModelFields, Numerics, Precision, TrainFields};
use crate::layout::{LayerCosts, Layout, Recompute};

/// Rows whose logits the runtime computes at a time.
pub const HEAD_ROWS: u64 = 1024;

/// Memory of one rank, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Memory {
    /// In the precision that the model computes with.
    pub weights: u64,
    /// In `f32`: one lane's gradient, times the number of gradient buffers of all threads.
    pub gradients: u64,
    /// Two moments, and `f32` weights if the model does not compute in `f32`.
    pub optimizer: u64,
    /// Kept by forward passes for their backward passes, for all micro-batches in flight.
    pub activations: u64,
    /// Scratch of forward and backward passes, logits included.
    pub scratch: u64,
    /// Receive and send buffers.
    pub transfers: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        let purposes = [
            self.weights,
            self.gradients,
            self.optimizer,
            self.activations,
            self.scratch,
            self.transfers,
        ];
        purposes.into_iter().fold(0, u64::saturating_add)
    }
}

/// The logical grid that fixes the order of a node's sums.
struct Grid {
    tensor: u128,
    lanes: u128,
    micro_batch: u128,
}

impl Grid {
    fn new(numerics: &Numerics) -> Self {
        let [tensor, lanes, micro_batch] = [numerics.tensor, numerics.lanes, numerics.micro_batch].map(u128::from);
        Self {
            tensor,
            lanes,
            micro_batch,
        }
    }
}

/// The weights on one rank, in elements.
struct RankWeights {
    /// Word embedding: on the first pipeline rank, and on the last one if it is tied.
    word: u128,
    /// All weights.
    weights: u128,
    /// Weights that every tensor rank holds completely; their gradients are summed by row blocks.
    blocked: u128,
}

/// Widths of a model's layers.
struct Widths {
    hidden: u128,
    head_size: u128,
    /// Outputs of the key and value projection, if shards have it in common; else 0.
    shared: u128,
    /// Outputs of the projections that are split into shards: queries, and keys and values unless `shared`.
    projected: u128,
    /// Outputs of the first feed-forward product; doubled by gates.
    up: u128,
    feed_forward: u128,
    biased: bool,
}

impl Widths {
    fn new(model: &ModelFields, grid: &Grid) -> Self {
        let [hidden, heads, kv_heads, feed_forward] =
            [model.hidden, model.heads, model.kv_heads, model.feed_forward].map(u128::from);
        let bigcode = model.architecture == Architecture::GptBigcode;
        let head_size = hidden / heads.max(1);
        let keys = 2 * kv_heads * head_size;
        let own = if bigcode {
            kv_heads == heads
        } else {
            kv_heads.is_multiple_of(grid.tensor)
        };
        Self {
            hidden,
            head_size,
            shared: if own { 0 } else { keys },
            projected: hidden + if own { keys } else { 0 },
            up: if bigcode { feed_forward } else { 2 * feed_forward },
            feed_forward,
            biased: bigcode,
        }
    }

    fn on_rank(&self, model: &ModelFields, layers: u128, first: bool, last: bool, tensor: u128) -> RankWeights {
        let h = self.hidden;
        let bias = u128::from(self.biased);
        let norm = h * (1 + bias);
        let split = (self.projected * (h + bias) + h * h + self.up * (h + bias) + self.feed_forward * h) / tensor;
        // Two norms, shared keys and values, and the biases added after the two sums over shards.
        let blocked = layers * (2 * norm + self.shared * (h + bias) + 2 * h * bias) + if last { norm } else { 0 };
        let vocabulary = u128::from(model.vocabulary) * h / tensor;
        let tied = model.tied_embeddings;
        let word = if first || (last && tied) { vocabulary } else { 0 };
        let positions = if first && model.rotary_base.is_none() {
            u128::from(model.context) * h
        } else {
            0
        };
        let output = if last && !tied { vocabulary } else { 0 };
        RankWeights {
            word,
            weights: word + positions + layers * split + blocked + output,
            blocked,
        }
    }
}

/// Calculates the memory of a rank with this pipeline rank. It is the same for all tensor ranks and replicas.
///
/// Assumes that degrees divide what they split, which `check` ensures.
pub fn memory(fields: &TrainFields, layout: &Layout, pp_rank: u32) -> Memory {
    let model = &fields.model;
    let grid = Grid::new(&fields.numerics);
    let [tensor, pipeline, data] = [layout.tensor, layout.pipeline, layout.data].map(|n| u128::from(n.max(1)));
    let element = if fields.precision == Precision::F32 { 4 } else { 2 };
    let layers = LayerCosts::of(model).layers_of(layout.pipeline, pp_rank).len() as u128;
    let pp_rank = u128::from(pp_rank);
    let (first, last) = (pp_rank == 0, pp_rank + 1 == pipeline);
    let widths = Widths::new(model, &grid);
    let on_rank = widths.on_rank(model, layers, first, last, tensor);
    let shards = (grid.tensor / tensor).max(1);
    let tied = if model.tied_embeddings && last { on_rank.word } else { 0 };
    let gradient = on_rank.weights + on_rank.blocked * shards + tied;

    // Each thread has a complete subtree of the rank's lanes, and a buffer for each level of it.
    let lanes = (grid.lanes / data).max(1);
    let threads = 1 << u128::from(layout.threads.max(1)).min(lanes).ilog2();
    let buffers = u128::from((lanes / threads).max(1).ilog2()) + 1;

    let distributed = layout.distributed_optimizer && data > 1;
    let kept = if distributed {
        on_rank.weights.div_ceil(data)
    } else {
        on_rank.weights
    };
    let master = if fields.precision == Precision::F32 { 0 } else { kept };

    let per_thread = PerThread::new(fields, layout, &grid, &widths, last);
    let micro_batches = u128::from(fields.global_batch) / grid.micro_batch.max(1);
    let each = micro_batches.div_ceil(grid.lanes.max(1)) * lanes.div_ceil(threads);
    let slots = (pipeline - pp_rank).min(each).max(1);

    // Gradients received from other replicas for this one's range, and the tied embedding's from the other end.
    let replicas = (data - 1) * (on_rank.weights + tied).div_ceil(data);
    let end = if pipeline > 1 && model.tied_embeddings {
        on_rank.word.div_ceil(data)
    } else {
        0
    };
    // Rows sent to and received from neighbouring pipeline ranks.
    let neighbours = 2 * u128::from(!first) + u128::from(!last);
    Memory {
        weights: bytes(on_rank.weights * element),
        gradients: bytes(4 * gradient * buffers * threads),
        optimizer: bytes(4 * (master + 2 * kept)),
        activations: bytes(threads * per_thread.activations(slots, layout.recompute, layers)),
        scratch: bytes(threads * per_thread.scratch(layout.recompute)),
        transfers: bytes(
            4 * (replicas + end) + threads * (per_thread.transfers + neighbours * per_thread.own * widths.hidden * 4),
        ),
    }
}

/// Saturates at 64 bits: no machine has that much memory.
fn bytes(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Buffers of one thread for its micro-batches, in bytes.
struct PerThread {
    /// Rows of the residual stream that only this rank sums (a count, not bytes).
    own: u128,
    /// One layer's input.
    input: u128,
    /// Other tensors that a layer's attention and norms keep.
    kept: u128,
    /// Inputs of a layer's activation.
    z: u128,
    /// Scratch that does not depend on recomputation.
    fixed: u128,
    transfers: u128,
}

impl PerThread {
    fn new(fields: &TrainFields, layout: &Layout, grid: &Grid, widths: &Widths, last: bool) -> Self {
        let &Widths {
            hidden,
            head_size,
            shared,
            projected,
            up,
            feed_forward,
            ..
        } = widths;
        let element = if fields.precision == Precision::F32 { 4 } else { 2 };
        let tensor = u128::from(layout.tensor).max(1);
        let rows = grid.micro_batch * u128::from(fields.sequence);
        let own = rows / tensor;
        let stream = if layout.sequence_parallel { own } else { rows };
        let shards = (grid.tensor / tensor).max(1);
        let input = stream * hidden * 4;
        let heads = u128::from(fields.model.heads) / tensor;
        // Projections, the output of attention and its log-sum-exps; the residual stream after it; statistics of two norms.
        let attention = rows * (projected / tensor + shared + hidden / tensor) * element + rows * heads * 4;
        let width = feed_forward / grid.tensor.max(1);
        let one_up = up / grid.tensor.max(1);
        let one_attention = hidden / grid.tensor.max(1);
        let vocabulary = if last {
            u128::from(fields.model.vocabulary) / tensor
        } else {
            0
        };
        let gated = if up == feed_forward { 0 } else { width };
        let rotary = if fields.model.rotary_base.is_some() {
            u128::from(fields.sequence) * head_size * 4
        } else {
            0
        };
        let forward = 2 * stream * 4
            + rows * (hidden + width + shards * hidden) * element
            + rows.min(u128::from(HEAD_ROWS)) * vocabulary * element
            + rotary;
        let cast = if fields.precision == Precision::F32 {
            0
        } else {
            rows * hidden * element
        };
        let pair = if shared > 0 { 2 * head_size } else { 0 };
        let backward = rows * hidden * 4
            + cast
            + own * hidden * (4 + element)
            + rows * (one_up + gated + one_attention) * element
            + shards * rows * pair * 4
            + own * shared * (4 + element);
        let exchanged = if tensor > 1 {
            (rows + (tensor - 1) * own) * (hidden + shared) * 4
        } else {
            0
        };
        Self {
            own,
            input,
            kept: attention + input + 4 * stream * 4,
            z: rows * up / tensor * element,
            fixed: forward + backward,
            transfers: exchanged,
        }
    }

    fn activations(&self, slots: u128, recompute: Recompute, layers: u128) -> u128 {
        let a_layer = match recompute {
            Recompute::None => self.kept + self.z,
            Recompute::Selective => self.kept,
            Recompute::Full => 0,
        };
        slots * ((layers + 1) * self.input + layers * a_layer)
    }

    /// Includes what is recomputed, for one layer at a time.
    fn scratch(&self, recompute: Recompute) -> u128 {
        self.fixed
            + match recompute {
                Recompute::None => 0,
                Recompute::Selective => self.z,
                Recompute::Full => self.kept + self.z,
            }
    }
}

/// The memory of the pipeline ranks that differ: the first, the one in the middle that needs most, the last.
pub fn by_pipeline_rank(fields: &TrainFields, layout: &Layout) -> Vec<(u32, Memory)> {
    let pp_ranks = layout.pipeline.max(1);
    let of = |pp_rank: u32| (pp_rank, memory(fields, layout, pp_rank));
    let middle = (1..pp_ranks.saturating_sub(1))
        .map(of)
        .max_by_key(|(pp_rank, memory)| (memory.total(), u32::MAX - pp_rank));
    let last = (pp_ranks > 1).then(|| of(pp_ranks - 1));
    std::iter::once(of(0)).chain(middle).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Activation, AdamW, Contract, OptimizerState};

    /// StarCoder, after its paper (Li et al. 2023, table 3) and its `config.json`.
    fn starcoder() -> TrainFields {
        TrainFields {
            model: ModelFields {
                architecture: Architecture::GptBigcode,
                layers: 40,
                hidden: 6144,
                heads: 48,
                kv_heads: 1,
                feed_forward: 24_576,
                context: 8192,
                vocabulary: 49_152,
                activation: Activation::GeluTanh,
                norm_epsilon: "1e-5".parse().unwrap(),
                rotary_base: None,
                tied_embeddings: true,
            },
            numerics: Numerics {
                contract: Contract::Invariant,
                tensor: 4,
                lanes: 32,
                micro_batch: 1,
            },
            precision: Precision::Bf16,
            optimizer: AdamW {
                beta1: "0.9".parse().unwrap(),
                beta2: "0.95".parse().unwrap(),
                epsilon: "1e-8".parse().unwrap(),
                weight_decay: "0.1".parse().unwrap(),
                clip: None,
            },
            optimizer_state: OptimizerState::Reset,
            schedule: Vec::new(),
            last_step: 1,
            global_batch: 512,
            sequence: 8192,
        }
    }

    fn four_by_four() -> Layout {
        Layout {
            tensor: 4,
            pipeline: 4,
            data: 32,
            sequence_parallel: true,
            ..Layout::one(1, Recompute::Selective)
        }
    }

    #[test]
    fn weights_of_all_pipeline_ranks_are_the_parameters() {
        let fields = starcoder();
        let (one, parameters) = (Layout::one(1, Recompute::None), fields.model.parameters());
        assert_eq!(memory(&fields, &one, 0).weights, 2 * parameters);
        let pp_ranks = Layout { pipeline: 4, ..one };
        let all: u64 = (0..4).map(|pp_rank| memory(&fields, &pp_ranks, pp_rank).weights).sum();
        // The first and the last pipeline rank hold the word embedding.
        assert_eq!(all, 2 * (parameters + 49_152 * 6144));
    }

    #[test]
    fn each_option_saves_its_kind_of_memory() {
        let fields = starcoder();
        let plain = memory(&fields, &four_by_four(), 0);
        let distributed = memory(
            &fields,
            &Layout {
                distributed_optimizer: true,
                ..four_by_four()
            },
            0,
        );
        assert_eq!(distributed.optimizer, 4 * 3 * (plain.weights / 2).div_ceil(32));
        assert_eq!(distributed.weights, plain.weights);
        let full = memory(
            &fields,
            &Layout {
                recompute: Recompute::Full,
                ..four_by_four()
            },
            0,
        );
        let none = memory(
            &fields,
            &Layout {
                recompute: Recompute::None,
                ..four_by_four()
            },
            0,
        );
        assert!(full.activations < plain.activations && plain.activations < none.activations);
        let replicated = memory(
            &fields,
            &Layout {
                sequence_parallel: false,
                ..four_by_four()
            },
            0,
        );
        assert!(plain.activations < replicated.activations);
        // The number of micro-batches in flight is the number of pipeline ranks from this one on.
        let (first, last) = (plain.activations, memory(&fields, &four_by_four(), 3).activations);
        assert_eq!(first, 4 * last);
        // Lanes one after another: a buffer for each level of their tree.
        let fewer = memory(
            &fields,
            &Layout {
                data: 4,
                ..four_by_four()
            },
            0,
        );
        assert_eq!(fewer.gradients, 4 * plain.gradients);
    }

    #[test]
    fn first_fullest_and_last_pipeline_ranks_are_shown() {
        let pp_ranks = |pipeline| -> Vec<u32> {
            let layout = Layout {
                pipeline,
                ..four_by_four()
            };
            by_pipeline_rank(&starcoder(), &layout)
                .into_iter()
                .map(|(pp_rank, _)| pp_rank)
                .collect()
        };
        assert_eq!(
            [pp_ranks(1), pp_ranks(2), pp_ranks(4)],
            [vec![0], vec![0, 1], vec![0, 1, 3]]
        );
    }
}
