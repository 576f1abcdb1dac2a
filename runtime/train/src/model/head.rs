//! Final norm, output layer and loss, over fixed blocks of rows: all logits of a micro-batch never exist at once.

use tch::Tensor;

use super::network::no_backward;
use super::ops::Stats;
use super::product::{add_product, multiply, project};
use super::views::Weights;
use super::workspace::{HEAD_ROWS, Workspace};
use super::{Gradients, ModelError, Network};

impl Network {
    /// Losses of all rows; with gradients also the whole backward down to the last layer's output (`dx`).
    pub(super) fn head(
        &self,
        weights: &Weights,
        workspace: &Workspace,
        targets: &Tensor,
        losses: &mut [f64],
        gradients: Option<&Gradients>,
    ) -> Result<(), ModelError> {
        let shape = &self.layout.shape;
        let rows = workspace.rows();
        if losses.len() != rows {
            return Err(ModelError::Unfit(format!(
                "{} places for the losses of {rows} rows",
                losses.len()
            )));
        }
        let x = workspace.input(shape.layers);
        let stats = Stats {
            mean: &workspace.mean,
            rstd: &workspace.rstd,
        };
        self.kernels
            .norm_forward(x, &weights.final_norm, shape.epsilon, &workspace.normed, stats)?;
        for start in (0..rows).step_by(HEAD_ROWS) {
            let count = HEAD_ROWS.min(rows - start);
            let cut = |tensor: &Tensor| tensor.f_narrow(0, start as i64, count as i64);
            let normed = cut(&workspace.normed)?;
            let mut logits = Vec::with_capacity(self.grid.tensor);
            for (word, buffer) in weights.word.iter().zip(&workspace.logits) {
                let block = buffer.f_narrow(0, 0, count as i64)?;
                project(&block, &normed, word)?;
                logits.push(block);
            }
            let losses = &mut losses[start..start + count];
            self.kernels
                .softmax_loss(&logits, &cut(targets)?, losses, gradients.is_some())?;
            let Some(gradients) = gradients else { continue };
            for (shard, logits) in logits.iter().enumerate() {
                add_product(&gradients.word_out[shard], logits, &normed, self.kernels)?;
                multiply(&cut(&workspace.partials[shard])?, logits, &weights.word[shard])?;
            }
        }
        let Some(gradients) = gradients else { return Ok(()) };
        let Some(backward) = &workspace.backward else {
            return Err(no_backward());
        };
        self.kernels.sum_partials(&workspace.partials, None, &backward.dnorm)?;
        let _ = backward.dx.shallow_clone().f_zero_()?;
        let (norm, into) = (&weights.final_norm, &gradients.of.final_norm);
        self.kernels
            .norm_backward(&backward.dnorm, x, norm, stats, &self.blocks(rows), &backward.dx, into)
    }
}
