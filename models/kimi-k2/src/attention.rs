//! Multi-head latent attention over the paged cache.
//!
//! The cache holds one latent for all heads. Two forms give the same numbers: *expanded* makes keys and values of the
//! context from the latents (cheap when many rows share them), *absorbed* moves the query into the latents' space
//! (cheap when there are few rows). See `mla_prefill` and `mla_decode` of the kernels.

use std::ops::Range;

use candle_core::Tensor;
use kimi_kernels::{
    Activations, KeptTensor, MlaLayer, MlaShape, PagedSpan, Rotations, mla_decode, mla_prefill,
    rope_interleaved, write_latents,
};

use crate::{
    Checkpoint, Collective, ModelConfig, ModelError, linear::Linear, norm::RmsNorm, rope::softmax_scale,
    share::Share, tensor_names as names,
};

/// Spans up to this many rows always use the absorbed form, so that what they get does not depend on how a prompt is cut.
pub(crate) const ABSORBED_ROWS: usize = 16;

/// Which form of attention is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionForm {
    /// Whichever is faster for each span.
    #[default]
    Auto,
    /// Always absorbed. For tests.
    Absorbed,
    /// Always expanded. For tests.
    Expanded,
}

impl AttentionForm {
    fn is_absorbed(self, span: &PagedSpan<'_>, shape: MlaShape) -> bool {
        match self {
            Self::Auto => {
                span.rows <= ABSORBED_ROWS || absorbed_work(span, shape) < expanded_work(span, shape)
            }
            Self::Absorbed => true,
            Self::Expanded => false,
        }
    }
}

/// Multiply-adds of a head in the absorbed form: moving each row's query and result, then all latents for each row.
fn absorbed_work(span: &PagedSpan<'_>, shape: MlaShape) -> usize {
    let MlaShape { nope, rope, value, latent, .. } = shape;
    span.rows * ((nope + value) * latent + (span.start + span.rows) * (2 * latent + rope))
}

/// Multiply-adds of a head in the expanded form: making each position's key and value, then all of these for each row. For
/// K2.6 and a long context it takes fewer from 170 rows on.
fn expanded_work(span: &PagedSpan<'_>, shape: MlaShape) -> usize {
    let MlaShape { nope, rope, value, latent, .. } = shape;
    (span.start + span.rows) * ((nope + value) * latent + span.rows * (nope + rope + value))
}

/// What one forward pass tells every layer.
pub(crate) struct Step<'a> {
    /// How each row's position rotates its queries and its key.
    pub(crate) rotations: Rotations,
    /// The sequences, covering the rows in order.
    pub(crate) spans: Vec<PagedSpan<'a>>,
    pub(crate) form: AttentionForm,
    pub(crate) activations: Activations,
    /// The other ranks.
    pub(crate) collective: &'a dyn Collective,
}

/// One layer's attention; of several ranks, each has some of the heads, and the latents of all.
#[derive(Debug)]
pub(crate) struct Attention {
    queries: Queries,
    kv_a: Linear,
    kv_a_norm: RmsNorm,
    kv_b: Linear,
    output: Linear,
    shape: MlaShape,
}

/// From hidden states to queries: in one step, or through a bottleneck.
#[derive(Debug)]
enum Queries {
    Direct(Linear),
    LowRank { a: Linear, norm: RmsNorm, b: Linear },
}

impl Queries {
    fn load(checkpoint: &Checkpoint, layer: usize, heads: &Range<usize>) -> Result<Self, ModelError> {
        let config = checkpoint.config();
        let (hidden, width) = (config.hidden_size, config.num_attention_heads * config.qk_head_dim());
        let outputs = of_heads(heads, config.qk_head_dim());
        let name = |part| names::layer(layer, part);
        let Some(rank) = config.q_lora_rank else {
            let all = Linear::load(checkpoint, &name(names::Q_PROJ), width, hidden)?;
            return Ok(Self::Direct(all.outputs(outputs)?));
        };
        Ok(Self::LowRank {
            a: Linear::load(checkpoint, &name(names::Q_A_PROJ), rank, hidden)?,
            norm: RmsNorm::load(checkpoint, &name(names::Q_A_NORM), rank, config.mla_norm_eps)?,
            b: Linear::load(checkpoint, &name(names::Q_B_PROJ), width, rank)?.outputs(outputs)?,
        })
    }

    fn quantize(&mut self) -> candle_core::Result<u64> {
        match self {
            Self::Direct(linear) => linear.quantize(),
            Self::LowRank { a, b, .. } => Ok(a.quantize()? + b.quantize()?),
        }
    }

    /// Queries, f32 `[rows, heads * (nope + rope)]`, and beside them what `kv_a` makes of the same rows.
    fn forward_with(
        &self,
        kv_a: &Linear,
        x: &Tensor,
        activations: Activations,
    ) -> candle_core::Result<[KeptTensor; 2]> {
        match self {
            Self::Direct(linear) => Linear::forward_both([linear, kv_a], x, activations),
            Self::LowRank { a, norm, b } => {
                let [q, kv] = Linear::forward_both([a, kv_a], x, activations)?; // [rows, rank], [rows, latent + rope]
                let q = norm.forward(&q)?; // [rows, rank]
                Ok([b.forward(&q, activations)?, kv])
            }
        }
    }
}

/// What belongs to these heads, of which each has `size` numbers.
fn of_heads(heads: &Range<usize>, size: usize) -> Range<usize> {
    heads.start * size..heads.end * size
}

impl Attention {
    pub(crate) fn load(checkpoint: &Checkpoint, layer: usize, share: Share) -> Result<Self, ModelError> {
        let config: &ModelConfig = checkpoint.config();
        let heads = share.of(config.num_attention_heads);
        let shape = MlaShape {
            heads: heads.len(),
            nope: config.qk_nope_head_dim,
            rope: config.qk_rope_head_dim,
            value: config.v_head_dim,
            latent: config.kv_lora_rank,
            scale: softmax_scale(config),
        };
        let (hidden, latent) = (config.hidden_size, shape.latent);
        let name = |part| names::layer(layer, part);
        let all = |size| config.num_attention_heads * size;
        let kv = shape.nope + shape.value;
        let kv_b = Linear::load(checkpoint, &name(names::KV_B_PROJ), all(kv), latent)?;
        let output = Linear::load(checkpoint, &name(names::O_PROJ), hidden, all(shape.value))?;
        Ok(Self {
            queries: Queries::load(checkpoint, layer, &heads)?,
            kv_a: Linear::load(checkpoint, &name(names::KV_A_PROJ), latent + shape.rope, hidden)?,
            kv_a_norm: RmsNorm::load(checkpoint, &name(names::KV_A_NORM), latent, config.mla_norm_eps)?,
            kv_b: kv_b.outputs(of_heads(&heads, kv))?,
            output: output.inputs(of_heads(&heads, shape.value))?,
            shape,
        })
    }

    /// Keeps its projections in 8 bits, but for the one of latents to keys and values, which is used row by row. Returns their
    /// bytes.
    pub(crate) fn quantize(&mut self) -> candle_core::Result<u64> {
        Ok(self.queries.quantize()? + self.kv_a.quantize()? + self.output.quantize()?)
    }

    /// `x` is f32 `[rows, hidden]`, normalized. Writes the rows' entries to `cache`, then attends to it. The result is what this
    /// rank's heads add to the hidden state.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        step: &Step<'_>,
        cache: &Tensor,
    ) -> candle_core::Result<KeptTensor> {
        let MlaShape { heads, nope, rope, value, latent, .. } = self.shape;
        let rows = x.dim(0)?;
        let [q, kv] = self.queries.forward_with(&self.kv_a, x, step.activations)?; // kv: [rows, latent + rope]
        let q = q.reshape((rows, heads, nope + rope))?; // [rows, heads, nope + rope]
        let q_pe = q.narrow(2, nope, rope)?; // [rows, heads, rope], a view
        rope_interleaved(&q_pe, &step.rotations)?;

        let k_pe = kv.narrow(1, latent, rope)?; // [rows, rope], a view
        rope_interleaved(&k_pe, &step.rotations)?;
        let c = kv.narrow(1, 0, latent)?; // [rows, latent], a view
        let c = self.kv_a_norm.forward(&c)?;
        write_latents(&c, &k_pe, &step.spans, cache)?;

        let values = KeptTensor::new((rows, heads * value))?; // [rows, heads * value]
        let layer = MlaLayer { kv_b: self.kv_b.weight(), shape: self.shape, activations: step.activations };
        let mut first = 0;
        // Neighbours that use the absorbed form share one call; an expanded span is alone in its chunk.
        let is_absorbed = |span: &PagedSpan<'_>| step.form.is_absorbed(span, self.shape);
        for spans in step.spans.chunk_by(|a, b| is_absorbed(a) && is_absorbed(b)) {
            let count = spans.iter().map(|span| span.rows).sum();
            let q = q.narrow(0, first, count)?; // [count, heads, nope + rope], a view
            let out = values.narrow(0, first, count)?; // [count, heads * value], a view
            if is_absorbed(&spans[0]) {
                mla_decode(&q, cache, layer, spans, &out)?;
            } else {
                mla_prefill(&q, cache, layer, spans[0], &out)?;
            }
            first += count;
        }
        self.output.forward(&values, step.activations) // [rows, hidden]
    }
}
