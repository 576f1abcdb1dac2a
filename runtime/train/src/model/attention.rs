//! Attention of one layer, forward and backward, shard by shard. Shape letters: see `model`.
//!
//! Shards have separate query heads, and separate key and value heads if there are enough of them. Otherwise several
//! shards share a key and value head: its projection is replicated, every rank computes it for all rows, and its
//! gradient is the tree sum over row blocks of the tree sum over the shards that share the head.

use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::ops::{HeadColumns, NormStats};
use super::parameter_map::HeadArrangement;
use super::pass_context::PassContext;
use super::passes::SublayerBackward;
use super::portable::{self, QueryKeyValue};
use super::views::{Layer, Linear};
use super::workspace::{Attended, LayerActivations, Workspace};
use super::{Kernels, ModelError, Network, composed_attention, fused_attention};
use crate::parallel::mesh;

/// Views of one shard's queries, keys and values; keys and values of all heads that the shard uses.
pub(super) struct Views {
    pub query_bsnd: Tensor,
    pub key_bsgd: Tensor,
    pub value_bsgd: Tensor,
}

impl Views {
    fn by_reference(&self) -> QueryKeyValue<'_> {
        QueryKeyValue {
            query_bsnd: &self.query_bsnd,
            key_bsgd: &self.key_bsgd,
            value_bsgd: &self.value_bsgd,
        }
    }

    /// In libtorch's form: queries `[b, n, s, d]`, keys and values `[b, g, s, d]`.
    fn by_head(&self) -> Result<[Tensor; 3], ModelError> {
        let by_head = |heads: &Tensor| heads.f_transpose(1, 2);
        Ok([
            by_head(&self.query_bsnd)?,
            by_head(&self.key_bsgd)?,
            by_head(&self.value_bsgd)?,
        ])
    }

    /// As `by_head`, all `[b, n, s, d]`, with each key and value head repeated for the query heads that share it.
    fn expanded(&self) -> Result<[Tensor; 3], ModelError> {
        let [query_bnsd, key_bgsd, value_bgsd] = self.by_head()?;
        let n = query_bnsd.size()[1];
        let (key_bnsd, value_bnsd) = (repeat(&key_bgsd, n)?, repeat(&value_bgsd, n)?);
        Ok([query_bnsd, key_bnsd, value_bnsd])
    }
}

/// `[b, g, s, d]` → `[b, n, s, d]`, each head `n / g` times.
fn repeat(heads_bgsd: &Tensor, n: i64) -> Result<Tensor, ModelError> {
    let size = heads_bgsd.size();
    let [b, g, s, d] = [size[0], size[1], size[2], size[3]];
    if g == n {
        return Ok(heads_bgsd.shallow_clone());
    }
    let each = heads_bgsd.f_unsqueeze(2)?.f_expand([b, g, n / g, s, d], false)?;
    Ok(if g == 1 {
        each.f_squeeze_dim(1)?
    } else {
        each.f_reshape([b, n, s, d])?
    })
}

impl Network {
    fn shard_heads(&self) -> i64 {
        self.parameters.shape.shard_heads() as i64
    }

    fn head_size(&self) -> i64 {
        self.parameters.shape.head_size as i64
    }

    /// The shared key and value head that a shard's heads use.
    fn shared_head(&self, shard: usize) -> i64 {
        let shape = &self.parameters.shape;
        ((self.parameters.holding.shards.start + shard) * shape.kv_heads / shape.tensor) as i64
    }

    /// Splits a shard's projection (or its gradient), and the shared keys and values if there are any.
    pub(super) fn views(
        &self,
        projection_tp: &Tensor,
        shared_tk: &Tensor,
        workspace: &Workspace,
        shard: usize,
    ) -> Result<Views, ModelError> {
        let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
        let (n, d) = (self.shard_heads(), self.head_size());
        Ok(match self.parameters.shape.arrangement {
            HeadArrangement::Shared => {
                let g = self.parameters.shape.kv_heads as i64;
                let all = shared_tk.f_view([b, s, 2 * g, d])?;
                let head = self.shared_head(shard);
                Views {
                    query_bsnd: projection_tp.f_view([b, s, n, d])?,
                    key_bsgd: all.f_narrow(2, head, 1)?,
                    value_bsgd: all.f_narrow(2, g + head, 1)?,
                }
            }
            HeadArrangement::PerHead => {
                let all = projection_tp.f_view([b, s, n, 3 * d])?;
                Views {
                    query_bsnd: all.f_narrow(3, 0, d)?,
                    key_bsgd: all.f_narrow(3, d, d)?,
                    value_bsgd: all.f_narrow(3, 2 * d, d)?,
                }
            }
            HeadArrangement::Stacked => {
                let g = self.parameters.shape.shard_kv_heads() as i64;
                let all = projection_tp.f_view([b, s, n + 2 * g, d])?;
                Views {
                    query_bsnd: all.f_narrow(2, 0, n)?,
                    key_bsgd: all.f_narrow(2, n, g)?,
                    value_bsgd: all.f_narrow(2, n + g, g)?,
                }
            }
        })
    }

    /// Attention of one shard.
    fn attention(&self, views: &Views, pass: &PassContext<'_>) -> Result<Attended, ModelError> {
        let workspace = &*pass.workspace;
        let (n, d, rows) = (self.shard_heads(), self.head_size(), workspace.rows() as i64);
        if self.kernels == Kernels::Portable {
            let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
            let out_ta = Tensor::f_empty([rows, n * d], (self.kind, self.device))?;
            let lse_bns = Tensor::f_empty([b, n, s], (Kind::Float, self.device))?;
            let excluded = pass.positions.map_or(&[][..], |positions| &positions.excluded);
            portable::attention_forward(views.by_reference(), excluded, &out_ta, &lse_bns)?;
            return Ok(Attended { out_ta, lse_bns });
        }
        let mask = pass.positions.and_then(|positions| positions.mask.as_ref());
        if self.kernels == Kernels::Device {
            let by_head = views.by_head()?;
            let (out_bnsd, lse_bns) = if fused_attention::fits(&by_head[0], mask) {
                fused_attention::forward(by_head.each_ref())?
            } else {
                composed_attention::forward(&views.expanded()?, mask)?
            };
            let out_ta = out_bnsd.f_transpose(1, 2)?.f_contiguous()?.f_view([rows, n * d])?;
            return Ok(Attended { out_ta, lse_bns });
        }
        let [query, key, value] = views.expanded()?;
        let (out_bnsd, lse_bns) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
            &query,
            &key,
            &value,
            0.0,
            mask.is_none(),
            mask,
            None,
        )?;
        // libtorch's result already has this memory order, so this does not copy.
        let out_ta = out_bnsd.f_transpose(1, 2)?.f_contiguous()?.f_view([rows, n * d])?;
        Ok(Attended { out_ta, lse_bns })
    }

    /// Rotates the heads in the first columns of `rows` by their positions, or back.
    fn rotate(&self, pass: &PassContext<'_>, rows: &Tensor, heads: usize, inverse: bool) -> Result<(), ModelError> {
        // One line of the tables for each row, or for each token of a sequence.
        let (rotary, sequence) = match pass.positions {
            Some(positions) => (&positions.rotary, pass.workspace.rows()),
            None => (&pass.workspace.rotary, pass.workspace.sequence),
        };
        match rotary {
            Some(rotary) => self.kernels.rotate(rows, rotary, sequence, 0, heads, inverse),
            None => Ok(()),
        }
    }

    /// First norm and projections, rotated by their positions: writes the layer's activations.
    pub(super) fn project_heads(
        &self,
        weights: &Layer,
        pass: &PassContext<'_>,
        layer: usize,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let activations = workspace.layer(pass.slot, layer);
        let stats = NormStats {
            mean_t: &activations.mean1_t,
            rstd_t: &activations.rstd1_t,
        };
        let normed_th = &workspace.normed_th;
        self.norm(pass, workspace.input(pass.slot, layer), &weights.norm1, stats)?;
        self.record_rows(pass, Some(layer), Operation::FirstNorm, normed_th)?;
        let shape = &self.parameters.shape;
        let own_keys = if shape.arrangement == HeadArrangement::Stacked {
            shape.shard_kv_heads()
        } else {
            0
        };
        for (shard, out) in activations.query_tp.iter().enumerate() {
            self.kernels.linear_with_bias(
                out,
                normed_th,
                &weights.query.weight_oi[shard],
                weights.query.bias_o.get(shard),
            )?;
            self.rotate(pass, out, shape.shard_heads() + own_keys, false)?;
            self.record_shard(pass, Some(layer), Operation::Query, shard, out)?;
        }
        if let Some(projection) = &weights.key_value {
            for block in self.blocks(workspace.rows()) {
                let (start, length) = (block.start as i64, block.len() as i64);
                let out = activations.key_value_tk.f_narrow(0, start, length)?;
                let rows = normed_th.f_narrow(0, start, length)?;
                self.kernels
                    .linear_with_bias(&out, &rows, &projection.weight_oi[0], projection.bias_o.first())?;
            }
            self.rotate(pass, &activations.key_value_tk, shape.kv_heads, false)?;
            self.record_rows(pass, Some(layer), Operation::KeyValue, &activations.key_value_tk)?;
        }
        Ok(())
    }

    /// First norm, projections and attention: writes the layer's activations.
    pub(super) fn attend(&self, weights: &Layer, pass: &mut PassContext<'_>, layer: usize) -> Result<(), ModelError> {
        self.project_heads(weights, pass, layer)?;
        let workspace = &*pass.workspace;
        let activations = workspace.layer(pass.slot, layer);
        let mut attended = Vec::with_capacity(activations.query_tp.len());
        for shard in 0..activations.query_tp.len() {
            let views = self.views(
                &activations.query_tp[shard],
                &activations.key_value_tk,
                workspace,
                shard,
            )?;
            let output = self.attention(&views, pass)?;
            self.record_shard(pass, Some(layer), Operation::Attention, shard, &output.out_ta)?;
            attended.push(output);
        }
        pass.workspace.layer_mut(pass.slot, layer).attended = attended;
        Ok(())
    }

    pub(super) fn attention_backward(
        &self,
        weights: &Layer,
        pass: &PassContext<'_>,
        layer: usize,
        gradient: &Layer,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let backward = workspace.backward()?;
        let activations = workspace.layer(pass.slot, layer);
        let stats = NormStats {
            mean_t: &activations.mean1_t,
            rstd_t: &activations.rstd1_t,
        };
        let (normed_th, x_th) = (&workspace.normed_th, workspace.input(pass.slot, layer));
        self.norm_again(pass, x_th, &weights.norm1, stats)?;
        self.record_rows(pass, Some(layer), Operation::FirstNorm, normed_th)?;
        self.fill_dy(pass, layer, Operation::AttentionSumGradient)?;
        self.bias_backward(pass, &gradient.out.bias_o)?;
        let mut sum = None;
        for (shard, partial_th) in workspace.partials_th.iter().enumerate() {
            self.kernels
                .matmul(&backward.dattended_ta, &backward.dy_th, &weights.out.weight_oi[shard])?;
            self.record_shard(
                pass,
                Some(layer),
                Operation::AttentionOutputGradient,
                shard,
                &backward.dattended_ta,
            )?;
            let dquery_tp = self.one_shard_backward(pass, activations, shard)?;
            self.record_shard(pass, Some(layer), Operation::AttentionGradient, shard, &dquery_tp)?;
            if weights.key_value.is_some() {
                self.record_shard(
                    pass,
                    Some(layer),
                    Operation::KeyValueGradient,
                    shard,
                    &backward.dkv_te[shard],
                )?;
            }
            self.kernels
                .matmul(partial_th, &dquery_tp, &weights.query.weight_oi[shard])?;
            self.record_shard(pass, Some(layer), Operation::QueryGradient, shard, partial_th)?;
            if shard + 1 == workspace.partials_th.len() {
                // Sent while the weights' gradients are computed.
                sum = Some(self.own_rows_of_partials(pass, Operation::QueryGradientSum)?);
            }
            let attended_ta = &activations.attended[shard].out_ta;
            self.kernels
                .add_matmul(&gradient.out.weight_oi[shard], &backward.dy_th, attended_ta)?;
            if let Some(bias) = gradient.query.bias_o.get(shard) {
                let all = Self::one_block(workspace.rows());
                self.kernels.column_sums(&dquery_tp, &all, std::slice::from_ref(bias))?;
            }
            self.kernels
                .add_matmul(&gradient.query.weight_oi[shard], &dquery_tp, normed_th)?;
        }
        let mut extra = None;
        if let (Some(projection), Some(gradient)) = (&weights.key_value, &gradient.key_value) {
            self.shared_backward(pass, projection, gradient)?;
            self.record_own(pass, Some(layer), Operation::KeyValueGradientSum, &backward.dkv_sum_tk)?;
            self.record_own(
                pass,
                Some(layer),
                Operation::KeyValueInputGradient,
                &backward.key_value_dnorm_th,
            )?;
            extra = Some(&backward.key_value_dnorm_th);
        }
        let of = SublayerBackward {
            layer: Some(layer),
            sum: Operation::QueryGradientSum,
            result: Operation::FirstNormGradient,
            extra,
        };
        let sum = sum.ok_or(ModelError::NotHeld("a rank has no shards"))?;
        let dnorm_th = self.sum_norm_gradient(pass, &of, sum)?;
        self.norm_backward(pass, &of, (&dnorm_th, x_th), &weights.norm1, stats, &gradient.norm1)
    }

    /// Backward pass of the projection of shared keys and values, on the own rows: its gradients, and that of its input
    /// (`key_value_dnorm_th`).
    fn shared_backward(
        &self,
        pass: &PassContext<'_>,
        projection: &Linear,
        gradient: &Linear,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        self.sum_shared(pass)?;
        let blocks = self.own_blocks(rows);
        if !gradient.bias_o.is_empty() {
            self.kernels
                .column_sums(&backward.dkv_sum_tk, &blocks, &gradient.bias_o)?;
        }
        let dkv = if self.kind == Kind::Float {
            &backward.dkv_sum_tk
        } else {
            self.kernels.cast(&backward.dkv_sum_tk, &backward.dkv_cast_tk)?;
            &backward.dkv_cast_tk
        };
        let normed_th = rows.own_of_all(&workspace.normed_th)?;
        for (block, gradient) in blocks.iter().zip(&gradient.weight_oi) {
            let cut = |tensor: &Tensor| tensor.f_narrow(0, block.start as i64, block.len() as i64);
            let own = cut(dkv)?;
            self.kernels
                .matmul(&cut(&backward.key_value_dnorm_th)?, &own, &projection.weight_oi[0])?;
            self.kernels.add_matmul(gradient, &own, &cut(&normed_th)?)?;
        }
        Ok(())
    }

    /// Own rows of the gradient of shared keys and values: for each head the tree sum over the shards that use it.
    fn sum_shared(&self, pass: &PassContext<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        let (d, shape) = (self.head_size(), &self.parameters.shape);
        let (g, width) = (shape.kv_heads as i64, (shape.tensor / shape.kv_heads) as i64);
        let shards = &self.parameters.holding.shards;
        // Shards that share a head are adjacent, and so are the ranks that hold them.
        let head_of = |shard: usize| shard as i64 / width;
        let sum = |parts: &[Tensor], head: i64, out: &Tensor| -> Result<(), ModelError> {
            let rows = parts[0].size()[0];
            let both = Tensor::f_empty([rows, 2 * d], (Kind::Float, self.device))?;
            self.kernels.sum_partials(parts, None, &both)?;
            for (from, to) in [(0, head), (d, g + head)] {
                out.f_narrow(1, to * d, d)?.f_copy_(&both.f_narrow(1, from, d)?)?;
            }
            Ok(())
        };
        let heads = head_of(shards.start)..=head_of(shards.end - 1);
        let local = |head: i64| -> Vec<Tensor> {
            let of_head = |(i, _): &(usize, &Tensor)| head_of(shards.start + i) == head;
            let own = backward.dkv_te.iter().enumerate().filter(of_head);
            own.map(|(_, part)| part.shallow_clone()).collect()
        };
        if self.mesh.tensor == 1 {
            for head in heads {
                sum(&local(head), head, &backward.dkv_sum_tk)?;
            }
            return Ok(());
        }
        for head in heads {
            sum(&local(head), head, &backward.dkv_partial_tk)?;
        }
        let parts = pass
            .peers
            .tensor_group()
            .start_all_to_all_rows(&backward.dkv_partial_tk, &rows.by_rank, &backward.dkv_incoming_tk)?
            .wait()?;
        for head in 0..g {
            let holds = |rank: usize| {
                let shards = mesh::split_range(shape.tensor, self.mesh.tensor, rank);
                head_of(shards.start) <= head && head <= head_of(shards.end - 1)
            };
            let of_head = |column: i64| -> Result<Vec<Tensor>, ModelError> {
                let own = parts.iter().enumerate().filter(|(rank, _)| holds(*rank));
                own.map(|(_, part)| Ok(part.f_narrow(1, column * d, d)?.f_contiguous()?))
                    .collect()
            };
            for column in [head, g + head] {
                let out = Tensor::f_empty([rows.own.len() as i64, d], (Kind::Float, self.device))?;
                let parts = self.with_fault(Operation::KeyValueGradientSum, of_head(column)?)?;
                self.kernels.sum_partials(&parts, None, &out)?;
                backward.dkv_sum_tk.f_narrow(1, column * d, d)?.f_copy_(&out)?;
            }
        }
        Ok(())
    }

    /// The gradient of one shard's query projection; that of shared keys and values goes to the shard's buffer.
    fn one_shard_backward(
        &self,
        pass: &PassContext<'_>,
        activations: &LayerActivations,
        shard: usize,
    ) -> Result<Tensor, ModelError> {
        let workspace = &*pass.workspace;
        let backward = workspace.backward()?;
        let rows = workspace.rows() as i64;
        let shape = &self.parameters.shape;
        let views = self.views(
            &activations.query_tp[shard],
            &activations.key_value_tk,
            workspace,
            shard,
        )?;
        let dquery_tp = Tensor::f_empty([rows, shape.projected() as i64], (self.kind, self.device))?;
        let dkv_te = &backward.dkv_te[shard];
        if self.kernels == Kernels::Portable {
            let mut into = self.views(&dquery_tp, &activations.key_value_tk, workspace, shard)?;
            if shape.arrangement == HeadArrangement::Shared {
                let (b, s, d) = (workspace.sequences as i64, workspace.sequence as i64, self.head_size());
                let both = dkv_te.f_view([b, s, 2, d])?;
                into.key_bsgd = both.f_narrow(2, 0, 1)?;
                into.value_bsgd = both.f_narrow(2, 1, 1)?;
            }
            let Attended { out_ta, lse_bns } = &activations.attended[shard];
            let gradients = into.by_reference();
            portable::attention_backward(views.by_reference(), out_ta, lse_bns, &backward.dattended_ta, gradients)?;
        } else if self.kernels == Kernels::Device && fused_attention::fits(&views.query_bsnd.f_transpose(1, 2)?, None) {
            let attended = &activations.attended[shard];
            self.fused_backward(workspace, &views, attended, dkv_te, &dquery_tp, shard)?;
            if shape.arrangement != HeadArrangement::Shared {
                return Ok(dquery_tp);
            }
        } else {
            self.flash_backward(
                workspace,
                &views,
                &activations.attended[shard],
                dkv_te,
                &dquery_tp,
                shard,
            )?;
        }
        match shape.arrangement {
            HeadArrangement::Shared => {
                self.rotate(pass, dkv_te, 1, true)?;
                self.rotate(pass, &dquery_tp, shape.shard_heads(), true)?;
            }
            HeadArrangement::PerHead => {}
            HeadArrangement::Stacked => {
                let heads = shape.shard_heads() + shape.shard_kv_heads();
                self.rotate(pass, &dquery_tp, heads, true)?;
            }
        }
        Ok(dquery_tp)
    }

    /// The backward pass of the fused kernel. With own keys and values, the gradients of queries and keys are rotated back.
    fn fused_backward(
        &self,
        workspace: &Workspace,
        views: &Views,
        attended: &Attended,
        dkv_te: &Tensor,
        dquery_tp: &Tensor,
        shard: usize,
    ) -> Result<(), ModelError> {
        let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
        let (n, d) = (self.shard_heads(), self.head_size());
        let heads = |rows: &Tensor| rows.f_view([b, s, n, d])?.f_transpose(1, 2);
        let (dout, out) = (heads(&workspace.backward()?.dattended_ta)?, heads(&attended.out_ta)?);
        let by_head = views.by_head()?;
        let into = self.views(dquery_tp, &workspace.layer(0, 0).key_value_tk, workspace, shard)?;
        let g = by_head[1].size()[1];
        let columns = match self.parameters.shape.arrangement {
            HeadArrangement::Shared => None,
            HeadArrangement::PerHead => Some([0, d, 2 * d].map(|first| HeadColumns { first, step: 3 * d })),
            HeadArrangement::Stacked => Some([0, n * d, (n + g) * d].map(|first| HeadColumns { first, step: d })),
        };
        for slice in fused_attention::slices(&by_head[0]) {
            let count = slice.end - slice.start;
            let cut = |tensor: &Tensor| tensor.f_narrow(0, slice.start, count);
            let [query, key, value] = by_head.each_ref().map(cut);
            let output = [&cut(&out)?, &cut(&attended.lse_bns)?];
            let gradients = fused_attention::backward(&cut(&dout)?, [&query?, &key?, &value?], output)?;
            // The kernel writes `[b, s, heads, d]`.
            let dense = |heads: &Tensor| -> Result<Tensor, ModelError> {
                let size = heads.size();
                Ok(heads
                    .f_transpose(1, 2)?
                    .f_contiguous()?
                    .f_view([count * s, size[1], d])?)
            };
            let [dq, dk, dv] = &gradients;
            let rows = |tensor: &Tensor| tensor.f_narrow(0, slice.start * s, count * s);
            if let Some(columns) = columns {
                let heads = [&dense(dq)?, &dense(dk)?, &dense(dv)?];
                let rotary = workspace.rotary.as_ref();
                let to = rows(dquery_tp)?;
                if !self
                    .kernels
                    .pack_heads(heads, rotary, workspace.sequence, columns, &to)?
                {
                    return Err(ModelError::NotHeld(
                        "this process has not loaded the kernels of its device",
                    ));
                }
                continue;
            }
            cut(&into.query_bsnd)?.f_copy_(&dq.f_transpose(1, 2)?)?;
            let flat = |heads: &Tensor| dense(heads)?.f_view([count * s, d]).map_err(ModelError::from);
            self.kernels.fold_heads(&flat(dk)?, &flat(dv)?, 1, &rows(dkv_te)?)?;
        }
        Ok(())
    }

    /// libtorch's backward pass. Its gradients of each head are added over the heads that share a key and value head.
    fn flash_backward(
        &self,
        workspace: &Workspace,
        views: &Views,
        attended: &Attended,
        dkv_te: &Tensor,
        dquery_tp: &Tensor,
        shard: usize,
    ) -> Result<(), ModelError> {
        let (b, s, rows) = (
            workspace.sequences as i64,
            workspace.sequence as i64,
            workspace.rows() as i64,
        );
        let (n, d) = (self.shard_heads(), self.head_size());
        let heads = |rows: &Tensor| rows.f_view([b, s, n, d])?.f_transpose(1, 2);
        let (dout, out) = (heads(&workspace.backward()?.dattended_ta)?, heads(&attended.out_ta)?);
        let (dq, dk, dv) = if self.kernels == Kernels::Device {
            let output = [&out, &attended.lse_bns];
            composed_attention::backward(&dout, &views.expanded()?, output)?
        } else {
            let [query, key, value] = views.expanded()?;
            Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
                &dout,
                &query,
                &key,
                &value,
                &out,
                &attended.lse_bns,
                0.0,
                true,
                None,
                None,
            )?
        };
        let put = |to: &Tensor, from: &Tensor| to.shallow_clone().f_copy_(from);
        let flat = |part: &Tensor, groups: i64| -> Result<Tensor, ModelError> {
            let rows = part
                .f_transpose(1, 2)?
                .f_contiguous()?
                .f_view([rows * groups, n / groups * d]);
            Ok(rows?)
        };
        // With shared keys and values the second argument is not used.
        let into = self.views(dquery_tp, &workspace.layer(0, 0).key_value_tk, workspace, shard)?;
        put(&into.query_bsnd, &dq.f_transpose(1, 2)?)?;
        match self.parameters.shape.arrangement {
            HeadArrangement::Shared => self
                .kernels
                .fold_heads(&flat(&dk, 1)?, &flat(&dv, 1)?, n as usize, dkv_te)?,
            HeadArrangement::PerHead => {
                put(&into.key_bsgd, &dk.f_transpose(1, 2)?)?;
                put(&into.value_bsgd, &dv.f_transpose(1, 2)?)?;
            }
            HeadArrangement::Stacked => {
                let g = self.parameters.shape.shard_kv_heads() as i64;
                let folded = Tensor::f_empty([rows * g, 2 * d], (Kind::Float, self.device))?;
                self.kernels
                    .fold_heads(&flat(&dk, g)?, &flat(&dv, g)?, (n / g) as usize, &folded)?;
                let both = folded.f_view([b, s, g, 2 * d])?;
                put(&into.key_bsgd, &both.f_narrow(3, 0, d)?)?;
                put(&into.value_bsgd, &both.f_narrow(3, d, d)?)?;
            }
        }
        Ok(())
    }
}
