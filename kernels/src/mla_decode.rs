//! Latent attention in its absorbed form, for few rows of long contexts.
//!
//! The key half of `kv_b` is multiplied into the query, once a row, so that scores are plain dot products with cached
//! entries, shared by all heads; the value half is applied to the weighted sum of latents. Nothing is expanded for
//! the context, whose entries are read once for all heads.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};

use crate::{
    attention_product::{add_weighted, score},
    cpu::RowsRef,
    latent_cache::{LatentCache, PagedSpan},
    mla::{MlaArguments, MlaLayer, MlaShape},
    output::{Output, in_parts},
    product::multiply,
    rounded_rows::RoundedRows,
    softmax::RunningSoftmax,
    threads,
    vectorized::scale,
};

/// Cached entries that are widened and used at a time.
const TILE: usize = 64;
/// Queries, of all heads, that use a tile together if they belong to one sequence.
const QUERIES: usize = 64;
/// Rows of a weight that are widened at a time.
const WIDENED: usize = 16;

/// Attention of a few rows, each over its own sequence. `q` is f32 `[rows, heads, nope + rope]`, already rotated;
/// `cache` holds the rows' own entries already; `out` is f32 `[rows, heads * value]`. `spans` cover the rows in order.
pub fn mla_decode(
    q: &Tensor,
    cache: &Tensor,
    layer: MlaLayer<'_>,
    spans: &[PagedSpan<'_>],
    out: &Tensor,
) -> Result<()> {
    out.inplace_op3(q, cache, &MlaDecode { layer, spans })
}

struct MlaDecode<'a> {
    layer: MlaLayer<'a>,
    spans: &'a [PagedSpan<'a>],
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
            self.layer,
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
        let MlaShape { heads, nope, latent, scale: factor, .. } = self.layer.shape;
        let (q, kv_b, width) = (&arguments.q, arguments.kv_b, arguments.cache.width());
        let rows = q.rows / heads;
        // Threads split the heads, so the result is made head by head: [heads, rows, latent].
        let mut by_head = vec![0.0; heads * rows * latent];
        threads::chunks_mut(&mut by_head, rows * latent, rows * heads * nope * latent, |head, out| {
            let mut widened = [0.0; WIDENED].repeat(latent);
            for first in (0..nope).step_by(WIDENED) {
                let count = WIDENED.min(nope - first);
                for (number, weight) in widened.chunks_exact_mut(latent).take(count).enumerate() {
                    kv_b.read(head * self.layer.shape.kv_rows() + first + number, weight);
                }
                let keys: Vec<&[f32]> = widened.chunks_exact(latent).take(count).collect();
                let data = &q.data[head * q.stride + first..];
                let queries = RowsRef { data, rows, width: count, stride: heads * q.stride };
                add_weighted((out, latent), queries, &keys);
            }
        });
        let mut queries = vec![0.0; rows * heads * width];
        for (index, query) in queries.chunks_exact_mut(width).enumerate() {
            let (row, head) = (index / heads, index % heads);
            query[..latent].copy_from_slice(&by_head[(head * rows + row) * latent..][..latent]);
            query[latent..].copy_from_slice(&q.row(index)[nope..]);
            scale(query, factor);
        }
        queries
    }

    /// `[rows, heads, latent]`: the latents of each row's context, weighted by the softmax of its scores.
    fn attend(&self, queries: &[f32], cache: &LatentCache<'_>) -> Vec<f32> {
        let MlaShape { heads, latent, .. } = self.layer.shape;
        let jobs = self.jobs();
        let row = cache.width() + latent;
        let work: usize = jobs.iter().map(|job| job.context() * job.rows * job.heads * row).sum();
        let ends: Vec<usize> = jobs
            .iter()
            .scan(0, |end, job| {
                *end += job.rows * job.heads * latent;
                Some(*end)
            })
            .collect();
        let mut contexts = vec![0.0; queries.len() / cache.width() * latent];
        threads::parts_mut(&mut contexts, &ends, work, |index, out| {
            let job = &jobs[index];
            let first = (job.first_row * heads + job.first_head) * cache.width();
            let queries = &queries[first..][..job.rows * job.heads * cache.width()];
            SCRATCH.with_borrow_mut(|scratch| job.attend(queries, cache, scratch, out));
        });
        contexts
    }

    /// Parts of the attention, in the order of queries: a few rows of a span with all heads, or, where there are fewer rows
    /// than threads, one row with some heads, and then each thread reads its entries.
    fn jobs(&self) -> Vec<Job<'_>> {
        let heads = self.layer.shape.heads;
        let rows: usize = self.spans.iter().map(|span| span.rows).sum();
        let part_heads = if rows < threads::count() { heads.div_ceil(threads::count()) } else { heads };
        // More parts than threads: see `linear.rs`.
        let part_rows = rows.div_ceil(2 * threads::count()).min(QUERIES / heads).max(1);
        let mut jobs = Vec::new();
        let mut before = 0;
        for span in self.spans {
            for row in (0..span.rows).step_by(part_rows) {
                for first_head in (0..heads).step_by(part_heads) {
                    jobs.push(Job {
                        block_table: span.block_table,
                        position: span.start + row,
                        first_row: before + row,
                        rows: part_rows.min(span.rows - row),
                        first_head,
                        heads: part_heads.min(heads - first_head),
                    });
                }
            }
            before += span.rows;
        }
        jobs
    }

    /// `out[row, head] = W_uv[head] · context[row, head]`.
    fn apply_values(&self, contexts: &[f32], arguments: &mut MlaArguments<'_>) {
        let MlaShape { heads, nope, value, latent, .. } = self.layer.shape;
        let (kv_b, rows) = (arguments.kv_b, arguments.out.rows);
        let contexts = RowsRef { data: contexts, rows: rows * heads, width: latent, stride: latent };
        let contexts = RoundedRows::new(contexts, self.layer.activations, [kv_b]);
        let work = rows * heads * value * latent;
        in_parts(vec![Output::by_row(&mut arguments.out)], value, work, |_, first, out| {
            let head = first / value;
            let contexts = contexts.pick((0..rows).map(|row| row * heads + head));
            multiply(&contexts, kv_b, head * self.layer.shape.kv_rows() + nope, out);
        });
    }
}

/// Neighbouring rows of a span, and the heads of theirs that a thread computes.
struct Job<'a> {
    block_table: &'a [u32],
    /// Of the first row.
    position: usize,
    /// Its place among all rows.
    first_row: usize,
    rows: usize,
    first_head: usize,
    heads: usize,
}

/// What a thread keeps from one job to the next.
#[derive(Default)]
struct Scratch {
    softmax: Vec<RunningSoftmax>,
    /// Entries in f32, if they are stored in fewer bits.
    tile: Vec<f32>,
    /// `[rows * heads, entries]`.
    weights: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Job<'_> {
    /// Positions that the last row sees.
    fn context(&self) -> usize {
        self.position + self.rows
    }

    /// `queries` is `[rows * heads, width]`, already scaled; `out` is `[rows * heads, latent]`, zero.
    fn attend(&self, queries: &[f32], cache: &LatentCache<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let count = self.rows * self.heads;
        let latent = out.len() / count;
        let Scratch { softmax, tile, weights } = scratch;
        softmax.clear();
        softmax.resize(count, RunningSoftmax::default());
        for first in (0..self.context()).step_by(TILE) {
            let positions = first..self.context().min(first + TILE);
            let entries = cache.entries(self.block_table, positions.clone(), tile);
            weights.resize(count * positions.len(), 0.0);
            // Also where a row must not look.
            score(queries, &entries, weights);
            let per_query = weights.chunks_exact_mut(positions.len()).zip(out.chunks_exact_mut(latent));
            for (query, (softmax, (weights, out))) in softmax.iter_mut().zip(per_query).enumerate() {
                let visible = self.position + query / self.heads + 1;
                let (seen, unseen) = weights.split_at_mut(visible.saturating_sub(first).min(positions.len()));
                unseen.fill(0.0);
                if !seen.is_empty() {
                    scale(out, softmax.update(seen));
                }
            }
            let width = positions.len();
            let weights = RowsRef { data: &*weights, rows: count, width, stride: width };
            add_weighted((&mut *out, latent), weights, &entries);
        }
        for (out, softmax) in out.chunks_exact_mut(latent).zip(softmax) {
            scale(out, softmax.normalizer());
        }
    }
}
