//! Inference: keys and values are kept, and each step adds one token to each of a fixed number of sequences.
//!
//! Products are those of a few rows, whose bits don't depend on how many there are, and a row's attention runs over its own
//! place alone, in the order of positions: a sequence's bits depend on nothing but its own tokens. (ATen's products do depend
//! on the number: there a step has a row for every place.) One worker computes the whole model here, so that layouts have no
//! part in it. Numbers of the cache are `f32`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use aurora_runtime::job::Recompute;

use tch::{Kind, Tensor};

use super::layout::Heads;
use super::network::Pass;
use super::ops::Rotary;
use super::positions::Positions;
use super::views::Weights;
use super::workspace::Workspace;
use super::{Kernels, ModelError, Network};
use crate::kernels::attention_step;
use crate::parallel::{Mesh, Peers};

/// Keys and values of one shard's heads in one layer.
#[derive(Debug)]
struct Kept {
    /// By place, head, element and position, which is how scores are summed.
    key: Vec<f32>,
    /// By place, head, position and element.
    value: Vec<f32>,
}

/// Room for the keys and values of a fixed number of sequences.
#[derive(Debug)]
pub struct Cache {
    /// By layer, then shard.
    layers: Vec<Vec<Kept>>,
    places: usize,
    positions: usize,
    /// Key heads that a shard sees.
    heads: usize,
    d: usize,
    rotary: Option<Rotary>,
    /// The model's, with the products of a step.
    network: Network,
    /// By rows of a step.
    workspaces: BTreeMap<usize, Workspace>,
}

/// What a place's sequence reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub token: i64,
    pub position: usize,
}

impl Cache {
    /// Room for `places` sequences of `positions` tokens at most.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if the network is not whole on this worker, or has fewer positions.
    pub fn new(network: &Network, places: usize, positions: usize) -> Result<Self, ModelError> {
        let shape = &network.layout.shape;
        if network.mesh != Mesh::ONE || positions > shape.context {
            return Err(ModelError::Unfit(format!(
                "inference on one worker, with sequences of {positions} tokens in a context of {}",
                shape.context
            )));
        }
        let heads = match shape.arrangement {
            Heads::Shared => 1,
            Heads::PerHead => shape.shard_heads(),
            Heads::Stacked => shape.shard_kv_heads(),
        };
        let d = shape.head_size;
        let kept = || {
            let room = places * heads * positions * d;
            Kept {
                key: vec![0.0; room],
                value: vec![0.0; room],
            }
        };
        let shards = network.layout.holding.shards.len();
        Ok(Self {
            layers: (0..shape.layers)
                .map(|_| (0..shards).map(|_| kept()).collect())
                .collect(),
            places,
            positions,
            heads,
            d,
            rotary: shape
                .rotary
                .map(|base| Rotary::new(positions, d, base, network.device))
                .transpose()?,
            network: Network {
                kernels: match network.kernels {
                    Kernels::Aten => Kernels::Aten,
                    Kernels::Own | Kernels::Portable | Kernels::Few => Kernels::Few,
                },
                ..network.clone()
            },
            workspaces: BTreeMap::new(),
        })
    }

    /// Where the keys, and the values, of a head in a place stand.
    fn head(&self, place: usize, head: usize) -> Range<usize> {
        let size = self.positions * self.d;
        let start = (place * self.heads + head) * size;
        start..start + size
    }

    /// Gives a place the first `length` tokens of another.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if there is no such place.
    pub fn copy(&mut self, from: usize, to: usize, length: usize) -> Result<(), ModelError> {
        if from.max(to) >= self.places || length > self.positions {
            return Err(ModelError::Unfit(format!(
                "{length} tokens of place {from} in place {to}"
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

/// A tensor's numbers in `f32`, row by row.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let flat = tensor.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    Ok(Vec::<f32>::try_from(&flat)?)
}

impl Network {
    /// Reads a prompt into a place of the cache: the pass holds its first `length` tokens, and anything behind them.
    /// Returns the logits after the last one.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn prefill(
        &self,
        weights: &Weights,
        pass: &mut Pass<'_>,
        cache: &mut Cache,
        place: usize,
        length: usize,
    ) -> Result<Vec<f32>, ModelError> {
        if length == 0 || length > cache.positions.min(pass.workspace.rows()) || place >= cache.places {
            return Err(ModelError::Unfit(format!(
                "a prompt of {length} tokens in place {place}"
            )));
        }
        self.embed(weights, pass)?;
        for (layer, own) in weights.layers.iter().enumerate() {
            self.attend(own, pass, layer)?;
            let kept = pass.workspace.kept(pass.slot, layer);
            for shard in 0..kept.query.len() {
                let views = self.views(&kept.query[shard], &kept.key_value, pass.workspace, shard)?;
                // [1, s, g, d] to [g, s, d], and keys to [g, d, s].
                let own = |tensor: &Tensor| tensor.f_select(0, 0)?.f_narrow(0, 0, length as i64)?.f_transpose(0, 1);
                let key = numbers(&own(&views.key)?.f_transpose(1, 2)?)?;
                let value = numbers(&own(&views.value)?)?;
                let size = length * cache.d;
                for (head, (key, value)) in key.chunks_exact(size).zip(value.chunks_exact(size)).enumerate() {
                    let at = cache.head(place, head);
                    let kept = &mut cache.layers[layer][shard];
                    let rows = kept.key[at.clone()].chunks_exact_mut(cache.positions);
                    for (row, key) in rows.zip(key.chunks_exact(length)) {
                        row[..length].copy_from_slice(key);
                    }
                    kept.value[at.start..at.start + size].copy_from_slice(value);
                }
            }
            self.project(own, pass, layer)?;
            self.norm_up(own, pass, layer)?;
            self.feed_forward(own, pass, layer)?;
        }
        let logits = self.logits(weights, pass, &[length as i64 - 1])?;
        numbers(&logits)
    }
}

impl Cache {
    /// Reads one token in each place that is in use. Returns the logits after it, by place; nothing for the others.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn step(
        &mut self,
        weights: &Weights,
        peers: &Peers,
        next: &[Option<Next>],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let Self {
            layers,
            places,
            positions: room,
            heads,
            d,
            rotary,
            network,
            workspaces,
        } = self;
        let (room, g, d) = (*room, *heads, *d);
        if next.len() != *places || next.iter().flatten().any(|next| next.position >= room) {
            return Err(ModelError::Unfit(format!(
                "{} sequences for {places} places",
                next.len()
            )));
        }
        if next.iter().all(Option::is_none) {
            return Ok(vec![Vec::new(); *places]);
        }
        let used = || {
            next.iter()
                .enumerate()
                .filter_map(|(place, next)| Some((place, (*next)?)))
        };
        let rows = match network.kernels {
            Kernels::Aten => *places,
            _ => used().count(),
        };
        let list = |of: fn(Next) -> i64| {
            let mut list: Vec<i64> = used().map(|(_, next)| of(next)).collect();
            list.resize(rows, 0);
            list
        };
        let positions = Positions::new(&list(|next| next.position as i64), rotary.as_ref())?;
        let workspace = match workspaces.entry(rows) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(Workspace::new(network, rows, 1, Recompute::None, 0)?),
        };
        let mut pass = Pass {
            workspace,
            peers,
            slot: 0,
            ids: &Tensor::f_from_slice(&list(|next| next.token))?,
            positions: Some(&positions),
            spot: None,
        };
        network.embed(weights, &mut pass)?;
        let mut shares = Vec::new();
        for (layer, own) in weights.layers.iter().enumerate() {
            network.project_heads(own, &pass, layer)?;
            let kept = pass.workspace.kept(0, layer);
            let mut attended = Vec::with_capacity(kept.query.len());
            for (shard, cached) in layers[layer].iter_mut().enumerate() {
                let views = network.views(&kept.query[shard], &kept.key_value, pass.workspace, shard)?;
                let (query, key, value) = (numbers(&views.query)?, numbers(&views.key)?, numbers(&views.value)?);
                let mut out = vec![0.0f32; query.len()];
                // Query heads that share a key and value head stand side by side.
                let shared = query.len() / (rows * g);
                for (row, (place, next)) in used().enumerate() {
                    for head in 0..g {
                        let (own, at) = ((row * g + head) * d, (place * g + head) * room * d);
                        let keys = &mut cached.key[at..at + room * d];
                        for (line, key) in keys.chunks_exact_mut(room).zip(&key[own..own + d]) {
                            line[next.position] = *key;
                        }
                        let values = &mut cached.value[at..at + room * d];
                        values[next.position * d..][..d].copy_from_slice(&value[own..own + d]);
                        shares.resize(next.position + 1, 0.0);
                        let own = (row * g + head) * shared;
                        let (query, out) = (&query[own..own + shared], &mut out[own..own + shared]);
                        attention_step(query, keys, room, values, d, &mut shares, out);
                    }
                }
                let width = (out.len() / rows) as i64;
                let out = Tensor::f_from_slice(&out)?.f_view([rows as i64, width])?;
                let logs = Tensor::f_empty([0], (Kind::Float, network.device))?;
                attended.push((out.f_to_kind(network.kind)?, logs));
            }
            pass.workspace.kept_mut(0, layer).attended = attended;
            network.project(own, &pass, layer)?;
            network.norm_up(own, &pass, layer)?;
            network.feed_forward(own, &pass, layer)?;
        }
        let all: Vec<i64> = (0..rows as i64).collect();
        let logits = numbers(&network.logits(weights, &pass, &all)?)?;
        let mut found = vec![Vec::new(); *places];
        for ((place, _), logits) in used().zip(logits.chunks_exact(network.layout.shape.vocabulary)) {
            found[place] = logits.to_vec();
        }
        Ok(found)
    }
}
