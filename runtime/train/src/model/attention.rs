//! Attention of one layer, forward and backward, shard by shard.
//!
//! Queries are cut by heads. With one key and value for all heads, their projection is whole: it runs by row blocks,
//! and its gradient is the tree sum over row blocks of the tree sum over shards of heads.

use tch::Tensor;

use super::network::no_backward;
use super::ops::Stats;
use super::product::{add_product, multiply, project_with_bias};
use super::views::Layer;
use super::workspace::{Kept, Workspace};
use super::{ModelError, Network};

/// Query, key and value of one shard as `[b, n, s, d]`.
struct Heads {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

impl Network {
    fn shard_heads(&self) -> i64 {
        (self.layout.shape.heads / self.grid.tensor) as i64
    }

    fn head_size(&self) -> i64 {
        self.layout.shape.head_size as i64
    }

    /// `[b, n, s, d]` → `[t, n·d]`, without a copy where memory is in that order.
    pub(super) fn attended_rows(&self, attended: &Tensor, workspace: &Workspace) -> Result<Tensor, ModelError> {
        let width = self.shard_heads() * self.head_size();
        Ok(attended
            .f_transpose(1, 2)?
            .f_contiguous()?
            .f_view([workspace.rows() as i64, width])?)
    }

    fn heads(&self, kept: &Kept, workspace: &Workspace, shard: usize) -> Result<Heads, ModelError> {
        let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
        let (n, d) = (self.shard_heads(), self.head_size());
        if self.layout.shape.multi_query {
            let query = kept.query[shard].f_view([b, s, n, d])?.f_transpose(1, 2)?;
            let both = kept
                .key_value
                .f_view([b, 1, s, 2 * d])?
                .f_expand([b, n, s, 2 * d], false)?;
            return Ok(Heads {
                query,
                key: both.f_narrow(3, 0, d)?,
                value: both.f_narrow(3, d, d)?,
            });
        }
        let all = kept.query[shard].f_view([b, s, n, 3 * d])?.f_transpose(1, 2)?;
        Ok(Heads {
            query: all.f_narrow(3, 0, d)?,
            key: all.f_narrow(3, d, d)?,
            value: all.f_narrow(3, 2 * d, d)?,
        })
    }

    /// First norm, projections and attention: fills what the layer keeps of them.
    pub(super) fn attend(&self, own: &Layer, workspace: &mut Workspace, layer: usize) -> Result<(), ModelError> {
        let at = workspace.kept_of(layer);
        let kept = &workspace.kept[at];
        let stats = Stats {
            mean: &kept.mean1,
            rstd: &kept.rstd1,
        };
        let normed = &workspace.normed;
        self.kernels.norm_forward(
            workspace.input(layer),
            &own.norm1,
            self.layout.shape.epsilon,
            normed,
            stats,
        )?;
        for (shard, out) in kept.query.iter().enumerate() {
            project_with_bias(out, normed, &own.query.weight[shard], &own.query.bias[shard])?;
        }
        if let Some(projection) = &own.key_value {
            for block in self.blocks(workspace.rows()) {
                let (start, length) = (block.start as i64, block.len() as i64);
                let out = kept.key_value.f_narrow(0, start, length)?;
                let rows = normed.f_narrow(0, start, length)?;
                project_with_bias(&out, &rows, &projection.weight[0], &projection.bias[0])?;
            }
        }
        let mut attended = Vec::with_capacity(self.grid.tensor);
        for shard in 0..self.grid.tensor {
            let Heads { query, key, value } = self.heads(kept, workspace, shard)?;
            attended.push(
                Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
                    &query, &key, &value, 0.0, true, None, None,
                )?,
            );
        }
        workspace.kept[at].attended = attended;
        Ok(())
    }

    pub(super) fn attention_backward(
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
            mean: &kept.mean1,
            rstd: &kept.rstd1,
        };
        let (rows, normed, x) = (workspace.rows(), &workspace.normed, workspace.input(layer));
        let blocks = self.blocks(rows);
        self.kernels.norm_apply(x, &own.norm1, normed, stats)?;
        self.kernels.cast(&backward.dx, &backward.dy)?;
        self.kernels.column_sums(&backward.dx, &blocks, &gradient.out.bias[0])?;
        for shard in 0..self.grid.tensor {
            multiply(&backward.dattended, &backward.dy, &own.out.weight[shard])?;
            let (attended, _) = &kept.attended[shard];
            let attended = self.attended_rows(attended, workspace)?;
            add_product(&gradient.out.weight[shard], &backward.dy, &attended, self.kernels)?;
            let dquery = self.one_shard_backward(workspace, kept, shard)?;
            self.kernels
                .column_sums(&dquery, &Self::all(rows), &gradient.query.bias[shard])?;
            add_product(&gradient.query.weight[shard], &dquery, normed, self.kernels)?;
            multiply(&workspace.partials[shard], &dquery, &own.query.weight[shard])?;
        }
        let mut extra = None;
        if let (Some(projection), Some(gradient)) = (&own.key_value, &gradient.key_value) {
            self.kernels.sum_partials(&backward.dkv, None, &backward.dkv_sum)?;
            self.kernels
                .column_sums(&backward.dkv_sum, &blocks, &gradient.bias[0])?;
            let dkv = if self.kind == tch::Kind::Float {
                &backward.dkv_sum
            } else {
                &backward.dkv_cast
            };
            self.kernels.cast(&backward.dkv_sum, dkv)?;
            let mut parts = Vec::with_capacity(blocks.len());
            for block in &blocks {
                let (start, length) = (block.start as i64, block.len() as i64);
                let own_rows = dkv.f_narrow(0, start, length)?;
                multiply(
                    &backward.extra.f_narrow(0, start, length)?,
                    &own_rows,
                    &projection.weight[0],
                )?;
                parts.push(own_rows.f_transpose(0, 1)?.f_mm(&normed.f_narrow(0, start, length)?)?);
            }
            self.kernels.add_partials(&parts, &gradient.weight[0])?;
            extra = Some(&backward.extra);
        }
        self.kernels.sum_partials(&workspace.partials, extra, &backward.dnorm)?;
        self.kernels.norm_backward(
            &backward.dnorm,
            x,
            &own.norm1,
            stats,
            &blocks,
            &backward.dx,
            &gradient.norm1,
        )
    }

    /// The gradient of one shard's query projection, `[t, n·d]` (or `[t, n·3d]`); that of the shared keys and values goes
    /// to the shard's buffer.
    fn one_shard_backward(&self, workspace: &Workspace, kept: &Kept, shard: usize) -> Result<Tensor, ModelError> {
        let Some(backward) = &workspace.backward else {
            return Err(no_backward());
        };
        let (b, s, rows) = (
            workspace.sequences as i64,
            workspace.sequence as i64,
            workspace.rows() as i64,
        );
        let (n, d) = (self.shard_heads(), self.head_size());
        let Heads { query, key, value } = self.heads(kept, workspace, shard)?;
        let (attended, sums) = &kept.attended[shard];
        let dout = backward.dattended.f_view([b, s, n, d])?.f_transpose(1, 2)?;
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
            &dout, &query, &key, &value, attended, sums, 0.0, true, None, None,
        )?;
        let flat = |part: &Tensor| -> Result<Tensor, ModelError> {
            Ok(part.f_transpose(1, 2)?.f_contiguous()?.f_view([rows, n * d])?)
        };
        if self.layout.shape.multi_query {
            self.kernels
                .fold_heads(&flat(&dk)?, &flat(&dv)?, n as usize, &backward.dkv[shard])?;
            return flat(&dq);
        }
        let parts = [dq, dk, dv]
            .iter()
            .map(|part| part.f_transpose(1, 2))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&parts, 3)?.f_view([rows, 3 * n * d])?)
    }
}
