//! The rows of `kv_b` that make a head's keys, multiplied into its queries.

use std::ops::Range;

use crate::{
    attention_product::add_weighted, cpu::RowsRef, weight_rows::WeightRows,
    widened_attention::WidenedAttention,
};

/// Rows that are used at a time, so that those after them come meanwhile.
const SOME: usize = 16;

/// `[rows.len(), latent]`.
pub(crate) struct KeyRows<'a> {
    pub(crate) kv_b: WeightRows<'a>,
    pub(crate) rows: Range<usize>,
}

impl KeyRows<'_> {
    /// `out[q] += Σ_t queries[q][t] * key[t]`, in the order of the rows. `queries` is `[q, rows.len()]`, `out` is `[q, latent]`.
    pub(crate) fn absorb(&self, queries: RowsRef<'_>, out: &mut [f32]) {
        let attention = WidenedAttention::detect();
        let mut widened = Vec::new();
        for first in self.rows.clone().step_by(SOME) {
            let some = self.some(first);
            let data = &queries.data[first - self.rows.start..];
            let queries = RowsRef { data, width: some.len(), ..queries };
            if let Some((attention, run)) = attention.zip(self.kv_b.bf16(some.clone())) {
                self.kv_b.bf16(self.some(some.end)).into_iter().for_each(|next| attention.prefetch(next));
                let keys: Vec<_> = run.chunks_exact(self.latent()).collect();
                attention.add_weighted((out, self.latent()), queries, (&keys, &[]));
            } else {
                self.widen(some, &mut widened);
                let keys: Vec<&[f32]> = widened.chunks_exact(self.latent()).collect();
                add_weighted((out, self.latent()), queries, &keys);
            }
        }
    }

    /// The next rows from there.
    fn some(&self, first: usize) -> Range<usize> {
        first..self.rows.end.min(first + SOME)
    }

    fn latent(&self) -> usize {
        self.kv_b.columns()
    }

    fn widen(&self, rows: Range<usize>, out: &mut Vec<f32>) {
        out.resize(rows.len() * self.latent(), 0.0);
        for (row, out) in rows.zip(out.chunks_exact_mut(self.latent())) {
            self.kv_b.read(row, out);
        }
    }
}
