//! int4 weights with activations of 8 bits: integer dot products of each group, scaled and summed in f32.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_permutexvar_epi16, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi64, _mm512_setzero_ps, _mm512_srli_epi16,
};

use super::{Avx512, FROM_CACHE, Int4Rows, fold_all, load_bytes, load_f32, prefetch};
use crate::{
    output::Output,
    quantized_rows::{Block, COLUMNS, GROUP},
};

/// Bytes of a block's codes.
const CODES: usize = COLUMNS / 2;
/// Bytes of a block's scales.
const SCALES: usize = COLUMNS / GROUP * 2;
/// Features that are multiplied with all rows before the next ones: their codes stay in the second-level cache.
const FEATURES: usize = 32;

/// See [`Avx512::multiply_int4`]. Rows of whole blocks only.
pub(super) fn multiply(proof: Avx512, x: &[&[Block]], weights: Int4Rows<'_>, mut out: Output<'_>) {
    let (features, row_blocks) = (out.features(), x[0].len());
    let (codes, scales) = (weights.codes.as_chunks().0, weights.scales.as_chunks().0);
    for first in (0..features).step_by(FEATURES) {
        let some = first..features.min(first + FEATURES);
        let blocks = some.start * row_blocks..some.end * row_blocks;
        let weights = (&codes[blocks.clone()], &scales[blocks]);
        let mut out = out.part(some);
        let mut row = 0;
        while row < x.len() {
            row += match x.len() - row {
                6.. => some_rows::<6, 2>(proof, x, row, weights, &mut out),
                4..6 => some_rows::<4, 2>(proof, x, row, weights, &mut out),
                2..4 => some_rows::<2, 4>(proof, x, row, weights, &mut out),
                _ => some_rows::<1, 4>(proof, x, row, weights, &mut out),
            };
        }
    }
}

/// Codes and scales of blocks of columns, feature by feature.
type Blocks<'a> = (&'a [[u8; CODES]], &'a [[u8; SCALES]]);

/// `R` rows from `first` with up to [`FEATURES`] features, `F` at a time. Returns `R`.
fn some_rows<const R: usize, const F: usize>(
    proof: Avx512,
    all: &[&[Block]],
    first: usize,
    weights: Blocks<'_>,
    out: &mut Output<'_>,
) -> usize {
    let row_blocks = all[0].len();
    let x: [&[Block]; R] = std::array::from_fn(|row| all[first + row]);
    let weights = |feature: usize| {
        let range = feature * row_blocks..(feature + 1) * row_blocks;
        (&weights.0[range.clone()], &weights.1[range])
    };
    let features = out.features();
    for feature in (0..features / F * F).step_by(F) {
        let weights: [_; F] = std::array::from_fn(|f| weights(feature + f));
        out.put((first, feature), &some_features::<R, F>(proof, x, weights));
    }
    for feature in features / F * F..features {
        out.put((first, feature), &some_features::<R, 1>(proof, x, [weights(feature)]));
    }
    R
}

fn some_features<const R: usize, const F: usize>(
    _: Avx512,
    x: [&[Block]; R],
    weights: [Blocks<'_>; F],
) -> [[f32; R]; F] {
    // SAFETY: the caller proved the CPU's features.
    unsafe { tile(x, weights) }
}

/// `tile[f][r] = x[r] · weights[f]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize, const F: usize>(x: [&[Block]; R], weights: [Blocks<'_>; F]) -> [[f32; R]; F] {
    let blocks = x[0].len();
    assert!(x.iter().all(|x| x.len() == blocks));
    assert!(weights.iter().all(|(codes, scales)| codes.len() == blocks && scales.len() == blocks));
    let mut sums = [[_mm512_setzero_ps(); R]; F];
    let low = _mm512_set1_epi8(15);
    for block in 0..blocks {
        let mut even = [low; F];
        let mut odd = [low; F];
        let mut scale = [_mm512_setzero_ps(); F];
        for f in 0..F {
            // SAFETY, here and below: the assertions above.
            let (packed, scales) =
                unsafe { (weights[f].0.get_unchecked(block), weights[f].1.get_unchecked(block)) };
            if R < FROM_CACHE {
                prefetch(packed.as_ptr(), F * blocks * CODES);
            }
            let packed = load_bytes(packed);
            even[f] = _mm512_and_si512(packed, low);
            odd[f] = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), low);
            scale[f] = spread(*scales);
        }
        for r in 0..R {
            let x = unsafe { x[r].get_unchecked(block) };
            let (x_even, x_odd) = (load_codes(&x.even), load_codes(&x.odd));
            let (correction, x_scale) = (load_i32(&x.correction), load_f32(&x.scales));
            for f in 0..F {
                let dot = _mm512_dpbusd_epi32(correction, even[f], x_even);
                let dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(dot, odd[f], x_odd));
                sums[f][r] = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale[f], x_scale), sums[f][r]);
            }
        }
    }
    fold_all(sums)
}

/// Four bf16 as f32, each in four lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn spread(scales: [u8; SCALES]) -> __m512 {
    // 16-bit places: zero below, the scale above, which makes it an f32.
    const PLACES: [i16; 32] = {
        let mut places = [0; 32];
        let mut place = 0;
        while place < 32 {
            places[place] = (place / 8) as i16;
            place += 1;
        }
        places
    };
    // SAFETY: the array has the 64 bytes that are read.
    let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let scales = _mm512_set1_epi64(i64::from_le_bytes(scales));
    _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaa_aaaa, places, scales))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_codes(codes: &[i8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the instruction does not ask for alignment.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_i32(numbers: &[i32; 16]) -> __m512i {
    // SAFETY: as for `load_codes`.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}
