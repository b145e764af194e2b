//! Weights of 4 or 8 bits with activations of 8 bits, for many rows: see `wide.rs`. Here a row of many has other numbers than alone, as
//! with everything else that is computed for so many rows without AVX-512.

#![expect(clippy::needless_range_loop, reason = "rows and vectors index several arrays")]

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps,
        _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_mul_ps, _mm256_permute2x128_si256, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    },
    cell::RefCell,
    ops::Range,
    thread::LocalKey,
};

use super::{
    BYTES, CodeRows, Coded, CodedVnni, Codes, Int4, Int4Vnni, Int8, Int8Vnni, SCALES, load, nibbles, signed,
};
use crate::{
    product::FEW_ROWS,
    quantized_rows::{Block, COLUMNS, GROUP},
    stored::Stored,
    wide::{Scratch, Wide},
};

/// Numbers of a vector.
const LANES: usize = 8;
/// Vectors that a row's numbers are multiplied with at a time.
const VECTORS: usize = 2;
const FEATURES: usize = VECTORS * LANES;
/// Groups of a block.
const GROUPS: usize = COLUMNS / GROUP;
/// Four columns that are multiplied together, of the even ones of a group; so many are odd.
const QUADS: usize = GROUP / 8;

/// A group of columns.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Codes of four even columns of each feature, and of the four odd ones between them.
    codes: [[[__m256i; VECTORS]; 2]; QUADS],
    /// Of each feature.
    scales: [__m256; VECTORS],
}

/// Codes that can be laid out anew.
pub(super) trait Lanes: Codes + Sized + 'static {
    /// Writes the codes of a block of eight features to vector `v` of the block's groups.
    ///
    /// # Safety
    /// The CPU must have what `Codes` asks for; so for what follows.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn put(packed: [&[u8]; LANES], groups: &mut [Group; GROUPS], v: usize) {
        if size_of::<Self::Packed>() == COLUMNS {
            put_bytes(packed, groups, v);
        } else {
            put_nibbles(packed, groups, v);
        }
    }

    /// The sums of products of a group, for each row and feature.
    ///
    /// # Safety
    /// As above.
    unsafe fn sums<const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[__m256i; VECTORS]; R];
}

impl Lanes for Int4 {
    /// Products of a nibble and a byte are below 2^11: all sixteen of a lane's half fit into 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[__m256i; VECTORS]; R] {
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
        for quad in 0..QUADS {
            for parity in 0..2 {
                for r in 0..R {
                    let x = four(x[r], parity, number * QUADS + quad);
                    for v in 0..VECTORS {
                        let products = _mm256_maddubs_epi16(group.codes[quad][parity][v], x);
                        sums[r][v] = _mm256_add_epi16(sums[r][v], products);
                    }
                }
            }
        }
        for r in 0..R {
            let correction = _mm256_set1_epi32(x[r].correction[number]);
            for v in 0..VECTORS {
                let pairs = _mm256_madd_epi16(sums[r][v], _mm256_set1_epi16(1));
                sums[r][v] = _mm256_add_epi32(pairs, correction);
            }
        }
        sums
    }
}

impl Lanes for Int8 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn put(packed: [&[u8]; LANES], groups: &mut [Group; GROUPS], v: usize) {
        put_bytes(packed, groups, v);
        for group in groups {
            for codes in group.codes.as_flattened_mut() {
                codes[v] = signed(codes[v]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[__m256i; VECTORS]; R] {
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
        for quad in 0..QUADS {
            for parity in 0..2 {
                let codes = group.codes[quad][parity];
                let mut sizes = codes;
                for v in 0..VECTORS {
                    sizes[v] = _mm256_abs_epi8(codes[v]);
                }
                for r in 0..R {
                    let x = four(x[r], parity, number * QUADS + quad);
                    for v in 0..VECTORS {
                        let products = _mm256_maddubs_epi16(sizes[v], _mm256_sign_epi8(x, codes[v]));
                        let products = _mm256_madd_epi16(products, _mm256_set1_epi16(1));
                        sums[r][v] = _mm256_add_epi32(sums[r][v], products);
                    }
                }
            }
        }
        sums
    }
}

impl Lanes for Int4Vnni {
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn sums<const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[__m256i; VECTORS]; R] {
        dots(group, x, number, Self::STEPS)
    }
}

impl Lanes for Int8Vnni {
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn sums<const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[__m256i; VECTORS]; R] {
        dots(group, x, number, Self::STEPS)
    }
}

/// [`Lanes::sums`] by dot products of bytes, where codes are stored as `q + 8 * steps`.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dots<const R: usize>(group: &Group, x: [&Block; R], number: usize, steps: i32) -> [[__m256i; VECTORS]; R] {
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
    for r in 0..R {
        sums[r] = [_mm256_set1_epi32(x[r].correction[number] * steps); VECTORS];
    }
    for quad in 0..QUADS {
        for parity in 0..2 {
            for r in 0..R {
                let x = four(x[r], parity, number * QUADS + quad);
                for v in 0..VECTORS {
                    sums[r][v] = _mm256_dpbusd_avx_epi32(sums[r][v], group.codes[quad][parity][v], x);
                }
            }
        }
    }
    sums
}

/// Four codes of even or odd columns, from the `4 * at`-th, in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn four(x: &Block, parity: usize, at: usize) -> __m256i {
    let (quads, _) = if parity == 0 { &x.even } else { &x.odd }.as_chunks::<4>();
    _mm256_set1_epi32(i32::from_le_bytes(quads[at].map(i8::cast_unsigned)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn put_nibbles(packed: [&[u8]; LANES], groups: &mut [Group; GROUPS], v: usize) {
    for half in 0..2 {
        for (column, bytes) in columns(packed, half).into_iter().enumerate() {
            let quad = half * LANES + column;
            let [even, odd] = nibbles(bytes);
            groups[quad / QUADS].codes[quad % QUADS][0][v] = even;
            groups[quad / QUADS].codes[quad % QUADS][1][v] = odd;
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn put_bytes(packed: [&[u8]; LANES], groups: &mut [Group; GROUPS], v: usize) {
    for quarter in 0..4 {
        for (column, bytes) in columns(packed, quarter).into_iter().enumerate() {
            let quad = quarter % 2 * LANES + column;
            groups[quad / QUADS].codes[quad % QUADS][quarter / 2][v] = bytes;
        }
    }
}

/// The `part`-th 32 bytes of eight features, turned around: the first four of each, the next four, and so on.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(packed: [&[u8]; LANES], part: usize) -> [__m256i; LANES] {
    let mut rows = [_mm256_setzero_si256(); LANES];
    for lane in 0..LANES {
        rows[lane] = load(&packed[lane].as_chunks::<BYTES>().0[part]);
    }
    let mut next = rows;
    for i in 0..LANES / 2 {
        next[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        next[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Of rows 4i to 4i + 3, `rows[4i + j]` then has the columns j and j + 4.
    for i in 0..LANES / 4 {
        for j in 0..2 {
            rows[4 * i + 2 * j] = _mm256_unpacklo_epi64(next[4 * i + j], next[4 * i + j + 2]);
            rows[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(next[4 * i + j], next[4 * i + j + 2]);
        }
    }
    for j in 0..4 {
        next[j] = _mm256_permute2x128_si256::<0x20>(rows[j], rows[j + 4]);
        next[j + 4] = _mm256_permute2x128_si256::<0x31>(rows[j], rows[j + 4]);
    }
    next
}

/// The scales of a block of eight features, by group.
#[inline]
#[target_feature(enable = "avx2")]
fn put_scales(scales: [&[u8; SCALES]; LANES], groups: &mut [Group; GROUPS], v: usize) {
    for (number, group) in groups.iter_mut().enumerate() {
        let mut lanes = [0.0; LANES];
        for lane in 0..LANES {
            let [low, high] = scales[lane].as_chunks::<2>().0[number];
            lanes[lane] = f32::from_bits(u32::from_le_bytes([0, 0, low, high]));
        }
        // SAFETY: the array has the numbers that are read.
        group.scales[v] = unsafe { _mm256_loadu_ps(lanes.as_ptr()) };
    }
}

/// Implements [`Wide`] for a format that multiplies with `$features`.
macro_rules! wide {
    ($format:ident, $codes:ident, $features:literal, $scratch:ident) => {
        thread_local! {
            static $scratch: RefCell<Scratch<$format<$codes>>> = const { Scratch::new() };
        }

        impl Wide for $format<$codes> {
            const FEATURES: usize = FEATURES;
            const MANY_ROWS: usize = FEW_ROWS + 1;
            const TILE_ROWS: usize = 4;
            const CHUNK: usize = 4;
            type Columns = [Group; GROUPS];
            type Sums = [__m256; VECTORS];

            fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
                &$scratch
            }

            fn columns(inputs: usize) -> usize {
                inputs
            }

            #[target_feature(enable = $features)]
            unsafe fn lay_out(
                CodeRows { codes, scales, .. }: CodeRows<'_>,
                inputs: Range<usize>,
                columns: &mut [Self::Columns],
                ahead: Option<Stored>,
            ) {
                let bytes = size_of::<<$codes as Codes>::Packed>();
                let last = codes.items.len() / codes.count - 1;
                for (block, groups) in inputs.zip(columns) {
                    for v in 0..VECTORS {
                        let (mut packed, mut scale) = ([&codes.items[..0]; LANES], [&[0; SCALES]; LANES]);
                        for lane in 0..LANES {
                            let row = (v * LANES + lane).min(last);
                            packed[lane] = &codes.items[row * codes.count + block * bytes..][..bytes];
                            scale[lane] = &scales.items[row * scales.count..].as_chunks().0[block];
                            if let Some(ahead) = ahead {
                                ahead.ask_block(block * FEATURES + v * LANES + lane, bytes);
                            }
                        }
                        // SAFETY: as this function's.
                        unsafe { $codes::put(packed, groups, v) };
                        put_scales(scale, groups, v);
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn add<const R: usize>(
                x: [&[Block]; R],
                columns: &[Self::Columns],
                sums: &mut [Self::Sums; R],
                is_first: bool,
            ) {
                if is_first {
                    *sums = [[_mm256_setzero_ps(); VECTORS]; R];
                }
                assert!(x.iter().all(|x| x.len() == columns.len()));
                for (block, groups) in columns.iter().enumerate() {
                    // SAFETY, here and below: the assertion above, and as this function's.
                    let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
                    for (number, group) in groups.iter().enumerate() {
                        let products = unsafe { $codes::sums(group, x, number) };
                        for r in 0..R {
                            let scale = _mm256_set1_ps(x[r].scales[number]);
                            for v in 0..VECTORS {
                                let scale = _mm256_mul_ps(group.scales[v], scale);
                                let products = _mm256_cvtepi32_ps(products[r][v]);
                                sums[r][v] = _mm256_fmadd_ps(products, scale, sums[r][v]);
                            }
                        }
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn fold(sums: &[Self::Sums], mut put: impl FnMut(usize, &[f32])) {
                for (row, sums) in sums.iter().enumerate() {
                    let mut out = [0.0; FEATURES];
                    for v in 0..VECTORS {
                        // SAFETY: the array has room for the numbers that are written.
                        unsafe { _mm256_storeu_ps(out[v * LANES..].as_mut_ptr(), sums[v]) };
                    }
                    put(row, &out);
                }
            }
        }
    };
}

wide!(Coded, Int4, "avx2,fma", INT4);
wide!(Coded, Int8, "avx2,fma", INT8);
wide!(CodedVnni, Int4Vnni, "avx2,fma,avxvnni", INT4_VNNI);
wide!(CodedVnni, Int8Vnni, "avx2,fma,avxvnni", INT8_VNNI);
