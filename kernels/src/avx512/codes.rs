//! Weights of 4 or 8 bits with activations of 8 bits: integer dot products of each group, scaled and summed in f32.
//!
//! A result is `(s0 + s1) + (s2 + s3)`, where `s0` is the sum over the first groups of all blocks, in order, and so on. Integer
//! sums are exact, so the tiles here and those of `wide_codes.rs` agree to the last bit.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm_add_ps, _mm_set_epi32, _mm_storeu_ps, _mm256_set_epi64x, _mm512_add_epi32,
        _mm512_and_si512, _mm512_castps512_ps128, _mm512_castsi128_si512, _mm512_castsi256_si512,
        _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_extractf32x4_ps,
        _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_permutexvar_epi16, _mm512_mul_ps,
        _mm512_permutexvar_epi32, _mm512_set_epi32, _mm512_set1_epi8, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_srli_epi16, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    },
    marker::PhantomData,
    ops::Range,
};

use super::{CodeRows, Stored, load_bytes};
use crate::{
    codes::SCALES,
    quantized_rows::{Block, COLUMNS},
    tiles::{Format, PerFeature},
};

/// How a block's codes lie.
pub(super) trait Codes: Copy {
    /// All of them: arrays of bytes.
    type Packed: bytemuck::Pod;

    /// Those of the even columns and of the odd ones, a byte each.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F and BW.
    unsafe fn unpack(packed: &Self::Packed) -> (__m512i, __m512i);

    /// A code is stored as `q + 8 * STEPS`.
    const STEPS: i32;
}

#[derive(Clone, Copy)]
pub(super) struct Int4;

#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Codes for Int4 {
    type Packed = [u8; COLUMNS / 2];
    const STEPS: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(packed: &Self::Packed) -> (__m512i, __m512i) {
        nibbles(load_bytes(packed))
    }
}

impl Codes for Int8 {
    type Packed = [[u8; COLUMNS / 2]; 2];
    const STEPS: i32 = 16;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack([even, odd]: &Self::Packed) -> (__m512i, __m512i) {
        (load_bytes(even), load_bytes(odd))
    }
}

/// The lower ones of bytes, and the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn nibbles(bytes: __m512i) -> (__m512i, __m512i) {
    let low = _mm512_set1_epi8(15);
    (_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low))
}

/// Blocks of columns with activations of 8 bits.
pub(super) struct Coded<K>(PhantomData<K>);

/// Codes and scales of blocks of columns.
#[derive(Clone, Copy)]
pub(super) struct CodedWeights<'a, K: Codes> {
    pub(super) codes: PerFeature<'a, K::Packed>,
    pub(super) scales: PerFeature<'a, [u8; SCALES]>,
}

impl<'a, K: Codes> CodedWeights<'a, K> {
    /// The blocks of these rows.
    pub(super) fn new(weights: CodeRows<'a>) -> Self {
        let (count, (codes, scales)) = (weights.row_blocks(), weights.blocks());
        Self { codes: PerFeature { items: codes, count }, scales: PerFeature { items: scales, count } }
    }
}

impl<K: Codes + 'static> Format for Coded<K> {
    const ROWS: usize = 8;
    type Input = Block;
    type Weights<'a> = CodedWeights<'a, K>;

    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
        let CodedWeights { codes, scales } = weights;
        CodedWeights { codes: codes.features(range.clone()), scales: scales.features(range) }
    }

    fn stored(CodedWeights { codes, scales }: Self::Weights<'_>) -> Stored {
        let row = codes.count * size_of::<K::Packed>();
        Stored::new(
            (bytemuck::cast_slice(codes.items), row),
            (scales.items.as_flattened(), scales.count * SCALES),
        )
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Block]; R],
        weights: [Self::Weights<'_>; F],
        ahead: Option<Stored>,
    ) -> [[f32; R]; F] {
        let blocks = x[0].len();
        assert!(x.iter().all(|x| x.len() == blocks));
        assert!(weights.iter().all(|w| w.codes.items.len() == blocks && w.scales.items.len() == blocks));
        // Four features are multiplied together; fewer come more than once.
        let weights: [_; 4] = std::array::from_fn(|f| weights[f.min(F - 1)]);
        let mut sums = [_mm512_setzero_ps(); R];
        for block in 0..blocks {
            let mut even = [_mm512_setzero_si512(); 4];
            let mut odd = [_mm512_setzero_si512(); 4];
            let mut scales = [[0; SCALES]; 4];
            for f in 0..4 {
                // SAFETY, here and below: the assertions above.
                let (packed, scale) = unsafe {
                    (
                        weights[f].codes.items.get_unchecked(block),
                        weights[f].scales.items.get_unchecked(block),
                    )
                };
                if let Some(ahead) = ahead {
                    ahead.ask_block(block * 4 + f, size_of::<K::Packed>());
                }
                (even[f], odd[f]) = unsafe { K::unpack(packed) };
                scales[f] = *scale;
            }
            let scale = by_group(scales);
            for r in 0..R {
                let x = unsafe { x[r].get_unchecked(block) };
                let (x_even, x_odd) = (load_codes(&x.even), load_codes(&x.odd));
                let mut dots = [_mm512_setzero_si512(); 4];
                for f in 0..4 {
                    dots[f] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), even[f], x_even);
                    dots[f] = _mm512_dpbusd_epi32(dots[f], odd[f], x_odd);
                }
                let correction = spread(x.correction.map(|number| number * K::STEPS));
                let dots = _mm512_add_epi32(add_quads(dots), correction);
                let scale = _mm512_mul_ps(
                    scale,
                    _mm512_castsi512_ps(spread(x.scales.map(|scale| scale.to_bits().cast_signed()))),
                );
                sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums[r]);
            }
        }
        let sums = sums.map(|sums| fold_groups(sums));
        std::array::from_fn(|f| std::array::from_fn(|r| sums[r][f]))
    }
}

/// Of each group of columns the sums of four features' dot products: lane `4 * group + feature`.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_quads([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// Four features' scales of four groups, bf16, as f32: lane `4 * group + feature`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn by_group([a, b, c, d]: [[u8; SCALES]; 4]) -> __m512 {
    // 16-bit places: zero below, the scale above, which makes it an f32.
    const PLACES: [i16; 32] = {
        let mut places = [0; 32];
        let mut place = 0;
        while place < 32 {
            let (group, feature) = (place / 8, place / 2 % 4);
            places[place] = (feature * 4 + group) as i16;
            place += 1;
        }
        places
    };
    // SAFETY: the array has the 64 bytes that are read.
    let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let [a, b, c, d] = [a, b, c, d].map(i64::from_le_bytes);
    let scales = _mm512_castsi256_si512(_mm256_set_epi64x(d, c, b, a));
    _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaa_aaaa, places, scales))
}

/// Each of four numbers in four lanes: 0, 0, 0, 0, 1, 1, …
#[inline]
#[target_feature(enable = "avx512f")]
fn spread([a, b, c, d]: [i32; 4]) -> __m512i {
    let places = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    _mm512_permutexvar_epi32(places, _mm512_castsi128_si512(_mm_set_epi32(d, c, b, a)))
}

/// The groups' sums together, two and two: that of each feature.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold_groups(sums: __m512) -> [f32; 4] {
    let first = _mm_add_ps(_mm512_castps512_ps128(sums), _mm512_extractf32x4_ps::<1>(sums));
    let last = _mm_add_ps(_mm512_extractf32x4_ps::<2>(sums), _mm512_extractf32x4_ps::<3>(sums));
    let mut out = [0.0; 4];
    // SAFETY: the array has room for the four numbers that are written.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(first, last)) };
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_codes(codes: &[i8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the instruction does not ask for alignment.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}
