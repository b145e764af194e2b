//! bf16 activations with bf16 weights, for many rows: see `wide.rs`.

#![expect(clippy::needless_range_loop, reason = "rows and vectors index several arrays")]

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
        _mm512_store_ps, _mm512_storeu_ps,
    },
    cell::RefCell,
    mem::MaybeUninit,
    ops::Range,
    thread::LocalKey,
};

use super::{
    FEATURES, LANES, PerLane, Stored, VECTORS,
    bf16::{BYTES, Bf16Pairs, add_pairs as add_pair, load},
    load_bytes,
    peak::pairs_are_slow,
    transpose::transpose,
};
use crate::{
    bf16_rows::{Block, COLUMNS},
    tiles::PerFeature,
    wide::{Scratch, Wide},
};

/// Pairs of columns of a block: the first of every block are summed apart from the second ones, and so on.
const PAIRS: usize = COLUMNS / 2;
/// Blocks of a chunk.
const CHUNK: usize = 8;

/// A row's sums: over the first pairs of all blocks, then over the second ones, and so on.
type Sums = [PerLane; PAIRS];

thread_local! {
    static SCRATCH: RefCell<Scratch<Bf16Pairs>> = const { Scratch::new() };
}

/// Pairs of columns of each feature.
impl Wide for Bf16Pairs {
    const FEATURES: usize = FEATURES;
    const MANY_ROWS: usize = 16;
    const TILE_ROWS: usize = 8;
    const CHUNK: usize = CHUNK;
    type Columns = [__m512i; VECTORS];
    type Sums = Sums;

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
        &SCRATCH
    }

    fn columns(inputs: usize) -> usize {
        inputs * PAIRS
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn lay_out(
        weights: Self::Weights<'_>,
        inputs: Range<usize>,
        columns: &mut [Self::Columns],
        ahead: Option<Stored>,
    ) {
        let PerFeature { items, count } = weights;
        let (blocks, last) = (inputs.len(), items.len() / count - 1);
        for (place, block) in inputs.enumerate() {
            for v in 0..VECTORS {
                let mut lanes = [_mm512_setzero_si512(); LANES];
                for lane in 0..LANES {
                    let row = &items[(v * LANES + lane).min(last) * count..][..count];
                    lanes[lane] = block_of(row, block);
                    if let Some(ahead) = ahead {
                        ahead.ask((block * FEATURES + v * LANES + lane) * BYTES, BYTES);
                    }
                }
                for (pair, numbers) in transpose(lanes).into_iter().enumerate() {
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
        if pairs_are_slow() {
            add_widened(x, columns, sums, is_first);
        } else {
            add_pairs(x, columns, sums, is_first);
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn fold(sums: &[Sums], mut put: impl FnMut(usize, &[f32])) {
        sums.iter().enumerate().for_each(|(row, sums)| put(row, &fold(sums)));
    }
}

/// [`Wide::add`] by the CPU's dot products.
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_pairs<const R: usize>(
    x: [&[Block]; R],
    columns: &[[__m512i; VECTORS]],
    sums: &mut [Sums; R],
    is_first: bool,
) {
    let blocks = x[0].len();
    assert!(x.iter().all(|x| x.len() == blocks) && columns.len() == blocks * PAIRS);
    let x = x.map(pairs);
    for pair in 0..PAIRS {
        let mut sum = start(sums, pair, is_first);
        for block in 0..blocks {
            // SAFETY, here and below: the assertion above.
            let w = unsafe { columns.get_unchecked(pair * blocks + block) };
            for r in 0..R {
                let x = _mm512_set1_epi32(unsafe { x[r].get_unchecked(block)[pair] });
                for v in 0..VECTORS {
                    sum[r][v] = add_pair(sum[r][v], x, w[v]);
                }
            }
        }
        for r in 0..R {
            sums[r][pair] = sum[r];
        }
    }
}

/// The same with two multiplications of f32 for a pair, second number first, as Intel defines the dot products (Intrinsics Guide,
/// `_mm512_dpbf16_ps`): not all CPUs make these as fast as they could. Only numbers below the normal ones, which dot products take for
/// zero, make a difference there.
#[target_feature(enable = "avx512f")]
fn add_widened<const R: usize>(
    x: [&[Block]; R],
    columns: &[[__m512i; VECTORS]],
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
                    let x = _mm512_set1_ps(unsafe {
                        widened[r].get_unchecked(block)[number].assume_init_ref().0[pair]
                    });
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
    if let Some(whole) = part.first_chunk() {
        return load_bytes(whole);
    }
    let mut bytes = [0; BYTES];
    bytes[..part.len()].copy_from_slice(part);
    load_bytes(&bytes)
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
            let (low, high) =
                (_mm512_add_ps(half(at), half(at + 1)), _mm512_add_ps(half(at + 2), half(at + 3)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{avx512::Avx512, bf16_rows::Bf16Rows, cpu::RowsRef};

    #[test]
    fn widened_pairs_have_the_sums_of_dot_products() {
        const ROWS: usize = 8;
        if Avx512::detect().is_none_or(|avx512| !avx512.has_bf16()) {
            return;
        }
        let (features, columns, blocks) = (27, 150, 5);
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) % 4001) as f32 / 2000.0 - 1.0;
        let numbers: Vec<f32> = (0..ROWS * columns).map(number).collect();
        let x = Bf16Rows::new(RowsRef { data: &numbers, rows: ROWS, width: columns, stride: columns });
        let x: [&[Block]; ROWS] = std::array::from_fn(|row| x.row(row));
        let bf16 = |i: usize| half::bf16::from_f32(number(i + 7)).to_le_bytes();
        let items: Vec<u8> = (0..features * columns).flat_map(bf16).collect();
        // SAFETY: zeros make vectors, and the CPU has the dot products of bf16.
        let found = unsafe {
            let mut laid_out = vec![std::mem::zeroed(); blocks * PAIRS];
            let mut sums: [[Sums; ROWS]; 2] = std::mem::zeroed();
            let weights = PerFeature { items: &items, count: columns * 2 };
            Bf16Pairs::lay_out(weights, 0..blocks, &mut laid_out, None);
            for is_first in [true, false] {
                add_pairs(x, &laid_out, &mut sums[0], is_first);
                add_widened(x, &laid_out, &mut sums[1], is_first);
            }
            sums.map(|sums| {
                let mut found = Vec::new();
                Bf16Pairs::fold(&sums, |_, numbers| found.extend_from_slice(numbers));
                found
            })
        };
        // To the last bit where they take the place of dot products; other CPUs may round a pair once.
        let tolerance = if pairs_are_slow() { 0.0 } else { 1e-4 };
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance && *a != 0.0;
        assert!(found[0].iter().zip(&found[1]).all(near), "{found:?}");
    }
}
