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
    widened_attention::{SplitQueries, WidenedAttention},
};

/// Queries in the latents' space, `[queries, latent + rope]`, already scaled, as their products with the cache take them.
pub(crate) enum Queries<'a> {
    /// For entries in f32, as stored or widened.
    F32(RowsRef<'a>),
    /// For entries in bf16, widened in registers.
    Split(WidenedAttention, &'a SplitQueries),
    /// Rounded, for entries in bf16 where the CPU multiplies these faster.
    Bf16(Bf16Attention, Bf16Rows),
}

impl<'a> Queries<'a> {
    /// `buffer` is for queries that are kept in another way.
    pub(crate) fn new(
        numbers: &'a [f32],
        cache: &LatentCache<'_>,
        activations: Activations,
        buffer: &'a mut SplitQueries,
    ) -> Self {
        let width = cache.width();
        let numbers = RowsRef { data: numbers, rows: numbers.len() / width, width, stride: width };
        if !cache.is_bf16() {
            return Self::F32(numbers);
        }
        let bf16 = Bf16Attention::detect().filter(|bf16| bf16.is_faster_with(cache.latent()));
        if let Some(bf16) = bf16.filter(|_| activations == Activations::Rounded) {
            return Self::Bf16(bf16, Bf16Rows::new(numbers));
        }
        let Some(widened) = WidenedAttention::detect() else { return Self::F32(numbers) };
        widened.split(numbers, buffer);
        Self::Split(widened, buffer)
    }
}

/// Positions of a sequence with these blocks.
pub(crate) type Positions<'a> = (&'a [u32], Range<usize>);

/// What is kept from one tile to the next.
pub(crate) struct Buffers<'b, 'a> {
    /// Entries in f32, if they are stored in fewer bits and the CPU does not widen them.
    pub(crate) widened: &'b mut Vec<f32>,
    /// Where a tile's entries lie, and those of the next one.
    pub(crate) places: [Vec<&'a [bf16]>; 2],
}

/// Entries of neighbouring positions, with the queries that look at them.
pub(crate) enum Entries<'a> {
    F32 {
        queries: RowsRef<'a>,
        entries: Vec<&'a [f32]>,
    },
    Split {
        attention: WidenedAttention,
        queries: &'a SplitQueries,
        entries: &'a [&'a [bf16]],
        /// What is read next: it may lie anywhere.
        next: &'a [&'a [bf16]],
    },
    Bf16 {
        attention: Bf16Attention,
        queries: &'a Bf16Rows,
        runs: Vec<&'a [bf16]>,
        next: Option<&'a [bf16]>,
        width: usize,
    },
}

impl<'a> Entries<'a> {
    /// Those of these positions, `next` being those that are read afterwards, with the same buffers or with others.
    pub(crate) fn read<'c: 'a>(
        queries: &'a Queries<'_>,
        cache: &LatentCache<'c>,
        (positions, next): (Positions<'_>, Option<Positions<'_>>),
        buffers: &'a mut Buffers<'_, 'c>,
    ) -> Self {
        let places = |positions, out: &mut Vec<&'c [bf16]>| {
            for run in cache.bf16_runs(positions) {
                out.extend(run.chunks_exact(cache.width()));
            }
        };
        match queries {
            Queries::F32(queries) => Self::F32 {
                queries: *queries,
                entries: cache.entries(positions.0, positions.1, buffers.widened),
            },
            Queries::Split(attention, queries) => {
                let [entries, ahead] = &mut buffers.places;
                std::mem::swap(entries, ahead);
                if entries.is_empty() {
                    places(positions, entries);
                }
                ahead.clear();
                if let Some(next) = next {
                    places(next, ahead);
                }
                Self::Split { attention: *attention, queries, entries, next: ahead }
            }
            Queries::Bf16(attention, queries) => {
                let runs = cache.bf16_runs(positions).collect();
                let next = next.and_then(|next| cache.bf16_run(next.0, next.1));
                Self::Bf16 { attention: *attention, queries, runs, next, width: cache.width() }
            }
        }
    }

    /// `out[query, entry] = queries[query] · entry`.
    pub(crate) fn score(&self, out: &mut [f32]) {
        match self {
            Self::F32 { queries, entries } => score(queries.data, entries, out),
            Self::Split { attention, queries, entries, next } => {
                attention.score(queries, (entries, next), out);
            }
            Self::Bf16 { attention, queries, runs, next, width } => {
                attention.score(queries, (runs, *width), *next, out);
            }
        }
    }

    /// `out[query] += Σ_t weights[query][t] * latent[t]`. `out` is `[queries, latent]`.
    pub(crate) fn add_weighted(&self, out: (&mut [f32], usize), weights: RowsRef<'_>) {
        match self {
            Self::F32 { entries, .. } => add_weighted(out, weights, entries),
            Self::Split { attention, entries, next, .. } => {
                attention.add_weighted(out, weights, (entries, next));
            }
            Self::Bf16 { attention, runs, width, .. } => attention.add_probable(out, weights, (runs, *width)),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{CpuStorage, Layout};

    use super::*;
    use crate::MlaShape;

    const TILE: usize = 20;

    /// Between -1 and 1.
    fn number(seed: usize) -> f32 {
        ((seed as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// The scores of all tiles, one after the other, and the sums over all of them with these scores as weights.
    fn products(
        queries: &Queries<'_>,
        cache: &LatentCache<'_>,
        count: usize,
        table: &[u32],
    ) -> [Vec<f32>; 2] {
        let (positions, latent) = (table.len() * 4 - 1, cache.latent());
        let (mut all, mut sums, mut widened) = (Vec::new(), vec![0.0; count * latent], Vec::new());
        let mut buffers = Buffers { widened: &mut widened, places: Default::default() };
        for first in (0..positions).step_by(TILE) {
            let tile = |first: usize| (table, first..positions.min(first + TILE));
            let next = (first + TILE < positions).then(|| tile(first + TILE));
            let entries = Entries::read(queries, cache, (tile(first), next), &mut buffers);
            let width = TILE.min(positions - first);
            let mut scores = vec![f32::NAN; count * width];
            entries.score(&mut scores);
            let weights = RowsRef { data: &scores, rows: count, width, stride: width };
            entries.add_weighted((&mut sums, latent), weights);
            all.extend(scores);
        }
        [all, sums]
    }

    /// Entries in f32 are the reference. Blocks are out of order but for two.
    #[test]
    fn all_forms_give_the_same_products() {
        let table: Vec<u32> = vec![7, 2, 3, 11, 0, 9, 5, 1, 10, 4, 8, 6];
        for (latent, rope, counts) in
            [(64, 32, [1, 2, 3, 4]), (512, 64, [5, 8, 13, 64]), (40, 8, [1, 4, 7, 9])]
        {
            let (width, mla) =
                (latent + rope, MlaShape { heads: 1, nope: 1, rope, value: 1, latent, scale: 1.0 });
            let numbers: Vec<bf16> = (0..12 * 4 * width).map(|i| bf16::from_f32(number(i + 5))).collect();
            let (storage, layout) = (CpuStorage::BF16(numbers), Layout::contiguous((12, 4, width)));
            let cache = LatentCache::new("test", (&storage, &layout), mla).unwrap();
            for count in counts {
                let numbers: Vec<f32> = (0..count * width).map(|i| number(i * 7)).collect();
                let rows = |first: usize, rows: usize| RowsRef {
                    data: &numbers[first * width..][..rows * width],
                    rows,
                    width,
                    stride: width,
                };
                let expected = products(&Queries::F32(rows(0, count)), &cache, count, &table);
                let check = |found: &[Vec<f32>; 2], tolerance: f32, what: &str| {
                    for (found, expected) in found.iter().zip(&expected) {
                        let scale = expected.iter().fold(0.0_f32, |scale, x| scale.max(x.abs()));
                        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * scale;
                        assert!(found.iter().zip(expected).all(near), "{what}, {count} of {latent}");
                    }
                };
                if let Some(widened) = WidenedAttention::detect() {
                    let mut split = SplitQueries::default();
                    widened.split(rows(0, count), &mut split);
                    let [scores, sums] = products(&Queries::Split(widened, &split), &cache, count, &table);
                    // A query alone gets the same bits.
                    for query in 0..count {
                        let mut split = SplitQueries::default();
                        widened.split(rows(query, 1), &mut split);
                        let alone = products(&Queries::Split(widened, &split), &cache, 1, &table);
                        let of_tile = |tile: usize| TILE.min(table.len() * 4 - 1 - tile * TILE);
                        let beside = (0..3).flat_map(|tile| {
                            &scores[count * tile * TILE + query * of_tile(tile)..][..of_tile(tile)]
                        });
                        assert!(alone[0].iter().eq(beside), "{query} of {count}");
                        assert_eq!(alone[1], sums[query * latent..][..latent], "{query} of {count}");
                    }
                    check(&[scores, sums], 1e-5, "widened");
                }
                if let Some(attention) = Bf16Attention::detect()
                    && latent % 32 == 0
                {
                    let queries = Queries::Bf16(attention, Bf16Rows::new(rows(0, count)));
                    check(&products(&queries, &cache, count, &table), 1e-2, "rounded");
                }
            }
        }
    }
}
