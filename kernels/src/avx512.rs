//! Matrix products for CPUs with AVX-512: tiles of results in registers, weights read as they are stored.
//!
//! Every result is one dot product whose sixteen partial sums run over the columns in order, whatever tile it is
//! computed in. So a row's numbers do not depend on how many rows are in the batch.

#![allow(unsafe_code, reason = "calls code compiled for CPU features whose presence `Avx512` proves")]

mod accumulate;
mod bf16;
mod codes;
mod dense;
mod paired;
mod peak;
mod quantize;
mod transpose;
mod weighted_pairs;
mod wide_bf16;
mod wide_codes;
mod widened;

use std::arch::x86_64::{
    __m256, __m512, __m512i, _mm_add_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_hadd_ps, _mm512_castps512_ps256, _mm512_extractf32x8_ps, _mm512_loadu_ps,
    _mm512_loadu_si512,
};

use self::codes::{Coded, CodedWeights, Int4, Int8};
pub(crate) use self::{paired::Paired, widened::SplitRows};
use crate::{
    bf16_rows,
    codes::{CodeRows, CodeWidth},
    cpu::RowsRef,
    output::Output,
    peak::Multiplication,
    quantized_rows,
    stored::{Stored, ask},
    tiles::{self, PerFeature},
    vectors::{Vectors, vectors},
    wide,
};

/// Numbers of a vector.
const LANES: usize = 16;
/// Vectors that a row's numbers are multiplied with at a time, where each lane has a feature.
const VECTORS: usize = 2;
const FEATURES: usize = VECTORS * LANES;
/// A number for each of these features.
type PerLane = [__m512; VECTORS];
/// Columns of a weight whose dot products are so short that the sum over a vector's lanes at their end counts.
const SHORT_ROW: usize = 512;

/// Proof that this CPU has AVX-512 with its byte, word and dot product instructions (VNNI).
#[derive(Clone, Copy)]
pub(crate) struct Avx512 {
    /// Also the dot products of bf16.
    bf16: bool,
}

/// What the tiles multiply with: rows of a weight that lie one after the other.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// f32.
    F32(&'a [f32]),
    /// bf16, little-endian.
    Bf16(&'a [u8]),
}

impl Avx512 {
    /// `None` on other CPUs.
    pub(crate) fn detect() -> Option<Self> {
        let found = vectors() == Vectors::Avx512 && is_x86_feature_detected!("avx512vnni");
        found.then(|| Self { bf16: is_x86_feature_detected!("avx512bf16") })
    }

    /// Whether [`Self::multiply_bf16`] may be called.
    pub(crate) fn has_bf16(self) -> bool {
        self.bf16
    }

    /// `out[row, feature] = x[row] · weights[feature]`. `x` must not be empty. `next` is what will be multiplied afterwards, if that
    /// is known.
    #[expect(clippy::unused_self, reason = "a proof, as elsewhere")]
    pub(crate) fn multiply(self, x: &[&[f32]], weights: Rows<'_>, out: Output<'_>, next: Option<Stored>) {
        let columns = x[0].len();
        // SAFETY: the formats need nothing beyond AVX-512.
        unsafe {
            match weights {
                Rows::F32(items) => {
                    tiles::multiply::<dense::F32>(x, PerFeature { items, count: columns }, out, next);
                }
                Rows::Bf16(items) => {
                    tiles::multiply::<dense::Bf16>(x, PerFeature { items, count: columns * 2 }, out, next);
                }
            }
        }
    }

    /// [`Self::multiply`] with bf16 on both sides, for weights of so many columns.
    pub(crate) fn multiply_bf16(
        self,
        x: &[&[bf16_rows::Block]],
        (items, columns): (&[u8], usize),
        out: Output<'_>,
        next: Option<Stored>,
    ) {
        assert!(self.bf16);
        let weights = PerFeature { items, count: columns * 2 };
        // SAFETY: the CPU has the dot products of bf16: the assertion above.
        unsafe {
            if columns <= SHORT_ROW || peak::pairs_are_slow() {
                wide::multiply::<bf16::Bf16Pairs>(x, weights, out, next);
            } else {
                tiles::multiply::<bf16::Bf16Pairs>(x, weights, out, next);
            }
        }
    }

    /// [`Self::multiply`] with activations of 8 bits.
    #[expect(clippy::unused_self, reason = "a proof, as elsewhere")]
    pub(crate) fn multiply_codes(
        self,
        x: &[&[quantized_rows::Block]],
        weights: CodeRows<'_>,
        out: Output<'_>,
        next: Option<Stored>,
    ) {
        // SAFETY: the formats need nothing beyond AVX-512 with VNNI.
        unsafe {
            match weights.width {
                CodeWidth::Four => wide::multiply::<Coded<Int4>>(x, CodedWeights::new(weights), out, next),
                CodeWidth::Eight => wide::multiply::<Coded<Int8>>(x, CodedWeights::new(weights), out, next),
            }
        }
    }

    /// The block of these numbers, as `quantized_rows::quantize` makes it.
    pub(crate) fn quantize(
        self,
        numbers: &[f32; quantized_rows::COLUMNS],
        block: &mut quantized_rows::Block,
    ) {
        quantize::quantize(self, numbers, block);
    }

    /// Asks for numbers that will be needed soon, for the second-level cache.
    #[expect(clippy::unused_self, reason = "a proof, as elsewhere")]
    pub(crate) fn prefetch<T>(self, numbers: &[T]) {
        ask(numbers.as_ptr().cast(), size_of_val(numbers));
    }

    /// See [`peak`](fn@crate::peak).
    pub(crate) fn peak(self, multiplication: Multiplication) -> Option<f64> {
        peak::peak(self, multiplication)
    }

    /// Whether products of bf16 take less time than those of f32.
    pub(crate) fn has_fast_bf16(self) -> bool {
        self.bf16 && !peak::pairs_are_slow()
    }

    /// `out[row] += Σ_t weights[row][t] * terms[t][..width]`, in the order of the terms. `out` is `[weights.rows, width]`. Meanwhile,
    /// the second halves of the `next` terms are asked for.
    pub(crate) fn add_widened(
        self,
        out: (&mut [f32], usize),
        weights: RowsRef<'_>,
        terms: &[&[half::bf16]],
        next: &[&[half::bf16]],
    ) {
        widened::add_product(self, out, weights, terms, next);
    }

    /// `out[row] += Σ_t weights[row][t] * terms[t][..width]`, in the order of the terms. `out` is `[weights.rows, width]`.
    pub(crate) fn add_product(self, out: (&mut [f32], usize), weights: RowsRef<'_>, terms: &[&[f32]]) {
        accumulate::add_product(self, out, weights, terms);
    }

    /// [`Self::add_product`] with weights rounded to bf16, whole vectors of columns at a time: see
    /// [`Self::takes_product_bf16`].
    pub(crate) fn add_product_bf16(
        self,
        out: (&mut [f32], usize),
        weights: RowsRef<'_>,
        terms: &[&[half::bf16]],
    ) {
        weighted_pairs::add_product(self, out, weights, terms);
    }

    /// Whether [`Self::add_product_bf16`] takes results of this width.
    pub(crate) fn takes_product_bf16(self, width: usize) -> bool {
        self.bf16 && width.is_multiple_of(weighted_pairs::BLOCK)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f32(numbers: &[f32; 16]) -> __m512 {
    // SAFETY: the array has the sixteen numbers that are read; the instruction does not ask for alignment.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: as for `load_f32`.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The sum of the lanes of each. Halves are added first, then neighbours, and every sum is made in this order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fold(sums: [__m512; 4]) -> [f32; 4] {
    let [a, b, c, d] = [half(sums[0]), half(sums[1]), half(sums[2]), half(sums[3])];
    let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let folded = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
    let mut out = [0.0; 4];
    // SAFETY: the array has room for the four numbers that are written.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), folded) };
    out
}

/// [`fold`] of a tile's sums.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fold_all<const R: usize, const F: usize>(sums: [[__m512; R]; F]) -> [[f32; R]; F] {
    let mut out = [[0.0; R]; F];
    for f in (0..F).step_by(2) {
        for r in (0..R).step_by(2) {
            // What is beyond the tile's edges is folded twice and dropped.
            let (g, s) = ((f + 1).min(F - 1), (r + 1).min(R - 1));
            let folded = fold([sums[f][r], sums[f][s], sums[g][r], sums[g][s]]);
            (out[f][r], out[f][s], out[g][r], out[g][s]) = (folded[0], folded[1], folded[2], folded[3]);
        }
    }
    out
}

/// The upper lanes added to the lower ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn half(sums: __m512) -> __m256 {
    _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums))
}
