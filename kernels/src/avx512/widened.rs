//! Both products of attention over entries in bf16, with f32 on the other side: entries are widened in registers, half of a vector's
//! numbers at a time, those at even places and those at odd ones.

#![expect(clippy::needless_range_loop, reason = "rows, entries and halves index several arrays")]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_permutex2var_ps,
    _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_unpackhi_ps,
    _mm512_unpacklo_ps,
};

use half::bf16;

use super::{Avx512, LANES, ask};
use crate::cpu::RowsRef;

/// Columns of a vector of bf16.
const BLOCK: usize = 2 * LANES;

/// 32 columns of a row: the even ones, then the odd ones.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([[f32; LANES]; 2]);

/// Rows of f32, as scores take them. Columns after the last one are zero.
#[derive(Default)]
pub(crate) struct SplitRows {
    /// `[row, block]`.
    blocks: Vec<Block>,
    row_blocks: usize,
}

impl SplitRows {
    /// Becomes these rows.
    pub(crate) fn set(&mut self, _: Avx512, rows: RowsRef<'_>) {
        self.row_blocks = rows.width.div_ceil(BLOCK);
        self.blocks.clear();
        for row in 0..rows.rows {
            for numbers in rows.row(row).chunks(BLOCK) {
                // SAFETY: the caller proved the CPU's features.
                self.blocks.push(unsafe { Block::split(numbers) });
            }
        }
    }

    /// `out[row, entry] = row · entry`. Entries have the rows' width. Meanwhile, the first halves of the `next` entries are asked
    /// for.
    pub(crate) fn score(&self, _: Avx512, entries: &[&[bf16]], next: &[&[bf16]], out: &mut [f32]) {
        let rows = self.blocks.len() / self.row_blocks.max(1);
        assert_eq!(out.len(), rows * entries.len());
        assert!(entries.iter().all(|entry| entry.len().div_ceil(BLOCK) == self.row_blocks));
        let (mut first, mut next) = (0, next);
        while first < rows {
            // SAFETY: the caller proved the CPU's features.
            first += unsafe {
                match rows - first {
                    8.. => self.some_rows::<8, 2>(first, entries, next, out),
                    4..8 => self.some_rows::<4, 4>(first, entries, next, out),
                    2..4 => self.some_rows::<2, 8>(first, entries, next, out),
                    _ => self.some_rows::<1, 16>(first, entries, next, out),
                }
            };
            // Once is enough.
            next = &[];
        }
    }

    /// `R` rows from `first`, `F` entries at a time: sixteen sums. Returns `R`.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn some_rows<const R: usize, const F: usize>(
        &self,
        first: usize,
        entries: &[&[bf16]],
        next: &[&[bf16]],
        out: &mut [f32],
    ) -> usize {
        let mut x: [&[Block]; R] = [&[]; R];
        for r in 0..R {
            x[r] = &self.blocks[(first + r) * self.row_blocks..][..self.row_blocks];
        }
        let out = &mut out[first * entries.len()..][..R * entries.len()];
        for at in (0..entries.len()).step_by(F) {
            // What is beyond the last entry is computed and dropped.
            let mut some: [&[bf16]; F] = [&[]; F];
            for f in 0..F {
                some[f] = entries[(at + f).min(entries.len() - 1)];
            }
            let next = &next[at.min(next.len())..(at + F).min(next.len())];
            let scores = tile(x, some, next);
            let count = F.min(entries.len() - at);
            for (out, scores) in out.chunks_exact_mut(entries.len()).zip(scores.chunks_exact(F)) {
                match out[at..].first_chunk_mut::<F>() {
                    Some(out) => out.copy_from_slice(scores),
                    None => out[at..].copy_from_slice(&scores[..count]),
                }
            }
        }
        R
    }
}

/// `[r, f]`: the products of `R` rows and `F` entries, sixteen in all. Each is the sum over a vector's lanes, each over the blocks in
/// order, even columns before odd ones, whatever else is computed beside it.
#[target_feature(enable = "avx512f,avx512bw")]
fn tile<const R: usize, const F: usize>(
    x: [&[Block]; R],
    entries: [&[bf16]; F],
    next: &[&[bf16]],
) -> [f32; LANES] {
    const { assert!(R * F == LANES) };
    let width = entries[0].len();
    assert!(entries.iter().all(|entry| entry.len() == width));
    assert!(x.iter().all(|x| x.len() == width.div_ceil(BLOCK)));
    let mut sums = [[_mm512_setzero_ps(); F]; R];
    for block in 0..width.div_ceil(BLOCK) {
        if block < first_half(width / BLOCK) {
            ask_columns(next, block, 1);
        }
        let mask = u32::MAX >> (BLOCK - (width - block * BLOCK).min(BLOCK));
        let mut numbers = [_mm512_setzero_si512(); F];
        for f in 0..F {
            // SAFETY, here and below: the assertions above; what the mask leaves out is not read.
            numbers[f] = unsafe { load(entries[f].as_ptr().add(block * BLOCK), mask) };
        }
        for half in 0..2 {
            for f in 0..F {
                let w = if half == 0 { even(numbers[f]) } else { odd(numbers[f]) };
                for r in 0..R {
                    let x = unsafe { _mm512_loadu_ps(x[r].get_unchecked(block).0[half].as_ptr()) };
                    sums[r][f] = _mm512_fmadd_ps(x, w, sums[r][f]);
                }
            }
        }
    }
    fold(sums)
}

/// Of so many blocks of columns those that scores ask for; the others are left to sums.
fn first_half(blocks: usize) -> usize {
    blocks.div_ceil(2)
}

/// Asks for `count` blocks of columns of these entries.
#[inline]
fn ask_columns(entries: &[&[bf16]], block: usize, count: usize) {
    for entry in entries {
        ask(entry.as_ptr().wrapping_add(block * BLOCK).cast(), count * BLOCK * size_of::<bf16>());
    }
}

/// `out[row] += Σ_t weights[row][t] * terms[t][..width]`, each sum in the order of the terms. `out` is `[weights.rows, width]`.
/// Meanwhile, the second halves of the `next` entries are asked for.
pub(super) fn add_product(
    _: Avx512,
    (out, width): (&mut [f32], usize),
    weights: RowsRef<'_>,
    terms: &[&[bf16]],
    mut next: &[&[bf16]],
) {
    assert!(out.len() == weights.rows * width && weights.width == terms.len());
    assert!(terms.iter().all(|term| term.len() >= width));
    let mut row = 0;
    while row < weights.rows {
        // SAFETY: the caller proved the CPU's features.
        row += unsafe {
            match weights.rows - row {
                8.. => sum_rows::<8, 1>((out, width), row, weights, (terms, next)),
                4..8 => sum_rows::<4, 2>((out, width), row, weights, (terms, next)),
                2..4 => sum_rows::<2, 4>((out, width), row, weights, (terms, next)),
                // Long stretches of each term: it may come from memory.
                _ => sum_rows::<1, 8>((out, width), row, weights, (terms, next)),
            }
        };
        next = &[];
    }
}

/// `R` rows from `first`, up to `C` blocks of columns at a time. Returns `R`.
#[target_feature(enable = "avx512f,avx512bw")]
fn sum_rows<const R: usize, const C: usize>(
    (out, width): (&mut [f32], usize),
    first: usize,
    weights: RowsRef<'_>,
    (terms, next): (&[&[bf16]], &[&[bf16]]),
) -> usize {
    let mut some: [&[f32]; R] = [&[]; R];
    for r in 0..R {
        some[r] = weights.row(first + r);
    }
    let out = &mut out[first * width..][..R * width];
    let mut column = 0;
    while column < width {
        let blocks = (width - column) / BLOCK;
        if blocks >= C {
            sum::<R, C>((out, width), column, some, (terms, next));
            column += C * BLOCK;
        } else {
            sum::<R, 1>((out, width), column, some, (terms, next));
            column += BLOCK;
        }
    }
    R
}

/// `C` blocks of columns; the block may reach beyond the last column if it is one.
#[target_feature(enable = "avx512f,avx512bw")]
fn sum<const R: usize, const C: usize>(
    (out, width): (&mut [f32], usize),
    column: usize,
    weights: [&[f32]; R],
    (terms, next): (&[&[bf16]], &[&[bf16]]),
) {
    let columns = (width - column).min(C * BLOCK);
    let mask = u32::MAX >> (C * BLOCK - columns);
    assert!(columns > (C - 1) * BLOCK && out.len() == R * width);
    assert!(weights.iter().all(|weights| weights.len() == terms.len()));
    let mut masks = [u32::MAX; C];
    masks[C - 1] = mask;
    let mut sums = [[[_mm512_setzero_ps(); 2]; C]; R];
    for (t, term) in terms.iter().enumerate() {
        assert!(term.len() >= column + columns);
        if let Some(next) = next.get(t) {
            let (blocks, block) = (next.len() / BLOCK, column / BLOCK);
            let block = first_half(blocks) + block;
            ask_columns(&[next], block, C.min(blocks.saturating_sub(block)));
        }
        // SAFETY, here and below: the assertions above; what the masks leave out is not touched.
        let mut numbers = [_mm512_setzero_si512(); C];
        for c in 0..C {
            numbers[c] = unsafe { load(term.as_ptr().add(column + c * BLOCK), masks[c]) };
        }
        let mut weight = [_mm512_setzero_ps(); R];
        for r in 0..R {
            weight[r] = _mm512_set1_ps(unsafe { *weights[r].get_unchecked(t) });
        }
        for c in 0..C {
            for (half, numbers) in [even(numbers[c]), odd(numbers[c])].into_iter().enumerate() {
                for r in 0..R {
                    sums[r][c][half] = _mm512_fmadd_ps(weight[r], numbers, sums[r][c][half]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            for (half, sums) in in_order(sums[r][c]).into_iter().enumerate() {
                let mask = (masks[c] >> (half * LANES)) as u16;
                unsafe {
                    let place = out.as_mut_ptr().add(r * width + column + c * BLOCK + half * LANES);
                    let sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sums);
                    _mm512_mask_storeu_ps(place, mask, sums);
                }
            }
        }
    }
}

impl Block {
    /// Up to 32 numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn split(numbers: &[f32]) -> Self {
        let mask = u32::MAX >> (BLOCK - numbers.len());
        // SAFETY: what the masks leave out is not read; there is room for what is written.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask as u16, numbers.as_ptr());
            let high = _mm512_maskz_loadu_ps((mask >> LANES) as u16, numbers.as_ptr().wrapping_add(LANES));
            let evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
            let odds = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
            let mut block = Self([[0.0; LANES]; 2]);
            _mm512_storeu_ps(block.0[0].as_mut_ptr(), _mm512_permutex2var_ps(low, evens, high));
            _mm512_storeu_ps(block.0[1].as_mut_ptr(), _mm512_permutex2var_ps(low, odds, high));
            block
        }
    }
}

/// # Safety
/// The numbers that the mask names must be there.
#[inline]
#[target_feature(enable = "avx512bw")]
unsafe fn load(numbers: *const bf16, mask: u32) -> __m512i {
    // SAFETY: as this function's; a bf16 is 16 bits.
    unsafe { _mm512_maskz_loadu_epi16(mask, numbers.cast()) }
}

/// The numbers at even places, in f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn even(numbers: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(numbers))
}

/// The numbers at odd places, in f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn odd(numbers: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(numbers, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())))
}

/// Numbers in f32, in order.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn in_order_of(numbers: __m512i) -> [__m512; 2] {
    in_order([even(numbers), odd(numbers)])
}

/// Even and odd places, in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order([even, odd]: [__m512; 2]) -> [__m512; 2] {
    let first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    let second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    [_mm512_permutex2var_ps(even, first, odd), _mm512_permutex2var_ps(even, second, odd)]
}

/// The sum of the lanes of each of sixteen vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold<const R: usize, const F: usize>(sums: [[__m512; F]; R]) -> [f32; LANES] {
    let sums = |i: usize| sums[i / F][i % F];
    // Of each four lanes of two vectors: sums of two, in turns.
    let twos = |i: usize| {
        let (a, b) = (sums(2 * i), sums(2 * i + 1));
        _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b))
    };
    // Of each four lanes of four vectors: their sums.
    let fours = |i: usize| {
        let (a, b) = (twos(2 * i), twos(2 * i + 1));
        _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b))
    };
    let eights = |i: usize| {
        let (a, b) = (fours(2 * i), fours(2 * i + 1));
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
    };
    let (a, b) = (eights(0), eights(1));
    let all = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
    let mut out = [0.0; LANES];
    // SAFETY: there is room for the sixteen numbers that are written.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), all) };
    out
}
