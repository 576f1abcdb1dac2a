//! Inference: keys and values are kept, and each step adds one token to each of a fixed number of sequences.
//!
//! A step computes with as many rows as the cache has places, whatever number of them is in use, and a row's attention
//! runs over its own place alone, in the order of positions: a sequence's bits depend on nothing but its own tokens. One
//! worker computes the whole model here, so that layouts have no part in it. Numbers of the cache are `f32`.

use tch::{Kind, Tensor};

use super::layout::Heads;
use super::network::Pass;
use super::ops::Rotary;
use super::views::Weights;
use super::workspace::Workspace;
use super::{ModelError, Network};
use crate::parallel::{Mesh, Peers};

/// Interleaved partial sums of a dot product.
const LANES: usize = 16;

/// Keys or values of one shard's heads in one layer, by place, head, position and element.
#[derive(Debug)]
struct Kept {
    key: Vec<f32>,
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
    workspace: Workspace,
}

/// What a place's sequence reads next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        if network.mesh != Mesh::ONE || positions > shape.context || places > shape.context {
            return Err(ModelError::Unfit(format!(
                "inference on one worker, with {places} sequences of {positions} tokens in a context of {}",
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
            workspace: Workspace::new(network, 1, places, aurora_runtime::job::Recompute::None, 0)?,
        })
    }

    fn at(&self, place: usize, head: usize, position: usize) -> usize {
        ((place * self.heads + head) * self.positions + position) * self.d
    }
}

/// A tensor's numbers in `f32`, row by row.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let flat = tensor.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    Ok(Vec::<f32>::try_from(&flat)?)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Attention of one query over keys and values by position.
fn attend(query: &[f32], keys: &[f32], values: &[f32], shares: &mut Vec<f32>, out: &mut [f32]) {
    let d = query.len();
    let scale = 1.0 / (d as f32).sqrt();
    shares.clear();
    shares.extend(keys.chunks_exact(d).map(|key| dot(query, key) * scale));
    let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f32;
    for share in shares.iter_mut() {
        *share = libm::expf(*share - most);
        sum += *share;
    }
    out.fill(0.0);
    for (share, value) in shares.iter().zip(values.chunks_exact(d)) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += share * value;
        }
    }
    out.iter_mut().for_each(|out| *out /= sum);
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
                for (of_key, tensor) in [(true, &views.key), (false, &views.value)] {
                    // [1, s, g, d] to [g, s, d].
                    let own = tensor
                        .f_select(0, 0)?
                        .f_narrow(0, 0, length as i64)?
                        .f_transpose(0, 1)?;
                    let own = numbers(&own)?;
                    for (head, rows) in own.chunks_exact(length * cache.d).enumerate() {
                        let at = cache.at(place, head, 0);
                        let kept = &mut cache.layers[layer][shard];
                        let into = if of_key { &mut kept.key } else { &mut kept.value };
                        into[at..at + rows.len()].copy_from_slice(rows);
                    }
                }
            }
            self.project(own, pass, layer)?;
            self.norm_up(own, pass, layer)?;
            self.feed_forward(own, pass, layer)?;
        }
        let logits = self.logits(weights, pass, &[length as i64 - 1])?;
        numbers(&logits)
    }

    /// Reads one token a place, in use or not. Returns the logits after each.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn decode(
        &self,
        weights: &Weights,
        peers: &Peers,
        cache: &mut Cache,
        next: &[Next],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        if next.len() != cache.places || next.iter().any(|next| next.position >= cache.positions) {
            return Err(ModelError::Unfit(format!(
                "{} sequences for {} places",
                next.len(),
                cache.places
            )));
        }
        let list = |of: fn(&Next) -> i64| Tensor::f_from_slice(&next.iter().map(of).collect::<Vec<_>>());
        let (ids, positions) = (list(|next| next.token)?, list(|next| next.position as i64)?);
        let Cache {
            layers,
            places,
            positions: room,
            heads,
            d,
            rotary,
            workspace,
        } = cache;
        workspace.rotary = rotary.as_ref().map(|rotary| rotary.at(&positions)).transpose()?;
        let pass = Pass {
            workspace,
            peers,
            slot: 0,
            ids: &ids,
            spot: None,
        };
        let position = weights
            .position
            .as_ref()
            .map(|table| table.f_index_select(0, &positions))
            .transpose()?;
        let x = pass.workspace.input(0, 0);
        self.kernels
            .embed(&ids, *places, 0, &weights.word, position.as_ref(), x)?;
        let mut shares = Vec::new();
        for (layer, own) in weights.layers.iter().enumerate() {
            self.project_heads(own, &pass, layer)?;
            let kept = pass.workspace.kept(0, layer);
            let mut attended = Vec::with_capacity(kept.query.len());
            for (shard, cached) in layers[layer].iter_mut().enumerate() {
                let views = self.views(&kept.query[shard], &kept.key_value, pass.workspace, shard)?;
                let (query, key, value) = (numbers(&views.query)?, numbers(&views.key)?, numbers(&views.value)?);
                let (n, g) = (query.len() / (*places * *d), *heads);
                let mut out = vec![0.0f32; query.len()];
                for (place, next) in next.iter().enumerate() {
                    for head in 0..g {
                        let (from, to) = (
                            (place * g + head) * *d,
                            ((place * g + head) * *room + next.position) * *d,
                        );
                        cached.key[to..to + *d].copy_from_slice(&key[from..from + *d]);
                        cached.value[to..to + *d].copy_from_slice(&value[from..from + *d]);
                    }
                    for head in 0..n {
                        let own = (place * n + head) * *d;
                        let start = (place * g + head * g / n) * *room * *d;
                        let read = start..start + (next.position + 1) * *d;
                        let (query, out) = (&query[own..own + *d], &mut out[own..own + *d]);
                        attend(query, &cached.key[read.clone()], &cached.value[read], &mut shares, out);
                    }
                }
                let out = Tensor::f_from_slice(&out)?.f_view([*places as i64, (n * *d) as i64])?;
                let logs = Tensor::f_empty([0], (Kind::Float, self.device))?;
                attended.push((out.f_to_kind(self.kind)?, logs));
            }
            pass.workspace.kept_mut(0, layer).attended = attended;
            self.project(own, &pass, layer)?;
            self.norm_up(own, &pass, layer)?;
            self.feed_forward(own, &pass, layer)?;
        }
        let rows: Vec<i64> = (0..*places as i64).collect();
        let logits = self.logits(weights, &pass, &rows)?;
        let width = self.layout.shape.vocabulary;
        Ok(numbers(&logits)?.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// Logits of some rows of a pass that has gone through all layers, `[rows, v]`, in the numbers that the model
    /// computes with; on one worker alone.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn logits(&self, weights: &Weights, pass: &Pass<'_>, rows: &[i64]) -> Result<Tensor, ModelError> {
        let workspace = &*pass.workspace;
        let Some(norm) = weights.final_norm.as_ref().filter(|_| self.mesh == Mesh::ONE) else {
            return Err(ModelError::Unfit(
                "this worker does not hold the whole model".to_owned(),
            ));
        };
        let stats = super::ops::Stats {
            mean: &workspace.mean,
            rstd: &workspace.rstd,
        };
        self.norm(pass, workspace.input(pass.slot, weights.layers.len()), norm, stats)?;
        let normed = workspace.normed.f_index_select(0, &Tensor::f_from_slice(rows)?)?;
        let mut shards = Vec::new();
        for output in &weights.output {
            let out = Tensor::f_empty([rows.len() as i64, output.size()[0]], (self.kind, self.device))?;
            self.kernels.project(&out, &normed, output)?;
            shards.push(out);
        }
        Ok(Tensor::f_cat(&shards, 1)?)
    }
}
