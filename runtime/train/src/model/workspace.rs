//! The buffers of one thread: what a micro-batch's forward keeps for its backward, and scratch. Allocated once.

use std::ops::Range;

use aurora_runtime::job::Recompute;
use tch::{Kind, Tensor};

use super::ops::Rotary;
use super::{ModelError, Network};

/// Rows of which logits exist at one time. Part of the arithmetic: it cuts the sum over rows of the output layer's
/// weight gradient.
pub const HEAD_ROWS: usize = aurora_compiler::memory::HEAD_ROWS as usize;

/// What one layer keeps besides its input.
#[derive(Debug)]
pub(super) struct Kept {
    pub mean1: Tensor,
    pub rstd1: Tensor,
    /// `[t, (n + 2·own key heads)·d]` a shard.
    pub query: Vec<Tensor>,
    /// `[t, 2·g·d]`: all shared keys, then all shared values.
    pub key_value: Tensor,
    /// Output and row sums (log) of attention, a shard; libtorch allocates them.
    pub attended: Vec<(Tensor, Tensor)>,
    pub mid: Tensor,
    pub mean2: Tensor,
    pub rstd2: Tensor,
}

/// What one micro-batch keeps between its forward and its backward; a pipeline has several under way.
#[derive(Debug)]
pub(super) struct Slot {
    /// Input of each layer held here, and the output of the last; the held rows.
    pub x: Vec<Tensor>,
    /// By layer; empty where everything is computed again.
    pub kept: Vec<Kept>,
    /// Input of the activation, by layer and shard; empty where it is computed again.
    pub z: Vec<Vec<Tensor>>,
}

/// Which rows of a micro-batch a rank keeps, and which it alone sums up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub all: usize,
    /// Rows of the residual stream that stand here: all, or this rank's own under sequence parallelism.
    pub held: Range<usize>,
    /// This rank's row blocks.
    pub own: Range<usize>,
    /// The rows of each tensor rank.
    pub shares: Vec<Range<usize>>,
}

impl Rows {
    /// The own rows of a tensor that holds the held ones.
    pub fn own_of(&self, held: &Tensor) -> Result<Tensor, ModelError> {
        let start = self.own.start - self.held.start;
        Ok(held.f_narrow(0, start as i64, self.own.len() as i64)?)
    }

    /// The own rows of a tensor that holds all.
    pub fn own_of_all(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        Ok(all.f_narrow(0, self.own.start as i64, self.own.len() as i64)?)
    }

    /// The held rows of a tensor that holds all.
    pub fn held_of_all(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        Ok(all.f_narrow(0, self.held.start as i64, self.held.len() as i64)?)
    }

    /// Whether this rank holds no more than its own.
    pub fn cut(&self) -> bool {
        self.held.len() < self.all
    }
}

/// Buffers for micro-batches of one shape.
#[derive(Debug)]
pub struct Workspace {
    pub(super) sequences: usize,
    pub(super) sequence: usize,
    pub(super) recompute: Recompute,
    pub(super) rows: Rows,
    /// Tables of rotary positions, if the model has them.
    pub(super) rotary: Option<Rotary>,
    pub(super) slots: Vec<Slot>,
    /// What a layer keeps, where slots keep nothing.
    pub(super) spare: Option<Kept>,
    pub(super) spare_z: Vec<Tensor>,
    /// Of the final norm.
    pub(super) mean: Tensor,
    pub(super) rstd: Tensor,
    /// All rows.
    pub(super) normed: Tensor,
    pub(super) activated: Tensor,
    /// All rows, a shard.
    pub(super) partials: Vec<Tensor>,
    /// Sum of this rank's partials, on its way to the others.
    pub(super) root: Tensor,
    /// Own rows of the other tensor ranks' sums.
    pub(super) incoming: Vec<Tensor>,
    pub(super) logits: Vec<Tensor>,
    pub(super) backward: Option<Backward>,
}

#[derive(Debug)]
pub(super) struct Backward {
    /// The own rows of it are kept up to date; the others are filled in where all are needed.
    pub dx: Tensor,
    /// All rows of `dx` in the numbers that the model computes with; `dx` itself if they are `f32`.
    pub dy: Tensor,
    /// Own rows.
    pub dnorm: Tensor,
    pub dz: Tensor,
    /// Gradient of the activation's output, where it has another width than its input.
    pub dactivated: Tensor,
    pub dattended: Tensor,
    /// Own rows.
    pub extra: Tensor,
    /// `[t, 2d]` a shard: of the key and value head that its heads share.
    pub dkv: Vec<Tensor>,
    pub dkv_root: Tensor,
    pub dkv_incoming: Vec<Tensor>,
    /// Own rows of `[t, 2·g·d]`.
    pub dkv_sum: Tensor,
    pub dkv_cast: Tensor,
}

impl Workspace {
    /// For micro-batches of `sequences` × `sequence` tokens. `under_way` is how many of them are between their forward and
    /// their backward at most; 0 makes room for forwards only.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if a sequence exceeds the model's positions, [`ModelError::Torch`] if memory runs out.
    pub fn new(
        network: &Network,
        sequences: usize,
        sequence: usize,
        recompute: Recompute,
        under_way: usize,
    ) -> Result<Self, ModelError> {
        let (shape, holding) = (&network.layout.shape, &network.layout.holding);
        if sequence > shape.context {
            let context = shape.context;
            return Err(ModelError::Unfit(format!(
                "a sequence of {sequence} tokens exceeds the context of {context}"
            )));
        }
        let (device, kind) = (network.device, network.kind);
        let all = sequences * sequence;
        let rows = network.rows(all);
        let (held, own) = (rows.held.len(), rows.own.len());
        let new = |dims: &[usize], kind: Kind| -> Result<Tensor, ModelError> {
            let dims: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
            Ok(Tensor::f_empty(dims.as_slice(), (kind, device))?)
        };
        let each = |count: usize, dims: &[usize], kind: Kind| -> Result<Vec<Tensor>, ModelError> {
            (0..count).map(|_| new(dims, kind)).collect()
        };
        let (shards, layers) = (holding.shards.len(), holding.layers.len());
        let others = rows.shares.len() - 1;
        let hidden = shape.hidden;
        let width = shape.feed_forward / shape.tensor;
        let attention = shape.shard_heads() * shape.head_size;
        let shared = shape.shared();
        let backward = under_way > 0;
        // Without a backward nothing is kept for one.
        let recompute = if backward { recompute } else { Recompute::Full };
        let kept = || {
            Ok::<_, ModelError>(Kept {
                mean1: new(&[held], Kind::Float)?,
                rstd1: new(&[held], Kind::Float)?,
                query: each(shards, &[all, shape.projected()], kind)?,
                key_value: new(&[all, shared], kind)?,
                attended: Vec::new(),
                mid: new(&[held, hidden], Kind::Float)?,
                mean2: new(&[held], Kind::Float)?,
                rstd2: new(&[held], Kind::Float)?,
            })
        };
        let z = || each(shards, &[all, shape.up()], kind);
        let slot = || {
            let inputs = if backward { layers + 1 } else { 1 };
            let keeps = if recompute == Recompute::Full { 0 } else { layers };
            let activations = if recompute == Recompute::None { layers } else { 0 };
            Ok::<_, ModelError>(Slot {
                x: each(inputs, &[held, hidden], Kind::Float)?,
                kept: (0..keeps).map(|_| kept()).collect::<Result<_, _>>()?,
                z: (0..activations).map(|_| z()).collect::<Result<_, _>>()?,
            })
        };
        let room = if backward {
            let dx = new(&[all, hidden], Kind::Float)?;
            let gated = shape.up() != width;
            Some(Backward {
                dy: if kind == Kind::Float {
                    dx.shallow_clone()
                } else {
                    new(&[all, hidden], kind)?
                },
                dx,
                dnorm: new(&[own, hidden], Kind::Float)?,
                dz: new(&[all, shape.up()], kind)?,
                dactivated: new(&[if gated { all } else { 0 }, width], kind)?,
                dattended: new(&[all, attention], kind)?,
                extra: new(&[own, hidden], kind)?,
                dkv: each(
                    shards,
                    &[all, if shared > 0 { 2 * shape.head_size } else { 0 }],
                    Kind::Float,
                )?,
                dkv_root: new(&[if others > 0 { all } else { 0 }, shared], Kind::Float)?,
                dkv_incoming: each(others, &[own, shared], Kind::Float)?,
                dkv_sum: new(&[own, shared], Kind::Float)?,
                dkv_cast: new(&[own, shared], kind)?,
            })
        } else {
            None
        };
        let vocabulary = if holding.last {
            shape.vocabulary / shape.tensor
        } else {
            0
        };
        Ok(Self {
            sequences,
            sequence,
            recompute,
            rotary: shape
                .rotary
                .map(|base| Rotary::new(sequence, shape.head_size, base, device))
                .transpose()?,
            slots: (0..under_way.max(1)).map(|_| slot()).collect::<Result<_, _>>()?,
            spare: (recompute == Recompute::Full).then(kept).transpose()?,
            spare_z: if recompute == Recompute::None { Vec::new() } else { z()? },
            mean: new(&[held], Kind::Float)?,
            rstd: new(&[held], Kind::Float)?,
            normed: new(&[all, hidden], kind)?,
            activated: new(&[all, width], kind)?,
            partials: each(shards, &[all, hidden], kind)?,
            root: new(&[if others > 0 { all } else { 0 }, hidden], Kind::Float)?,
            incoming: each(others, &[own, hidden], Kind::Float)?,
            logits: each(shards, &[all.min(HEAD_ROWS), vocabulary], kind)?,
            backward: room,
            rows,
        })
    }

    /// Sequences, and tokens of each.
    pub fn shape(&self) -> (usize, usize) {
        (self.sequences, self.sequence)
    }

    /// Tokens of a micro-batch.
    pub fn rows(&self) -> usize {
        self.rows.all
    }

    /// How many micro-batches can be under way.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Own rows of the first layer's input: what the stage before sends.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn incoming(&self, slot: usize) -> Result<Tensor, ModelError> {
        self.rows.own_of(self.input(slot, 0))
    }

    /// Own rows of the last layer's output: what the next stage is sent.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn outgoing(&self, slot: usize) -> Result<Tensor, ModelError> {
        self.rows.own_of(self.input(slot, usize::MAX))
    }

    /// Own rows of the gradient that goes from layer to layer.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if there is no room for gradients.
    pub fn gradient_rows(&self) -> Result<Tensor, ModelError> {
        self.rows.own_of_all(&self.backward()?.dx)
    }

    /// Bytes of what forwards keep, of scratch, and of what goes to other ranks.
    #[cfg(test)]
    pub fn bytes(&self) -> [u64; 3] {
        let layer = |kept: &Kept| {
            let Kept {
                mean1,
                rstd1,
                query,
                key_value,
                attended,
                mid,
                mean2,
                rstd2,
            } = kept;
            let attended = attended.iter().flat_map(|(out, logs)| [out, logs]);
            let own = [mean1, rstd1, key_value, mid, mean2, rstd2];
            own.into_iter().chain(query).chain(attended).map(bytes).sum::<u64>()
        };
        let slot = |slot: &Slot| {
            let tensors = slot.x.iter().chain(slot.z.iter().flatten());
            tensors.map(bytes).sum::<u64>() + slot.kept.iter().map(layer).sum::<u64>()
        };
        let mut scratch: Vec<&Tensor> = vec![&self.mean, &self.rstd, &self.normed, &self.activated];
        scratch.extend(self.spare_z.iter().chain(&self.partials).chain(&self.logits));
        let mut transfers: Vec<&Tensor> = self.incoming.iter().chain([&self.root]).collect();
        if let Some(room) = &self.backward {
            scratch.extend([
                &room.dx,
                &room.dnorm,
                &room.dz,
                &room.dactivated,
                &room.dattended,
                &room.extra,
            ]);
            scratch.extend(room.dkv.iter().chain([&room.dkv_sum, &room.dkv_cast]));
            scratch.extend((room.dy.data_ptr() != room.dx.data_ptr()).then_some(&room.dy));
            transfers.extend(room.dkv_incoming.iter().chain([&room.dkv_root]));
        }
        let sum = |tensors: Vec<&Tensor>| tensors.into_iter().map(bytes).sum::<u64>();
        let tables = self.rotary.as_ref().map_or(0, Rotary::bytes);
        let spare = self.spare.as_ref().map_or(0, layer);
        [
            self.slots.iter().map(slot).sum(),
            sum(scratch) + tables + spare,
            sum(transfers),
        ]
    }

    pub(super) fn input(&self, slot: usize, layer: usize) -> &Tensor {
        let x = &self.slots[slot].x;
        &x[layer.min(x.len() - 1)]
    }

    pub(super) fn kept(&self, slot: usize, layer: usize) -> &Kept {
        match &self.spare {
            Some(spare) => spare,
            None => &self.slots[slot].kept[layer],
        }
    }

    pub(super) fn kept_mut(&mut self, slot: usize, layer: usize) -> &mut Kept {
        match &mut self.spare {
            Some(spare) => spare,
            None => &mut self.slots[slot].kept[layer],
        }
    }

    pub(super) fn z(&self, slot: usize, layer: usize, shard: usize) -> &Tensor {
        &self.slots[slot].z.get(layer).unwrap_or(&self.spare_z)[shard]
    }

    pub(super) fn backward(&self) -> Result<&Backward, ModelError> {
        self.backward
            .as_ref()
            .ok_or_else(|| ModelError::Unfit("this workspace has no room for gradients".to_owned()))
    }
}

/// Bytes of a tensor's elements.
#[cfg(test)]
pub fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}
