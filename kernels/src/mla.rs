//! What both forms of multi-head latent attention share: sizes, the arguments' checks, the reference.

use candle_core::{CpuStorage, Device, Layout, Result, Tensor};

use crate::{
    Activations, Weight,
    cpu::{RowsMut, RowsRef, expect_size},
    latent_cache::{LatentCache, PagedSpan, read_latents_reference},
    linear::dequantize,
    weight_rows::WeightRows,
};

/// Sizes and scale of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlaShape {
    /// Query heads.
    pub heads: usize,
    /// Numbers of a head's query and key without position.
    pub nope: usize,
    /// Rotated numbers of a head's query, and of the one key part that all heads share.
    pub rope: usize,
    /// Numbers of a head's value.
    pub value: usize,
    /// Numbers of the cached latent.
    pub latent: usize,
    /// Factor on scores before the softmax.
    pub scale: f32,
}

/// What an attention layer brings to its ops.
#[derive(Clone, Copy, Debug)]
pub struct MlaLayer<'a> {
    /// Makes keys and values of latents: `[heads * (nope + value), latent]`, of each head its keys, then its values.
    pub kv_b: &'a Weight,
    /// Its sizes.
    pub shape: MlaShape,
    /// How exactly `kv_b` is multiplied.
    pub activations: Activations,
}

impl MlaShape {
    /// Rows of `kv_b` that belong to one head: its keys, then its values.
    pub(crate) fn kv_rows(&self) -> usize {
        self.nope + self.value
    }
}

/// Attention of one span written out with candle's own ops: keys and values of the whole context expanded from the
/// latents, a causal mask, a softmax. `q` is f32 `[rows, heads, nope + rope]`; returns f32 `[rows, heads * value]`.
/// Reference of [`mla_decode`](fn@crate::mla_decode) and [`mla_prefill`](fn@crate::mla_prefill).
pub fn mla_reference(q: &Tensor, cache: &Tensor, layer: MlaLayer<'_>, span: PagedSpan<'_>) -> Result<Tensor> {
    let MlaLayer { kv_b, shape, .. } = layer;
    let MlaShape { heads, nope, rope, value, latent, scale } = shape;
    let (rows, context) = (span.rows, span.context());
    let entries = read_latents_reference(cache, span.block_table, context, shape)?; // [context, latent + rope]
    let kv = entries
        .narrow(1, 0, latent)?
        .contiguous()?
        .matmul(&dequantize(kv_b)?.t()?)?
        .reshape((context, heads, nope + value))?
        .transpose(0, 1)?; // [heads, context, nope + value]
    let k_pe = entries.narrow(1, latent, rope)?.unsqueeze(0)?.broadcast_as((heads, context, rope))?;
    let k = Tensor::cat(&[&kv.narrow(2, 0, nope)?, &k_pe], 2)?; // [heads, context, nope + rope]
    let v = kv.narrow(2, nope, value)?.contiguous()?; // [heads, context, value]
    let q = q.transpose(0, 1)?.contiguous()?; // [heads, rows, nope + rope]
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * f64::from(scale))?; // [heads, rows, context]
    let mask: Vec<f32> = (0..rows)
        .flat_map(|row| (0..context).map(move |position| (row, position)))
        .map(|(row, position)| if position <= span.start + row { 0.0 } else { f32::NEG_INFINITY })
        .collect();
    let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, rows, context), &Device::Cpu)?)?;
    let exps = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
    let weights = exps.broadcast_div(&exps.sum_keepdim(2)?)?;
    weights.matmul(&v)?.transpose(0, 1)?.reshape((rows, heads * value)) // [rows, heads * value]
}

/// Checked arguments of an attention op.
pub(crate) struct MlaArguments<'a> {
    /// `[rows * heads, nope + rope]`.
    pub(crate) q: RowsRef<'a>,
    pub(crate) cache: LatentCache<'a>,
    pub(crate) kv_b: WeightRows<'a>,
    /// `[rows, heads * value]`.
    pub(crate) out: RowsMut<'a>,
}

impl<'a> MlaArguments<'a> {
    pub(crate) fn new(
        op: &str,
        MlaLayer { kv_b, shape, .. }: MlaLayer<'a>,
        (out, layout): (&'a mut CpuStorage, &Layout),
        [q, cache]: [(&'a CpuStorage, &Layout); 2],
        spans: &[PagedSpan<'_>],
    ) -> Result<Self> {
        let q = RowsRef::new(op, q)?;
        let cache = LatentCache::new(op, cache, shape)?;
        let kv_b = WeightRows::new(kv_b)?;
        let out = RowsMut::new(op, out, layout)?;
        let rows: usize = spans.iter().map(|span| span.rows).sum();
        expect_size(op, "rows of q", q.rows, rows * shape.heads)?;
        expect_size(op, "width of q", q.width, shape.nope + shape.rope)?;
        expect_size(op, "rows of kv_b", kv_b.rows(), shape.heads * shape.kv_rows())?;
        expect_size(op, "columns of kv_b", kv_b.columns(), shape.latent)?;
        expect_size(op, "rows of the output", out.rows, rows)?;
        expect_size(op, "width of the output", out.width, shape.heads * shape.value)?;
        for span in spans {
            cache.check(op, *span)?;
        }
        Ok(Self { q, cache, kv_b, out })
    }
}
