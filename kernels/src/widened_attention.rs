//! The two products of attention over entries in bf16, with f32 on the other side; nothing is widened in memory.

use half::bf16;

use crate::{
    avx512::{Avx512, SplitRows},
    cpu::RowsRef,
};

/// Proof that it can be computed here.
#[derive(Clone, Copy)]
pub(crate) struct WidenedAttention(Avx512);

/// Queries, as scores take them.
#[derive(Default)]
pub(crate) struct SplitQueries(SplitRows);

impl WidenedAttention {
    /// `None` on other CPUs.
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().map(Self)
    }

    /// Keeps queries for [`Self::score`].
    pub(crate) fn split(self, queries: RowsRef<'_>, out: &mut SplitQueries) {
        out.0.set(self.0, queries);
    }

    /// `out[query, entry] = queries[query] · entries[entry]`. Meanwhile, the first halves of the `next` entries are asked for.
    pub(crate) fn score(
        self,
        queries: &SplitQueries,
        (entries, next): (&[&[bf16]], &[&[bf16]]),
        out: &mut [f32],
    ) {
        queries.0.score(self.0, entries, next, out);
    }

    /// Asks for numbers that will be needed soon.
    pub(crate) fn prefetch(self, numbers: &[bf16]) {
        self.0.prefetch(numbers);
    }

    /// `out[row] += Σ_t weights[row][t] * terms[t][..width]`, in the order of the terms. `out` is `[weights.rows, width]`.
    /// Meanwhile, the second halves of the `next` terms are asked for.
    pub(crate) fn add_weighted(
        self,
        out: (&mut [f32], usize),
        weights: RowsRef<'_>,
        (terms, next): (&[&[bf16]], &[&[bf16]]),
    ) {
        self.0.add_widened(out, weights, terms, next);
    }
}
