//! Latent attention in its absorbed form, for few rows of long contexts.
//!
//! The key half of `kv_b` is multiplied into the query, once a row, so that scores are plain dot products with cached
//! entries, shared by all heads; the value half is applied to the weighted sum of latents. Nothing is expanded for
//! the context, whose entries are read once for all heads.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{
    Weight,
    attention_product::{add_weighted, score},
    cpu::{PARALLEL_WORK, RowsRef},
    latent_cache::{LatentCache, PagedSpan},
    mla::{MlaArguments, MlaShape},
    softmax::RunningSoftmax,
    vectorized::{add_scaled, dot_rows, scale},
};

/// Cached entries that are widened and used at a time.
const TILE: usize = 64;

/// Attention of a few rows, each over its own sequence. `q` is f32 `[rows, heads, nope + rope]`, already rotated;
/// `cache` holds the rows' own entries already; `out` is f32 `[rows, heads * value]`. `spans` cover the rows in order.
pub fn mla_decode(
    q: &Tensor,
    cache: &Tensor,
    kv_b: &Weight,
    spans: &[PagedSpan<'_>],
    shape: MlaShape,
    out: &Tensor,
) -> Result<()> {
    out.inplace_op3(q, cache, &MlaDecode { kv_b, spans, shape })
}

struct MlaDecode<'a> {
    kv_b: &'a Weight,
    spans: &'a [PagedSpan<'a>],
    shape: MlaShape,
}

impl InplaceOp3 for MlaDecode<'_> {
    fn name(&self) -> &'static str {
        "mla_decode"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        q: &CpuStorage,
        q_layout: &Layout,
        cache: &CpuStorage,
        cache_layout: &Layout,
    ) -> Result<()> {
        let mut arguments = MlaArguments::new(
            self.name(),
            self.shape,
            self.kv_b,
            (out, layout),
            [(q, q_layout), (cache, cache_layout)],
            self.spans,
        )?;
        let queries = self.absorb(&arguments); // [rows, heads, latent + rope]
        let contexts = self.attend(&queries, &arguments.cache); // [rows, heads, latent]
        self.apply_values(&contexts, &mut arguments);
        Ok(())
    }
}

impl MlaDecode<'_> {
    /// `[rows, heads, latent + rope]`: `scale * (q_nope · W_uk, q_pe)`.
    fn absorb(&self, arguments: &MlaArguments<'_>) -> Vec<f32> {
        let MlaShape { heads, nope, latent, scale: factor, .. } = self.shape;
        let (q, kv_b, width) = (&arguments.q, &arguments.kv_b, arguments.cache.width());
        let rows = q.rows / heads;
        // Threads split the heads, so the result is made head by head: [heads, rows, latent].
        let mut by_head = vec![0.0; heads * rows * latent];
        let run = |(head, out): (usize, &mut [f32])| {
            let mut weight = vec![0.0; latent];
            for number in 0..nope {
                kv_b.read(head * self.shape.kv_rows() + number, &mut weight);
                for (row, out) in out.chunks_exact_mut(latent).enumerate() {
                    add_scaled(out, factor * q.row(row * heads + head)[number], &weight);
                }
            }
        };
        for_each_chunk(&mut by_head, rows * latent, rows * heads * nope * latent, run);
        let mut queries = vec![0.0; rows * heads * width];
        for (index, query) in queries.chunks_exact_mut(width).enumerate() {
            let (row, head) = (index / heads, index % heads);
            query[..latent].copy_from_slice(&by_head[(head * rows + row) * latent..][..latent]);
            query[latent..].copy_from_slice(&q.row(index)[nope..]);
            scale(&mut query[latent..], factor);
        }
        queries
    }

    /// `[rows, heads, latent]`: the latents of each row's context, weighted by the softmax of its scores.
    fn attend(&self, queries: &[f32], cache: &LatentCache<'_>) -> Vec<f32> {
        let MlaShape { heads, latent, .. } = self.shape;
        let rows: Vec<(&PagedSpan<'_>, usize)> = self
            .spans
            .iter()
            .flat_map(|span| (0..span.rows).map(move |row| (span, span.start + row + 1)))
            .collect();
        let work: usize = rows.iter().map(|(_, context)| context * heads * (cache.width() + latent)).sum();
        // Alone, a row is split by heads; the entries are then read by each thread.
        let parts = if rows.len() >= rayon::current_num_threads() { 1 } else { rayon::current_num_threads() };
        let part_heads = if work < PARALLEL_WORK { heads } else { heads.div_ceil(parts) };
        let mut contexts = vec![0.0; rows.len() * heads * latent];
        let run = |((row, first_head), out): ((usize, usize), &mut [f32])| {
            let (span, context) = rows[row];
            let part = out.len() / latent;
            let queries = &queries[(row * heads + first_head) * cache.width()..][..part * cache.width()];
            attend_row(queries, cache, span.block_table, context, out);
        };
        let jobs: Vec<_> = contexts
            .chunks_mut(heads * latent)
            .enumerate()
            .flat_map(|(row, out)| {
                let parts = out.chunks_mut(part_heads * latent).enumerate();
                parts.map(move |(part, out)| ((row, part * part_heads), out))
            })
            .collect();
        if work < PARALLEL_WORK {
            jobs.into_iter().for_each(run);
        } else {
            jobs.into_par_iter().for_each(run);
        }
        contexts
    }

    /// `out[row, head] = W_uv[head] · context[row, head]`.
    fn apply_values(&self, contexts: &[f32], arguments: &mut MlaArguments<'_>) {
        let MlaShape { heads, nope, value, latent, .. } = self.shape;
        let (kv_b, rows) = (arguments.kv_b, arguments.out.rows);
        let mut by_head = vec![0.0; heads * value * rows]; // [heads, value, rows]
        let run = |(head, out): (usize, &mut [f32])| {
            let mut weight = vec![0.0; latent];
            for (number, out) in out.chunks_exact_mut(rows).enumerate() {
                kv_b.read(head * self.shape.kv_rows() + nope + number, &mut weight);
                dot_rows(&weight, &contexts[head * latent..], heads * latent, out);
            }
        };
        for_each_chunk(&mut by_head, value * rows, rows * heads * value * latent, run);
        for row in 0..rows {
            for (out, results) in arguments.out.row(row).iter_mut().zip(by_head.chunks_exact(rows)) {
                *out = results[row];
            }
        }
    }
}

/// Runs `run` on numbered chunks, on all threads when the work is worth it.
fn for_each_chunk(
    data: &mut [f32],
    chunk: usize,
    work: usize,
    run: impl Fn((usize, &mut [f32])) + Send + Sync,
) {
    if chunk == 0 {
        return;
    }
    if work < PARALLEL_WORK {
        data.chunks_mut(chunk).enumerate().for_each(run);
    } else {
        data.par_chunks_mut(chunk).enumerate().for_each(run);
    }
}

/// Attention of some heads of one row. `queries` is `[heads, width]`, already scaled; `out` is `[heads, latent]`.
fn attend_row(
    queries: &[f32],
    cache: &LatentCache<'_>,
    block_table: &[u32],
    context: usize,
    out: &mut [f32],
) {
    let width = cache.width();
    let heads = queries.len() / width;
    let latent = out.len() / heads;
    let mut softmax = vec![RunningSoftmax::default(); heads];
    let mut tile = [0.0; TILE].repeat(width);
    let mut weights = [0.0; TILE].repeat(heads);
    for first in (0..context).step_by(TILE) {
        let count = TILE.min(context - first);
        let entries = &mut tile[..count * width];
        cache.read(block_table, first..first + count, entries);
        let keys: Vec<&[f32]> = entries.chunks_exact(width).collect();
        let weights = &mut weights[..heads * count]; // [heads, count]
        score(queries, &keys, weights);
        let per_head = weights.chunks_exact_mut(count).zip(out.chunks_exact_mut(latent));
        for (softmax, (weights, out)) in softmax.iter_mut().zip(per_head) {
            scale(out, softmax.update(weights));
        }
        let weights = RowsRef { data: weights, rows: heads, width: count, stride: count };
        add_weighted(out, weights, RowsRef { data: entries, rows: count, width: latent, stride: width });
    }
    for (out, softmax) in out.chunks_exact_mut(latent).zip(&softmax) {
        scale(out, softmax.normalizer());
    }
}
