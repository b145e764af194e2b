//! f32 activations with weights that need no arithmetic to become f32.

use std::{
    arch::x86_64::{
        __m512, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps,
        _mm512_setzero_ps, _mm512_slli_epi32,
    },
    ops::Range,
};

use super::{Stored, fold_all, load_f32};
use crate::tiles::{Format, PerFeature};

/// Columns of one step.
const STEP: usize = 16;

pub(super) enum F32 {}

pub(super) enum Bf16 {}

/// Implements a format: `$load` makes sixteen f32 from a block of `$block` numbers.
macro_rules! format {
    ($format:ty, $number:ty, $block:literal, $zero:literal, $load:ident) => {
        impl Format for $format {
            type Input = f32;
            type Weights<'a> = PerFeature<'a, $number>;

            fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
                weights.features(range)
            }

            fn stored(weights: Self::Weights<'_>) -> Stored {
                let row = weights.count * size_of::<$number>();
                Stored::new((bytemuck::cast_slice(weights.items), row), (&[], 0))
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn tile<const R: usize, const F: usize>(
                x: [&[f32]; R],
                weights: [Self::Weights<'_>; F],
                ahead: Option<Stored>,
            ) -> [[f32; R]; F] {
                let steps = x[0].len() / STEP;
                let mut blocks: [&[[f32; STEP]]; R] = [&[]; R];
                let mut rows: [&[[$number; $block]]; F] = [&[]; F];
                for r in 0..R {
                    blocks[r] = x[r].as_chunks().0;
                    assert_eq!(blocks[r].len(), steps);
                }
                for f in 0..F {
                    rows[f] = weights[f].items.as_chunks().0;
                    assert_eq!(rows[f].len(), steps);
                }
                let mut sums = [[_mm512_setzero_ps(); R]; F];
                for step in 0..steps {
                    let mut w = [_mm512_setzero_ps(); F];
                    for f in 0..F {
                        // SAFETY, here and below: the assertions above.
                        let block = unsafe { rows[f].get_unchecked(step) };
                        w[f] = $load(block);
                        if let Some(ahead) = ahead {
                            let bytes = $block * size_of::<$number>();
                            ahead.ask((step * F + f) * bytes, bytes);
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
                        let w = $load(&padded(weights[f].items.as_chunks::<$block>().1, $zero));
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
