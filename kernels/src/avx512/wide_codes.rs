//! Weights of 4 or 8 bits with activations of 8 bits, for many rows: see `wide.rs`.
//!
//! A lane adds up whole groups as integers, and a scale is applied to sixteen features at once.

#![expect(clippy::needless_range_loop, reason = "rows, vectors and groups index several arrays")]

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_epi16, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_mov_epi16, _mm512_mul_ps,
        _mm512_permutex2var_epi16, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_storeu_ps,
    },
    cell::RefCell,
    ops::Range,
    thread::LocalKey,
};

use super::{
    FEATURES, LANES, PerLane, Stored, VECTORS,
    codes::{Coded, CodedWeights, Codes, Int4, Int8, nibbles},
    load_bytes,
    transpose::transpose,
};
use crate::{
    codes::SCALES,
    quantized_rows::{Block, COLUMNS, GROUP},
    wide::{Scratch, Wide},
};

/// Groups of a block.
const GROUPS: usize = COLUMNS / GROUP;
/// Four columns that are multiplied together, of a group.
const QUADS: usize = GROUP / 4;

/// A group of columns.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Codes of four even columns of each feature, and of the four odd ones between them.
    codes: [[[__m512i; VECTORS]; 2]; QUADS / 2],
    /// Of each feature.
    scales: PerLane,
}

thread_local! {
    static INT4: RefCell<Scratch<Coded<Int4>>> = const { Scratch::new() };
    static INT8: RefCell<Scratch<Coded<Int8>>> = const { Scratch::new() };
}

/// Codes that can be laid out anew.
pub(super) trait Lanes: Codes + 'static {
    /// See [`Wide::MANY_ROWS`].
    const MANY_ROWS: usize;

    /// Memory that a thread keeps.
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>>;

    /// Writes the codes of a block of sixteen features to vector `v` of every `stride`-th group.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F and BW.
    unsafe fn put(packed: [&Self::Packed; LANES], groups: &mut [Group], stride: usize, v: usize);
}

impl Lanes for Int4 {
    const MANY_ROWS: usize = 12;

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        &INT4
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn put(packed: [&Self::Packed; LANES], groups: &mut [Group], stride: usize, v: usize) {
        for (quad, packed) in transpose(load(packed)).into_iter().enumerate() {
            let (even, odd) = nibbles(packed);
            let group = &mut groups[quad / (QUADS / 2) * stride];
            group.codes[quad % (QUADS / 2)][0][v] = even;
            group.codes[quad % (QUADS / 2)][1][v] = odd;
        }
    }
}

impl Lanes for Int8 {
    const MANY_ROWS: usize = 16;

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        &INT8
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn put(packed: [&Self::Packed; LANES], groups: &mut [Group], stride: usize, v: usize) {
        for parity in 0..2 {
            let codes = transpose(load(packed.map(|packed| &packed[parity])));
            for (quad, codes) in codes.into_iter().enumerate() {
                groups[quad / (QUADS / 2) * stride].codes[quad % (QUADS / 2)][parity][v] = codes;
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: [&[u8; 64]; LANES]) -> [__m512i; LANES] {
    // Loops: what is given to a function of the standard library is compiled apart from it, for its CPU features.
    let mut vectors = [_mm512_setzero_si512(); LANES];
    for lane in 0..LANES {
        vectors[lane] = load_bytes(bytes[lane]);
    }
    vectors
}

/// Within a chunk: the first groups of all blocks, then the second ones, and so on.
impl<K: Lanes> Wide for Coded<K> {
    const FEATURES: usize = FEATURES;
    const MANY_ROWS: usize = K::MANY_ROWS;
    const TILE_ROWS: usize = 6;
    const CHUNK: usize = 4;
    type Columns = Group;
    /// Over the first groups of all blocks, then over the second ones, and so on.
    type Sums = [PerLane; GROUPS];

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
        K::scratch()
    }

    fn columns(inputs: usize) -> usize {
        inputs * GROUPS
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn lay_out(
        weights: Self::Weights<'_>,
        inputs: Range<usize>,
        columns: &mut [Group],
        ahead: Option<Stored>,
    ) {
        let CodedWeights { codes, scales } = weights;
        let (blocks, last) = (codes.count, codes.items.len() / codes.count - 1);
        let stride = inputs.len();
        for (place, block) in inputs.enumerate() {
            let groups = &mut columns[place..];
            for v in 0..VECTORS {
                let (mut packed, mut scale) = ([&codes.items[0]; LANES], [[0; SCALES]; LANES]);
                for lane in 0..LANES {
                    let at = (v * LANES + lane).min(last) * blocks + block;
                    (packed[lane], scale[lane]) = (&codes.items[at], scales.items[at]);
                    if let Some(ahead) = ahead {
                        ahead.ask_block(block * FEATURES + v * LANES + lane, size_of::<K::Packed>());
                    }
                }
                // SAFETY: as this function's.
                unsafe { K::put(packed, groups, stride, v) };
                for (number, scales) in scale_lanes(scale).into_iter().enumerate() {
                    groups[number * stride].scales[v] = scales;
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn add<const R: usize>(
        x: [&[Block]; R],
        columns: &[Group],
        sums: &mut [Self::Sums; R],
        is_first: bool,
    ) {
        let blocks = x[0].len();
        assert!(x.iter().all(|x| x.len() == blocks) && columns.len() == blocks * GROUPS);
        for number in 0..GROUPS {
            let mut sum = [[_mm512_setzero_ps(); VECTORS]; R];
            if !is_first {
                for r in 0..R {
                    sum[r] = sums[r][number];
                }
            }
            for block in 0..blocks {
                // SAFETY, here and below: the assertion above.
                let group = unsafe { columns.get_unchecked(number * blocks + block) };
                let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
                let mut dots: [[__m512i; VECTORS]; R] =
                    std::array::from_fn(|r| [_mm512_set1_epi32(x[r].correction[number] * K::STEPS); VECTORS]);
                for quad in 0..QUADS / 2 {
                    let at = number * QUADS / 2 + quad;
                    for parity in 0..2 {
                        for r in 0..R {
                            let x = four(if parity == 0 { &x[r].even } else { &x[r].odd }, at);
                            for v in 0..VECTORS {
                                dots[r][v] = _mm512_dpbusd_epi32(dots[r][v], group.codes[quad][parity][v], x);
                            }
                        }
                    }
                }
                for r in 0..R {
                    let scale = _mm512_set1_ps(x[r].scales[number]);
                    for v in 0..VECTORS {
                        let scale = _mm512_mul_ps(group.scales[v], scale);
                        sum[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][v]), scale, sum[r][v]);
                    }
                }
            }
            for r in 0..R {
                sums[r][number] = sum[r];
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn fold(sums: &[Self::Sums], mut put: impl FnMut(usize, &[f32])) {
        for (row, [a, b, c, d]) in sums.iter().enumerate() {
            let mut out = [0.0; FEATURES];
            for (v, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let sum = _mm512_add_ps(_mm512_add_ps(a[v], b[v]), _mm512_add_ps(c[v], d[v]));
                // SAFETY: the array has room for the sixteen numbers that are written.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
            put(row, &out);
        }
    }
}

/// Four codes, from the `4 * at`-th, in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn four(codes: &[i8; COLUMNS / 2], at: usize) -> __m512i {
    let (quads, _) = codes.as_chunks::<4>();
    _mm512_set1_epi32(i32::from_le_bytes(quads[at].map(i8::cast_unsigned)))
}

/// bf16 scales of sixteen features, as f32: those of their first groups, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn scale_lanes(scales: [[u8; SCALES]; LANES]) -> [__m512; GROUPS] {
    // 16-bit places: the scale above, which makes it an f32; what is below does not count.
    const PLACES: [i16; 32] = {
        let mut places = [0; 32];
        let mut place = 0;
        while place < 32 {
            places[place] = (place / 2 * GROUPS) as i16;
            place += 1;
        }
        places
    };
    let halves = scales.as_flattened().as_chunks::<64>().0;
    let (low, high) = (load_bytes(&halves[0]), load_bytes(&halves[1]));
    // SAFETY: the array has the 64 bytes that are read.
    let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let mut lanes = [_mm512_setzero_ps(); GROUPS];
    for group in 0..GROUPS {
        let places = _mm512_add_epi16(places, _mm512_set1_epi16(group as i16));
        let scales = _mm512_permutex2var_epi16(low, places, high);
        lanes[group] = _mm512_castsi512_ps(_mm512_maskz_mov_epi16(0xaaaa_aaaa, scales));
    }
    lanes
}
