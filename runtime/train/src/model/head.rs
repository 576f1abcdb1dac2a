//! Final norm, output layer and loss, block by block of rows: the logits of a complete micro-batch never exist at once.
//! Shape letters: see `model`.

use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::ops::NormStats;
use super::pass_context::PassContext;
use super::passes::SublayerBackward;
use super::views::Weights;
use super::workspace::{HEAD_ROWS, Workspace};
use super::{Gradients, ModelError, Network, to_device, to_host};
use crate::parallel::Mesh;

/// Rows whose likelihoods are computed at a time. Part of the arithmetic: it determines the shapes that kernels get.
const LIKELIHOOD_ROWS: usize = 64;

impl Network {
    /// Applies the final norm to all rows of a completed forward pass; on a single worker only.
    fn final_norm(&self, weights: &Weights, pass: &PassContext<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let Some(norm) = weights.final_norm.as_ref().filter(|_| self.mesh == Mesh::ONE) else {
            return Err(ModelError::NotHeld("this worker does not hold the complete model"));
        };
        let stats = NormStats {
            mean_t: &workspace.mean_t,
            rstd_t: &workspace.rstd_t,
        };
        self.norm(pass, workspace.input(pass.slot, weights.layers.len()), norm, stats)
    }

    /// Logits of some rows of a completed forward pass, `[rows, v]`, in the model's element type; on a single worker
    /// only.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn logits(&self, weights: &Weights, pass: &PassContext<'_>, rows: &[i64]) -> Result<Tensor, ModelError> {
        self.final_norm(weights, pass)?;
        let normed = pass
            .workspace
            .normed_th
            .f_index_select(0, &to_device(rows, self.device)?)?;
        let mut shards = Vec::new();
        for output in &weights.output_vh {
            let out = Tensor::f_empty([rows.len() as i64, output.size()[0]], (self.kind, self.device))?;
            self.kernels.linear(&out, &normed, output)?;
            shards.push(out);
        }
        Ok(Tensor::f_cat(&shards, 1)?)
    }

    /// −ln p, in nats, of each target after its row (pairs of row and target) of a completed forward pass; on a single
    /// worker only. The bits of a loss do not depend on the other pairs.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn losses(
        &self,
        weights: &Weights,
        pass: &PassContext<'_>,
        pairs: &[(i64, i64)],
    ) -> Result<Vec<f64>, ModelError> {
        self.final_norm(weights, pass)?;
        let workspace = &*pass.workspace;
        let count = LIKELIHOOD_ROWS.min(workspace.rows());
        let mut losses = Vec::new();
        for chunk in pairs.chunks(count) {
            let (mut rows, mut targets) = (vec![0; count], vec![0; count]);
            for (at, &(row, target)) in chunk.iter().enumerate() {
                (rows[at], targets[at]) = (row, target);
            }
            let normed = workspace.normed_th.f_index_select(0, &to_device(&rows, self.device)?)?;
            let logits = self.block_logits(weights, workspace, &normed)?;
            let own_r = Tensor::f_empty([count as i64], (Kind::Double, self.device))?;
            self.loss(pass, &logits, &to_device(&targets, self.device)?, &own_r, false)?;
            losses.push(own_r.f_narrow(0, 0, chunk.len() as i64)?);
        }
        if losses.is_empty() {
            return Ok(Vec::new());
        }
        to_host(&Tensor::f_cat(&losses, 0)?)
    }

    /// Logits of a block of normalized rows by shard, in the workspace's buffers.
    fn block_logits(
        &self,
        weights: &Weights,
        workspace: &Workspace,
        normed_rh: &Tensor,
    ) -> Result<Vec<Tensor>, ModelError> {
        let shards = weights.output_vh.iter().zip(&workspace.logits_rv);
        shards
            .map(|(output_vh, buffer_rv)| {
                let block = buffer_rv.f_narrow(0, 0, normed_rh.size()[0])?;
                self.kernels.linear(&block, normed_rh, output_vh)?;
                Ok(block)
            })
            .collect()
    }

    /// Returns −ln p of each target (`f64`, in nats, one per row), 0 for a target below zero. With `gradients` also runs
    /// the backward pass down to the last layer's output (own rows of `dx_th`).
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn head(
        &self,
        weights: &Weights,
        pass: &mut PassContext<'_>,
        targets_t: &Tensor,
        gradients: Option<&Gradients>,
    ) -> Result<Tensor, ModelError> {
        let workspace = &*pass.workspace;
        let rows = workspace.rows();
        if targets_t.numel() != rows {
            return Err(ModelError::Size(format!(
                "{} targets for {rows} rows",
                targets_t.numel()
            )));
        }
        let losses_t = Tensor::f_empty([rows as i64], (Kind::Double, self.device))?;
        let Some(norm) = &weights.final_norm else {
            return Err(ModelError::NotHeld("this rank does not hold the output layer"));
        };
        let x_th = workspace.input(pass.slot, weights.layers.len());
        let stats = NormStats {
            mean_t: &workspace.mean_t,
            rstd_t: &workspace.rstd_t,
        };
        self.norm(pass, x_th, norm, stats)?;
        self.record_rows(pass, None, Operation::FinalNorm, &workspace.normed_th)?;
        for start in (0..rows).step_by(HEAD_ROWS) {
            let count = HEAD_ROWS.min(rows - start);
            let cut = |tensor: &Tensor| tensor.f_narrow(0, start as i64, count as i64);
            let normed_rh = cut(&workspace.normed_th)?;
            let logits = self.block_logits(weights, workspace, &normed_rh)?;
            for (shard, logits) in logits.iter().enumerate() {
                self.record_logits(pass, Operation::Logits, shard, start, logits)?;
            }
            self.loss(pass, &logits, &cut(targets_t)?, &cut(&losses_t)?, gradients.is_some())?;
            let Some(gradients) = gradients else { continue };
            for (shard, logits) in logits.iter().enumerate() {
                self.record_logits(pass, Operation::LogitsGradient, shard, start, logits)?;
                self.kernels
                    .add_matmul(&gradients.views.output_vh[shard], logits, &normed_rh)?;
                self.kernels
                    .matmul(&cut(&workspace.partials_th[shard])?, logits, &weights.output_vh[shard])?;
            }
        }
        self.record_losses(pass, &losses_t)?;
        let Some(gradients) = gradients else {
            return Ok(losses_t);
        };
        for (shard, partial_th) in workspace.partials_th.iter().enumerate() {
            self.record_shard(pass, None, Operation::OutputGradient, shard, partial_th)?;
        }
        let Some(into) = &gradients.views.final_norm else {
            return Err(ModelError::NotHeld("these gradients have no final norm"));
        };
        let _ = workspace.backward()?.dx_th.shallow_clone().f_zero_()?;
        let of = SublayerBackward {
            layer: None,
            sum: Operation::OutputGradientSum,
            result: Operation::FinalNormGradient,
            extra: None,
        };
        let dnorm_th = self.sum_norm_gradient(pass, &of, self.own_rows_of_partials(pass, of.sum)?)?;
        self.norm_backward(pass, &of, (&dnorm_th, x_th), norm, stats, into)?;
        Ok(losses_t)
    }

    /// Softmax cross-entropy over a vocabulary whose shards are on several ranks, which exchange maxima, sums of
    /// exponentials and targets' logits. With `gradient` the gradient replaces the logits.
    fn loss(
        &self,
        pass: &PassContext<'_>,
        logits_rv: &[Tensor],
        targets_r: &Tensor,
        losses_r: &Tensor,
        gradient: bool,
    ) -> Result<(), ModelError> {
        if self.mesh.tensor == 1 && self.kernels.whole_loss(logits_rv, targets_r, losses_r, gradient)? {
            return Ok(());
        }
        let rows = losses_r.numel() as i64;
        let new = |lines: i64| Tensor::f_empty([lines, rows], (Kind::Float, self.device));
        let first = self.first_id(self.parameters.holding.shards.start);
        let maxima_r = new(1)?;
        self.kernels.row_maxima(logits_rv, &maxima_r)?;
        let maxima_r = if self.mesh.tensor == 1 {
            maxima_r
        } else {
            Tensor::f_cat(&pass.peers.tensor_group().all_gather(&maxima_r)?, 0)?.f_amax(&[0i64][..], true)?
        };
        // Row 0: sums of exponentials. Row 1: the targets' logits.
        let sums_2r = new(2)?;
        self.kernels
            .row_sums(logits_rv, targets_r, first, &maxima_r, &sums_2r, gradient)?;
        let sums_2r = if self.mesh.tensor == 1 {
            sums_2r
        } else {
            let parts = pass.peers.tensor_group().all_gather(&sums_2r)?;
            let row_of = |at: i64| {
                parts
                    .iter()
                    .map(|part| part.f_narrow(0, at, 1))
                    .collect::<Result<Vec<_>, _>>()
            };
            let (sums, target_logits) = (row_of(0)?, row_of(1)?);
            let sums_2r = new(2)?;
            self.kernels.sum_partials(&sums, None, &sums_2r.f_narrow(0, 0, 1)?)?;
            let target_logits = Tensor::f_cat(&target_logits, 0)?.f_amax(&[0i64][..], true)?;
            sums_2r.f_narrow(0, 1, 1)?.f_copy_(&target_logits)?;
            sums_2r
        };
        self.kernels
            .finish_loss(logits_rv, targets_r, first, &maxima_r, &sums_2r, losses_r, gradient)
    }
}
