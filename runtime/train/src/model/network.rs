//! A micro-batch through the whole model, forward and backward.

use std::ops::Range;

use aurora_runtime::job::Recompute;
use tch::{Device, Kind, Tensor};

use super::ops::Stats;
use super::product::{add_product, multiply, project};
use super::views::{Layer, Linear, Weights};
use super::workspace::Workspace;
use super::{Gradients, Kernels, Layout, ModelError};
use crate::parallel::Grid;

/// The model's arithmetic; holds no weights.
#[derive(Clone, Debug)]
pub struct Network {
    pub layout: Layout,
    pub grid: Grid,
    pub kernels: Kernels,
    /// Numbers of weights and activations; the residual stream and all sums are `f32` in any case.
    pub kind: Kind,
    pub device: Device,
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

    /// Forward and backward of one micro-batch: −ln p of each target to `losses` (nats, one a row), and the gradients of
    /// their sum added to `gradients`.
    ///
    /// # Errors
    /// [`ModelError`]; then losses and gradients hold anything.
    pub fn train(
        &self,
        weights: &Weights,
        workspace: &mut Workspace,
        ids: &Tensor,
        targets: &Tensor,
        losses: &mut [f64],
        gradients: &mut Gradients,
    ) -> Result<(), ModelError> {
        self.body_forward(weights, workspace, ids)?;
        self.head(weights, workspace, targets, losses, Some(gradients))?;
        for layer in (0..self.layout.shape.layers).rev() {
            let (own, gradient) = (&weights.layers[layer], &gradients.of.layers[layer]);
            if workspace.recompute == Recompute::Full {
                self.attend(own, workspace, layer)?;
                self.project(own, workspace, layer)?;
                self.norm_up(own, workspace, layer)?;
            }
            self.feed_forward_backward(own, workspace, layer, gradient)?;
            self.attention_backward(own, workspace, layer, gradient)?;
        }
        let Some(backward) = &workspace.backward else {
            return Err(no_backward());
        };
        let blocks = self.blocks(workspace.rows());
        let into = &gradients.of;
        self.kernels.embed_backward(
            ids,
            workspace.sequence,
            &backward.dx,
            &blocks,
            &into.word,
            &into.position,
        )
    }

    /// −ln p of each target to `losses` (nats, one a row).
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn score(
        &self,
        weights: &Weights,
        workspace: &mut Workspace,
        ids: &Tensor,
        targets: &Tensor,
        losses: &mut [f64],
    ) -> Result<(), ModelError> {
        self.body_forward(weights, workspace, ids)?;
        self.head(weights, workspace, targets, losses, None)
    }

    fn body_forward(&self, weights: &Weights, workspace: &mut Workspace, ids: &Tensor) -> Result<(), ModelError> {
        self.kernels.embed(
            ids,
            workspace.sequence,
            &weights.word,
            &weights.position,
            workspace.input(0),
        )?;
        for (layer, own) in weights.layers.iter().enumerate() {
            self.attend(own, workspace, layer)?;
            self.project(own, workspace, layer)?;
            self.norm_up(own, workspace, layer)?;
            self.feed_forward(own, workspace, layer)?;
        }
        Ok(())
    }

    /// The sum of the input and the shards' attention outputs.
    fn project(&self, own: &Layer, workspace: &Workspace, layer: usize) -> Result<(), ModelError> {
        let kept = &workspace.kept[workspace.kept_of(layer)];
        for (shard, (attended, _)) in kept.attended.iter().enumerate() {
            let rows = self.attended_rows(attended, workspace)?;
            project(&workspace.partials[shard], &rows, &own.out.weight[shard])?;
        }
        self.kernels
            .add_residual(&workspace.partials, &own.out.bias[0], workspace.input(layer), &kept.mid)
    }

    /// The second norm's output, with what it keeps.
    fn norm_up(&self, own: &Layer, workspace: &Workspace, layer: usize) -> Result<(), ModelError> {
        let kept = &workspace.kept[workspace.kept_of(layer)];
        let stats = Stats {
            mean: &kept.mean2,
            rstd: &kept.rstd2,
        };
        self.kernels.norm_forward(
            &kept.mid,
            &own.norm2,
            self.layout.shape.epsilon,
            &workspace.normed,
            stats,
        )
    }

    /// One shard's activation from the normed rows: fills `z` and `activated`.
    fn activate(&self, up: &Linear, workspace: &Workspace, layer: usize, shard: usize) -> Result<(), ModelError> {
        let z = &workspace.z[workspace.activation_of(layer)][shard];
        project(z, &workspace.normed, &up.weight[shard])?;
        self.kernels
            .gelu_forward(self.layout.shape.gelu, z, &up.bias[shard], &workspace.activated)
    }

    fn feed_forward(&self, own: &Layer, workspace: &Workspace, layer: usize) -> Result<(), ModelError> {
        for shard in 0..self.grid.tensor {
            self.activate(&own.up, workspace, layer, shard)?;
            project(
                &workspace.partials[shard],
                &workspace.activated,
                &own.down.weight[shard],
            )?;
        }
        let mid = &workspace.kept[workspace.kept_of(layer)].mid;
        self.kernels
            .add_residual(&workspace.partials, &own.down.bias[0], mid, workspace.input(layer + 1))
    }

    fn feed_forward_backward(
        &self,
        own: &Layer,
        workspace: &Workspace,
        layer: usize,
        gradient: &Layer,
    ) -> Result<(), ModelError> {
        let Some(backward) = &workspace.backward else {
            return Err(no_backward());
        };
        let kept = &workspace.kept[workspace.kept_of(layer)];
        let stats = Stats {
            mean: &kept.mean2,
            rstd: &kept.rstd2,
        };
        let (rows, gelu) = (workspace.rows(), self.layout.shape.gelu);
        let blocks = self.blocks(rows);
        self.kernels
            .norm_apply(&kept.mid, &own.norm2, &workspace.normed, stats)?;
        self.kernels.cast(&backward.dx, &backward.dy)?;
        self.kernels
            .column_sums(&backward.dx, &blocks, &gradient.down.bias[0])?;
        for shard in 0..self.grid.tensor {
            if workspace.recompute != Recompute::None {
                self.activate(&own.up, workspace, layer, shard)?;
            }
            let z = &workspace.z[workspace.activation_of(layer)][shard];
            multiply(&backward.dz, &backward.dy, &own.down.weight[shard])?;
            self.kernels
                .gelu_backward(gelu, z, &backward.dz, &workspace.activated)?;
            add_product(
                &gradient.down.weight[shard],
                &backward.dy,
                &workspace.activated,
                self.kernels,
            )?;
            self.kernels
                .column_sums(&backward.dz, &Self::all(rows), &gradient.up.bias[shard])?;
            add_product(
                &gradient.up.weight[shard],
                &backward.dz,
                &workspace.normed,
                self.kernels,
            )?;
            multiply(&workspace.partials[shard], &backward.dz, &own.up.weight[shard])?;
        }
        self.kernels.sum_partials(&workspace.partials, None, &backward.dnorm)?;
        let dx = &backward.dx;
        self.kernels.norm_backward(
            &backward.dnorm,
            &kept.mid,
            &own.norm2,
            stats,
            &blocks,
            dx,
            &gradient.norm2,
        )
    }
}

pub(super) fn no_backward() -> ModelError {
    ModelError::Unfit("this workspace has no room for gradients".to_owned())
}
