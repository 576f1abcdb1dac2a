//! Inference with a cache of keys and values: each step adds one token to each of a fixed number of sequences.
//!
//! Matrix products use the few-row kernels, whose bits do not depend on the number of rows, and a row's attention
//! covers its own sequence in the order of positions. So the bits of a sequence depend on nothing but its own tokens.
//! (The bits of ATen's products depend on the number of rows: there a step always has one row per slot.) One worker
//! computes the complete model, so the parallel layout has no influence. The cache is `f32`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use aurora_runtime::job::Recompute;

use tch::{Kind, Tensor};

use super::ops::Rotary;
use super::parameter_map::HeadArrangement;
use super::pass_context::PassContext;
use super::positions::Positions;
use super::views::Weights;
use super::workspace::{Attended, Workspace};
use super::{Kernels, ModelError, Network, to_device, to_host};
use crate::kernels::attention_step;
use crate::parallel::{Mesh, Peers};

/// Keys and values of one shard's heads in one layer.
#[derive(Debug)]
struct ShardCache {
    /// By slot, head, element and position: the order in which scores are summed.
    key: Vec<f32>,
    /// By slot, head, position and element.
    value: Vec<f32>,
}

/// The dimensions of a shard's cache.
#[derive(Clone, Copy, Debug)]
struct CacheDimensions {
    /// Positions of a slot.
    capacity: usize,
    /// Key heads that a shard uses.
    g: usize,
    d: usize,
}

impl ShardCache {
    /// Adds the new keys and values of a step, one row for each used slot at its position, and returns the rows'
    /// attention outputs. `probabilities` is scratch memory.
    fn attend(
        &mut self,
        CacheDimensions { capacity, g, d }: CacheDimensions,
        next: impl Iterator<Item = (usize, usize)>,
        rows: usize,
        [query, key, value]: [&[f32]; 3],
        probabilities: &mut Vec<f32>,
    ) -> Vec<f32> {
        let mut out = vec![0.0f32; query.len()];
        // Query heads that share a key and value head are adjacent.
        let shared = query.len() / (rows * g);
        for (row, (slot, position)) in next.enumerate() {
            for head in 0..g {
                let (own, at) = ((row * g + head) * d, (slot * g + head) * capacity * d);
                let keys = &mut self.key[at..at + capacity * d];
                for (line, key) in keys.chunks_exact_mut(capacity).zip(&key[own..own + d]) {
                    line[position] = *key;
                }
                let values = &mut self.value[at..at + capacity * d];
                values[position * d..][..d].copy_from_slice(&value[own..own + d]);
                probabilities.resize(position + 1, 0.0);
                let own = (row * g + head) * shared;
                let (query, out) = (&query[own..own + shared], &mut out[own..own + shared]);
                attention_step(query, keys, capacity, values, d, probabilities, out);
            }
        }
        out
    }
}

/// Keys and values of a fixed number of sequences.
#[derive(Debug)]
pub struct KvCache {
    /// By layer, then shard.
    layers: Vec<Vec<ShardCache>>,
    slots: usize,
    positions: usize,
    /// Key heads that a shard uses.
    heads: usize,
    d: usize,
    rotary: Option<Rotary>,
    /// The model's network, with the matrix products of a step.
    network: Network,
    /// By number of rows of a step.
    workspaces: BTreeMap<usize, Workspace>,
}

/// The next token of a slot's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextToken {
    pub token: i64,
    pub position: usize,
}

impl KvCache {
    /// A cache for `slots` sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// [`ModelError::Size`] if the network is not complete on this worker, or its context is shorter.
    pub fn new(network: &Network, slots: usize, positions: usize) -> Result<Self, ModelError> {
        let shape = &network.parameters.shape;
        if network.mesh != Mesh::ONE || positions > shape.context {
            return Err(ModelError::Size(format!(
                "inference needs one worker and sequences within the context of {}, not {positions} tokens",
                shape.context
            )));
        }
        let heads = match shape.arrangement {
            HeadArrangement::Shared => 1,
            HeadArrangement::PerHead => shape.shard_heads(),
            HeadArrangement::Stacked => shape.shard_kv_heads(),
        };
        let d = shape.head_size;
        let kept = || {
            let elements = slots * heads * positions * d;
            ShardCache {
                key: vec![0.0; elements],
                value: vec![0.0; elements],
            }
        };
        let shards = network.parameters.holding.shards.len();
        Ok(Self {
            layers: (0..shape.layers)
                .map(|_| (0..shards).map(|_| kept()).collect())
                .collect(),
            slots,
            positions,
            heads,
            d,
            rotary: shape
                .rotary
                .map(|base| Rotary::new(positions, d, base, network.device))
                .transpose()?,
            network: Network {
                kernels: match network.kernels {
                    kernels @ (Kernels::Aten | Kernels::Device) => kernels,
                    Kernels::Own | Kernels::Portable | Kernels::FewRows => Kernels::FewRows,
                },
                ..network.clone()
            },
            workspaces: BTreeMap::new(),
        })
    }

    /// Range of the keys, and of the values, of a head of a slot.
    fn head(&self, slot: usize, head: usize) -> Range<usize> {
        let size = self.positions * self.d;
        let start = (slot * self.heads + head) * size;
        start..start + size
    }

    /// Copies the first `length` tokens of one slot to another.
    ///
    /// # Errors
    /// [`ModelError::Size`] if a slot does not exist.
    pub fn copy(&mut self, from: usize, to: usize, length: usize) -> Result<(), ModelError> {
        if from.max(to) >= self.slots || length > self.positions {
            return Err(ModelError::Size(format!(
                "cannot copy {length} tokens from slot {from} to slot {to}"
            )));
        }
        for head in 0..self.heads {
            let (from, to) = (self.head(from, head), self.head(to, head).start);
            for kept in self.layers.iter_mut().flatten() {
                for row in (0..self.d).map(|element| element * self.positions) {
                    kept.key
                        .copy_within(from.start + row..from.start + row + length, to + row);
                }
                kept.value.copy_within(from.start..from.start + length * self.d, to);
            }
        }
        Ok(())
    }
}

/// A tensor's elements in `f32`, row by row.
fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    to_host(&tensor.f_to_kind(Kind::Float)?)
}

impl Network {
    /// Reads a prompt into a slot of the cache: the first `length` tokens of `pass`, whatever follows them. Returns the
    /// logits after the last one.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn prefill(
        &self,
        weights: &Weights,
        pass: &mut PassContext<'_>,
        cache: &mut KvCache,
        slot: usize,
        length: usize,
    ) -> Result<Vec<f32>, ModelError> {
        if length == 0 || length > cache.positions.min(pass.workspace.rows()) || slot >= cache.slots {
            return Err(ModelError::Size(format!(
                "a prompt of {length} tokens does not fit slot {slot}"
            )));
        }
        self.embed(weights, pass)?;
        for (layer, own) in weights.layers.iter().enumerate() {
            self.attend(own, pass, layer)?;
            let activations = pass.workspace.layer(pass.slot, layer);
            for shard in 0..activations.query_tp.len() {
                let views = self.views(
                    &activations.query_tp[shard],
                    &activations.key_value_tk,
                    pass.workspace,
                    shard,
                )?;
                // [1, s, g, d] to [g, s, d], and keys to [g, d, s].
                let prompt = |tensor: &Tensor| tensor.f_select(0, 0)?.f_narrow(0, 0, length as i64)?.f_transpose(0, 1);
                let key = to_f32(&prompt(&views.key_bsgd)?.f_transpose(1, 2)?)?;
                let value = to_f32(&prompt(&views.value_bsgd)?)?;
                let size = length * cache.d;
                for (head, (key, value)) in key.chunks_exact(size).zip(value.chunks_exact(size)).enumerate() {
                    let at = cache.head(slot, head);
                    let shard_cache = &mut cache.layers[layer][shard];
                    let rows = shard_cache.key[at.clone()].chunks_exact_mut(cache.positions);
                    for (row, key) in rows.zip(key.chunks_exact(length)) {
                        row[..length].copy_from_slice(key);
                    }
                    shard_cache.value[at.start..at.start + size].copy_from_slice(value);
                }
            }
            self.project(own, pass, layer)?;
            self.norm_up(own, pass, layer)?;
            self.feed_forward(own, pass, layer)?;
        }
        let logits = self.logits(weights, pass, &[length as i64 - 1])?;
        to_f32(&logits)
    }
}

impl KvCache {
    /// Reads one token in each used slot. Returns the logits after it, by slot; empty for the others.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn step(
        &mut self,
        weights: &Weights,
        peers: &Peers,
        next: &[Option<NextToken>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let Self {
            layers,
            slots,
            positions: capacity,
            heads,
            d,
            rotary,
            network,
            workspaces,
        } = self;
        let capacity = *capacity;
        let dimensions = CacheDimensions {
            capacity,
            g: *heads,
            d: *d,
        };
        if next.len() != *slots || next.iter().flatten().any(|next| next.position >= capacity) {
            return Err(ModelError::Size(format!(
                "{} sequences at valid positions for {slots} slots",
                next.len()
            )));
        }
        if next.iter().all(Option::is_none) {
            return Ok(vec![Vec::new(); *slots]);
        }
        let used = || {
            next.iter()
                .enumerate()
                .filter_map(|(slot, next)| Some((slot, (*next)?)))
        };
        let rows = match network.kernels {
            Kernels::Aten | Kernels::Device => *slots,
            _ => used().count(),
        };
        let list = |of: fn(NextToken) -> i64| {
            let mut list: Vec<i64> = used().map(|(_, next)| of(next)).collect();
            list.resize(rows, 0);
            list
        };
        let positions = Positions::new(&list(|next| next.position as i64), rotary.as_ref(), network.device)?;
        let workspace = match workspaces.entry(rows) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(entry) => entry.insert(Workspace::new(network, rows, 1, Recompute::None, 0)?),
        };
        let mut pass = PassContext {
            workspace,
            peers,
            slot: 0,
            ids_t: &to_device(&list(|next| next.token), network.device)?,
            positions: Some(&positions),
            trace: None,
        };
        network.embed(weights, &mut pass)?;
        let mut probabilities = Vec::new();
        for (layer, own) in weights.layers.iter().enumerate() {
            network.project_heads(own, &pass, layer)?;
            let activations = pass.workspace.layer(0, layer);
            let mut attended = Vec::with_capacity(activations.query_tp.len());
            for (shard, cached) in layers[layer].iter_mut().enumerate() {
                let views = network.views(
                    &activations.query_tp[shard],
                    &activations.key_value_tk,
                    pass.workspace,
                    shard,
                )?;
                let (query, key, value) = (
                    to_f32(&views.query_bsnd)?,
                    to_f32(&views.key_bsgd)?,
                    to_f32(&views.value_bsgd)?,
                );
                let next = used().map(|(slot, next)| (slot, next.position));
                let out = cached.attend(dimensions, next, rows, [&query, &key, &value], &mut probabilities);
                let width = (out.len() / rows) as i64;
                let out_ta = to_device(&out, network.device)?.f_view([rows as i64, width])?;
                attended.push(Attended {
                    out_ta: out_ta.f_to_kind(network.kind)?,
                    lse_bns: Tensor::f_empty([0], (Kind::Float, network.device))?,
                });
            }
            pass.workspace.layer_mut(0, layer).attended = attended;
            network.project(own, &pass, layer)?;
            network.norm_up(own, &pass, layer)?;
            network.feed_forward(own, &pass, layer)?;
        }
        let all: Vec<i64> = (0..rows as i64).collect();
        let logits = to_f32(&network.logits(weights, &pass, &all)?)?;
        let mut found = vec![Vec::new(); *slots];
        for ((slot, _), logits) in used().zip(logits.chunks_exact(network.parameters.shape.vocabulary)) {
            found[slot] = logits.to_vec();
        }
        Ok(found)
    }
}
