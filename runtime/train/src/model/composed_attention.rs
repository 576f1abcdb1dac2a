//! Causal attention from libtorch's basic operations: runs on every device, in `f32`, with all scores of a shard in memory.
//!
//! It is what a fused kernel of a device is tested against, and what computes until there is one.
//!
//! In: queries, keys and values `[b, n, s, d]`. Out: the heads' outputs `[b, n, s, d]` and the log-sum-exp of each row's
//! scores `[b, n, s]`. Memory: `b·n·s·s` numbers, three times in the backward pass.

use tch::{Kind, Tensor};

use super::ModelError;

/// Scores `[b, n, s, s]`, with −∞ where a row does not attend. `mask` (0 or −∞, `[b, 1, s, s]`) replaces the causal mask.
fn scores(query: &Tensor, key: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, ModelError> {
    let size = query.size();
    let [s, d] = [size[2], size[3]];
    let scale = 1.0 / (d as f64).sqrt();
    let scores = query.f_matmul(&key.f_transpose(2, 3)?)?.f_mul_scalar(scale)?;
    Ok(match mask {
        Some(mask) => scores.f_add(&mask.f_to_kind(Kind::Float)?)?,
        None => {
            let later = Tensor::f_ones([s, s], (Kind::Bool, query.device()))?.f_triu(1)?;
            scores.f_masked_fill(&later, f64::NEG_INFINITY)?
        }
    })
}

fn in_f32(tensors: &[Tensor; 3]) -> Result<[Tensor; 3], ModelError> {
    let [query, key, value] = tensors.each_ref().map(|tensor| tensor.f_to_kind(Kind::Float));
    Ok([query?, key?, value?])
}

/// The heads' outputs in the element type of the queries, and the log-sum-exp of each row in `f32`.
///
/// # Errors
/// [`ModelError::Torch`] if memory runs out.
pub fn forward(views: &[Tensor; 3], mask: Option<&Tensor>) -> Result<(Tensor, Tensor), ModelError> {
    let [query, key, value] = in_f32(views)?;
    let scores = scores(&query, &key, mask)?;
    let lse = scores.f_logsumexp(&[3i64][..], false)?;
    let probabilities = scores.f_sub(&lse.f_unsqueeze(3)?)?.f_exp()?;
    Ok((probabilities.f_matmul(&value)?.f_to_kind(views[0].kind())?, lse))
}

/// The gradients of queries, keys and values in their element type, given that of the output; `output` is the result of
/// [`forward`] without a mask.
///
/// # Errors
/// [`ModelError::Torch`] if memory runs out.
pub fn backward(
    dout: &Tensor,
    views: &[Tensor; 3],
    output: [&Tensor; 2],
) -> Result<(Tensor, Tensor, Tensor), ModelError> {
    let [query, key, value] = in_f32(views)?;
    let [out, lse] = output;
    let (dout, out) = (dout.f_to_kind(Kind::Float)?, out.f_to_kind(Kind::Float)?);
    let scale = 1.0 / (query.size()[3] as f64).sqrt();
    let probabilities = scores(&query, &key, None)?.f_sub(&lse.f_unsqueeze(3)?)?.f_exp()?;
    let dvalue = probabilities.f_transpose(2, 3)?.f_matmul(&dout)?;
    // Σ over d of dout · out is Σ over keys of probability · its gradient.
    let row = dout.f_mul(&out)?.f_sum_dim_intlist(&[3i64][..], true, Kind::Float)?;
    let dprobabilities = dout.f_matmul(&value.f_transpose(2, 3)?)?;
    let dscores = probabilities.f_mul(&dprobabilities.f_sub(&row)?)?.f_mul_scalar(scale)?;
    let dquery = dscores.f_matmul(&key)?;
    let dkey = dscores.f_transpose(2, 3)?.f_matmul(&query)?;
    let kind = views[0].kind();
    Ok((dquery.f_to_kind(kind)?, dkey.f_to_kind(kind)?, dvalue.f_to_kind(kind)?))
}
