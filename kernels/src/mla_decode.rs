//! Latent attention in its absorbed form, for few rows of long contexts.
//!
//! The key half of `kv_b` is multiplied into the query, once a row, so that scores are plain dot products with cached
//! entries, shared by all heads; the value half is applied to the weighted sum of latents. Nothing is expanded for
//! the context, whose entries are read once for all heads.

use std::{cell::RefCell, ops::Range};

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};

use crate::{
    cached_entries::{Buffers, Entries, Positions, Queries},
    cpu::RowsRef,
    kept::Kept,
    key_rows::KeyRows,
    latent_cache::{LatentCache, PagedSpan},
    mla::{MlaArguments, MlaLayer, MlaShape},
    output::{Output, Place, in_units},
    product::{Features, multiply},
    rounded_rows::RoundedRows,
    softmax::RunningSoftmax,
    threads,
    vectorized::{add_scaled, scale},
    widened_attention::SplitQueries,
};

/// Cached entries that are widened and used at a time.
const TILE: usize = 64;
/// Positions that a thread goes through on its own: of a long context, whose sections are many, and of its beginning.
const SECTION: usize = 512;
const FIRST_SECTIONS: usize = 256;
/// Where long sections begin.
const LONG: usize = 1024;
/// Queries, of all heads, that use a tile together if they belong to one sequence.
const QUERIES: usize = 64;

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
    fn absorb(&self, arguments: &MlaArguments<'_>) -> Kept {
        let MlaShape { heads, nope, latent, scale: factor, .. } = self.layer.shape;
        let (q, kv_b, width) = (&arguments.q, arguments.kv_b, arguments.cache.width());
        let rows = q.rows / heads;
        // Threads split the heads, so the result is made head by head: [heads, rows, latent].
        let mut by_head = Kept::new(heads * rows * latent);
        threads::chunks_mut(&mut by_head, rows * latent, rows * heads * nope * latent, |head, out| {
            let first = head * self.layer.shape.kv_rows();
            let queries =
                RowsRef { data: &q.data[head * q.stride..], rows, width: nope, stride: heads * q.stride };
            out.fill(0.0);
            KeyRows { kv_b, rows: first..first + nope }.absorb(queries, out);
        });
        let mut queries = Kept::new(rows * heads * width);
        let work = queries.len() * threads::ELEMENT;
        threads::chunks_mut(&mut queries, QUERIES * width, work, |chunk, queries| {
            for (index, query) in queries.chunks_exact_mut(width).enumerate() {
                let index = chunk * QUERIES + index;
                let (row, head) = (index / heads, index % heads);
                query[..latent].copy_from_slice(&by_head[(head * rows + row) * latent..][..latent]);
                query[latent..].copy_from_slice(&q.row(index)[nope..]);
                scale(query, factor);
            }
        });
        queries
    }

    /// `[rows, heads, latent]`: the latents of each row's context, weighted by the softmax of its scores.
    fn attend(&self, queries: &[f32], cache: &LatentCache<'_>) -> Kept {
        let MlaShape { heads, latent, .. } = self.layer.shape;
        let jobs = self.jobs();
        let width = cache.width();
        let work: usize = jobs.iter().map(|job| job.positions.len() * job.queries() * (width + latent)).sum();
        let mut softmax = vec![RunningSoftmax::default(); jobs.iter().map(Job::queries).sum()];
        let mut sums = Kept::new(softmax.len() * latent);
        let mut partials = Partial::split(&jobs, &mut softmax, &mut sums);
        threads::items_mut(&mut partials, work, |index, partial, next| {
            let job = &jobs[index];
            let next = next.map(|next| jobs[next].first_tile());
            let first = (job.first_row * heads + job.first_head) * width;
            let queries = &queries[first..][..job.queries() * width];
            SCRATCH.with_borrow_mut(|scratch| {
                let queries = Queries::new(queries, cache, self.layer.activations, &mut scratch.queries);
                let buffers = (&mut scratch.tile, &mut scratch.weights);
                job.attend(&queries, (cache, next), latent, buffers, partial);
            });
        });
        let mut contexts = Kept::new(queries.len() / width * latent);
        let mut groups = Vec::new();
        let (mut end, mut partials) = (0, partials.as_slice());
        for group in jobs.chunk_by(Job::has_queries_of) {
            let (of_group, others) = partials.split_at(group.len());
            end += group[0].queries() * latent;
            groups.push((of_group, end));
            partials = others;
        }
        let work = jobs.len() * heads * latent * threads::ELEMENT;
        let ends: Vec<usize> = groups.iter().map(|(_, end)| *end).collect();
        threads::parts_mut(&mut contexts, &ends, work, |group, out| {
            join(groups[group].0, latent, out);
        });
        contexts
    }

    /// Parts of the attention, in the order of queries and then of positions: a few rows of a span and a section of their
    /// context; where these are fewer than threads, also only some heads of one row.
    fn jobs(&self) -> Vec<Job<'_>> {
        let heads = self.layer.shape.heads;
        let rows: usize = self.spans.iter().map(|span| span.rows).sum();
        // More parts than threads: see `linear.rs`.
        let part_rows = rows.div_ceil(2 * threads::count()).min(QUERIES / heads).max(1);
        let parts_of =
            |span: &PagedSpan<'_>| span.rows.div_ceil(part_rows) * sections(span.context()).count();
        let parts: usize = self.spans.iter().map(parts_of).sum();
        let part_heads =
            if part_rows == 1 { heads.div_ceil(threads::count().div_ceil(parts)) } else { heads };
        let mut jobs = Vec::new();
        let mut before = 0;
        for span in self.spans {
            for row in (0..span.rows).step_by(part_rows) {
                let rows = part_rows.min(span.rows - row);
                let context = span.start + row + rows;
                for first_head in (0..heads).step_by(part_heads) {
                    jobs.extend(sections(context).map(|positions| Job {
                        block_table: span.block_table,
                        positions,
                        first_position: span.start + row,
                        first_row: before + row,
                        rows,
                        first_head,
                        heads: part_heads.min(heads - first_head),
                    }));
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
        let features = |place: Place| {
            let first = place.first / value * self.layer.shape.kv_rows() + nope;
            Features { weight: kv_b, first }
        };
        in_units(vec![Output::by_row(&mut arguments.out)], value, work, |here, out, next| {
            let head = here.first / value;
            let contexts = contexts.pick((0..rows).map(|row| row * heads + head));
            multiply(&contexts, features(here), out, next.map(features));
        });
    }
}

/// The sections of a context: the same ones whatever else is in the batch, so that sums are, too.
fn sections(context: usize) -> impl Iterator<Item = Range<usize>> {
    let beginning = (0..context.min(LONG)).step_by(FIRST_SECTIONS);
    let rest = (LONG..context).step_by(SECTION);
    let end = |first: usize| first + if first < LONG { FIRST_SECTIONS } else { SECTION };
    beginning.chain(rest).map(move |first| first..context.min(end(first)))
}

/// Neighbouring rows of a span, and the heads and positions that a thread computes for them.
struct Job<'a> {
    block_table: &'a [u32],
    positions: Range<usize>,
    /// Of the first row.
    first_position: usize,
    /// Its place among all rows.
    first_row: usize,
    rows: usize,
    first_head: usize,
    heads: usize,
}

/// What a section of the context gives to queries.
struct Partial<'a> {
    softmax: &'a mut [RunningSoftmax],
    /// `[queries, latent]`.
    sums: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// Places for the results of these jobs.
    fn split(jobs: &[Job<'_>], mut softmax: &'a mut [RunningSoftmax], mut sums: &'a mut [f32]) -> Vec<Self> {
        let latent = sums.len() / softmax.len().max(1);
        let parts = jobs.iter().map(|job| {
            let (softmax_here, others) = std::mem::take(&mut softmax).split_at_mut(job.queries());
            softmax = others;
            let (sums_here, others) = std::mem::take(&mut sums).split_at_mut(job.queries() * latent);
            sums = others;
            Self { softmax: softmax_here, sums: sums_here }
        });
        parts.collect()
    }
}

/// `out = Σ partials`, weighted by all scores together. `out` is `[queries, latent]`. A section begins at the same
/// position in every batch, so it does not matter who computed it.
fn join(partials: &[Partial<'_>], latent: usize, out: &mut [f32]) {
    for (query, out) in out.chunks_exact_mut(latent).enumerate() {
        out.fill(0.0);
        let mut softmax = RunningSoftmax::default();
        for partial in partials {
            let [before, now] = softmax.merge(partial.softmax[query]);
            scale(out, before);
            add_scaled(out, now, &partial.sums[query * latent..][..latent]);
        }
        scale(out, softmax.normalizer());
    }
}

/// What a thread keeps from one job to the next.
#[derive(Default)]
struct Scratch {
    queries: SplitQueries,
    /// Entries in f32, if they are stored in fewer bits.
    tile: Vec<f32>,
    /// `[queries, entries]`.
    weights: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Job<'_> {
    fn queries(&self) -> usize {
        self.rows * self.heads
    }

    fn has_queries_of(&self, other: &Self) -> bool {
        (self.first_row, self.first_head) == (other.first_row, other.first_head)
    }

    /// What is read first.
    fn first_tile(&self) -> Positions<'_> {
        let Range { start, end } = self.positions;
        (self.block_table, start..end.min(start + TILE))
    }

    /// `next` is what the thread reads afterwards.
    fn attend(
        &self,
        queries: &Queries<'_>,
        (cache, next): (&LatentCache<'_>, Option<Positions<'_>>),
        latent: usize,
        (widened, weights): (&mut Vec<f32>, &mut Vec<f32>),
        Partial { softmax, sums }: &mut Partial<'_>,
    ) {
        sums.fill(0.0);
        let mut buffers = Buffers { widened, places: [(); 2].map(|()| Vec::with_capacity(TILE)) };
        for first in self.positions.clone().step_by(TILE) {
            let positions = first..self.positions.end.min(first + TILE);
            let then = positions.end..self.positions.end.min(positions.end + TILE);
            let next = if then.is_empty() { next.clone() } else { Some((self.block_table, then)) };
            weights.resize(self.queries() * positions.len(), 0.0);
            let tile = ((self.block_table, positions.clone()), next);
            let entries = Entries::read(queries, cache, tile, &mut buffers);
            // Also where a row must not look.
            entries.score(weights);
            let per_query = weights.chunks_exact_mut(positions.len()).zip(sums.chunks_exact_mut(latent));
            for (query, (softmax, (weights, sum))) in softmax.iter_mut().zip(per_query).enumerate() {
                let visible = self.first_position + query / self.heads + 1;
                let (seen, unseen) = weights.split_at_mut(visible.saturating_sub(first).min(positions.len()));
                unseen.fill(0.0);
                if !seen.is_empty() {
                    let correction = softmax.update(seen);
                    // Mostly the largest score is an earlier one.
                    if (correction - 1.0).abs() > 0.0 {
                        scale(sum, correction);
                    }
                }
            }
            let (rows, width) = (self.queries(), positions.len());
            entries.add_weighted((&mut *sums, latent), RowsRef { data: weights, rows, width, stride: width });
        }
    }
}
