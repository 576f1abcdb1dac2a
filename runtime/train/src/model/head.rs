//! Final norm, output layer and loss, over fixed blocks of rows: all logits of a micro-batch never exist at once.

use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::network::{Descent, Pass};
use super::ops::Stats;
use super::views::Weights;
use super::workspace::{HEAD_ROWS, Workspace};
use super::{Gradients, ModelError, Network};
use crate::parallel::Mesh;

/// Rows whose likelihoods are computed at a time: part of the arithmetic, as it fixes the shapes that kernels see.
const LIKELIHOOD_ROWS: usize = 64;

impl Network {
    /// The final norm of all rows of a pass that has gone through all layers, on one worker alone.
    fn finished(&self, weights: &Weights, pass: &Pass<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let Some(norm) = weights.final_norm.as_ref().filter(|_| self.mesh == Mesh::ONE) else {
            return Err(ModelError::Unfit(
                "this worker does not hold the whole model".to_owned(),
            ));
        };
        let stats = Stats {
            mean: &workspace.mean,
            rstd: &workspace.rstd,
        };
        self.norm(pass, workspace.input(pass.slot, weights.layers.len()), norm, stats)
    }

    /// Logits of some rows of a pass that has gone through all layers, `[rows, v]`, in the numbers that the model
    /// computes with; on one worker alone.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn logits(&self, weights: &Weights, pass: &Pass<'_>, rows: &[i64]) -> Result<Tensor, ModelError> {
        self.finished(weights, pass)?;
        let normed = pass.workspace.normed.f_index_select(0, &Tensor::f_from_slice(rows)?)?;
        let mut shards = Vec::new();
        for output in &weights.output {
            let out = Tensor::f_empty([rows.len() as i64, output.size()[0]], (self.kind, self.device))?;
            self.kernels.project(&out, &normed, output)?;
            shards.push(out);
        }
        Ok(Tensor::f_cat(&shards, 1)?)
    }

    /// −ln p of each target after its row (rows and targets), in nats, for a pass that has gone through all layers; on one
    /// worker alone. Their bits depend on neither what else is asked nor on how much.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn losses(&self, weights: &Weights, pass: &Pass<'_>, asked: &[(i64, i64)]) -> Result<Vec<f64>, ModelError> {
        self.finished(weights, pass)?;
        let workspace = &*pass.workspace;
        let count = LIKELIHOOD_ROWS.min(workspace.rows());
        let mut losses = Vec::with_capacity(asked.len());
        for asked in asked.chunks(count) {
            let (mut rows, mut targets) = (vec![0; count], vec![0; count]);
            for (at, &(row, target)) in asked.iter().enumerate() {
                (rows[at], targets[at]) = (row, target);
            }
            let normed = workspace.normed.f_index_select(0, &Tensor::f_from_slice(&rows)?)?;
            let logits = self.block_logits(weights, workspace, &normed)?;
            let mut own = vec![0.0; count];
            self.loss(pass, &logits, &Tensor::f_from_slice(&targets)?, &mut own, false)?;
            losses.extend_from_slice(&own[..asked.len()]);
        }
        Ok(losses)
    }

    /// Logits of a block of normed rows, a shard each, in the workspace's room.
    fn block_logits(
        &self,
        weights: &Weights,
        workspace: &Workspace,
        normed: &Tensor,
    ) -> Result<Vec<Tensor>, ModelError> {
        let shards = weights.output.iter().zip(&workspace.logits);
        shards
            .map(|(output, room)| {
                let block = room.f_narrow(0, 0, normed.size()[0])?;
                self.kernels.project(&block, normed, output)?;
                Ok(block)
            })
            .collect()
    }

    /// −ln p of each target (`[t]`) to `losses` (nats, one a row), nothing for a target below zero; with gradients also the backward down to the last
    /// layer's output (own rows of `dx`).
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn head(
        &self,
        weights: &Weights,
        pass: &mut Pass<'_>,
        targets: &Tensor,
        losses: &mut [f64],
        gradients: Option<&Gradients>,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let rows = workspace.rows();
        if losses.len() != rows {
            return Err(ModelError::Unfit(format!(
                "{} places for the losses of {rows} rows",
                losses.len()
            )));
        }
        let Some(norm) = &weights.final_norm else {
            return Err(ModelError::Unfit("this rank does not hold the output layer".to_owned()));
        };
        let x = workspace.input(pass.slot, weights.layers.len());
        let stats = Stats {
            mean: &workspace.mean,
            rstd: &workspace.rstd,
        };
        self.norm(pass, x, norm, stats)?;
        self.record_rows(pass, None, Operation::FinalNorm, &workspace.normed)?;
        for start in (0..rows).step_by(HEAD_ROWS) {
            let count = HEAD_ROWS.min(rows - start);
            let cut = |tensor: &Tensor| tensor.f_narrow(0, start as i64, count as i64);
            let normed = cut(&workspace.normed)?;
            let logits = self.block_logits(weights, workspace, &normed)?;
            for (shard, logits) in logits.iter().enumerate() {
                self.record_logits(pass, Operation::Logits, shard, start, logits)?;
            }
            let losses = &mut losses[start..start + count];
            let targets = cut(targets)?;
            self.loss(pass, &logits, &targets, losses, gradients.is_some())?;
            leave_out(&targets, losses, gradients.is_some().then_some(&logits))?;
            let Some(gradients) = gradients else { continue };
            for (shard, logits) in logits.iter().enumerate() {
                self.record_logits(pass, Operation::LogitsGradient, shard, start, logits)?;
                self.kernels.add_product(&gradients.of.output[shard], logits, &normed)?;
                self.kernels
                    .multiply(&cut(&workspace.partials[shard])?, logits, &weights.output[shard])?;
            }
        }
        self.record_losses(pass, losses);
        let Some(gradients) = gradients else { return Ok(()) };
        for (shard, partial) in workspace.partials.iter().enumerate() {
            self.record_shard(pass, None, Operation::OutputGradient, shard, partial)?;
        }
        let Some(into) = &gradients.of.final_norm else {
            return Err(ModelError::Unfit(
                "there is no room for the final norm's gradient".to_owned(),
            ));
        };
        let _ = workspace.backward()?.dx.shallow_clone().f_zero_()?;
        let of = Descent {
            layer: None,
            sum: Operation::OutputGradientSum,
            result: Operation::FinalNormGradient,
            extra: None,
        };
        self.sum_dnorm(pass, &of, self.own_parts(pass, of.sum)?)?;
        self.norm_backward(pass, &of, x, norm, stats, into)
    }

    /// Softmax cross-entropy over a vocabulary whose shards stand on several ranks: maxima, sums of exponentials and
    /// targets' logits meet; the logits turn into their gradient if `gradient`.
    fn loss(
        &self,
        pass: &Pass<'_>,
        logits: &[Tensor],
        targets: &Tensor,
        losses: &mut [f64],
        gradient: bool,
    ) -> Result<(), ModelError> {
        let rows = losses.len() as i64;
        let new = |lines: i64| Tensor::f_empty([lines, rows], (Kind::Float, self.device));
        let first = self.first_id(self.layout.holding.shards.start);
        let maxima = new(1)?;
        self.kernels.row_maxima(logits, &maxima)?;
        let maxima = if self.mesh.tensor == 1 {
            maxima
        } else {
            Tensor::f_cat(&pass.peers.tensor_group().share(&maxima)?, 0)?.f_amax(&[0i64][..], true)?
        };
        // Sums of exponentials, then the targets' logits.
        let both = new(2)?;
        self.kernels
            .row_sums(logits, targets, first, &maxima, &both, gradient)?;
        let both = if self.mesh.tensor == 1 {
            both
        } else {
            let parts = pass.peers.tensor_group().share(&both)?;
            let line = |at: i64| {
                parts
                    .iter()
                    .map(|part| part.f_narrow(0, at, 1))
                    .collect::<Result<Vec<_>, _>>()
            };
            let (sums, chosen) = (line(0)?, line(1)?);
            let both = new(2)?;
            self.kernels.sum_partials(&sums, None, &both.f_narrow(0, 0, 1)?)?;
            let chosen = Tensor::f_cat(&chosen, 0)?.f_amax(&[0i64][..], true)?;
            both.f_narrow(0, 1, 1)?.f_copy_(&chosen)?;
            both
        };
        self.kernels
            .finish_loss(logits, targets, first, &maxima, &both, losses, gradient)
    }
}

/// Takes the rows whose target is below zero out of the losses and, if there are some, out of the logits' gradients: times 0,
/// and the others times 1, which is exact.
fn leave_out(targets: &Tensor, losses: &mut [f64], gradients: Option<&Vec<Tensor>>) -> Result<(), ModelError> {
    let places = Vec::<i64>::try_from(&targets.f_to_device(tch::Device::Cpu)?)?;
    if places.iter().all(|&place| place >= 0) {
        return Ok(());
    }
    for (loss, place) in losses.iter_mut().zip(places) {
        if place < 0 {
            *loss = 0.0;
        }
    }
    for gradient in gradients.into_iter().flatten() {
        let kept = targets.f_ge(0)?.f_to_kind(gradient.kind())?.f_view([-1, 1])?;
        let _ = gradient.shallow_clone().f_mul_(&kept)?;
    }
    Ok(())
}
