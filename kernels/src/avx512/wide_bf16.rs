//! bf16 activations with bf16 weights, for many rows: see `wide.rs`.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_store_ps, _mm512_storeu_ps,
    },
    cell::RefCell,
    mem::MaybeUninit,
    ops::Range,
    thread::LocalKey,
};

use super::{
    Stored,
    bf16::{BYTES, Bf16Pairs, add_pairs, load},
    load_bytes,
    transpose::transpose,
    wide::{FEATURES, LANES, PerLane, Scratch, VECTORS, Wide},
};
use crate::{
    bf16_rows::{Block, COLUMNS},
    tiles::{Format, PerFeature},
};

/// Pairs of columns of a block: the first of every block are summed apart from the second ones, and so on.
const PAIRS: usize = COLUMNS / 2;
/// Blocks of a chunk.
const CHUNK: usize = 8;

/// A row's sums: over the first pairs of all blocks, then over the second ones, and so on.
type Sums = [PerLane; PAIRS];

thread_local! {
    static PAIRED: RefCell<Scratch<Bf16Pairs>> = const { Scratch::new() };
    static WIDENED: RefCell<Scratch<WidenedPairs>> = const { Scratch::new() };
}

/// Pairs of columns of each feature.
impl Wide for Bf16Pairs {
    const MANY_ROWS: usize = 8;
    const TILE_ROWS: usize = 8;
    const CHUNK: usize = CHUNK;
    type Columns = [__m512i; VECTORS];
    type Sums = Sums;

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
        &PAIRED
    }

    fn columns(inputs: usize) -> usize {
        inputs * PAIRS
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn lay_out(weights: Self::Weights<'_>, inputs: Range<usize>, columns: &mut [Self::Columns]) {
        let PerFeature { items, count } = weights;
        let (blocks, last) = (inputs.len(), items.len() / count - 1);
        for (place, block) in inputs.enumerate() {
            let part = |lane: usize| block_of(&items[lane.min(last) * count..][..count], block);
            for v in 0..VECTORS {
                let pairs = transpose(std::array::from_fn(|lane| part(v * LANES + lane)));
                for (pair, numbers) in pairs.into_iter().enumerate() {
                    columns[pair * blocks + place][v] = numbers;
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add<const R: usize>(
        x: [&[Block]; R],
        columns: &[Self::Columns],
        sums: &mut [Sums; R],
        is_first: bool,
    ) {
        let blocks = x[0].len();
        assert!(x.iter().all(|x| x.len() == blocks) && columns.len() == blocks * PAIRS);
        let x = x.map(|x| pairs(x));
        for pair in 0..PAIRS {
            let mut sum = start(sums, pair, is_first);
            for block in 0..blocks {
                // SAFETY, here and below: the assertion above.
                let w = unsafe { columns.get_unchecked(pair * blocks + block) };
                for r in 0..R {
                    let x = _mm512_set1_epi32(unsafe { x[r].get_unchecked(block)[pair] });
                    for v in 0..VECTORS {
                        sum[r][v] = add_pairs(sum[r][v], x, w[v]);
                    }
                }
            }
            for r in 0..R {
                sums[r][pair] = sum[r];
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn fold(sums: &[Sums], mut put: impl FnMut(usize, &[f32; FEATURES])) {
        sums.iter().enumerate().for_each(|(row, sums)| put(row, &fold(sums)));
    }
}

/// The same with two multiplications of f32 for a pair, second number first, as the CPU's dot products of bf16 are defined: not all CPUs
/// make these as fast as they could. Only numbers below the normal ones, which dot products take for zero, make a difference.
pub(super) struct WidenedPairs;

impl Format for WidenedPairs {
    type Input = Block;
    type Weights<'a> = PerFeature<'a, u8>;

    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
        weights.features(range)
    }

    fn stored(weights: Self::Weights<'_>) -> Stored {
        Bf16Pairs::stored(weights)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Block]; R],
        weights: [Self::Weights<'_>; F],
        ahead: Option<Stored>,
    ) -> [[f32; R]; F] {
        // SAFETY: as this function's.
        unsafe { Bf16Pairs::tile(x, weights, ahead) }
    }
}

impl Wide for WidenedPairs {
    const MANY_ROWS: usize = 8;
    const TILE_ROWS: usize = 8;
    const CHUNK: usize = CHUNK;
    type Columns = [__m512i; VECTORS];
    type Sums = Sums;

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
        &WIDENED
    }

    fn columns(inputs: usize) -> usize {
        inputs * PAIRS
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn lay_out(weights: Self::Weights<'_>, inputs: Range<usize>, columns: &mut [Self::Columns]) {
        // SAFETY: as this function's.
        unsafe { Bf16Pairs::lay_out(weights, inputs, columns) };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add<const R: usize>(
        x: [&[Block]; R],
        columns: &[Self::Columns],
        sums: &mut [Sums; R],
        is_first: bool,
    ) {
        let blocks = x[0].len();
        assert!(x.iter().all(|x| x.len() == blocks) && columns.len() == blocks * PAIRS && blocks <= CHUNK);
        let mut widened = [const { [const { [const { MaybeUninit::<Aligned>::uninit() }; 2] }; CHUNK] }; R];
        for r in 0..R {
            for (block, widened) in x[r].iter().zip(&mut widened[r]) {
                for (numbers, widened) in widen(load(block)).into_iter().zip(widened) {
                    // SAFETY: it has the sixteen numbers that are written, aligned.
                    unsafe { _mm512_store_ps(widened.as_mut_ptr().cast(), numbers) };
                }
            }
        }
        for pair in 0..PAIRS {
            let mut sum = start(sums, pair, is_first);
            for block in 0..blocks {
                // SAFETY, here and below: the assertion above.
                let w = unsafe { columns.get_unchecked(pair * blocks + block) };
                let w = w.map(|w| widen(w));
                for number in 0..2 {
                    for r in 0..R {
                        let x = _mm512_set1_ps(unsafe { widened[r].get_unchecked(block)[number].assume_init_ref().0[pair] });
                        for v in 0..VECTORS {
                            sum[r][v] = _mm512_fmadd_ps(x, w[v][number], sum[r][v]);
                        }
                    }
                }
            }
            for r in 0..R {
                sums[r][pair] = sum[r];
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn fold(sums: &[Sums], mut put: impl FnMut(usize, &[f32; FEATURES])) {
        sums.iter().enumerate().for_each(|(row, sums)| put(row, &fold(sums)));
    }
}

/// What a pair's sums of `R` rows begin with.
#[inline]
#[target_feature(enable = "avx512f")]
fn start<const R: usize>(sums: &[Sums; R], pair: usize, is_first: bool) -> [PerLane; R] {
    std::array::from_fn(|r| if is_first { [_mm512_setzero_ps(); VECTORS] } else { sums[r][pair] })
}

/// A block of a feature's weights; zeros behind the last one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn block_of(row: &[u8], block: usize) -> __m512i {
    let part = &row[block * BYTES..];
    let whole = part.first_chunk().map(|whole| load_bytes(whole));
    whole.unwrap_or_else(|| {
        let mut bytes = [0; BYTES];
        bytes[..part.len()].copy_from_slice(part);
        load_bytes(&bytes)
    })
}

/// The pairs of each block.
fn pairs(x: &[Block]) -> &[[i32; PAIRS]] {
    // SAFETY: a block is so many pairs of 16-bit numbers, and aligned for more.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

/// Pairs' second numbers in f32, and their first ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen(pairs: __m512i) -> [__m512; 2] {
    let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
    [_mm512_castsi512_ps(second), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))]
}

/// The sum of a row's sums, in the order in which `fold` adds a vector's lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold(sums: &Sums) -> [f32; FEATURES] {
    let mut out = [0.0; FEATURES];
    for (v, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let half = |at: usize| _mm512_add_ps(sums[at][v], sums[at + 8][v]);
        let quarter = |at: usize| {
            let (low, high) = (_mm512_add_ps(half(at), half(at + 1)), _mm512_add_ps(half(at + 2), half(at + 3)));
            _mm512_add_ps(low, high)
        };
        // SAFETY: there is room for the sixteen numbers that are written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(quarter(0), quarter(4))) };
    }
    out
}

/// Numbers of a vector.
#[repr(C, align(64))]
struct Aligned([f32; LANES]);
