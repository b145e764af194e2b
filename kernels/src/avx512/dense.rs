//! f32 activations with weights that need no arithmetic to become f32.

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps,
    _mm512_setzero_ps, _mm512_slli_epi32,
};

use super::{Avx512, FROM_CACHE, fold_all, load_f32, prefetch};
use crate::output::Output;

/// Columns of one step.
const STEP: usize = 16;
/// Features that are multiplied with all rows before the next ones: their weights stay in the second-level cache.
const FEATURES: usize = 32;

/// How weights are stored.
pub(super) trait Format: Copy {
    /// What a row is made of.
    type Number: Copy;
    /// Numbers of one column.
    const PER_COLUMN: usize;

    /// `tile[f][r] = x[r] · weights[f]`.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL.
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[f32]; R],
        weights: [&[Self::Number]; F],
    ) -> [[f32; R]; F];
}

#[derive(Clone, Copy)]
pub(super) struct F32;

#[derive(Clone, Copy)]
pub(super) struct Bf16;

/// See [`Avx512::multiply`].
pub(super) fn multiply<K: Format>(
    proof: Avx512,
    _: K,
    x: &[&[f32]],
    weights: &[K::Number],
    mut out: Output<'_>,
) {
    let (features, row_numbers) = (out.features(), x[0].len() * K::PER_COLUMN);
    for first in (0..features).step_by(FEATURES) {
        let some = first..features.min(first + FEATURES);
        let weights = &weights[some.start * row_numbers..some.end * row_numbers];
        let mut out = out.part(some);
        let mut row = 0;
        while row < x.len() {
            row += match x.len() - row {
                6.. => some_rows::<K, 6>(proof, x, row, weights, &mut out),
                4..6 => some_rows::<K, 4>(proof, x, row, weights, &mut out),
                2..4 => some_rows::<K, 2>(proof, x, row, weights, &mut out),
                _ => some_rows::<K, 1>(proof, x, row, weights, &mut out),
            };
        }
    }
}

/// `R` rows from `first` with up to [`FEATURES`] features. Returns `R`.
fn some_rows<K: Format, const R: usize>(
    proof: Avx512,
    all: &[&[f32]],
    first: usize,
    weights: &[K::Number],
    out: &mut Output<'_>,
) -> usize {
    const F: usize = 4;
    let row_numbers = all[0].len() * K::PER_COLUMN;
    let x: [&[f32]; R] = std::array::from_fn(|row| all[first + row]);
    let weights = |feature: usize| &weights[feature * row_numbers..][..row_numbers];
    let features = out.features();
    for feature in (0..features / F * F).step_by(F) {
        let weights: [_; F] = std::array::from_fn(|f| weights(feature + f));
        out.put((first, feature), &some_features::<K, R, F>(proof, x, weights));
    }
    for feature in features / F * F..features {
        out.put((first, feature), &some_features::<K, R, 1>(proof, x, [weights(feature)]));
    }
    R
}

fn some_features<K: Format, const R: usize, const F: usize>(
    _: Avx512,
    x: [&[f32]; R],
    weights: [&[K::Number]; F],
) -> [[f32; R]; F] {
    // SAFETY: the caller proved the CPU's features.
    unsafe { K::tile(x, weights) }
}

/// Implements a format: `$load` makes sixteen f32 from a block of `$block` numbers.
macro_rules! format {
    ($format:ty, $number:ty, $block:literal, $zero:literal, $load:ident) => {
        impl Format for $format {
            type Number = $number;
            const PER_COLUMN: usize = $block / STEP;

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn tile<const R: usize, const F: usize>(
                x: [&[f32]; R],
                weights: [&[$number]; F],
            ) -> [[f32; R]; F] {
                let steps = x[0].len() / STEP;
                let mut blocks: [&[[f32; STEP]]; R] = [&[]; R];
                let mut rows: [&[[$number; $block]]; F] = [&[]; F];
                for r in 0..R {
                    blocks[r] = x[r].as_chunks().0;
                    assert_eq!(blocks[r].len(), steps);
                }
                for f in 0..F {
                    rows[f] = weights[f].as_chunks().0;
                    assert_eq!(rows[f].len(), steps);
                }
                let mut sums = [[_mm512_setzero_ps(); R]; F];
                for step in 0..steps {
                    let mut w = [_mm512_setzero_ps(); F];
                    for f in 0..F {
                        // SAFETY, here and below: the assertions above.
                        let block = unsafe { rows[f].get_unchecked(step) };
                        w[f] = $load(block);
                        if R < FROM_CACHE {
                            prefetch(block, F * size_of_val(weights[f]));
                        }
                    }
                    for r in 0..R {
                        let x = load_f32(unsafe { blocks[r].get_unchecked(step) });
                        for f in 0..F {
                            sums[f][r] = _mm512_fmadd_ps(x, w[f], sums[f][r]);
                        }
                    }
                }
                if x[0].len() % STEP != 0 {
                    for f in 0..F {
                        let w = $load(&padded(weights[f].as_chunks::<$block>().1, $zero));
                        for r in 0..R {
                            let x = load_f32(&padded(x[r].as_chunks::<STEP>().1, 0.0));
                            sums[f][r] = _mm512_fmadd_ps(x, w, sums[f][r]);
                        }
                    }
                }
                fold_all(sums)
            }
        }
    };
}

format!(F32, f32, 16, 0.0, load_f32);
format!(Bf16, u8, 32, 0, load_bf16);

/// The columns after the last whole step.
fn padded<T: Copy, const N: usize>(tail: &[T], zero: T) -> [T; N] {
    let mut block = [zero; N];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bf16(bytes: &[u8; 32]) -> __m512 {
    // SAFETY: the array has the 32 bytes that are read; the instruction does not ask for alignment.
    let halves = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}
