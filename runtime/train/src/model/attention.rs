//! Attention of one layer, forward and backward, shard by shard.
//!
//! Queries are cut by heads, and so are keys and values where a shard has heads of its own. Where a key and value head
//! serves several shards, their projection is whole: every rank runs it for all rows, and its gradient is the tree sum
//! over row blocks of the tree sum over the shards that share a head.

use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::layout::Heads;
use super::network::{Descent, Pass};
use super::ops::Stats;
use super::portable::{self, Projected};
use super::views::{Layer, Linear};
use super::workspace::{Kept, Workspace};
use super::{Kernels, ModelError, Network};

/// Query, key and value of one shard as `[b, s, heads, d]`; keys and values have as many heads as the shard sees.
pub(super) struct Views {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
}

impl Views {
    fn projected(&self) -> Projected<'_> {
        Projected {
            query: &self.query,
            key: &self.key,
            value: &self.value,
        }
    }

    /// As libtorch takes them: `[b, n, s, d]`, each key and value head for as many heads as share it.
    fn expanded(&self) -> Result<[Tensor; 3], ModelError> {
        let query = self.query.f_transpose(1, 2)?;
        let n = query.size()[1];
        let key = repeat(&self.key.f_transpose(1, 2)?, n)?;
        Ok([query, key, repeat(&self.value.f_transpose(1, 2)?, n)?])
    }
}

/// `[b, g, s, d]` → `[b, n, s, d]`, each head `n / g` times.
fn repeat(heads: &Tensor, n: i64) -> Result<Tensor, ModelError> {
    let size = heads.size();
    let [b, g, s, d] = [size[0], size[1], size[2], size[3]];
    if g == n {
        return Ok(heads.shallow_clone());
    }
    let each = heads.f_unsqueeze(2)?.f_expand([b, g, n / g, s, d], false)?;
    Ok(if g == 1 {
        each.f_squeeze_dim(1)?
    } else {
        each.f_reshape([b, n, s, d])?
    })
}

impl Network {
    fn shard_heads(&self) -> i64 {
        self.layout.shape.shard_heads() as i64
    }

    fn head_size(&self) -> i64 {
        self.layout.shape.head_size as i64
    }

    /// The shared key and value head that a shard's heads use.
    fn shared_head(&self, shard: usize) -> i64 {
        let shape = &self.layout.shape;
        ((self.layout.holding.shards.start + shard) * shape.kv_heads / shape.tensor) as i64
    }

    /// The parts of a shard's projection (or of its gradient), and of the keys and values that it shares, if it does.
    pub(super) fn views(
        &self,
        own: &Tensor,
        shared: &Tensor,
        workspace: &Workspace,
        shard: usize,
    ) -> Result<Views, ModelError> {
        let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
        let (n, d) = (self.shard_heads(), self.head_size());
        Ok(match self.layout.shape.arrangement {
            Heads::Shared => {
                let g = self.layout.shape.kv_heads as i64;
                let all = shared.f_view([b, s, 2 * g, d])?;
                let head = self.shared_head(shard);
                Views {
                    query: own.f_view([b, s, n, d])?,
                    key: all.f_narrow(2, head, 1)?,
                    value: all.f_narrow(2, g + head, 1)?,
                }
            }
            Heads::PerHead => {
                let all = own.f_view([b, s, n, 3 * d])?;
                Views {
                    query: all.f_narrow(3, 0, d)?,
                    key: all.f_narrow(3, d, d)?,
                    value: all.f_narrow(3, 2 * d, d)?,
                }
            }
            Heads::Stacked => {
                let g = self.layout.shape.shard_kv_heads() as i64;
                let all = own.f_view([b, s, n + 2 * g, d])?;
                Views {
                    query: all.f_narrow(2, 0, n)?,
                    key: all.f_narrow(2, n, g)?,
                    value: all.f_narrow(2, n + g, g)?,
                }
            }
        })
    }

    /// Attention of one shard: `[t, n·d]`, and the logarithms of the sums of its powers.
    fn attention(&self, views: &Views, pass: &Pass<'_>) -> Result<(Tensor, Tensor), ModelError> {
        let workspace = &*pass.workspace;
        let (n, d, rows) = (self.shard_heads(), self.head_size(), workspace.rows() as i64);
        if self.kernels == Kernels::Portable {
            let (b, s) = (workspace.sequences as i64, workspace.sequence as i64);
            let out = Tensor::f_empty([rows, n * d], (self.kind, self.device))?;
            let logs = Tensor::f_empty([b, n, s], (Kind::Float, self.device))?;
            let hidden = pass.positions.map_or(&[][..], |positions| &positions.hidden);
            portable::attention_forward(views.projected(), hidden, &out, &logs)?;
            return Ok((out, logs));
        }
        let [query, key, value] = views.expanded()?;
        let mask = pass.positions.and_then(|positions| positions.mask.as_ref());
        let (out, logs) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<&Tensor>(
            &query,
            &key,
            &value,
            0.0,
            mask.is_none(),
            mask,
            None,
        )?;
        // libtorch leaves it in this order: no copy.
        let out = out.f_transpose(1, 2)?.f_contiguous()?.f_view([rows, n * d])?;
        Ok((out, logs))
    }

    /// Turns the heads that stand in the first columns of `rows` by their positions, or back.
    fn rotate(&self, pass: &Pass<'_>, rows: &Tensor, heads: usize, inverse: bool) -> Result<(), ModelError> {
        // A line for each row, or for each place of a sequence.
        let (rotary, lines) = match pass.positions {
            Some(positions) => (&positions.rotary, pass.workspace.rows()),
            None => (&pass.workspace.rotary, pass.workspace.sequence),
        };
        match rotary {
            Some(rotary) => self.kernels.rotate(rows, rotary, lines, 0, heads, inverse),
            None => Ok(()),
        }
    }

    /// First norm and projections, turned by their positions: fills what the layer keeps of them.
    pub(super) fn project_heads(&self, own: &Layer, pass: &Pass<'_>, layer: usize) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let kept = workspace.kept(pass.slot, layer);
        let stats = Stats {
            mean: &kept.mean1,
            rstd: &kept.rstd1,
        };
        let normed = &workspace.normed;
        self.norm(pass, workspace.input(pass.slot, layer), &own.norm1, stats)?;
        self.record_rows(pass, Some(layer), Operation::FirstNorm, normed)?;
        let shape = &self.layout.shape;
        let own_keys = if shape.arrangement == Heads::Stacked {
            shape.shard_kv_heads()
        } else {
            0
        };
        for (shard, out) in kept.query.iter().enumerate() {
            self.kernels
                .project_with_bias(out, normed, &own.query.weight[shard], own.query.bias.get(shard))?;
            self.rotate(pass, out, shape.shard_heads() + own_keys, false)?;
            self.record_shard(pass, Some(layer), Operation::Query, shard, out)?;
        }
        if let Some(projection) = &own.key_value {
            for block in self.blocks(workspace.rows()) {
                let (start, length) = (block.start as i64, block.len() as i64);
                let out = kept.key_value.f_narrow(0, start, length)?;
                let rows = normed.f_narrow(0, start, length)?;
                self.kernels
                    .project_with_bias(&out, &rows, &projection.weight[0], projection.bias.first())?;
            }
            self.rotate(pass, &kept.key_value, shape.kv_heads, false)?;
            self.record_rows(pass, Some(layer), Operation::KeyValue, &kept.key_value)?;
        }
        Ok(())
    }

    /// First norm, projections and attention: fills what the layer keeps of them.
    pub(super) fn attend(&self, own: &Layer, pass: &mut Pass<'_>, layer: usize) -> Result<(), ModelError> {
        self.project_heads(own, pass, layer)?;
        let workspace = &*pass.workspace;
        let kept = workspace.kept(pass.slot, layer);
        let mut attended = Vec::with_capacity(kept.query.len());
        for shard in 0..kept.query.len() {
            let views = self.views(&kept.query[shard], &kept.key_value, workspace, shard)?;
            let (out, logs) = self.attention(&views, pass)?;
            self.record_shard(pass, Some(layer), Operation::Attention, shard, &out)?;
            attended.push((out, logs));
        }
        pass.workspace.kept_mut(pass.slot, layer).attended = attended;
        Ok(())
    }

    pub(super) fn attention_backward(
        &self,
        own: &Layer,
        pass: &Pass<'_>,
        layer: usize,
        gradient: &Layer,
    ) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let backward = workspace.backward()?;
        let kept = workspace.kept(pass.slot, layer);
        let stats = Stats {
            mean: &kept.mean1,
            rstd: &kept.rstd1,
        };
        let (normed, x) = (&workspace.normed, workspace.input(pass.slot, layer));
        self.norm_again(pass, x, &own.norm1, stats)?;
        self.record_rows(pass, Some(layer), Operation::FirstNorm, normed)?;
        self.fill_dy(pass, layer, Operation::AttentionSumGradient)?;
        self.bias_backward(pass, &gradient.out.bias)?;
        let mut sum = None;
        for (shard, partial) in workspace.partials.iter().enumerate() {
            self.kernels
                .multiply(&backward.dattended, &backward.dy, &own.out.weight[shard])?;
            self.record_shard(
                pass,
                Some(layer),
                Operation::AttentionOutputGradient,
                shard,
                &backward.dattended,
            )?;
            let dquery = self.one_shard_backward(pass, kept, shard)?;
            self.record_shard(pass, Some(layer), Operation::AttentionGradient, shard, &dquery)?;
            if own.key_value.is_some() {
                self.record_shard(
                    pass,
                    Some(layer),
                    Operation::KeyValueGradient,
                    shard,
                    &backward.dkv[shard],
                )?;
            }
            self.kernels.multiply(partial, &dquery, &own.query.weight[shard])?;
            self.record_shard(pass, Some(layer), Operation::QueryGradient, shard, partial)?;
            if shard + 1 == workspace.partials.len() {
                // On its way while the weights' gradients are computed.
                sum = Some(self.own_parts(pass, Operation::QueryGradientSum)?);
            }
            let (attended, _) = &kept.attended[shard];
            self.kernels
                .add_product(&gradient.out.weight[shard], &backward.dy, attended)?;
            if let Some(bias) = gradient.query.bias.get(shard) {
                let all = Self::all(workspace.rows());
                self.kernels.column_sums(&dquery, &all, std::slice::from_ref(bias))?;
            }
            self.kernels
                .add_product(&gradient.query.weight[shard], &dquery, normed)?;
        }
        let mut extra = None;
        if let (Some(projection), Some(gradient)) = (&own.key_value, &gradient.key_value) {
            self.shared_backward(pass, projection, gradient)?;
            self.record_own(pass, Some(layer), Operation::KeyValueGradientSum, &backward.dkv_sum)?;
            self.record_own(pass, Some(layer), Operation::KeyValueInputGradient, &backward.extra)?;
            extra = Some(&backward.extra);
        }
        let of = Descent {
            layer: Some(layer),
            sum: Operation::QueryGradientSum,
            result: Operation::FirstNormGradient,
            extra,
        };
        if let Some(sum) = sum {
            self.sum_dnorm(pass, &of, sum)?;
        }
        self.norm_backward(pass, &of, x, &own.norm1, stats, &gradient.norm1)
    }

    /// Backward of the projection of shared keys and values, on the own rows: its gradients, and that of its input
    /// (`extra`).
    fn shared_backward(&self, pass: &Pass<'_>, projection: &Linear, gradient: &Linear) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        self.sum_shared(pass)?;
        let blocks = self.own_blocks(rows);
        if !gradient.bias.is_empty() {
            self.kernels.column_sums(&backward.dkv_sum, &blocks, &gradient.bias)?;
        }
        let dkv = if self.kind == Kind::Float {
            &backward.dkv_sum
        } else {
            self.kernels.cast(&backward.dkv_sum, &backward.dkv_cast)?;
            &backward.dkv_cast
        };
        let normed = rows.own_of_all(&workspace.normed)?;
        for (block, gradient) in blocks.iter().zip(&gradient.weight) {
            let cut = |tensor: &Tensor| tensor.f_narrow(0, block.start as i64, block.len() as i64);
            let own = cut(dkv)?;
            self.kernels
                .multiply(&cut(&backward.extra)?, &own, &projection.weight[0])?;
            self.kernels.add_product(gradient, &own, &cut(&normed)?)?;
        }
        Ok(())
    }

    /// Own rows of the gradient of the shared keys and values: for each head the tree sum over the shards that use it.
    fn sum_shared(&self, pass: &Pass<'_>) -> Result<(), ModelError> {
        let workspace = &*pass.workspace;
        let (rows, backward) = (&workspace.rows, workspace.backward()?);
        let (d, shape) = (self.head_size(), &self.layout.shape);
        let (g, width) = (shape.kv_heads as i64, (shape.tensor / shape.kv_heads) as i64);
        let shards = &self.layout.holding.shards;
        // Shards that share a head stand next to each other, and so do the ranks that hold them.
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
            let own = backward.dkv.iter().enumerate().filter(of_head);
            own.map(|(_, part)| part.shallow_clone()).collect()
        };
        if self.mesh.tensor == 1 {
            for head in heads {
                sum(&local(head), head, &backward.dkv_sum)?;
            }
            return Ok(());
        }
        for head in heads {
            sum(&local(head), head, &backward.dkv_root)?;
        }
        let parts = pass
            .peers
            .tensor_group()
            .scatter(&backward.dkv_root, &rows.shares, &backward.dkv_incoming)?
            .wait()?;
        for head in 0..g {
            let holds = |rank: usize| {
                let shards = crate::parallel::mesh::share(shape.tensor, self.mesh.tensor, rank);
                head_of(shards.start) <= head && head <= head_of(shards.end - 1)
            };
            let of_head = |column: i64| -> Result<Vec<Tensor>, ModelError> {
                let own = parts.iter().enumerate().filter(|(rank, _)| holds(*rank));
                own.map(|(_, part)| Ok(part.f_narrow(1, column * d, d)?.f_contiguous()?))
                    .collect()
            };
            for column in [head, g + head] {
                let out = Tensor::f_empty([rows.own.len() as i64, d], (Kind::Float, self.device))?;
                let parts = self.parts_of(Operation::KeyValueGradientSum, of_head(column)?)?;
                self.kernels.sum_partials(&parts, None, &out)?;
                backward.dkv_sum.f_narrow(1, column * d, d)?.f_copy_(&out)?;
            }
        }
        Ok(())
    }

    /// The gradient of one shard's query projection, in the order of its outputs; that of shared keys and values goes to
    /// the shard's buffer.
    fn one_shard_backward(&self, pass: &Pass<'_>, kept: &Kept, shard: usize) -> Result<Tensor, ModelError> {
        let workspace = &*pass.workspace;
        let backward = workspace.backward()?;
        let rows = workspace.rows() as i64;
        let shape = &self.layout.shape;
        let views = self.views(&kept.query[shard], &kept.key_value, workspace, shard)?;
        let dquery = Tensor::f_empty([rows, shape.projected() as i64], (self.kind, self.device))?;
        let shared = &backward.dkv[shard];
        if self.kernels == Kernels::Portable {
            let mut into = self.views(&dquery, &kept.key_value, workspace, shard)?;
            if shape.arrangement == Heads::Shared {
                let (b, s, d) = (workspace.sequences as i64, workspace.sequence as i64, self.head_size());
                let both = shared.f_view([b, s, 2, d])?;
                into.key = both.f_narrow(2, 0, 1)?;
                into.value = both.f_narrow(2, 1, 1)?;
            }
            let (out, logs) = &kept.attended[shard];
            portable::attention_backward(views.projected(), out, logs, &backward.dattended, into.projected())?;
        } else {
            self.flash_backward(workspace, &views, &kept.attended[shard], shared, &dquery, shard)?;
        }
        match shape.arrangement {
            Heads::Shared => {
                self.rotate(pass, shared, 1, true)?;
                self.rotate(pass, &dquery, shape.shard_heads(), true)?;
            }
            Heads::PerHead => {}
            Heads::Stacked => {
                let turned = shape.shard_heads() + shape.shard_kv_heads();
                self.rotate(pass, &dquery, turned, true)?;
            }
        }
        Ok(dquery)
    }

    /// libtorch's backward; what it gives for each head is added up over the heads that share a key and value head.
    fn flash_backward(
        &self,
        workspace: &Workspace,
        views: &Views,
        attended: &(Tensor, Tensor),
        shared: &Tensor,
        dquery: &Tensor,
        shard: usize,
    ) -> Result<(), ModelError> {
        let (b, s, rows) = (
            workspace.sequences as i64,
            workspace.sequence as i64,
            workspace.rows() as i64,
        );
        let (n, d) = (self.shard_heads(), self.head_size());
        let [query, key, value] = views.expanded()?;
        let heads = |rows: &Tensor| rows.f_view([b, s, n, d])?.f_transpose(1, 2);
        let (out, logs) = attended;
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<&Tensor>(
            &heads(&workspace.backward()?.dattended)?,
            &query,
            &key,
            &value,
            &heads(out)?,
            logs,
            0.0,
            true,
            None,
            None,
        )?;
        let put = |to: &Tensor, from: &Tensor| to.shallow_clone().f_copy_(from);
        let flat = |part: &Tensor, groups: i64| -> Result<Tensor, ModelError> {
            let rows = part
                .f_transpose(1, 2)?
                .f_contiguous()?
                .f_view([rows * groups, n / groups * d]);
            Ok(rows?)
        };
        // Where keys and values are shared, the second tensor is not looked at.
        let into = self.views(dquery, &workspace.kept(0, 0).key_value, workspace, shard)?;
        put(&into.query, &dq.f_transpose(1, 2)?)?;
        match self.layout.shape.arrangement {
            Heads::Shared => self
                .kernels
                .fold_heads(&flat(&dk, 1)?, &flat(&dv, 1)?, n as usize, shared)?,
            Heads::PerHead => {
                put(&into.key, &dk.f_transpose(1, 2)?)?;
                put(&into.value, &dv.f_transpose(1, 2)?)?;
            }
            Heads::Stacked => {
                let g = self.layout.shape.shard_kv_heads() as i64;
                let folded = Tensor::f_empty([rows * g, 2 * d], (Kind::Float, self.device))?;
                self.kernels
                    .fold_heads(&flat(&dk, g)?, &flat(&dv, g)?, (n / g) as usize, &folded)?;
                let both = folded.f_view([b, s, g, 2 * d])?;
                put(&into.key, &both.f_narrow(3, 0, d)?)?;
                put(&into.value, &both.f_narrow(3, d, d)?)?;
            }
        }
        Ok(())
    }
}
