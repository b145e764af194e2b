//! bf16 activations with bf16 weights: products of pairs, summed in f32.

use std::{
    arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_setzero_ps,
        _mm512_setzero_si512,
    },
    mem::transmute,
    ops::Range,
};

use super::{Stored, fold_all, load_bytes};
use crate::{
    bf16_rows::{Block, COLUMNS},
    tiles::{Format, PerFeature},
};

/// Bytes of the weights of a block of columns.
pub(super) const BYTES: usize = COLUMNS * 2;

/// Needs AVX-512 BF16.
pub(super) struct Bf16Pairs;

impl Format for Bf16Pairs {
    type Input = Block;
    type Weights<'a> = PerFeature<'a, u8>;

    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
        weights.features(range)
    }

    fn stored(weights: Self::Weights<'_>) -> Stored {
        Stored::new((weights.items, weights.count), (&[], 0))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Block]; R],
        weights: [Self::Weights<'_>; F],
        ahead: Option<Stored>,
    ) -> [[f32; R]; F] {
        let blocks = weights[0].count / BYTES;
        let mut rows: [&[[u8; BYTES]]; F] = [&[]; F];
        for f in 0..F {
            rows[f] = weights[f].items.as_chunks().0;
            assert_eq!(rows[f].len(), blocks);
        }
        assert!(x.iter().all(|x| x.len() == weights[0].count.div_ceil(BYTES)));
        let mut sums = [[_mm512_setzero_ps(); R]; F];
        for block in 0..blocks {
            let mut w = [_mm512_setzero_si512(); F];
            for f in 0..F {
                // SAFETY, here and below: the assertions above.
                let bytes = unsafe { rows[f].get_unchecked(block) };
                w[f] = load_bytes(bytes);
                if let Some(ahead) = ahead {
                    ahead.ask((block * F + f) * BYTES, BYTES);
                }
            }
            for r in 0..R {
                let x = load(unsafe { x[r].get_unchecked(block) });
                for f in 0..F {
                    sums[f][r] = add_pairs(sums[f][r], x, w[f]);
                }
            }
        }
        // The columns after the last whole block.
        if !weights[0].count.is_multiple_of(BYTES) {
            for f in 0..F {
                let tail = &weights[f].items[blocks * BYTES..];
                let mut bytes = [0; BYTES];
                bytes[..tail.len()].copy_from_slice(tail);
                for r in 0..R {
                    sums[f][r] = add_pairs(sums[f][r], load(&x[r][blocks]), load_bytes(&bytes));
                }
            }
        }
        fold_all(sums)
    }
}

/// `sums[i] + x[2i] * w[2i] + x[2i + 1] * w[2i + 1]`; numbers below the normal ones count as zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn add_pairs(sums: __m512, x: __m512i, w: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits of anything.
    let [x, w] = unsafe { transmute::<[__m512i; 2], [__m512bh; 2]>([x, w]) };
    _mm512_dpbf16_ps(sums, x, w)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(block: &Block) -> __m512i {
    // SAFETY: the block has the 64 bytes that are read; the instruction does not ask for alignment.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(block).cast()) }
}
