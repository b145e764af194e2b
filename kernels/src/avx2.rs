//! Products of codes for CPUs with AVX2, and with its dot products of bytes (AVX-VNNI) if they have them: weights of 4 or 8 bits with
//! activations of 8 bits. The rest of the model is plain Rust there (`vectorized.rs`).

#![allow(unsafe_code, reason = "calls code compiled for CPU features whose presence `Avx2` proves")]

mod wide_codes;

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtepu16_epi32, _mm_cvtss_f32, _mm_loadl_epi64,
        _mm_loadu_ps, _mm_loadu_si128, _mm_movehdup_ps, _mm_movehl_ps, _mm_mullo_epi32, _mm_set1_epi32,
        _mm_slli_epi32, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
        _mm256_castps128_ps256, _mm256_castps256_ps128, _mm256_castsi128_si256, _mm256_castsi256_ps,
        _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps,
        _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
        _mm256_permutevar8x32_epi32, _mm256_permutevar8x32_ps, _mm256_set_epi32, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_srai_epi32,
        _mm256_srli_epi16, _mm256_xor_si256,
    },
    marker::PhantomData,
    ops::Range,
};

use crate::{
    codes::{CodeRows, CodeWidth, SCALES},
    output::Output,
    quantized_rows::{Block, COLUMNS, GROUP},
    stored::Stored,
    tiles::Format,
    vectors::{Vectors, vectors},
    wide,
};

/// Codes of a vector: those of the even or the odd columns of two groups.
const BYTES: usize = 32;

/// Proof that this CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2 {
    /// Also the dot products of bytes.
    vnni: bool,
}

impl Avx2 {
    /// `None` on other CPUs.
    pub(crate) fn detect() -> Option<Self> {
        let vnni = vectors() == Vectors::AvxVnni;
        (vectors() >= Vectors::Avx2).then_some(Self { vnni })
    }

    /// `out[row, feature] = x[row] · weights[feature]`. `x` must not be empty. `next` is what will be multiplied afterwards, if that
    /// is known.
    pub(crate) fn multiply_codes(
        self,
        x: &[&[Block]],
        weights: CodeRows<'_>,
        out: Output<'_>,
        next: Option<Stored>,
    ) {
        // SAFETY: the CPU has what the formats need: the proof.
        unsafe {
            match (weights.width, self.vnni) {
                (CodeWidth::Four, false) => wide::multiply::<Coded<Int4>>(x, weights, out, next),
                (CodeWidth::Four, true) => wide::multiply::<CodedVnni<Int4Vnni>>(x, weights, out, next),
                (CodeWidth::Eight, false) => wide::multiply::<Coded<Int8>>(x, weights, out, next),
                (CodeWidth::Eight, true) => wide::multiply::<CodedVnni<Int8Vnni>>(x, weights, out, next),
            }
        }
    }
}

/// How a block's codes lie, and how they are multiplied.
trait Codes {
    /// All of them: an array of bytes.
    type Packed: bytemuck::Pod;

    /// By how many times 8 the weights are too large: the activations' corrections take it away.
    const STEPS: i32;

    /// Codes of even and odd columns of two groups, and of the other two.
    ///
    /// # Safety
    /// The CPU must have AVX2, and its dot products if the type is named after them; so for what follows.
    unsafe fn unpack(packed: &Self::Packed) -> [[__m256i; 2]; 2];

    /// Sums of products of even and of odd columns: four lanes of each of two groups.
    ///
    /// # Safety
    /// As above.
    unsafe fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i;

    /// A block of a row's bytes.
    fn block(bytes: &[u8], block: usize) -> &Self::Packed {
        &bytemuck::cast_slice(bytes)[block]
    }
}

enum Int4 {}

enum Int4Vnni {}

enum Int8 {}

enum Int8Vnni {}

impl Codes for Int4 {
    type Packed = [u8; COLUMNS / 2];
    const STEPS: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(packed: &Self::Packed) -> [[__m256i; 2]; 2] {
        let (halves, _) = packed.as_chunks::<BYTES>();
        [nibbles(load(&halves[0])), nibbles(load(&halves[1]))]
    }

    /// Products are below 2^11, so that four of them fit into 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        let even = _mm256_maddubs_epi16(weights[0], x[0]);
        let odd = _mm256_maddubs_epi16(weights[1], x[1]);
        _mm256_madd_epi16(_mm256_add_epi16(even, odd), _mm256_set1_epi16(1))
    }
}

impl Codes for Int8 {
    type Packed = [u8; COLUMNS];
    const STEPS: i32 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(packed: &Self::Packed) -> [[__m256i; 2]; 2] {
        let (quarters, _) = packed.as_chunks::<BYTES>();
        let part = |index: usize| signed(load(&quarters[index]));
        [[part(0), part(2)], [part(1), part(3)]]
    }

    /// One factor must be without a sign: it moves to the other. Products are below 2^14, so that two of them fit into 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        let ones = _mm256_set1_epi16(1);
        let even = _mm256_maddubs_epi16(_mm256_abs_epi8(weights[0]), _mm256_sign_epi8(x[0], weights[0]));
        let odd = _mm256_maddubs_epi16(_mm256_abs_epi8(weights[1]), _mm256_sign_epi8(x[1], weights[1]));
        let (even, odd) = (_mm256_madd_epi16(even, ones), _mm256_madd_epi16(odd, ones));
        _mm256_add_epi32(even, odd)
    }
}

impl Codes for Int4Vnni {
    type Packed = [u8; COLUMNS / 2];
    const STEPS: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(packed: &Self::Packed) -> [[__m256i; 2]; 2] {
        // SAFETY: as this function's.
        unsafe { Int4::unpack(packed) }
    }

    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        dot(weights, x)
    }
}

impl Codes for Int8Vnni {
    type Packed = [u8; COLUMNS];
    const STEPS: i32 = 16;

    /// As they are stored: without a sign.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(packed: &Self::Packed) -> [[__m256i; 2]; 2] {
        let (quarters, _) = packed.as_chunks::<BYTES>();
        [[load(&quarters[0]), load(&quarters[2])], [load(&quarters[1]), load(&quarters[3])]]
    }

    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        dot(weights, x)
    }
}

/// The lower nibbles of bytes, and the upper ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let low = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low)]
}

/// Codes that are stored without a sign, with it.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(codes: __m256i) -> __m256i {
    _mm256_xor_si256(codes, _mm256_set1_epi8(-128))
}

/// Sums of four products each, of the even columns and of the odd ones.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot(weights: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    let even = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), weights[0], x[0]);
    _mm256_dpbusd_avx_epi32(even, weights[1], x[1])
}

/// Blocks of columns with activations of 8 bits, for CPUs with `$features`.
macro_rules! format {
    ($format:ident, $features:literal) => {
        struct $format<K>(PhantomData<K>);

        impl<K: Codes + 'static> Format for $format<K> {
            const ROWS: usize = 4;
            type Input = Block;
            type Weights<'a> = CodeRows<'a>;

            fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
                weights.features(range)
            }

            fn stored(weights: Self::Weights<'_>) -> Stored {
                weights.stored()
            }

            /// Integer sums of groups are exact; scaled, they are added up in eight lanes, block after block, whatever the tile.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const F: usize>(
                x: [&[Block]; R],
                weights: [CodeRows<'_>; F],
                ahead: Option<Stored>,
            ) -> [[f32; R]; F] {
                let blocks = x[0].len();
                assert!(x.iter().all(|x| x.len() == blocks));
                let mut sums = [[_mm256_setzero_ps(); R]; F];
                for block in 0..blocks {
                    // SAFETY, here and below: the assertion above, and the features that this function's caller promises.
                    let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
                    let x_scales = x.map(|x| by_group(&x.scales));
                    let corrections = x.map(|x| halves_by_group(&x.correction, K::STEPS));
                    for f in 0..F {
                        if let Some(ahead) = ahead {
                            ahead.ask_block(block * F + f, size_of::<K::Packed>());
                        }
                        let packed = unsafe { K::unpack(K::block(weights[f].codes.items, block)) };
                        let scale = bf16_by_group(&weights[f].scales.items.as_chunks().0[block]);
                        for r in 0..R {
                            let (even, odd) =
                                (x[r].even.as_chunks::<BYTES>().0, x[r].odd.as_chunks::<BYTES>().0);
                            // Spelled out: a closure of this size is not inlined.
                            let first =
                                unsafe { K::dot(packed[0], [load_signed(&even[0]), load_signed(&odd[0])]) };
                            let second =
                                unsafe { K::dot(packed[1], [load_signed(&even[1]), load_signed(&odd[1])]) };
                            let mut dots = _mm256_hadd_epi32(first, second);
                            if K::STEPS > 0 {
                                dots = _mm256_add_epi32(dots, corrections[r]);
                            }
                            let scale = _mm256_mul_ps(scale, x_scales[r]);
                            sums[f][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sums[f][r]);
                        }
                    }
                }
                sums.map(|sums| sums.map(|sums| fold(sums)))
            }
        }
    };
}

format!(Coded, "avx2,fma");
format!(CodedVnni, "avx2,fma,avxvnni");

/// Which group a lane's sum is of, as `hadd` leaves them.
#[inline]
#[target_feature(enable = "avx2")]
fn groups() -> __m256i {
    _mm256_set_epi32(3, 3, 1, 1, 2, 2, 0, 0)
}

/// Each group's scale in its two lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn by_group(scales: &[f32; COLUMNS / GROUP]) -> __m256 {
    // SAFETY, here and below: the array has the bytes that are read; the instructions do not ask for alignment.
    let scales = unsafe { _mm_loadu_ps(scales.as_ptr()) };
    _mm256_permutevar8x32_ps(_mm256_castps128_ps256(scales), groups())
}

/// The same for scales in bf16.
#[inline]
#[target_feature(enable = "avx2")]
fn bf16_by_group(scales: &[u8; SCALES]) -> __m256 {
    let scales = unsafe { _mm_loadl_epi64(scales.as_ptr().cast()) };
    let scales = _mm256_castsi128_si256(_mm_slli_epi32::<16>(_mm_cvtepu16_epi32(scales)));
    _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(scales, groups()))
}

/// Half of each group's even number in each of its two lanes, so many times.
#[inline]
#[target_feature(enable = "avx2")]
fn halves_by_group(numbers: &[i32; COLUMNS / GROUP], times: i32) -> __m256i {
    let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) };
    let numbers = _mm_mullo_epi32(numbers, _mm_set1_epi32(times));
    _mm256_srai_epi32::<1>(_mm256_permutevar8x32_epi32(_mm256_castsi128_si256(numbers), groups()))
}

/// The sum of all lanes: halves first, then their halves, then neighbours.
#[inline]
#[target_feature(enable = "avx2")]
fn fold(sums: __m256) -> f32 {
    let sums = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
    let sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
    _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; BYTES]) -> __m256i {
    // SAFETY: as above.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_signed(codes: &[i8; BYTES]) -> __m256i {
    // SAFETY: as above.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::example::Example;

    #[test]
    fn products_are_right_and_the_same_with_dot_products_of_bytes() {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("avxvnni") {
            return;
        }
        let (rows, features) = (7, 9);
        let example = Example::new(rows, features, 384);
        for width in [CodeWidth::Four, CodeWidth::Eight] {
            let [plain, vnni] = [false, true].map(|vnni| {
                let mut found = vec![f32::MAX; rows * features];
                let out = Output::contiguous(&mut found, features);
                Avx2 { vnni }.multiply_codes(&example.rows(rows), example.weights(width), out, None);
                found
            });
            // The halves of a group's sum differ, where codes have no sign; together they are the same.
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3;
            assert!(plain.iter().zip(&vnni).all(near), "{plain:?} {vnni:?}");
            for (i, found) in plain.iter().enumerate() {
                let expected = example.product(width, i / features, i % features);
                assert!((f64::from(*found) - expected).abs() <= 1e-3, "{found} instead of {expected} at {i}");
            }
        }
    }
}
