//! Memory of each worker in training, from the numbers of a model and a layout.
//!
//! In: a training node's fields and a placement. Out: bytes by purpose, for one rank of each pipeline stage. These are the
//! buffers that the runtime keeps from step to step; what a kernel needs for a moment, and libtorch itself, are not here.

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::{Architecture, ModelFields, Numerics, Precision, TrainFields};
use crate::placement::{Placement, Recompute, Work};

/// Rows of which the runtime holds logits at one time.
pub const HEAD_ROWS: u64 = 1024;

/// Bytes of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Memory {
    /// In the numbers that the model computes with.
    pub weights: u64,
    /// `f32`: of one lane, times the buffers that its threads hold.
    pub gradients: u64,
    /// Weights in `f32` (nothing where the model computes in `f32`) and two moments.
    pub optimizer: u64,
    /// What forwards keep for their backwards, of all micro-batches under way.
    pub activations: u64,
    /// Scratch of forward and backward, logits among it.
    pub scratch: u64,
    /// What is received from other ranks, or on its way to them.
    pub transfers: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        let parts = [
            self.weights,
            self.gradients,
            self.optimizer,
            self.activations,
            self.scratch,
            self.transfers,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// The grid on which a node's sums are ordered.
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

/// One rank's part of a model, in elements.
struct Held {
    /// Of the word embedding; the first stage's, and the last one's if they are tied.
    word: u128,
    /// All weights.
    weights: u128,
    /// Weights of which every tensor rank has all, and whose gradient is summed by row blocks.
    blocked: u128,
}

/// A model's numbers, as `u64`.
struct Numbers {
    hidden: u128,
    head_size: u128,
    /// Outputs of the projection of keys and values that several shards share; 0 if every shard has its own.
    shared: u128,
    /// Outputs of all shards' projections of queries, and of keys and values of their own.
    projected: u128,
    /// Outputs of the first feed-forward product: twice as many with gates.
    up: u128,
    feed_forward: u128,
    biased: bool,
}

impl Numbers {
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

    fn held(&self, model: &ModelFields, layers: u128, first: bool, last: bool, tensor: u128) -> Held {
        let h = self.hidden;
        let bias = u128::from(self.biased);
        let norm = h * (1 + bias);
        let split = (self.projected * (h + bias) + h * h + self.up * (h + bias) + self.feed_forward * h) / tensor;
        // Two norms, shared keys and values, and the biases behind the two sums over shards.
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
        Held {
            word,
            weights: word + positions + layers * split + blocked + output,
            blocked,
        }
    }
}

/// The memory of a rank of pipeline stage `stage`; all tensor ranks and replicas of a stage have as much.
///
/// Degrees are taken to divide what they split, as `check` has seen to.
pub fn memory(fields: &TrainFields, placement: &Placement, stage: u32) -> Memory {
    let model = &fields.model;
    let grid = Grid::new(&fields.numerics);
    let [tensor, pipeline, data] = [placement.tensor, placement.pipeline, placement.data].map(|n| u128::from(n.max(1)));
    let element = if fields.precision == Precision::F32 { 4 } else { 2 };
    let layers = Work::of(model).stage(placement.pipeline, stage).len() as u128;
    let stage = u128::from(stage);
    let (first, last) = (stage == 0, stage + 1 == pipeline);
    let numbers = Numbers::new(model, &grid);
    let held = numbers.held(model, layers, first, last, tensor);
    let shards = (grid.tensor / tensor).max(1);
    let tied = if model.tied_embeddings && last { held.word } else { 0 };
    let gradient = held.weights + held.blocked * shards + tied;

    // Each thread has a whole subtree of the rank's lanes, and a buffer for each level of it.
    let lanes = (grid.lanes / data).max(1);
    let threads = 1 << u128::from(placement.threads.max(1)).min(lanes).ilog2();
    let buffers = u128::from((lanes / threads).max(1).ilog2()) + 1;

    let distributed = placement.distributed_optimizer && data > 1;
    let kept = if distributed {
        held.weights.div_ceil(data)
    } else {
        held.weights
    };
    let master = if fields.precision == Precision::F32 { 0 } else { kept };

    let seat = Seat::new(fields, placement, &grid, &numbers, last);
    let micro_batches = u128::from(fields.global_batch) / grid.micro_batch.max(1);
    let each = micro_batches.div_ceil(grid.lanes.max(1)) * lanes.div_ceil(threads);
    let slots = (pipeline - stage).min(each).max(1);

    // The other replicas' gradients of this one's share, and the other end's of the tied embedding.
    let replicas = (data - 1) * (held.weights + tied).div_ceil(data);
    let end = if pipeline > 1 && model.tied_embeddings {
        held.word.div_ceil(data)
    } else {
        0
    };
    // Rows to and from the neighbours.
    let neighbours = 2 * u128::from(!first) + u128::from(!last);
    Memory {
        weights: bytes(held.weights * element),
        gradients: bytes(4 * gradient * buffers * threads),
        optimizer: bytes(4 * (master + 2 * kept)),
        activations: bytes(threads * seat.activations(slots, placement.recompute, layers)),
        scratch: bytes(threads * seat.scratch(placement.recompute)),
        transfers: bytes(
            4 * (replicas + end) + threads * (seat.transfers + neighbours * seat.own * numbers.hidden * 4),
        ),
    }
}

/// Bytes as a number of 64 bits, or the largest one: no machine has as much.
fn bytes(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What one thread holds for micro-batches, in bytes.
struct Seat {
    /// Rows of the residual stream that this rank alone sums up.
    own: u128,
    /// One layer's input.
    input: u128,
    /// What attention and norms of a layer keep besides.
    kept: u128,
    /// Inputs of a layer's activation.
    z: u128,
    fixed: u128,
    transfers: u128,
}

impl Seat {
    fn new(fields: &TrainFields, placement: &Placement, grid: &Grid, numbers: &Numbers, last: bool) -> Self {
        let &Numbers {
            hidden,
            head_size,
            shared,
            projected,
            up,
            feed_forward,
            ..
        } = numbers;
        let element = if fields.precision == Precision::F32 { 4 } else { 2 };
        let tensor = u128::from(placement.tensor).max(1);
        let rows = grid.micro_batch * u128::from(fields.sequence);
        let own = rows / tensor;
        let stream = if placement.sequence_parallel { own } else { rows };
        let shards = (grid.tensor / tensor).max(1);
        let input = stream * hidden * 4;
        let heads = u128::from(fields.model.heads) / tensor;
        // Projections and attention's output, and its sums of powers; the residual stream after it; two norms' figures.
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
        let crossing = if tensor > 1 {
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
            transfers: crossing,
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

    /// With what is computed again for one layer at a time.
    fn scratch(&self, recompute: Recompute) -> u128 {
        self.fixed
            + match recompute {
                Recompute::None => 0,
                Recompute::Selective => self.z,
                Recompute::Full => self.kept + self.z,
            }
    }
}

/// The stages that differ, with the memory of a rank of each: the first, the fullest in the middle, the last.
pub fn by_stage(fields: &TrainFields, placement: &Placement) -> Vec<(u32, Memory)> {
    let stages = placement.pipeline.max(1);
    let of = |stage: u32| (stage, memory(fields, placement, stage));
    let middle = (1..stages.saturating_sub(1))
        .map(of)
        .max_by_key(|(stage, memory)| (memory.total(), u32::MAX - stage));
    let last = (stages > 1).then(|| of(stages - 1));
    std::iter::once(of(0)).chain(middle).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Activation, AdamW, Contract, OptimizerState};

    /// StarCoder, as its paper (Li et al. 2023, table 3) and its `config.json` have it.
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

    fn four_by_four() -> Placement {
        Placement {
            tensor: 4,
            pipeline: 4,
            data: 32,
            sequence_parallel: true,
            ..Placement::one(1, Recompute::Selective)
        }
    }

    #[test]
    fn weights_of_all_stages_are_the_parameters() {
        let fields = starcoder();
        let (one, parameters) = (Placement::one(1, Recompute::None), fields.model.parameters());
        assert_eq!(memory(&fields, &one, 0).weights, 2 * parameters);
        let stages = Placement { pipeline: 4, ..one };
        let all: u64 = (0..4).map(|stage| memory(&fields, &stages, stage).weights).sum();
        // The first and the last stage hold the word embedding.
        assert_eq!(all, 2 * (parameters + 49_152 * 6144));
    }

    #[test]
    fn each_saving_saves_what_it_is_for() {
        let fields = starcoder();
        let plain = memory(&fields, &four_by_four(), 0);
        let distributed = memory(
            &fields,
            &Placement {
                distributed_optimizer: true,
                ..four_by_four()
            },
            0,
        );
        assert_eq!(distributed.optimizer, 4 * 3 * (plain.weights / 2).div_ceil(32));
        assert_eq!(distributed.weights, plain.weights);
        let full = memory(
            &fields,
            &Placement {
                recompute: Recompute::Full,
                ..four_by_four()
            },
            0,
        );
        let none = memory(
            &fields,
            &Placement {
                recompute: Recompute::None,
                ..four_by_four()
            },
            0,
        );
        assert!(full.activations < plain.activations && plain.activations < none.activations);
        let whole = memory(
            &fields,
            &Placement {
                sequence_parallel: false,
                ..four_by_four()
            },
            0,
        );
        assert!(plain.activations < whole.activations);
        // As many micro-batches are under way as there are stages from here on.
        let (first, last) = (plain.activations, memory(&fields, &four_by_four(), 3).activations);
        assert_eq!(first, 4 * last);
        // Lanes one after another: a buffer for each level of their tree.
        let fewer = memory(
            &fields,
            &Placement {
                data: 4,
                ..four_by_four()
            },
            0,
        );
        assert_eq!(fewer.gradients, 4 * plain.gradients);
    }

    #[test]
    fn the_stages_shown_are_the_first_the_fullest_and_the_last() {
        let stages = |pipeline| -> Vec<u32> {
            let placement = Placement {
                pipeline,
                ..four_by_four()
            };
            by_stage(&starcoder(), &placement)
                .into_iter()
                .map(|(stage, _)| stage)
                .collect()
        };
        assert_eq!([stages(1), stages(2), stages(4)], [vec![0], vec![0, 1], vec![0, 1, 3]]);
    }
}
