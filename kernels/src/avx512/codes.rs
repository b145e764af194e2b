//! Weights of 4 or 8 bits with activations of 8 bits: integer dot products of each group, scaled and summed in f32.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
        _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_permutexvar_epi16, _mm512_mul_ps, _mm512_set1_epi8,
        _mm512_set1_epi64, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi16,
    },
    marker::PhantomData,
    ops::Range,
};

use super::{
    CodeRows, FROM_CACHE, fold_all, load_bytes, load_f32, prefetch,
    tiles::{Format, PerFeature},
};
use crate::quantized_rows::{Block, COLUMNS, GROUP};

/// Bytes of a block's scales.
const SCALES: usize = COLUMNS / GROUP * 2;

/// How a block's codes lie.
pub(super) trait Codes: Copy {
    /// All of them: bytes.
    type Packed: Copy;

    /// Those of the even columns and of the odd ones, a byte each.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F and BW.
    unsafe fn unpack(packed: &Self::Packed) -> (__m512i, __m512i);

    /// What to add to the products to take away what codes are stored with on top, given that of 4 bits: -8 times the sum of the
    /// activations.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F.
    unsafe fn correction(of_int4: __m512i) -> __m512i;
}

#[derive(Clone, Copy)]
pub(super) struct Int4;

#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Codes for Int4 {
    type Packed = [u8; COLUMNS / 2];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(packed: &Self::Packed) -> (__m512i, __m512i) {
        let (packed, low) = (load_bytes(packed), _mm512_set1_epi8(15));
        (_mm512_and_si512(packed, low), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), low))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn correction(of_int4: __m512i) -> __m512i {
        of_int4
    }
}

impl Codes for Int8 {
    type Packed = [[u8; COLUMNS / 2]; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack([even, odd]: &Self::Packed) -> (__m512i, __m512i) {
        (load_bytes(even), load_bytes(odd))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn correction(of_int4: __m512i) -> __m512i {
        _mm512_slli_epi32::<4>(of_int4)
    }
}

/// Blocks of columns with activations of 8 bits.
pub(super) struct Coded<K>(PhantomData<K>);

/// Codes and scales of blocks of columns.
pub(super) struct CodedWeights<'a, K: Codes> {
    codes: PerFeature<'a, K::Packed>,
    scales: PerFeature<'a, [u8; SCALES]>,
}

impl<K: Codes> Clone for CodedWeights<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Codes> Copy for CodedWeights<'_, K> {}

impl<'a, K: Codes> CodedWeights<'a, K> {
    /// Rows of `blocks` whole blocks.
    pub(super) fn new(weights: CodeRows<'a>, blocks: usize) -> Self {
        let count = weights.codes.len() / size_of::<K::Packed>();
        // SAFETY: packed codes are arrays of bytes, and so many of them lie in the slice.
        let codes = unsafe { std::slice::from_raw_parts(weights.codes.as_ptr().cast(), count) };
        let scales = weights.scales.as_chunks().0;
        Self {
            codes: PerFeature { items: codes, count: blocks },
            scales: PerFeature { items: scales, count: blocks },
        }
    }
}

impl<K: Codes + 'static> Format for Coded<K> {
    type Input = Block;
    type Weights<'a> = CodedWeights<'a, K>;
    const FEATURES: usize = 2;

    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
        let CodedWeights { codes, scales } = weights;
        CodedWeights { codes: codes.features(range.clone()), scales: scales.features(range) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Block]; R],
        weights: [Self::Weights<'_>; F],
    ) -> [[f32; R]; F] {
        let blocks = x[0].len();
        assert!(x.iter().all(|x| x.len() == blocks));
        assert!(weights.iter().all(|w| w.codes.items.len() == blocks && w.scales.items.len() == blocks));
        let mut sums = [[_mm512_setzero_ps(); R]; F];
        for block in 0..blocks {
            let mut even = [_mm512_setzero_si512(); F];
            let mut odd = [_mm512_setzero_si512(); F];
            let mut scale = [_mm512_setzero_ps(); F];
            for f in 0..F {
                // SAFETY, here and below: the assertions above.
                let (packed, scales) = unsafe {
                    (
                        weights[f].codes.items.get_unchecked(block),
                        weights[f].scales.items.get_unchecked(block),
                    )
                };
                if R < FROM_CACHE {
                    prefetch(packed, F * blocks * size_of::<K::Packed>());
                    if block % 8 == 0 {
                        prefetch(scales, F * blocks * SCALES);
                    }
                }
                (even[f], odd[f]) = unsafe { K::unpack(packed) };
                scale[f] = spread(*scales);
            }
            for r in 0..R {
                let x = unsafe { x[r].get_unchecked(block) };
                let (x_even, x_odd) = (load_codes(&x.even), load_codes(&x.odd));
                let correction = unsafe { K::correction(load_i32(&x.correction)) };
                let x_scale = load_f32(&x.scales);
                for f in 0..F {
                    let dot = _mm512_dpbusd_epi32(correction, even[f], x_even);
                    let dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(dot, odd[f], x_odd));
                    sums[f][r] = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale[f], x_scale), sums[f][r]);
                }
            }
        }
        fold_all(sums)
    }
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
