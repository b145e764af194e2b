//! Weights of 4 or 8 bits with activations of 8 bits, for many rows: see `wide.rs`.
//!
//! A lane adds up whole groups as integers, and a scale is applied to sixteen features at once.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_epi16, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_mov_epi16, _mm512_mul_ps,
        _mm512_permutex2var_epi16, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    },
    cell::RefCell,
    ops::Range,
    thread::LocalKey,
};

use super::{
    codes::{Coded, CodedWeights, Codes, Int4, Int8, SCALES},
    load_bytes,
    wide::{FEATURES, LANES, PerLane, Scratch, VECTORS, Wide},
};
use crate::quantized_rows::{Block, COLUMNS, GROUP};

/// Groups of a block.
const GROUPS: usize = COLUMNS / GROUP;
/// Four columns that are multiplied together, of a group.
const QUADS: usize = GROUP / 4;

/// A group of columns.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Codes of four even columns of each feature, then of the four odd ones between them, and so on.
    codes: [[__m512i; VECTORS]; QUADS],
    /// Of each feature.
    scales: PerLane,
}

thread_local! {
    static INT4: RefCell<Scratch<Coded<Int4>>> = const { Scratch::new() };
    static INT8: RefCell<Scratch<Coded<Int8>>> = const { Scratch::new() };
}

/// Codes that have a thread's memory.
pub(super) trait Keep: Codes + 'static {
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>>;
}

impl Keep for Int4 {
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        &INT4
    }
}

impl Keep for Int8 {
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        &INT8
    }
}

/// Within a chunk: the first groups of all blocks, then the second ones, and so on.
impl<K: Keep> Wide for Coded<K> {
    const MANY_ROWS: usize = 12;
    const TILE_ROWS: usize = 4;
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
    unsafe fn lay_out(weights: Self::Weights<'_>, inputs: Range<usize>, columns: &mut [Group]) {
        let CodedWeights { codes, scales } = weights;
        let (blocks, last) = (codes.count, codes.items.len() / codes.count - 1);
        let (count, first) = (inputs.len(), inputs.start);
        for block in inputs {
            for v in 0..VECTORS {
                let at = |lane: usize| (v * LANES + lane).min(last) * blocks + block;
                // SAFETY: as this function's.
                let codes = unsafe { K::unpack_lanes(std::array::from_fn(|lane| &codes.items[at(lane)])) };
                let scales = scale_lanes(std::array::from_fn(|lane| scales.items[at(lane)]));
                for number in 0..GROUPS {
                    let group = &mut columns[number * count + block - first];
                    for quad in 0..QUADS / 2 {
                        let (even, odd) = codes[number * QUADS / 2 + quad];
                        (group.codes[2 * quad][v], group.codes[2 * quad + 1][v]) = (even, odd);
                    }
                    group.scales[v] = scales[number];
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
            let mut sum: [PerLane; R] = std::array::from_fn(|r| {
                if is_first { [_mm512_setzero_ps(); VECTORS] } else { sums[r][number] }
            });
            for block in 0..blocks {
                // SAFETY, here and below: the assertion above.
                let group = unsafe { columns.get_unchecked(number * blocks + block) };
                let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
                let mut dots: [[__m512i; VECTORS]; R] = std::array::from_fn(|r| {
                    [_mm512_set1_epi32(x[r].correction[number] * K::STEPS); VECTORS]
                });
                for quad in 0..QUADS {
                    for r in 0..R {
                        let codes = if quad % 2 == 0 { &x[r].even } else { &x[r].odd };
                        let x = four(codes, number * QUADS / 2 + quad / 2);
                        for v in 0..VECTORS {
                            dots[r][v] = _mm512_dpbusd_epi32(dots[r][v], group.codes[quad][v], x);
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
    unsafe fn fold(sums: &[Self::Sums], mut put: impl FnMut(usize, &[f32; FEATURES])) {
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
    std::array::from_fn(|group| {
        let places = _mm512_add_epi16(places, _mm512_set1_epi16(group as i16));
        let scales = _mm512_permutex2var_epi16(low, places, high);
        _mm512_castsi512_ps(_mm512_maskz_mov_epi16(0xaaaa_aaaa, scales))
    })
}
