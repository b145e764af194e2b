//! Latent attention in its expanded form, for many rows of one sequence.
//!
//! Keys and values of a tile of the context are expanded from the latents once and used by all rows, as matrix
//! products, with a softmax that runs over the tiles; neither the scores nor the keys of the whole context exist.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};

use crate::{
    Activations,
    attention_product::{add_weighted, score},
    bf16_attention::{Bf16Attention, Expanded},
    cpu::{RowsMut, RowsRef},
    latent_cache::PagedSpan,
    linear::linear_rows,
    mla::{MlaArguments, MlaLayer, MlaShape},
    softmax::RunningSoftmax,
    threads,
    vectorized::scale,
};

/// Positions of the context that are expanded at a time.
const TILE: usize = 256;
/// Rows whose scores exist at a time: with a tile, 128 KiB, which stay in a core's second-level cache.
const ROWS: usize = 128;

/// Causal attention of the rows of one span. `q` is f32 `[rows, heads, nope + rope]`, already rotated; `cache` holds the
/// rows' own entries already; `out` is f32 `[rows, heads * value]`.
pub fn mla_prefill(
    q: &Tensor,
    cache: &Tensor,
    layer: MlaLayer<'_>,
    span: PagedSpan<'_>,
    out: &Tensor,
) -> Result<()> {
    out.inplace_op3(q, cache, &MlaPrefill { layer, span })
}

struct MlaPrefill<'a> {
    layer: MlaLayer<'a>,
    span: PagedSpan<'a>,
}

impl InplaceOp3 for MlaPrefill<'_> {
    fn name(&self) -> &'static str {
        "mla_prefill"
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
        let arguments = MlaArguments::new(
            self.name(),
            self.layer,
            (out, layout),
            [(q, q_layout), (cache, cache_layout)],
            &[self.span],
        )?;
        let MlaArguments { q, cache, kv_b, mut out } = arguments;
        let width = cache.width();
        let mut heads: Vec<Head> =
            (0..self.layer.shape.heads).map(|_| Head::new(self.span.rows, self.layer.shape)).collect();
        let mut entries = vec![0.0; TILE * width];
        let mut kv = vec![0.0; TILE * kv_b.rows()];
        for first in (0..self.span.context()).step_by(TILE) {
            let count = TILE.min(self.span.context() - first);
            let entries = &mut entries[..count * width]; // [count, latent + rope]
            cache.read(self.span.block_table, first..first + count, entries);
            let kv = &mut kv[..count * kv_b.rows()]; // [count, heads * (nope + value)]
            let latents =
                RowsRef { data: &*entries, rows: count, width: self.layer.shape.latent, stride: width };
            let kv_width = kv_b.rows();
            linear_rows(
                latents,
                &[kv_b],
                self.layer.activations,
                &mut RowsMut { data: &mut *kv, rows: count, width: kv_width, stride: kv_width },
            );
            let tile = Tile { first, count, entries, kv };
            let work = self.span.rows * count * kv_width;
            threads::chunks_mut(&mut heads, 1, work, |head, state| {
                SCRATCH.with_borrow_mut(|scratch| self.attend(head, &mut state[0], &q, &tile, scratch));
            });
        }
        for (head, state) in heads.iter().enumerate() {
            state.write(head * self.layer.shape.value, &mut out);
        }
        Ok(())
    }
}

/// Some positions of the context.
struct Tile<'a> {
    first: usize,
    count: usize,
    /// `[count, latent + rope]`.
    entries: &'a [f32],
    /// `[count, heads * (nope + value)]`.
    kv: &'a [f32],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a thread needs for one head at a time.
#[derive(Default)]
struct Scratch {
    /// `[count, nope + rope]`, scaled.
    keys: Vec<f32>,
    /// Keys and values in bf16.
    expanded: Expanded,
    /// `[rows, count]`.
    scores: Vec<f32>,
}

/// A head's keys and values of a tile, as the products take them.
pub(crate) enum HeadTile<'a> {
    F32 { keys: Vec<&'a [f32]>, values: Vec<&'a [f32]> },
    Bf16 { attention: Bf16Attention, expanded: &'a mut Expanded },
}

impl<'a> HeadTile<'a> {
    pub(crate) fn new(
        keys: RowsRef<'a>,
        values: RowsRef<'a>,
        bf16: Option<Bf16Attention>,
        expanded: &'a mut Expanded,
    ) -> Self {
        if let Some(attention) = bf16 {
            attention.expand(keys, values, expanded);
            return Self::Bf16 { attention, expanded };
        }
        let all = |rows: RowsRef<'a>| (0..rows.rows).map(|row| rows.row(row)).collect();
        Self::F32 { keys: all(keys), values: all(values) }
    }

    /// `out[query, key] = queries[query] · keys[key]`.
    pub(crate) fn score(&mut self, queries: RowsRef<'_>, out: &mut [f32]) {
        match self {
            Self::F32 { keys, .. } => {
                let queries: Vec<f32> = (0..queries.rows).flat_map(|row| queries.row(row)).copied().collect();
                score(&queries, keys, out);
            }
            Self::Bf16 { attention, expanded } => attention.score_expanded(queries, expanded, out),
        }
    }

    /// `out[row] += Σ_t weights[row][t] * values[t]`. `out` is `[rows, value]`.
    pub(crate) fn add_weighted(&mut self, weights: RowsRef<'_>, out: &mut [f32]) {
        match self {
            Self::F32 { values, .. } => {
                let width = out.len() / weights.rows.max(1);
                add_weighted((out, width), weights, values);
            }
            Self::Bf16 { attention, expanded } => attention.add_expanded(weights, expanded, out),
        }
    }
}

/// What one head has accumulated.
struct Head {
    softmax: Vec<RunningSoftmax>,
    /// `[rows, value]`.
    values: Vec<f32>,
}

impl Head {
    fn new(rows: usize, shape: MlaShape) -> Self {
        Self { softmax: vec![RunningSoftmax::default(); rows], values: vec![0.0; rows * shape.value] }
    }

    fn write(&self, column: usize, out: &mut RowsMut<'_>) {
        let value = self.values.len() / self.softmax.len().max(1);
        for (row, (values, softmax)) in self.values.chunks_exact(value).zip(&self.softmax).enumerate() {
            let out = &mut out.row(row)[column..][..value];
            out.copy_from_slice(values);
            scale(out, softmax.normalizer());
        }
    }
}

impl MlaPrefill<'_> {
    /// Adds a tile's part to one head of all rows that see any of it, some rows at a time.
    fn attend(&self, head: usize, state: &mut Head, q: &RowsRef<'_>, tile: &Tile<'_>, scratch: &mut Scratch) {
        let Scratch { keys, expanded, scores } = scratch;
        let MlaShape { heads, nope, value, .. } = self.layer.shape;
        let keys = self.pack_keys(head, tile, keys);
        let kv_width = heads * self.layer.shape.kv_rows();
        let values = &tile.kv[head * self.layer.shape.kv_rows() + nope..];
        let values = RowsRef { data: values, rows: tile.count, width: value, stride: kv_width };
        let mut head_tile = HeadTile::new(keys, values, self.bf16(), expanded);
        let first_row = tile.first.saturating_sub(self.span.start);
        for first in (first_row..self.span.rows).step_by(ROWS) {
            let rows = first..self.span.rows.min(first + ROWS);
            let data = &q.data[(first * heads + head) * q.stride..];
            let queries = RowsRef { data, rows: rows.len(), width: q.width, stride: heads * q.stride };
            scores.resize(rows.len() * tile.count, 0.0);
            // Also where a row must not look.
            head_tile.score(queries, scores);
            let out = &mut state.values[rows.start * value..rows.end * value];
            let per_row = out.chunks_exact_mut(value).zip(&mut state.softmax[rows.clone()]);
            for ((row, scores), (out, softmax)) in
                rows.clone().zip(scores.chunks_exact_mut(tile.count)).zip(per_row)
            {
                let visible = (self.span.start + row + 1 - tile.first).min(tile.count);
                let (seen, unseen) = scores.split_at_mut(visible);
                unseen.fill(0.0);
                scale(out, softmax.update(seen));
            }
            let weights = RowsRef { data: scores, rows: rows.len(), width: tile.count, stride: tile.count };
            head_tile.add_weighted(weights, out);
        }
    }

    /// How bf16 is multiplied, if rounding is allowed and the CPU can.
    fn bf16(&self) -> Option<Bf16Attention> {
        if self.layer.activations == Activations::Rounded { Bf16Attention::detect() } else { None }
    }

    /// `[count, nope + rope]`: a head's keys, each with the part all heads share, scaled.
    fn pack_keys<'a>(&self, head: usize, tile: &Tile<'_>, keys: &'a mut Vec<f32>) -> RowsRef<'a> {
        let MlaShape { heads, nope, rope, latent, scale: factor, .. } = self.layer.shape;
        let kv_rows = self.layer.shape.kv_rows();
        keys.clear();
        for (kv, entry) in tile.kv.chunks_exact(heads * kv_rows).zip(tile.entries.chunks_exact(latent + rope))
        {
            keys.extend_from_slice(&kv[head * kv_rows..][..nope]);
            keys.extend_from_slice(&entry[latent..]);
        }
        scale(keys, factor);
        RowsRef { data: keys, rows: tile.count, width: nope + rope, stride: nope + rope }
    }
}
