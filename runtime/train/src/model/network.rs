//! A micro-batch through the layers that a rank holds, forward and backward.

use std::ops::Range;

use aurora_runtime::job::Recompute;
use aurora_runtime::trace::Operation;
use tch::{Device, Kind, Tensor};

use super::layout::FeedForward;
use super::ops::Stats;
use super::positions::Positions;
use super::record::Spot;
use super::views::{Layer, Linear, Norm, Weights};
use super::workspace::{Rows, Workspace};
use super::{Gradients, Kernels, Layout, ModelError};
use crate::parallel::{Arriving, Grid, Mesh, Peers, mesh};

/// The model's arithmetic on one rank; holds no weights.
#[derive(Clone, Debug)]
pub struct Network {
    pub layout: Layout,
    pub grid: Grid,
    pub mesh: Mesh,
    pub kernels: Kernels,
    /// Numbers of weights and activations; the residual stream and all sums are `f32` in any case.
    pub kind: Kind,
    pub device: Device,
    /// Each tensor rank keeps the residual stream's rows of its own blocks only.
    pub sequence_parallel: bool,
    /// For tests of the search for faults: this sum over shards is added in another order where several ranks meet.
    pub fault: Option<Operation>,
}

/// A micro-batch in a thread's workspace.
pub struct Pass<'a> {
    pub workspace: &'a mut Workspace,
    pub peers: &'a Peers,
    pub slot: usize,
    /// `[t]`; known to the first and the last stage.
    pub ids: &'a Tensor,
    /// Where the rows stand, if not in their order.
    pub positions: Option<&'a Positions>,
    /// Where results are recorded, if they are.
    pub spot: Option<Spot<'a>>,
}

/// The end of a sublayer's backward: what is summed over shards, and the norm that the sum goes through.
pub(super) struct Descent<'a> {
    pub layer: Option<usize>,
    pub sum: Operation,
    pub result: Operation,
    /// Added to the sum.
    pub extra: Option<&'a Tensor>,
}

impl Network {
    /// The whole of `rows` rows as one block: what a sharded tensor's gradient is summed over.
    #[allow(clippy::single_range_in_vec_init)] // one block, not its numbers
    pub(super) fn all(rows: usize) -> [Range<usize>; 1] {
        [0..rows]
    }

    /// The row blocks over which a replicated tensor's gradient is summed.
    pub(super) fn blocks(&self, rows: usize) -> Vec<Range<usize>> {
        (0..self.grid.tensor).map(|i| self.grid.row_block(rows, i)).collect()
    }

    /// Those of them that this rank sums, counted from its first row.
    pub(super) fn own_blocks(&self, rows: &Rows) -> Vec<Range<usize>> {
        let of = |i| {
            let Range { start, end } = self.grid.row_block(rows.all, i);
            start - rows.own.start..end - rows.own.start
        };
        self.layout.holding.shards.clone().map(of).collect()
    }

    /// Which of `all` rows stand where.
    pub(super) fn rows(&self, all: usize) -> Rows {
        let of = |shards: &Range<usize>| {
            self.grid.row_block(all, shards.start).start..self.grid.row_block(all, shards.end - 1).end
        };
        let ranks = 0..self.mesh.tensor;
        let shares: Vec<_> = ranks
            .map(|rank| of(&mesh::share(self.grid.tensor, self.mesh.tensor, rank)))
            .collect();
        let own = of(&self.layout.holding.shards);
        Rows {
            all,
            held: if self.sequence_parallel { own.clone() } else { 0..all },
            own,
            shares,
        }
    }

    /// The input of this stage's first layer, from the ids or from the stage before; then all its layers.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn forward(&self, weights: &Weights, pass: &mut Pass<'_>) -> Result<(), ModelError> {
        if self.layout.holding.first {
            self.embed(weights, pass)?;
            let own = pass.workspace.incoming(pass.slot)?;
            self.record_own(pass, None, Operation::Embedding, &own)?;
        }
        for (layer, own) in weights.layers.iter().enumerate() {
            self.attend(own, pass, layer)?;
            self.project(own, pass, layer)?;
            self.norm_up(own, pass, layer)?;
            self.feed_forward(own, pass, layer)?;
        }
        Ok(())
    }

    /// Backward of all layers, from the gradient of the last one's output (own rows of `dx`) to that of the first one's
    /// input; on the first stage also of the embeddings. Gradients are added to `gradients`.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn backward(&self, weights: &Weights, pass: &mut Pass<'_>, gradients: &Gradients) -> Result<(), ModelError> {
        for layer in (0..weights.layers.len()).rev() {
            let (own, gradient) = (&weights.layers[layer], &gradients.of.layers[layer]);
            if pass.workspace.recompute == Recompute::Full {
                self.attend(own, pass, layer)?;
                self.project(own, pass, layer)?;
                self.norm_up(own, pass, layer)?;
            }
            self.feed_forward_backward(own, pass, layer, gradient)?;
            self.attention_backward(own, pass, layer, gradient)?;
        }
        if self.layout.holding.first {
            let workspace = &*pass.workspace;
            let dx = &workspace.backward()?.dx;
            pass.peers.tensor_group().gather(dx, &workspace.rows.shares)?;
            self.record_rows(pass, None, Operation::EmbeddingGradient, dx)?;
            let (word, position) = (&gradients.of.word, gradients.of.position.as_ref());
            let first = self.first_id(self.layout.holding.shards.start);
            self.kernels
                .embed_backward(pass.ids, workspace.sequence, first, dx, word, position)?;
        }
        Ok(())
    }

    /// The first id of a shard of the vocabulary.
    pub(super) fn first_id(&self, shard: usize) -> i64 {
        (shard * (self.layout.shape.vocabulary / self.grid.tensor)) as i64
    }

    /// Rows of the embeddings. Each row comes from the one rank that holds its id.
    pub(super) fn embed(&self, weights: &Weights, pass: &mut Pass<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (x, rows) = (workspace.input(pass.slot, 0), &workspace.rows);
        let table = weights.position.as_ref();
        let chosen = pass.positions.zip(table);
        let chosen = chosen
            .map(|(own, table)| table.f_index_select(0, &own.rows))
            .transpose()?;
        // A line for each row, or for each place of a sequence.
        let (position, lines) = match &chosen {
            Some(chosen) => (Some(chosen), workspace.rows()),
            None => (table, workspace.sequence),
        };
        let first = self.first_id(self.layout.holding.shards.start);
        let out = if self.mesh.tensor == 1 { x } else { &workspace.root };
        self.kernels
            .embed(pass.ids, lines, first, &weights.word, position, out)?;
        if self.mesh.tensor == 1 {
            return Ok(());
        }
        let parts = pass
            .peers
            .tensor_group()
            .scatter(out, &rows.shares, &workspace.incoming)?
            .wait()?;
        let (own, ids) = (rows.own_of(x)?, rows.own_of_all(pass.ids)?);
        for (rank, part) in parts.iter().enumerate() {
            let shards = mesh::share(self.grid.tensor, self.mesh.tensor, rank);
            let (first, end) = (self.first_id(shards.start), self.first_id(shards.end));
            let theirs = ids.f_ge(first)?.f_logical_and(&ids.f_lt(end)?)?.f_unsqueeze(1)?;
            own.shallow_clone().f_copy_(&part.f_where_self(&theirs, &own)?)?;
        }
        self.fill_held(pass, x)
    }

    /// Completes the first layer's input, of which the own rows have come from the stage before.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn fill_input(&self, pass: &Pass<'_>) -> Result<(), ModelError> {
        self.fill_held(pass, pass.workspace.input(pass.slot, 0))
    }

    /// Brings the other ranks' rows to a tensor of the held rows, if they are held here.
    pub(super) fn fill_held(&self, pass: &Pass<'_>, held: &Tensor) -> Result<(), ModelError> {
        if !pass.workspace.rows.cut() {
            pass.peers.tensor_group().gather(held, &pass.workspace.rows.shares)?;
        }
        Ok(())
    }

    /// Own rows of the tree sum over all shards' partials, as the parts that are still to be added. Partials must not
    /// change until they have arrived.
    pub(super) fn own_parts(&self, pass: &Pass<'_>, sum: Operation) -> Result<Arriving, ModelError> {
        let workspace = &*pass.workspace;
        if self.mesh.tensor == 1 {
            return Ok(Arriving::here(
                workspace.partials.iter().map(Tensor::shallow_clone).collect(),
            ));
        }
        // This rank's shards are a whole subtree.
        let root = match &workspace.partials[..] {
            [one] if self.kind == Kind::Float => one,
            several => {
                self.kernels.sum_partials(several, None, &workspace.root)?;
                &workspace.root
            }
        };
        let parts = pass
            .peers
            .tensor_group()
            .scatter(root, &workspace.rows.shares, &workspace.incoming)?;
        if self.fault == Some(sum) {
            return Ok(Arriving::here(self.parts_of(sum, parts.wait()?)?));
        }
        Ok(parts)
    }

    /// The ranks' parts of a sum over shards, in the order of the tree; with a fault in it, their sum from the last to the
    /// first.
    pub(super) fn parts_of(&self, sum: Operation, parts: Vec<Tensor>) -> Result<Vec<Tensor>, ModelError> {
        if self.fault != Some(sum) {
            return Ok(parts);
        }
        let mut parts = parts.into_iter().rev();
        let last = parts.next();
        let sum = last
            .map(|last| parts.try_fold(last, |sum, part| sum.f_add(&part)))
            .transpose()?;
        Ok(sum.into_iter().collect())
    }

    /// `out = residual + (sum over shards of partials + bias)`, on the held rows.
    fn add_to_residual(
        &self,
        pass: &Pass<'_>,
        (layer, sum): (usize, Operation),
        bias: Option<&Tensor>,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), ModelError> {
        let rows = &pass.workspace.rows;
        let parts = self.own_parts(pass, sum)?.wait()?;
        let own = rows.own_of(out)?;
        self.kernels.add_residual(&parts, bias, &rows.own_of(residual)?, &own)?;
        self.record_own(pass, Some(layer), sum, &own)?;
        self.fill_held(pass, out)
    }

    /// Norm of the held rows of `x` into all rows of `normed`; fills what is kept of it.
    pub(super) fn norm(&self, pass: &Pass<'_>, x: &Tensor, norm: &Norm, stats: Stats<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let out = workspace.rows.held_of_all(&workspace.normed)?;
        self.kernels
            .norm_forward(x, norm, self.layout.shape.epsilon, &out, stats)?;
        self.fill_all(pass, &workspace.normed)
    }

    /// [`Network::norm`] once more, from what was kept.
    pub(super) fn norm_again(
        &self,
        pass: &Pass<'_>,
        x: &Tensor,
        norm: &Norm,
        stats: Stats<'_>,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let out = workspace.rows.held_of_all(&workspace.normed)?;
        self.kernels.norm_apply(x, norm, &out, stats)?;
        self.fill_all(pass, &workspace.normed)
    }

    /// Brings the other ranks' rows to a tensor of all rows, if they are not held here.
    fn fill_all(&self, pass: &Pass<'_>, all: &Tensor) -> Result<(), ModelError> {
        if pass.workspace.rows.cut() {
            pass.peers.tensor_group().gather(all, &pass.workspace.rows.shares)?;
        }
        Ok(())
    }

    /// Own rows of the gradient of a norm's output: the sum over shards, with what else is added.
    pub(super) fn sum_dnorm(&self, pass: &Pass<'_>, of: &Descent<'_>, parts: Arriving) -> Result<(), ModelError> {
        let dnorm = &pass.workspace.backward()?.dnorm;
        self.kernels.sum_partials(&parts.wait()?, of.extra, dnorm)?;
        self.record_own(pass, of.layer, of.sum, dnorm)
    }

    /// Backward of a norm: own rows of `dnorm` go into `dx`; weight and bias get theirs by row blocks.
    pub(super) fn norm_backward(
        &self,
        pass: &Pass<'_>,
        of: &Descent<'_>,
        x: &Tensor,
        norm: &Norm,
        stats: Stats<'_>,
        gradient: &Norm,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        let (mean, rstd) = (rows.own_of(stats.mean)?, rows.own_of(stats.rstd)?);
        let stats = Stats {
            mean: &mean,
            rstd: &rstd,
        };
        let dx = rows.own_of_all(&backward.dx)?;
        self.kernels.norm_backward(
            &backward.dnorm,
            &rows.own_of(x)?,
            norm,
            stats,
            &self.own_blocks(rows),
            &dx,
            gradient,
        )?;
        self.record_own(pass, of.layer, of.result, &dx)
    }

    /// All rows of `dx`, in the numbers that the model computes with.
    pub(super) fn fill_dy(&self, pass: &Pass<'_>, layer: usize, of: Operation) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        self.kernels
            .cast(&rows.own_of_all(&backward.dx)?, &rows.own_of_all(&backward.dy)?)?;
        pass.peers.tensor_group().gather(&backward.dy, &rows.shares)?;
        self.record_rows(pass, Some(layer), of, &backward.dy)
    }

    /// Adds the gradient of a row-parallel layer's bias: of the own rows of `dx`, by row blocks.
    pub(super) fn bias_backward(&self, pass: &Pass<'_>, gradient: &[Tensor]) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        if gradient.is_empty() {
            return Ok(());
        }
        let dx = workspace.rows.own_of_all(&workspace.backward()?.dx)?;
        self.kernels
            .column_sums(&dx, &self.own_blocks(&workspace.rows), gradient)
    }

    /// The sum of the input and the shards' attention outputs.
    pub(super) fn project(&self, own: &Layer, pass: &Pass<'_>, layer: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let kept = workspace.kept(pass.slot, layer);
        for (shard, (attended, _)) in kept.attended.iter().enumerate() {
            let partial = &workspace.partials[shard];
            self.kernels.project(partial, attended, &own.out.weight[shard])?;
            self.record_shard(pass, Some(layer), Operation::AttentionOutput, shard, partial)?;
        }
        let of = (layer, Operation::AttentionOutputSum);
        self.add_to_residual(
            pass,
            of,
            own.out.bias.first(),
            workspace.input(pass.slot, layer),
            &kept.mid,
        )
    }

    /// The second norm's output, with what it keeps.
    pub(super) fn norm_up(&self, own: &Layer, pass: &Pass<'_>, layer: usize) -> Result<(), ModelError> {
        let kept = pass.workspace.kept(pass.slot, layer);
        let stats = Stats {
            mean: &kept.mean2,
            rstd: &kept.rstd2,
        };
        self.norm(pass, &kept.mid, &own.norm2, stats)?;
        self.record_rows(pass, Some(layer), Operation::SecondNorm, &pass.workspace.normed)
    }

    /// One shard's activation from the normed rows: fills `z` and `activated`.
    fn activate(&self, up: &Linear, pass: &Pass<'_>, layer: usize, shard: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let z = workspace.z(pass.slot, layer, shard);
        self.kernels.project(z, &workspace.normed, &up.weight[shard])?;
        self.record_shard(pass, Some(layer), Operation::Up, shard, z)?;
        match self.layout.shape.activation {
            FeedForward::Gelu(gelu) => self
                .kernels
                .gelu_forward(gelu, z, &up.bias[shard], &workspace.activated)?,
            FeedForward::SwiGlu => self.kernels.swiglu_forward(z, &workspace.activated)?,
        }
        self.record_shard(pass, Some(layer), Operation::Activation, shard, &workspace.activated)
    }

    pub(super) fn feed_forward(&self, own: &Layer, pass: &Pass<'_>, layer: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        for (shard, partial) in workspace.partials.iter().enumerate() {
            self.activate(&own.up, pass, layer, shard)?;
            self.kernels
                .project(partial, &workspace.activated, &own.down.weight[shard])?;
            self.record_shard(pass, Some(layer), Operation::Down, shard, partial)?;
        }
        let mid = &workspace.kept(pass.slot, layer).mid;
        let of = (layer, Operation::DownSum);
        self.add_to_residual(
            pass,
            of,
            own.down.bias.first(),
            mid,
            workspace.input(pass.slot, layer + 1),
        )
    }

    fn feed_forward_backward(
        &self,
        own: &Layer,
        pass: &Pass<'_>,
        layer: usize,
        gradient: &Layer,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (workspace.rows(), workspace.backward()?);
        let kept = workspace.kept(pass.slot, layer);
        let stats = Stats {
            mean: &kept.mean2,
            rstd: &kept.rstd2,
        };
        self.norm_again(pass, &kept.mid, &own.norm2, stats)?;
        self.record_rows(pass, Some(layer), Operation::SecondNorm, &workspace.normed)?;
        self.fill_dy(pass, layer, Operation::DownSumGradient)?;
        self.bias_backward(pass, &gradient.down.bias)?;
        let mut sum = None;
        for (shard, partial) in workspace.partials.iter().enumerate() {
            if workspace.recompute != Recompute::None {
                self.activate(&own.up, pass, layer, shard)?;
            }
            let z = workspace.z(pass.slot, layer, shard);
            match self.layout.shape.activation {
                FeedForward::Gelu(gelu) => {
                    self.kernels
                        .multiply(&backward.dz, &backward.dy, &own.down.weight[shard])?;
                    self.record_shard(pass, Some(layer), Operation::DownGradient, shard, &backward.dz)?;
                    self.kernels
                        .gelu_backward(gelu, z, &backward.dz, &workspace.activated)?;
                }
                FeedForward::SwiGlu => {
                    self.kernels
                        .multiply(&backward.dactivated, &backward.dy, &own.down.weight[shard])?;
                    self.record_shard(pass, Some(layer), Operation::DownGradient, shard, &backward.dactivated)?;
                    self.kernels
                        .swiglu_backward(z, &backward.dactivated, &backward.dz, &workspace.activated)?;
                }
            }
            self.record_shard(pass, Some(layer), Operation::ActivationGradient, shard, &backward.dz)?;
            self.kernels.multiply(partial, &backward.dz, &own.up.weight[shard])?;
            self.record_shard(pass, Some(layer), Operation::UpGradient, shard, partial)?;
            if shard + 1 == workspace.partials.len() {
                // On its way while the weights' gradients are computed.
                sum = Some(self.own_parts(pass, Operation::UpGradientSum)?);
            }
            let activated = &workspace.activated;
            self.kernels
                .add_product(&gradient.down.weight[shard], &backward.dy, activated)?;
            if let Some(bias) = gradient.up.bias.get(shard) {
                self.kernels
                    .column_sums(&backward.dz, &Self::all(rows), std::slice::from_ref(bias))?;
            }
            self.kernels
                .add_product(&gradient.up.weight[shard], &backward.dz, &workspace.normed)?;
        }
        let of = Descent {
            layer: Some(layer),
            sum: Operation::UpGradientSum,
            result: Operation::SecondNormGradient,
            extra: None,
        };
        if let Some(sum) = sum {
            self.sum_dnorm(pass, &of, sum)?;
        }
        self.norm_backward(pass, &of, &kept.mid, &own.norm2, stats, &gradient.norm2)
    }
}
