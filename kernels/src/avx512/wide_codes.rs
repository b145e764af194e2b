//! Products of codes with many rows: weights are laid out anew, so that each lane has a feature of its own.
//!
//! A lane then adds up whole groups as integers: nothing has to be moved between lanes, and a scale is applied to sixteen features
//! at once. The layout is made once for all rows.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_epi16, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_maskz_mov_epi16, _mm512_mul_ps,
        _mm512_permutex2var_epi16, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_storeu_ps,
    },
    cell::RefCell,
};

use super::{
    Avx512, Stored,
    codes::{Coded, CodedWeights, Codes, SCALES},
    load_bytes,
};
use crate::{
    output::Output,
    quantized_rows::{Block, COLUMNS, GROUP},
    tiles::{self, Format},
};

/// Features that are laid out together: lanes of a vector.
const LANES: usize = 16;
/// Groups of a block.
const GROUPS: usize = COLUMNS / GROUP;
/// From this many rows on, the new layout is worth its price.
const MANY_ROWS: usize = 12;

/// A group of columns of sixteen features.
#[derive(Clone, Copy)]
struct Group {
    /// Codes of four even columns of each feature, then of the four odd ones between them, and so on.
    codes: [__m512i; GROUP / 4],
    /// Of each feature.
    scales: __m512,
}

thread_local! {
    /// Sixteen features: the first groups of all blocks, then the second ones, and so on.
    static GROUPED: RefCell<Vec<Group>> = const { RefCell::new(Vec::new()) };
}

/// `out[row, feature] = x[row] · weights[feature]`.
pub(super) fn multiply<K: Codes + 'static>(
    proof: Avx512,
    _: K,
    x: &[&[Block]],
    weights: CodedWeights<'_, K>,
    mut out: Output<'_>,
    next: Option<Stored>,
) {
    let features = out.features();
    // The last features, if they are few, are not worth it either.
    let wide = if x.len() < MANY_ROWS { 0 } else { (features + LANES / 2) / LANES * LANES };
    GROUPED.with_borrow_mut(|grouped| {
        for first in (0..wide.min(features)).step_by(LANES) {
            let some = first..features.min(first + LANES);
            // SAFETY: the caller proved the CPU's features.
            unsafe { lay_out(Coded::features(weights, some.clone()), grouped) };
            all_rows::<K>(proof, x, grouped, &mut out.part(some));
        }
    });
    if wide < features {
        let (weights, out) = (Coded::features(weights, wide..features), out.part(wide..features));
        // SAFETY: the format needs nothing beyond what the caller proved.
        unsafe { tiles::multiply::<Coded<K>>(x, weights, out, next) };
    }
}

fn all_rows<K: Codes>(proof: Avx512, x: &[&[Block]], grouped: &[Group], out: &mut Output<'_>) {
    let mut row = 0;
    while row < x.len() {
        row += match x.len() - row {
            8.. => some_rows::<K, 8>(proof, x, row, grouped, out),
            4..8 => some_rows::<K, 4>(proof, x, row, grouped, out),
            2..4 => some_rows::<K, 2>(proof, x, row, grouped, out),
            _ => some_rows::<K, 1>(proof, x, row, grouped, out),
        };
    }
}

/// `R` rows from `first`. Returns `R`.
fn some_rows<K: Codes, const R: usize>(
    _: Avx512,
    all: &[&[Block]],
    first: usize,
    grouped: &[Group],
    out: &mut Output<'_>,
) -> usize {
    let x: [&[Block]; R] = std::array::from_fn(|row| all[first + row]);
    // SAFETY: the caller proved the CPU's features.
    let results = unsafe { tile::<K, R>(x, grouped) };
    let features = out.features();
    for (row, results) in results.iter().enumerate() {
        out.put_row(first + row, &results[..features]);
    }
    R
}

/// `tile[r][lane] = x[r] · grouped[lane]`.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile<K: Codes, const R: usize>(x: [&[Block]; R], grouped: &[Group]) -> [[f32; LANES]; R] {
    let blocks = x[0].len();
    assert!(x.iter().all(|x| x.len() == blocks) && grouped.len() == blocks * GROUPS);
    let mut sums = [[_mm512_setzero_ps(); R]; GROUPS];
    for (number, sums) in sums.iter_mut().enumerate() {
        let mut sum = [_mm512_setzero_ps(); R];
        for block in 0..blocks {
            // SAFETY, here and below: the assertion above.
            let group = unsafe { grouped.get_unchecked(number * blocks + block) };
            let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
            let mut dots = [_mm512_setzero_si512(); R];
            for r in 0..R {
                dots[r] = _mm512_set1_epi32(x[r].correction[number] * K::STEPS);
            }
            for quad in 0..GROUP / 8 {
                let at = number * GROUP / 8 + quad;
                for r in 0..R {
                    dots[r] = _mm512_dpbusd_epi32(dots[r], group.codes[2 * quad], four(&x[r].even, at));
                }
                for r in 0..R {
                    dots[r] = _mm512_dpbusd_epi32(dots[r], group.codes[2 * quad + 1], four(&x[r].odd, at));
                }
            }
            for r in 0..R {
                let scale = _mm512_mul_ps(group.scales, _mm512_set1_ps(x[r].scales[number]));
                sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sum[r]);
            }
        }
        *sums = sum;
    }
    let mut out = [[0.0; LANES]; R];
    for r in 0..R {
        let [a, b, c, d] = [sums[0][r], sums[1][r], sums[2][r], sums[3][r]];
        let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
        // SAFETY: the array has room for the sixteen numbers that are written.
        unsafe { _mm512_storeu_ps(out[r].as_mut_ptr(), sum) };
    }
    out
}

/// Four codes, from the `4 * at`-th, in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn four(codes: &[i8; COLUMNS / 2], at: usize) -> __m512i {
    let (quads, _) = codes.as_chunks::<4>();
    _mm512_set1_epi32(i32::from_le_bytes(quads[at].map(i8::cast_unsigned)))
}

/// Lays up to sixteen features out by group; the last one fills the other lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn lay_out<K: Codes>(weights: CodedWeights<'_, K>, grouped: &mut Vec<Group>) {
    let CodedWeights { codes, scales } = weights;
    let (blocks, last) = (codes.count, codes.items.len() / codes.count - 1);
    let zero = Group { codes: [_mm512_setzero_si512(); GROUP / 4], scales: _mm512_setzero_ps() };
    grouped.resize(blocks * GROUPS, zero);
    for block in 0..blocks {
        let at = |lane: usize| lane.min(last) * blocks + block;
        // SAFETY: the caller proved the CPU's features.
        let codes = unsafe { K::unpack_lanes(std::array::from_fn(|lane| &codes.items[at(lane)])) };
        let scales = scale_lanes(std::array::from_fn(|lane| scales.items[at(lane)]));
        for number in 0..GROUPS {
            let group = &mut grouped[number * blocks + block];
            for quad in 0..GROUP / 8 {
                (group.codes[2 * quad], group.codes[2 * quad + 1]) = codes[number * GROUP / 8 + quad];
            }
            group.scales = scales[number];
        }
    }
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
