//! Weighted sums of rows of bf16, two rows at a time: the second half of attention over a bf16 cache.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutex2var_ps,
        _mm512_set_epi32, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
        _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
    },
    cell::RefCell,
};

use half::bf16;

use super::{
    Avx512,
    bf16::add_pairs,
    paired::{LANES, round_pairs},
};
use crate::cpu::RowsRef;

/// Columns of a block: a vector of bf16.
pub(super) const BLOCK: usize = 2 * LANES;

thread_local! {
    /// The weights of all rows, rounded, those of two terms side by side.
    static WEIGHTS: RefCell<Vec<[u32; LANES]>> = const { RefCell::new(Vec::new()) };
}

/// See [`Avx512::add_product_bf16`].
pub(super) fn add_product(
    proof: Avx512,
    (out, width): (&mut [f32], usize),
    weights: RowsRef<'_>,
    terms: &[&[bf16]],
) {
    assert!(proof.has_bf16() && width.is_multiple_of(BLOCK));
    assert!(out.len() == weights.rows * width && weights.width == terms.len());
    WEIGHTS.with_borrow_mut(|rounded| {
        round_pairs(proof, weights, rounded);
        let weights = (&**rounded, weights.rows);
        let mut row = 0;
        while row < weights.1 {
            row += match weights.1 - row {
                6.. => some_rows::<6>(proof, (out, width), row, weights, terms),
                4..6 => some_rows::<4>(proof, (out, width), row, weights, terms),
                2..4 => some_rows::<2>(proof, (out, width), row, weights, terms),
                _ => some_rows::<1>(proof, (out, width), row, weights, terms),
            };
        }
    });
}

/// `R` rows from `first`. Returns `R`.
fn some_rows<const R: usize>(
    _: Avx512,
    (out, width): (&mut [f32], usize),
    first: usize,
    (weights, rows): (&[[u32; LANES]], usize),
    terms: &[&[bf16]],
) -> usize {
    let vectors = weights.len() / rows;
    let weights: [&[u32]; R] =
        std::array::from_fn(|row| weights[(first + row) * vectors..][..vectors].as_flattened());
    let out = &mut out[first * width..][..R * width];
    let mut column = 0;
    while column < width {
        // SAFETY: the caller proved the CPU's features.
        column += unsafe {
            match width - column {
                64.. => tile::<R, 2>((out, width), column, weights, terms),
                _ => tile::<R, 1>((out, width), column, weights, terms),
            }
        };
    }
    R
}

/// `out[r][column..] += Σ_t weights[r][t] * terms[t][column..]` for `C` blocks of columns: sums of products of pairs, in the order
/// of the terms. Returns the columns.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn tile<const R: usize, const C: usize>(
    (out, width): (&mut [f32], usize),
    column: usize,
    weights: [&[u32]; R],
    terms: &[&[bf16]],
) -> usize {
    let end = column + C * BLOCK;
    assert!(end <= width && out.len() == R * width && terms.iter().all(|term| term.len() >= end));
    assert!(weights.iter().all(|weights| weights.len() >= terms.len().div_ceil(2)));
    let load = |term: &[bf16], block: usize| {
        // SAFETY, here and below: the assertions above.
        unsafe { _mm512_loadu_si512(term.as_ptr().add(column + block * BLOCK).cast()) }
    };
    let mut sums = [[[_mm512_setzero_ps(); 2]; C]; R];
    for (pair, terms) in terms.chunks(2).enumerate() {
        let mut numbers = [[_mm512_setzero_si512(); 2]; C];
        for (block, numbers) in numbers.iter_mut().enumerate() {
            let second = if terms.len() == 2 { load(terms[1], block) } else { _mm512_setzero_si512() };
            *numbers = beside(load(terms[0], block), second);
        }
        for r in 0..R {
            let weights = _mm512_set1_epi32(unsafe { *weights[r].get_unchecked(pair) }.cast_signed());
            for c in 0..C {
                for half in 0..2 {
                    sums[r][c][half] = add_pairs(sums[r][c][half], weights, numbers[c][half]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (block, sums) in sums.iter().enumerate() {
            for (half, sums) in in_order(*sums).into_iter().enumerate() {
                unsafe {
                    let place = out.as_mut_ptr().add(r * width + column + block * BLOCK + half * LANES);
                    _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), sums));
                }
            }
        }
    }
    C * BLOCK
}

/// Each number of `first` beside that of `second`: of every eight columns the first four, and the last four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn beside(first: __m512i, second: __m512i) -> [__m512i; 2] {
    [_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second)]
}

/// Columns as [`beside`] leaves them, in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order([low, high]: [__m512; 2]) -> [__m512; 2] {
    let first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    let second = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    [_mm512_permutex2var_ps(low, first, high), _mm512_permutex2var_ps(low, second, high)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between -1 and 1.
    fn number(seed: usize) -> f32 {
        ((seed as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    #[test]
    fn sums_equal_plain_ones_and_do_not_depend_on_other_rows() {
        let Some(proof) = Avx512::detect().filter(|avx512| avx512.has_bf16()) else { return };
        for (rows, count, width) in [(1, 1, 32), (2, 2, 64), (3, 5, 96), (7, 16, 160), (13, 33, 512)] {
            // Terms are longer than what is summed up, as entries of a cache are.
            let entry = |t: usize| (0..width + 64).map(move |c| bf16::from_f32(number(t * 1_009 + c)));
            let terms: Vec<Vec<bf16>> = (0..count).map(|t| entry(t).collect()).collect();
            let terms: Vec<&[bf16]> = terms.iter().map(Vec::as_slice).collect();
            let weights: Vec<f32> = (0..rows * count).map(|i| number(i * 31 + 7).abs()).collect();
            let before: Vec<f32> = (0..rows * width).map(|i| number(i + 3)).collect();
            let weights = |first: usize, rows: usize| {
                let data = &weights[first * count..][..rows * count];
                RowsRef { data, rows, width: count, stride: count }
            };
            let mut out = before.clone();
            add_product(proof, (&mut out, width), weights(0, rows), &terms);
            for row in 0..rows {
                let mut alone = before[row * width..][..width].to_vec();
                add_product(proof, (&mut alone, width), weights(row, 1), &terms);
                assert_eq!(alone, out[row * width..][..width], "row {row} of {rows}");
                for (column, found) in alone.iter().enumerate() {
                    let weighted = terms.iter().zip(weights(row, 1).data).map(|(term, weight)| {
                        f64::from(bf16::from_f32(*weight).to_f32()) * f64::from(term[column].to_f32())
                    });
                    let expected = f64::from(before[row * width + column]) + weighted.sum::<f64>();
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-4,
                        "{row}, {column}: {found}, {expected}"
                    );
                }
            }
        }
    }
}
