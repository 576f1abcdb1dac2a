//! The buffers of one thread: activations that a forward pass keeps for the backward pass, and scratch. Allocated once.
//!
//! Shape letters: see `model`. A buffer whose rows are *held* has the rows of the residual stream that this rank keeps; one
//! with *own* rows has the rows of this rank's row blocks.

use aurora_runtime::job::Recompute;
use tch::{Device, Kind, Tensor};

use super::ops::Rotary;
use super::row_partition::RowPartition;
use super::{ModelError, Network};

/// Rows whose logits exist at the same time. Part of the arithmetic: it divides the sum over rows in the gradient of the
/// output layer's weight.
pub const HEAD_ROWS: usize = aurora_compiler::memory::HEAD_ROWS as usize;

/// What attention of one shard returns.
#[derive(Debug)]
pub(super) struct Attended {
    pub out_ta: Tensor,
    /// Log-sum-exp of each row's scores.
    pub lse_bns: Tensor,
}

/// Activations of one layer, besides its input.
#[derive(Debug)]
pub(super) struct LayerActivations {
    /// Mean and reciprocal standard deviation of the first norm; held rows.
    pub mean1_t: Tensor,
    pub rstd1_t: Tensor,
    /// By shard; with the shard's own keys and values, if it has some.
    pub query_tp: Vec<Tensor>,
    /// All shared keys, then all shared values.
    pub key_value_tk: Tensor,
    /// By shard; allocated by the kernels.
    pub attended: Vec<Attended>,
    /// Residual stream between the two sublayers; held rows.
    pub mid_th: Tensor,
    pub mean2_t: Tensor,
    pub rstd2_t: Tensor,
}

/// Activations of one micro-batch between its forward and backward pass; a pipeline has several at a time.
#[derive(Debug)]
pub(super) struct MicroBatchActivations {
    /// Input of each layer on this rank, and output of the last; held rows.
    pub x_th: Vec<Tensor>,
    /// By layer; empty with full recomputation.
    pub layers: Vec<LayerActivations>,
    /// Input of the activation function, by layer and shard; empty if recomputed.
    pub z_tu: Vec<Vec<Tensor>>,
}

/// Buffers for micro-batches of one shape.
#[derive(Debug)]
pub struct Workspace {
    pub(super) sequences: usize,
    pub(super) sequence: usize,
    pub(super) recompute: Recompute,
    pub(super) rows: RowPartition,
    /// Tables of rotary positions, if the model has them.
    pub(super) rotary: Option<Rotary>,
    pub(super) slots: Vec<MicroBatchActivations>,
    /// Used by all layers if slots keep no activations.
    pub(super) recomputed: Option<LayerActivations>,
    pub(super) recomputed_z_tu: Vec<Tensor>,
    /// Of the final norm; held rows.
    pub(super) mean_t: Tensor,
    pub(super) rstd_t: Tensor,
    /// All rows.
    pub(super) normed_th: Tensor,
    pub(super) activated_tf: Tensor,
    /// All rows, by shard.
    pub(super) partials_th: Vec<Tensor>,
    /// Sum of this rank's partials, which is sent to the other tensor ranks.
    pub(super) partial_sum_th: Tensor,
    /// Own rows of the other tensor ranks' sums.
    pub(super) incoming_th: Vec<Tensor>,
    /// By shard.
    pub(super) logits_rv: Vec<Tensor>,
    pub(super) backward: Option<BackwardBuffers>,
}

#[derive(Debug)]
pub(super) struct BackwardBuffers {
    /// Gradient of the residual stream in `f32`. The own rows are always up to date; others only where all are needed.
    pub dx_th: Tensor,
    /// All rows of `dx_th` in the element type of the model; `dx_th` itself if that is `f32`.
    pub dy_th: Tensor,
    /// Own rows.
    pub dnorm_th: Tensor,
    pub dz_tu: Tensor,
    /// Gradient of the activation's output, if its width differs from its input's.
    pub dactivated_tf: Tensor,
    pub dattended_ta: Tensor,
    /// Own rows: the part of a norm's output gradient that comes from shared keys and values.
    pub key_value_dnorm_th: Tensor,
    /// By shard: gradient of the key and value head that the shard's heads share.
    pub dkv_te: Vec<Tensor>,
    /// This rank's sum of `dkv_te` for every head, which is sent to the other tensor ranks.
    pub dkv_partial_tk: Tensor,
    pub dkv_incoming_tk: Vec<Tensor>,
    /// Own rows.
    pub dkv_sum_tk: Tensor,
    pub dkv_cast_tk: Tensor,
}

/// Allocates buffers with the sizes of one network and micro-batch shape.
struct Allocator<'n> {
    network: &'n Network,
    rows: &'n RowPartition,
}

impl Allocator<'_> {
    fn tensor(&self, dims: &[usize], kind: Kind) -> Result<Tensor, ModelError> {
        let dims: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
        Ok(Tensor::f_empty(dims.as_slice(), (kind, self.network.device))?)
    }

    fn tensors(&self, count: usize, dims: &[usize], kind: Kind) -> Result<Vec<Tensor>, ModelError> {
        (0..count).map(|_| self.tensor(dims, kind)).collect()
    }

    fn shards(&self) -> usize {
        self.network.parameters.holding.shards.len()
    }

    fn other_ranks(&self) -> usize {
        self.rows.by_rank.len() - 1
    }

    /// Rows of a buffer for the other tensor ranks: none without such ranks.
    fn rows_to_send(&self) -> usize {
        if self.other_ranks() > 0 { self.rows.all } else { 0 }
    }

    fn layer(&self) -> Result<LayerActivations, ModelError> {
        let (shape, kind) = (&self.network.parameters.shape, self.network.kind);
        let (all, held) = (self.rows.all, self.rows.held.len());
        Ok(LayerActivations {
            mean1_t: self.tensor(&[held], Kind::Float)?,
            rstd1_t: self.tensor(&[held], Kind::Float)?,
            query_tp: self.tensors(self.shards(), &[all, shape.projected()], kind)?,
            key_value_tk: self.tensor(&[all, shape.shared()], kind)?,
            attended: Vec::new(),
            mid_th: self.tensor(&[held, shape.hidden], Kind::Float)?,
            mean2_t: self.tensor(&[held], Kind::Float)?,
            rstd2_t: self.tensor(&[held], Kind::Float)?,
        })
    }

    fn z_tu(&self) -> Result<Vec<Tensor>, ModelError> {
        let up = self.network.parameters.shape.up();
        self.tensors(self.shards(), &[self.rows.all, up], self.network.kind)
    }

    fn micro_batch(&self, recompute: Recompute, with_backward: bool) -> Result<MicroBatchActivations, ModelError> {
        let layers = self.network.parameters.holding.layers.len();
        let inputs = if with_backward { layers + 1 } else { 1 };
        let kept = if recompute == Recompute::Full { 0 } else { layers };
        let activations = if recompute == Recompute::None { layers } else { 0 };
        let hidden = self.network.parameters.shape.hidden;
        Ok(MicroBatchActivations {
            x_th: self.tensors(inputs, &[self.rows.held.len(), hidden], Kind::Float)?,
            layers: (0..kept).map(|_| self.layer()).collect::<Result<_, _>>()?,
            z_tu: (0..activations).map(|_| self.z_tu()).collect::<Result<_, _>>()?,
        })
    }

    fn backward(&self) -> Result<BackwardBuffers, ModelError> {
        let (shape, kind) = (&self.network.parameters.shape, self.network.kind);
        let (all, own, hidden) = (self.rows.all, self.rows.own.len(), shape.hidden);
        let (width, shared) = (shape.feed_forward / shape.tensor, shape.shared());
        let gated_rows = if shape.up() == width { 0 } else { all };
        let shared_width = if shared > 0 { 2 * shape.head_size } else { 0 };
        let dx_th = self.tensor(&[all, hidden], Kind::Float)?;
        Ok(BackwardBuffers {
            dy_th: if kind == Kind::Float {
                dx_th.shallow_clone()
            } else {
                self.tensor(&[all, hidden], kind)?
            },
            dx_th,
            dnorm_th: self.tensor(&[own, hidden], Kind::Float)?,
            dz_tu: self.tensor(&[all, shape.up()], kind)?,
            dactivated_tf: self.tensor(&[gated_rows, width], kind)?,
            dattended_ta: self.tensor(&[all, shape.shard_heads() * shape.head_size], kind)?,
            key_value_dnorm_th: self.tensor(&[own, hidden], kind)?,
            dkv_te: self.tensors(self.shards(), &[all, shared_width], Kind::Float)?,
            dkv_partial_tk: self.tensor(&[self.rows_to_send(), shared], Kind::Float)?,
            dkv_incoming_tk: self.tensors(self.other_ranks(), &[own, shared], Kind::Float)?,
            dkv_sum_tk: self.tensor(&[own, shared], Kind::Float)?,
            dkv_cast_tk: self.tensor(&[own, shared], kind)?,
        })
    }
}

impl Workspace {
    /// Buffers for micro-batches of `sequences` × `sequence` tokens, of which up to `in_flight` are between their forward
    /// and backward pass; 0 allocates buffers for forward passes only.
    ///
    /// # Errors
    /// [`ModelError::Size`] if a sequence exceeds the model's context, [`ModelError::Torch`] if memory runs out.
    pub fn new(
        network: &Network,
        sequences: usize,
        sequence: usize,
        recompute: Recompute,
        in_flight: usize,
    ) -> Result<Self, ModelError> {
        let shape = &network.parameters.shape;
        if sequence > shape.context {
            let context = shape.context;
            return Err(ModelError::Size(format!(
                "a sequence of {sequence} tokens exceeds the context of {context}"
            )));
        }
        let rows = network.rows(sequences * sequence);
        let new = Allocator { network, rows: &rows };
        let with_backward = in_flight > 0;
        // Without a backward pass no activations are kept.
        let recompute = if with_backward { recompute } else { Recompute::Full };
        let (all, held, hidden, kind) = (rows.all, rows.held.len(), shape.hidden, network.kind);
        let vocabulary = if network.parameters.holding.last {
            shape.vocabulary / shape.tensor
        } else {
            0
        };
        let slots = (0..in_flight.max(1)).map(|_| new.micro_batch(recompute, with_backward));
        Ok(Self {
            sequences,
            sequence,
            recompute,
            rotary: rotary(network, sequence, network.device)?,
            slots: slots.collect::<Result<_, _>>()?,
            recomputed: (recompute == Recompute::Full).then(|| new.layer()).transpose()?,
            recomputed_z_tu: if recompute == Recompute::None {
                Vec::new()
            } else {
                new.z_tu()?
            },
            mean_t: new.tensor(&[held], Kind::Float)?,
            rstd_t: new.tensor(&[held], Kind::Float)?,
            normed_th: new.tensor(&[all, hidden], kind)?,
            activated_tf: new.tensor(&[all, shape.feed_forward / shape.tensor], kind)?,
            partials_th: new.tensors(new.shards(), &[all, hidden], kind)?,
            partial_sum_th: new.tensor(&[new.rows_to_send(), hidden], Kind::Float)?,
            incoming_th: new.tensors(new.other_ranks(), &[rows.own.len(), hidden], Kind::Float)?,
            logits_rv: new.tensors(new.shards(), &[all.min(HEAD_ROWS), vocabulary], kind)?,
            backward: with_backward.then(|| new.backward()).transpose()?,
            rows,
        })
    }

    /// Number of sequences, and tokens of each.
    pub fn shape(&self) -> (usize, usize) {
        (self.sequences, self.sequence)
    }

    /// Tokens of a micro-batch.
    pub fn rows(&self) -> usize {
        self.rows.all
    }

    /// Micro-batches that can be in flight.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Own rows of the first layer's input, which the previous pipeline rank sends.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn incoming(&self, slot: usize) -> Result<Tensor, ModelError> {
        self.rows.own_of(self.input(slot, 0))
    }

    /// Own rows of the last layer's output, which go to the next pipeline rank.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn outgoing(&self, slot: usize) -> Result<Tensor, ModelError> {
        self.rows.own_of(self.input(slot, usize::MAX))
    }

    /// Own rows of the residual stream's gradient.
    ///
    /// # Errors
    /// [`ModelError::NotHeld`] without buffers for a backward pass.
    pub fn gradient_rows(&self) -> Result<Tensor, ModelError> {
        self.rows.own_of_all(&self.backward()?.dx_th)
    }

    /// Bytes of activations, of scratch, and of buffers for transfers.
    #[cfg(test)]
    pub fn bytes(&self) -> [u64; 3] {
        let layer = |layer: &LayerActivations| {
            let LayerActivations {
                mean1_t,
                rstd1_t,
                query_tp,
                key_value_tk,
                attended,
                mid_th,
                mean2_t,
                rstd2_t,
            } = layer;
            let attended = attended
                .iter()
                .flat_map(|attended| [&attended.out_ta, &attended.lse_bns]);
            let own = [mean1_t, rstd1_t, key_value_tk, mid_th, mean2_t, rstd2_t];
            own.into_iter().chain(query_tp).chain(attended).map(bytes).sum::<u64>()
        };
        let slot = |slot: &MicroBatchActivations| {
            let tensors = slot.x_th.iter().chain(slot.z_tu.iter().flatten());
            tensors.map(bytes).sum::<u64>() + slot.layers.iter().map(layer).sum::<u64>()
        };
        let mut scratch: Vec<&Tensor> = vec![&self.mean_t, &self.rstd_t, &self.normed_th, &self.activated_tf];
        scratch.extend(
            self.recomputed_z_tu
                .iter()
                .chain(&self.partials_th)
                .chain(&self.logits_rv),
        );
        let mut transfers: Vec<&Tensor> = self.incoming_th.iter().chain([&self.partial_sum_th]).collect();
        if let Some(backward) = &self.backward {
            scratch.extend([
                &backward.dx_th,
                &backward.dnorm_th,
                &backward.dz_tu,
                &backward.dactivated_tf,
                &backward.dattended_ta,
                &backward.key_value_dnorm_th,
            ]);
            scratch.extend(
                backward
                    .dkv_te
                    .iter()
                    .chain([&backward.dkv_sum_tk, &backward.dkv_cast_tk]),
            );
            scratch.extend((backward.dy_th.data_ptr() != backward.dx_th.data_ptr()).then_some(&backward.dy_th));
            transfers.extend(backward.dkv_incoming_tk.iter().chain([&backward.dkv_partial_tk]));
        }
        let sum = |tensors: Vec<&Tensor>| tensors.into_iter().map(bytes).sum::<u64>();
        let tables = self.rotary.as_ref().map_or(0, Rotary::bytes);
        let recomputed = self.recomputed.as_ref().map_or(0, layer);
        [
            self.slots.iter().map(slot).sum(),
            sum(scratch) + tables + recomputed,
            sum(transfers),
        ]
    }

    pub(super) fn input(&self, slot: usize, layer: usize) -> &Tensor {
        let x_th = &self.slots[slot].x_th;
        &x_th[layer.min(x_th.len() - 1)]
    }

    pub(super) fn layer(&self, slot: usize, layer: usize) -> &LayerActivations {
        match &self.recomputed {
            Some(recomputed) => recomputed,
            None => &self.slots[slot].layers[layer],
        }
    }

    pub(super) fn layer_mut(&mut self, slot: usize, layer: usize) -> &mut LayerActivations {
        match &mut self.recomputed {
            Some(recomputed) => recomputed,
            None => &mut self.slots[slot].layers[layer],
        }
    }

    pub(super) fn z_tu(&self, slot: usize, layer: usize, shard: usize) -> &Tensor {
        &self.slots[slot].z_tu.get(layer).unwrap_or(&self.recomputed_z_tu)[shard]
    }

    pub(super) fn backward(&self) -> Result<&BackwardBuffers, ModelError> {
        self.backward
            .as_ref()
            .ok_or(ModelError::NotHeld("this workspace has no buffers for a backward pass"))
    }
}

fn rotary(network: &Network, sequence: usize, device: Device) -> Result<Option<Rotary>, ModelError> {
    let shape = &network.parameters.shape;
    let tables = |base| Rotary::new(sequence, shape.head_size, base, device);
    shape.rotary.map(tables).transpose()
}

/// Bytes of a tensor's elements.
#[cfg(test)]
pub fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}
