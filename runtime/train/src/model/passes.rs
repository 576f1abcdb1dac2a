//! Forward and backward pass of a micro-batch through the layers that a rank holds. Shape letters: see `model`.

use aurora_runtime::job::Recompute;
use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::ops::NormStats;
use super::parameter_map::FeedForwardActivation;
use super::pass_context::PassContext;
use super::views::{Layer, Linear, Norm, Weights};
use super::{Gradients, Kernels, ModelError, Network};
use crate::parallel::{PendingParts, mesh};

/// The end of a sublayer's backward pass: a sum over shards and the norm that it goes through.
pub(super) struct SublayerBackward<'a> {
    pub layer: Option<usize>,
    pub sum: Operation,
    pub result: Operation,
    /// Added to the sum over shards.
    pub extra: Option<&'a Tensor>,
}

impl Network {
    /// Computes the input of the first layer (on the first pipeline rank), then all layers on this rank.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn forward(&self, weights: &Weights, pass: &mut PassContext<'_>) -> Result<(), ModelError> {
        if self.parameters.holding.first {
            self.embed(weights, pass)?;
            let own_th = pass.workspace.incoming(pass.slot)?;
            self.record_own(pass, None, Operation::Embedding, &own_th)?;
        }
        for (layer, layer_weights) in weights.layers.iter().enumerate() {
            self.attend(layer_weights, pass, layer)?;
            self.project(layer_weights, pass, layer)?;
            self.norm_up(layer_weights, pass, layer)?;
            self.feed_forward(layer_weights, pass, layer)?;
        }
        Ok(())
    }

    /// Backward pass of all layers on this rank, from the gradient of the last layer's output (own rows of `dx_th`) to
    /// that of the first layer's input; on the first pipeline rank also of the embeddings. Adds to `gradients`.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn backward(
        &self,
        weights: &Weights,
        pass: &mut PassContext<'_>,
        gradients: &Gradients,
    ) -> Result<(), ModelError> {
        for layer in (0..weights.layers.len()).rev() {
            let (layer_weights, gradient) = (&weights.layers[layer], &gradients.views.layers[layer]);
            if pass.workspace.recompute == Recompute::Full {
                self.attend(layer_weights, pass, layer)?;
                self.project(layer_weights, pass, layer)?;
                self.norm_up(layer_weights, pass, layer)?;
            }
            self.feed_forward_backward(layer_weights, pass, layer, gradient)?;
            self.attention_backward(layer_weights, pass, layer, gradient)?;
        }
        if self.parameters.holding.first {
            let workspace = &*pass.workspace;
            let dx_th = &workspace.backward()?.dx_th;
            pass.peers
                .tensor_group()
                .all_gather_rows(dx_th, &workspace.rows.by_rank)?;
            self.record_rows(pass, None, Operation::EmbeddingGradient, dx_th)?;
            let (word_vh, position_sh) = (&gradients.views.word_vh, gradients.views.position_sh.as_ref());
            let first = self.first_id(self.parameters.holding.shards.start);
            self.kernels
                .embed_backward(pass.ids_t, workspace.sequence, first, dx_th, word_vh, position_sh)?;
        }
        Ok(())
    }

    /// Computes the embeddings. Each row comes from the one rank that holds its id.
    pub(super) fn embed(&self, weights: &Weights, pass: &mut PassContext<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (x_th, rows) = (workspace.input(pass.slot, 0), &workspace.rows);
        let table_sh = weights.position_sh.as_ref();
        let by_row = pass.positions.zip(table_sh);
        let by_row = by_row
            .map(|(positions, table_sh)| table_sh.f_index_select(0, &positions.rows_t))
            .transpose()?;
        // One row of positions for each row, or for each token of a sequence.
        let (position_sh, sequence) = match &by_row {
            Some(by_row) => (Some(by_row), workspace.rows()),
            None => (table_sh, workspace.sequence),
        };
        let first = self.first_id(self.parameters.holding.shards.start);
        let out_th = if self.mesh.tensor == 1 {
            x_th
        } else {
            &workspace.partial_sum_th
        };
        self.kernels
            .embed(pass.ids_t, sequence, first, &weights.word_vh, position_sh, out_th)?;
        if self.mesh.tensor == 1 {
            return Ok(());
        }
        let parts = pass
            .peers
            .tensor_group()
            .start_all_to_all_rows(out_th, &rows.by_rank, &workspace.incoming_th)?
            .wait()?;
        let (own, ids) = (rows.own_of(x_th)?, rows.own_of_all(pass.ids_t)?);
        for (rank, part) in parts.iter().enumerate() {
            let shards = mesh::split_range(self.grid.tensor, self.mesh.tensor, rank);
            let (first, end) = (self.first_id(shards.start), self.first_id(shards.end));
            let theirs = ids.f_ge(first)?.f_logical_and(&ids.f_lt(end)?)?.f_unsqueeze(1)?;
            own.shallow_clone().f_copy_(&part.f_where_self(&theirs, &own)?)?;
        }
        self.fill_held(pass, x_th)
    }

    /// Completes the first layer's input, whose own rows came from the previous pipeline rank.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn fill_input(&self, pass: &PassContext<'_>) -> Result<(), ModelError> {
        self.fill_held(pass, pass.workspace.input(pass.slot, 0))
    }

    /// Fills the other ranks' rows of a tensor with the held rows, if this rank holds them.
    pub(super) fn fill_held(&self, pass: &PassContext<'_>, held: &Tensor) -> Result<(), ModelError> {
        if !pass.workspace.rows.holds_own_only() {
            pass.peers
                .tensor_group()
                .all_gather_rows(held, &pass.workspace.rows.by_rank)?;
        }
        Ok(())
    }

    /// Own rows of all ranks' partial sums: the terms of the tree sum over shards. Partials must not change until they
    /// have arrived.
    pub(super) fn own_rows_of_partials(
        &self,
        pass: &PassContext<'_>,
        sum: Operation,
    ) -> Result<PendingParts, ModelError> {
        let workspace = &*pass.workspace;
        if self.mesh.tensor == 1 {
            return Ok(PendingParts::complete(
                workspace.partials_th.iter().map(Tensor::shallow_clone).collect(),
            ));
        }
        // This rank's shards form a complete subtree.
        let sum_th = match &workspace.partials_th[..] {
            [one] if self.kind == Kind::Float => one,
            several => {
                self.kernels.sum_partials(several, None, &workspace.partial_sum_th)?;
                &workspace.partial_sum_th
            }
        };
        let parts =
            pass.peers
                .tensor_group()
                .start_all_to_all_rows(sum_th, &workspace.rows.by_rank, &workspace.incoming_th)?;
        if self.fault.reverses(sum) {
            return Ok(PendingParts::complete(self.with_fault(sum, parts.wait()?)?));
        }
        Ok(parts)
    }

    /// The ranks' terms of a sum over shards in the order of the tree; with an injected error, their sum from the last to the
    /// first.
    pub(super) fn with_fault(&self, sum: Operation, parts: Vec<Tensor>) -> Result<Vec<Tensor>, ModelError> {
        if !self.fault.reverses(sum) {
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
        pass: &PassContext<'_>,
        (layer, sum): (usize, Operation),
        bias_h: Option<&Tensor>,
        residual_th: &Tensor,
        out_th: &Tensor,
    ) -> Result<(), ModelError> {
        let rows = &pass.workspace.rows;
        let parts = self.own_rows_of_partials(pass, sum)?.wait()?;
        let own = rows.own_of(out_th)?;
        self.kernels
            .add_residual(&parts, bias_h, &rows.own_of(residual_th)?, &own)?;
        self.record_own(pass, Some(layer), sum, &own)?;
        self.fill_held(pass, out_th)
    }

    /// Normalizes the held rows of `x_th` into all rows of `normed_th`, and writes `stats`.
    pub(super) fn norm(
        &self,
        pass: &PassContext<'_>,
        x_th: &Tensor,
        norm: &Norm,
        stats: NormStats<'_>,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let out_th = workspace.rows.held_of_all(&workspace.normed_th)?;
        self.kernels
            .norm_forward(x_th, norm, self.parameters.shape.epsilon, &out_th, stats)?;
        self.fill_all(pass, &workspace.normed_th)
    }

    /// Repeats [`Network::norm`] from its `stats`.
    pub(super) fn norm_again(
        &self,
        pass: &PassContext<'_>,
        x_th: &Tensor,
        norm: &Norm,
        stats: NormStats<'_>,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let out_th = workspace.rows.held_of_all(&workspace.normed_th)?;
        self.kernels.norm_apply(x_th, norm, &out_th, stats)?;
        self.fill_all(pass, &workspace.normed_th)
    }

    /// Fills the other ranks' rows of a tensor with all rows, if this rank does not hold them.
    fn fill_all(&self, pass: &PassContext<'_>, all: &Tensor) -> Result<(), ModelError> {
        if pass.workspace.rows.holds_own_only() {
            pass.peers
                .tensor_group()
                .all_gather_rows(all, &pass.workspace.rows.by_rank)?;
        }
        Ok(())
    }

    /// Own rows of the gradient of a norm's output: the sum over shards, and `extra`.
    pub(super) fn sum_norm_gradient(
        &self,
        pass: &PassContext<'_>,
        of: &SublayerBackward<'_>,
        parts: PendingParts,
    ) -> Result<Tensor, ModelError> {
        let parts = parts.wait()?;
        if let ([one], None, None, Kernels::Device) = (&parts[..], of.extra, &pass.trace, self.kernels) {
            // A device's kernels read it in the element type that it has: the same numbers.
            return Ok(one.shallow_clone());
        }
        let dnorm_th = &pass.workspace.backward()?.dnorm_th;
        self.kernels.sum_partials(&parts, of.extra, dnorm_th)?;
        self.record_own(pass, of.layer, of.sum, dnorm_th)?;
        Ok(dnorm_th.shallow_clone())
    }

    /// Backward pass of a norm: adds the own rows of its input's gradient to `dx_th`; weight and bias by row blocks.
    pub(super) fn norm_backward(
        &self,
        pass: &PassContext<'_>,
        of: &SublayerBackward<'_>,
        (dnorm_th, x_th): (&Tensor, &Tensor),
        norm: &Norm,
        stats: NormStats<'_>,
        gradient: &Norm,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        let (mean_t, rstd_t) = (rows.own_of(stats.mean_t)?, rows.own_of(stats.rstd_t)?);
        let stats = NormStats {
            mean_t: &mean_t,
            rstd_t: &rstd_t,
        };
        let dx_th = rows.own_of_all(&backward.dx_th)?;
        self.kernels.norm_backward(
            dnorm_th,
            &rows.own_of(x_th)?,
            norm,
            stats,
            &self.own_blocks(rows),
            &dx_th,
            gradient,
        )?;
        self.record_own(pass, of.layer, of.result, &dx_th)
    }

    /// All rows of `dx_th` in the model's element type.
    pub(super) fn fill_dy(&self, pass: &PassContext<'_>, layer: usize, of: Operation) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        self.kernels
            .cast(&rows.own_of_all(&backward.dx_th)?, &rows.own_of_all(&backward.dy_th)?)?;
        pass.peers
            .tensor_group()
            .all_gather_rows(&backward.dy_th, &rows.by_rank)?;
        self.record_rows(pass, Some(layer), of, &backward.dy_th)
    }

    /// Adds the gradient of a row-parallel layer's bias: own rows of `dx_th`, by row blocks.
    pub(super) fn bias_backward(&self, pass: &PassContext<'_>, gradient: &[Tensor]) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        if gradient.is_empty() {
            return Ok(());
        }
        let dx_th = workspace.rows.own_of_all(&workspace.backward()?.dx_th)?;
        self.kernels
            .column_sums(&dx_th, &self.own_blocks(&workspace.rows), gradient)
    }

    /// The residual stream after attention: input plus the sum of the shards' outputs.
    pub(super) fn project(&self, weights: &Layer, pass: &PassContext<'_>, layer: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let activations = workspace.layer(pass.slot, layer);
        for (shard, attended) in activations.attended.iter().enumerate() {
            let partial_th = &workspace.partials_th[shard];
            self.kernels
                .linear(partial_th, &attended.out_ta, &weights.out.weight_oi[shard])?;
            self.record_shard(pass, Some(layer), Operation::AttentionOutput, shard, partial_th)?;
        }
        let of = (layer, Operation::AttentionOutputSum);
        self.add_to_residual(
            pass,
            of,
            weights.out.bias_o.first(),
            workspace.input(pass.slot, layer),
            &activations.mid_th,
        )
    }

    /// The second norm.
    pub(super) fn norm_up(&self, weights: &Layer, pass: &PassContext<'_>, layer: usize) -> Result<(), ModelError> {
        let activations = pass.workspace.layer(pass.slot, layer);
        let stats = NormStats {
            mean_t: &activations.mean2_t,
            rstd_t: &activations.rstd2_t,
        };
        self.norm(pass, &activations.mid_th, &weights.norm2, stats)?;
        self.record_rows(pass, Some(layer), Operation::SecondNorm, &pass.workspace.normed_th)
    }

    /// One shard's activation, from the normalized rows: writes `z_tu` and `activated_tf`.
    fn activate(&self, up: &Linear, pass: &PassContext<'_>, layer: usize, shard: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let z_tu = workspace.z_tu(pass.slot, layer, shard);
        self.kernels.linear(z_tu, &workspace.normed_th, &up.weight_oi[shard])?;
        self.record_shard(pass, Some(layer), Operation::Up, shard, z_tu)?;
        match self.parameters.shape.activation {
            FeedForwardActivation::Gelu(gelu) => {
                self.kernels
                    .gelu_forward(gelu, z_tu, &up.bias_o[shard], &workspace.activated_tf)?
            }
            FeedForwardActivation::SwiGlu => self.kernels.swiglu_forward(z_tu, &workspace.activated_tf)?,
        }
        self.record_shard(pass, Some(layer), Operation::Activation, shard, &workspace.activated_tf)
    }

    pub(super) fn feed_forward(&self, weights: &Layer, pass: &PassContext<'_>, layer: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        for (shard, partial_th) in workspace.partials_th.iter().enumerate() {
            self.activate(&weights.up, pass, layer, shard)?;
            self.kernels
                .linear(partial_th, &workspace.activated_tf, &weights.down.weight_oi[shard])?;
            self.record_shard(pass, Some(layer), Operation::Down, shard, partial_th)?;
        }
        let mid_th = &workspace.layer(pass.slot, layer).mid_th;
        let of = (layer, Operation::DownSum);
        self.add_to_residual(
            pass,
            of,
            weights.down.bias_o.first(),
            mid_th,
            workspace.input(pass.slot, layer + 1),
        )
    }

    fn feed_forward_backward(
        &self,
        weights: &Layer,
        pass: &PassContext<'_>,
        layer: usize,
        gradient: &Layer,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (workspace.rows(), workspace.backward()?);
        let activations = workspace.layer(pass.slot, layer);
        let stats = NormStats {
            mean_t: &activations.mean2_t,
            rstd_t: &activations.rstd2_t,
        };
        self.norm_again(pass, &activations.mid_th, &weights.norm2, stats)?;
        self.record_rows(pass, Some(layer), Operation::SecondNorm, &workspace.normed_th)?;
        self.fill_dy(pass, layer, Operation::DownSumGradient)?;
        self.bias_backward(pass, &gradient.down.bias_o)?;
        let mut sum = None;
        for (shard, partial_th) in workspace.partials_th.iter().enumerate() {
            if workspace.recompute != Recompute::None {
                self.activate(&weights.up, pass, layer, shard)?;
            }
            let z_tu = workspace.z_tu(pass.slot, layer, shard);
            match self.parameters.shape.activation {
                FeedForwardActivation::Gelu(gelu) => {
                    self.kernels
                        .matmul(&backward.dz_tu, &backward.dy_th, &weights.down.weight_oi[shard])?;
                    self.record_shard(pass, Some(layer), Operation::DownGradient, shard, &backward.dz_tu)?;
                    self.kernels
                        .gelu_backward(gelu, z_tu, &backward.dz_tu, &workspace.activated_tf)?;
                }
                FeedForwardActivation::SwiGlu => {
                    self.kernels
                        .matmul(&backward.dactivated_tf, &backward.dy_th, &weights.down.weight_oi[shard])?;
                    self.record_shard(
                        pass,
                        Some(layer),
                        Operation::DownGradient,
                        shard,
                        &backward.dactivated_tf,
                    )?;
                    self.kernels.swiglu_backward(
                        z_tu,
                        &backward.dactivated_tf,
                        &backward.dz_tu,
                        &workspace.activated_tf,
                    )?;
                }
            }
            self.record_shard(pass, Some(layer), Operation::ActivationGradient, shard, &backward.dz_tu)?;
            self.kernels
                .matmul(partial_th, &backward.dz_tu, &weights.up.weight_oi[shard])?;
            self.record_shard(pass, Some(layer), Operation::UpGradient, shard, partial_th)?;
            if shard + 1 == workspace.partials_th.len() {
                // Sent while the weights' gradients are computed.
                sum = Some(self.own_rows_of_partials(pass, Operation::UpGradientSum)?);
            }
            let activated_tf = &workspace.activated_tf;
            self.kernels
                .add_matmul(&gradient.down.weight_oi[shard], &backward.dy_th, activated_tf)?;
            if let Some(bias) = gradient.up.bias_o.get(shard) {
                self.kernels
                    .column_sums(&backward.dz_tu, &Self::one_block(rows), std::slice::from_ref(bias))?;
            }
            self.kernels
                .add_matmul(&gradient.up.weight_oi[shard], &backward.dz_tu, &workspace.normed_th)?;
        }
        let of = SublayerBackward {
            layer: Some(layer),
            sum: Operation::UpGradientSum,
            result: Operation::SecondNormGradient,
            extra: None,
        };
        let sum = sum.ok_or(ModelError::NotHeld("a rank has no shards"))?;
        let dnorm_th = self.sum_norm_gradient(pass, &of, sum)?;
        let x_th = &activations.mid_th;
        self.norm_backward(pass, &of, (&dnorm_th, x_th), &weights.norm2, stats, &gradient.norm2)
    }
}
