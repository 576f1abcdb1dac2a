//! The buffers of one thread: what a micro-batch's forward keeps for its backward, and scratch. Allocated once.

use aurora_runtime::job::Recompute;
use tch::{Kind, Tensor};

use super::{ModelError, Network};

/// Rows of which logits exist at one time. Part of the arithmetic: it cuts the sum over rows of the output layer's
/// weight gradient.
pub const HEAD_ROWS: usize = 1024;

/// What one layer keeps besides its input.
#[derive(Debug)]
pub(super) struct Kept {
    pub mean1: Tensor,
    pub rstd1: Tensor,
    /// `[t, n·d]` a shard; `[t, n·3d]` if heads have their own keys.
    pub query: Vec<Tensor>,
    /// `[t, 2d]`.
    pub key_value: Tensor,
    /// Output and row sums (log) of attention, a shard; libtorch allocates them.
    pub attended: Vec<(Tensor, Tensor)>,
    pub mid: Tensor,
    pub mean2: Tensor,
    pub rstd2: Tensor,
}

/// Buffers for micro-batches of one shape.
#[derive(Debug)]
pub struct Workspace {
    pub(super) sequences: usize,
    pub(super) sequence: usize,
    pub(super) recompute: Recompute,
    /// Input of each layer, and the output of the last.
    pub(super) x: Vec<Tensor>,
    pub(super) kept: Vec<Kept>,
    /// Input of the activation, by layer and shard.
    pub(super) z: Vec<Vec<Tensor>>,
    pub(super) mean: Tensor,
    pub(super) rstd: Tensor,
    pub(super) normed: Tensor,
    pub(super) activated: Tensor,
    pub(super) partials: Vec<Tensor>,
    pub(super) logits: Vec<Tensor>,
    pub(super) backward: Option<Backward>,
}

#[derive(Debug)]
pub(super) struct Backward {
    pub dx: Tensor,
    /// `dx` in the numbers that the model computes with; `dx` itself if they are `f32`.
    pub dy: Tensor,
    pub dnorm: Tensor,
    pub dz: Tensor,
    pub dattended: Tensor,
    pub extra: Tensor,
    /// `[t, 2d]` a shard.
    pub dkv: Vec<Tensor>,
    pub dkv_sum: Tensor,
    pub dkv_cast: Tensor,
}

impl Workspace {
    /// For micro-batches of `sequences` × `sequence` tokens; `backward` also makes room for gradients.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if a sequence exceeds the model's positions, [`ModelError::Torch`] if memory runs out.
    pub fn new(
        network: &Network,
        sequences: usize,
        sequence: usize,
        recompute: Recompute,
        backward: bool,
    ) -> Result<Self, ModelError> {
        let shape = &network.layout.shape;
        if sequence > shape.context {
            let context = shape.context;
            return Err(ModelError::Unfit(format!(
                "a sequence of {sequence} tokens exceeds the context of {context}"
            )));
        }
        let (device, kind) = (network.device, network.kind);
        let rows = sequences * sequence;
        let new = |dims: &[usize], kind: Kind| -> Result<Tensor, ModelError> {
            let dims: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
            Ok(Tensor::f_empty(dims.as_slice(), (kind, device))?)
        };
        let each = |count: usize, dims: &[usize], kind: Kind| -> Result<Vec<Tensor>, ModelError> {
            (0..count).map(|_| new(dims, kind)).collect()
        };
        let tensor = shape.tensor;
        let (hidden, feed_forward) = (shape.hidden, shape.feed_forward / tensor);
        let attention = shape.hidden / tensor;
        let kv = if shape.multi_query { 2 * shape.head_size } else { 0 };
        let projected = if shape.multi_query { attention } else { 3 * attention };
        // Without a backward nothing is kept for one.
        let recompute = if backward { recompute } else { Recompute::Full };
        let keeps = if recompute == Recompute::Full { 1 } else { shape.layers };
        let activations = if recompute == Recompute::None { shape.layers } else { 1 };
        let inputs = if backward { shape.layers + 1 } else { 1 };
        let kept = (0..keeps).map(|_| {
            Ok(Kept {
                mean1: new(&[rows], Kind::Float)?,
                rstd1: new(&[rows], Kind::Float)?,
                query: each(tensor, &[rows, projected], kind)?,
                key_value: new(&[rows, kv], kind)?,
                attended: Vec::new(),
                mid: new(&[rows, hidden], Kind::Float)?,
                mean2: new(&[rows], Kind::Float)?,
                rstd2: new(&[rows], Kind::Float)?,
            })
        });
        let kept = kept.collect::<Result<_, ModelError>>()?;
        let backward = if backward {
            let dx = new(&[rows, hidden], Kind::Float)?;
            Some(Backward {
                dy: if kind == Kind::Float {
                    dx.shallow_clone()
                } else {
                    new(&[rows, hidden], kind)?
                },
                dx,
                dnorm: new(&[rows, hidden], Kind::Float)?,
                dz: new(&[rows, feed_forward], kind)?,
                dattended: new(&[rows, attention], kind)?,
                extra: new(&[rows, hidden], kind)?,
                dkv: each(tensor, &[rows, kv], Kind::Float)?,
                dkv_sum: new(&[rows, kv], Kind::Float)?,
                dkv_cast: new(&[rows, kv], kind)?,
            })
        } else {
            None
        };
        Ok(Self {
            sequences,
            sequence,
            recompute,
            x: each(inputs, &[rows, hidden], Kind::Float)?,
            kept,
            z: (0..activations)
                .map(|_| each(tensor, &[rows, feed_forward], kind))
                .collect::<Result<_, _>>()?,
            mean: new(&[rows], Kind::Float)?,
            rstd: new(&[rows], Kind::Float)?,
            normed: new(&[rows, hidden], kind)?,
            activated: new(&[rows, feed_forward], kind)?,
            partials: each(tensor, &[rows, hidden], kind)?,
            logits: each(tensor, &[rows.min(HEAD_ROWS), shape.vocabulary / tensor], kind)?,
            backward,
        })
    }

    /// Tokens of a micro-batch.
    pub fn rows(&self) -> usize {
        self.sequences * self.sequence
    }

    pub(super) fn input(&self, layer: usize) -> &Tensor {
        &self.x[layer.min(self.x.len() - 1)]
    }

    pub(super) fn kept_of(&self, layer: usize) -> usize {
        layer.min(self.kept.len() - 1)
    }

    pub(super) fn activation_of(&self, layer: usize) -> usize {
        layer.min(self.z.len() - 1)
    }
}
