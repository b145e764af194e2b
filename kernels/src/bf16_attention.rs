//! The two products of attention where the CPU multiplies bf16: over a bf16 cache, of which nothing is widened in memory, and over
//! keys and values that were expanded.

use half::bf16;

use crate::{
    avx512::{Avx512, Paired},
    bf16_rows::Bf16Rows,
    cpu::RowsRef,
    output::Output,
    stored::Stored,
};

/// Proof that it can be computed here.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Attention(Avx512);

fn bytes(numbers: &[bf16]) -> &[u8] {
    use half::slice::HalfFloatSliceExt;
    bytemuck::cast_slice(numbers.reinterpret_cast())
}

impl Bf16Attention {
    /// `None` on other CPUs.
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().filter(|avx512| avx512.has_bf16()).map(Self)
    }

    /// `out[query, key] = queries[query] · keys[key]`. Keys, of this width, come in runs; meanwhile, those of the `next` run are asked
    /// for.
    pub(crate) fn score(
        self,
        queries: &Bf16Rows,
        (runs, width): (&[&[bf16]], usize),
        next: Option<&[bf16]>,
        out: &mut [f32],
    ) {
        let queries: Vec<_> = queries.rows().collect();
        let keys = runs.iter().map(|run| run.len() / width).sum();
        let mut out = Output::contiguous(out, keys);
        let mut first = 0;
        let nexts = runs.iter().skip(1).copied().map(Some).chain([next]);
        for (run, next) in runs.iter().zip(nexts) {
            let keys = first..first + run.len() / width;
            first = keys.end;
            let next = next.map(|run| Stored::new((bytes(run), width * size_of::<bf16>()), (&[], 0)));
            self.0.multiply_bf16(&queries, (bytes(run), width), out.part(keys), next);
        }
    }

    /// Whether what it multiplies is faster than f32, over latents of this width.
    pub(crate) fn is_faster_with(self, latent: usize) -> bool {
        self.0.has_fast_bf16() && self.0.takes_product_bf16(latent)
    }

    /// `out[row] += Σ_t weights[row][t] * values[t]`, in the order of the values, which begin the entries of the runs. Weights are
    /// probabilities, and lose little when they are rounded.
    pub(crate) fn add_probable(
        self,
        out: (&mut [f32], usize),
        weights: RowsRef<'_>,
        (runs, width): (&[&[bf16]], usize),
    ) {
        let values: Vec<&[bf16]> = runs.iter().flat_map(|run| run.chunks_exact(width)).collect();
        self.0.add_product_bf16(out, weights, &values);
    }

    /// A head's keys and values of neighbouring positions, in bf16.
    pub(crate) fn expand(self, keys: RowsRef<'_>, values: RowsRef<'_>, out: &mut Expanded) {
        out.keys.set_columns(self.0, keys);
        out.values.set_rows(self.0, values);
    }

    /// `out[query, key] = queries[query] · keys[key]`.
    pub(crate) fn score_expanded(self, queries: RowsRef<'_>, expanded: &mut Expanded, out: &mut [f32]) {
        expanded.keys.multiply::<false>(self.0, queries, out);
    }

    /// `out[row] += Σ_t weights[row][t] * values[t]`.
    pub(crate) fn add_expanded(self, weights: RowsRef<'_>, expanded: &mut Expanded, out: &mut [f32]) {
        expanded.values.multiply::<true>(self.0, weights, out);
    }
}

/// See [`Bf16Attention::expand`].
#[derive(Default)]
pub(crate) struct Expanded {
    keys: Paired,
    values: Paired,
}
