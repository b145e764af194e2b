//! Cached entries as absorbed attention reads them: where they lie, or widened.

use std::ops::Range;

use half::bf16;

use crate::{
    Activations,
    attention_product::{add_weighted, score},
    bf16_attention::Bf16Attention,
    bf16_rows::Bf16Rows,
    cpu::RowsRef,
    latent_cache::LatentCache,
};

/// Queries in the latents' space, `[queries, latent + rope]`, already scaled.
pub(crate) struct Queries<'a> {
    numbers: RowsRef<'a>,
    /// The same in bf16, where the cache is.
    rounded: Option<(Bf16Attention, Bf16Rows)>,
}

impl<'a> Queries<'a> {
    pub(crate) fn new(numbers: &'a [f32], cache: &LatentCache<'_>, activations: Activations) -> Self {
        let width = cache.width();
        let numbers = RowsRef { data: numbers, rows: numbers.len() / width, width, stride: width };
        let is_rounded = activations == Activations::Rounded && cache.is_bf16();
        let bf16 = if is_rounded { Bf16Attention::detect() } else { None };
        Self { numbers, rounded: bf16.map(|bf16| (bf16, Bf16Rows::new(numbers))) }
    }
}

/// Entries of neighbouring positions, with the queries that look at them.
pub(crate) enum Entries<'a> {
    F32 {
        queries: RowsRef<'a>,
        entries: Vec<&'a [f32]>,
    },
    Bf16 {
        attention: Bf16Attention,
        queries: &'a Bf16Rows,
        runs: Vec<&'a [bf16]>,
        /// What is read next: it may lie anywhere.
        next: Option<&'a [bf16]>,
        width: usize,
    },
}

impl<'a> Entries<'a> {
    /// Those of a sequence's positions, `next` being those that are read afterwards; `buffer` is for widened ones.
    pub(crate) fn read(
        queries: &'a Queries<'_>,
        cache: &LatentCache<'a>,
        (block_table, positions, next): (&[u32], Range<usize>, Range<usize>),
        buffer: &'a mut Vec<f32>,
    ) -> Self {
        if let Some((attention, queries)) = &queries.rounded
            && let Some(runs) = cache.bf16_runs(block_table, positions.clone())
        {
            let next = if next.is_empty() { None } else { cache.bf16_run(block_table, next) };
            return Self::Bf16 { attention: *attention, queries, runs, next, width: cache.width() };
        }
        Self::F32 { queries: queries.numbers, entries: cache.entries(block_table, positions, buffer) }
    }

    /// `out[query, entry] = queries[query] · entry`.
    pub(crate) fn score(&self, out: &mut [f32]) {
        match self {
            Self::F32 { queries, entries } => score(queries.data, entries, out),
            Self::Bf16 { attention, queries, runs, next, width } => {
                attention.score(queries, (runs, *width), *next, out);
            }
        }
    }

    /// `out[query] += Σ_t weights[query][t] * latent[t]`. `out` is `[queries, latent]`.
    pub(crate) fn add_weighted(&self, out: (&mut [f32], usize), weights: RowsRef<'_>) {
        match self {
            Self::F32 { entries, .. } => add_weighted(out, weights, entries),
            Self::Bf16 { attention, runs, width, .. } => attention.add_probable(out, weights, (runs, *width)),
        }
    }
}
