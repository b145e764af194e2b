//! Weighted sums of rows, added to what is there: the second half of attention.

use std::arch::x86_64::{
    __mmask16, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps,
};

use super::Avx512;
use crate::cpu::RowsRef;

/// Columns of a vector.
const LANES: usize = 16;

/// See [`Avx512::add_product`].
pub(super) fn add_product(
    proof: Avx512,
    (out, width): (&mut [f32], usize),
    weights: RowsRef<'_>,
    terms: &[&[f32]],
) {
    let rows = weights.rows;
    let mut row = 0;
    while row < rows {
        row += match rows - row {
            6.. => some_rows::<6>(proof, out, (row, width), weights, terms),
            4..6 => some_rows::<4>(proof, out, (row, width), weights, terms),
            2..4 => some_rows::<2>(proof, out, (row, width), weights, terms),
            _ => some_rows::<1>(proof, out, (row, width), weights, terms),
        };
    }
}

/// `R` rows from `first`. Returns `R`.
fn some_rows<const R: usize>(
    _: Avx512,
    out: &mut [f32],
    (first, width): (usize, usize),
    weights: RowsRef<'_>,
    terms: &[&[f32]],
) -> usize {
    let weights: [&[f32]; R] = std::array::from_fn(|row| weights.row(first + row));
    let out = &mut out[first * width..(first + R) * width];
    let mut column = 0;
    while column < width {
        // SAFETY: the caller proved the CPU's features.
        column += unsafe {
            match width - column {
                // Long stretches of each term: it may come from memory.
                256.. if R == 1 => tile::<R, 16>(out, (column, width), weights, terms),
                64.. => tile::<R, 4>(out, (column, width), weights, terms),
                32..64 => tile::<R, 2>(out, (column, width), weights, terms),
                _ => tile::<R, 1>(out, (column, width), weights, terms),
            }
        };
    }
    R
}

/// `out[r][column..] += Σ_t weights[r][t] * terms[t][column..]` for `C` vectors, the last one perhaps not full. Terms are
/// added in order. Returns the columns.
#[target_feature(enable = "avx512f")]
fn tile<const R: usize, const C: usize>(
    out: &mut [f32],
    (column, width): (usize, usize),
    weights: [&[f32]; R],
    terms: &[&[f32]],
) -> usize {
    let columns = (width - column).min(C * LANES);
    let count = weights[0].len();
    assert!(weights.iter().all(|weights| weights.len() == count));
    assert!(columns > (C - 1) * LANES && out.len() == R * width);
    assert!(terms.len() == count && terms.iter().all(|term| term.len() >= width));
    let mask: __mmask16 = u16::MAX >> (C * LANES - columns);
    let masks: [__mmask16; C] = std::array::from_fn(|c| if c + 1 == C { mask } else { u16::MAX });
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY, here and below: the assertions above; lanes outside of the mask are not touched.
            *sum =
                unsafe { _mm512_maskz_loadu_ps(masks[c], out.as_ptr().add(r * width + column + c * LANES)) };
        }
    }
    for t in 0..count {
        let mut term = [_mm512_setzero_ps(); C];
        for c in 0..C {
            term[c] = unsafe {
                let start = terms.get_unchecked(t).as_ptr().add(column + c * LANES);
                _mm512_maskz_loadu_ps(masks[c], start)
            };
        }
        for r in 0..R {
            let weight = _mm512_set1_ps(unsafe { *weights[r].get_unchecked(t) });
            for c in 0..C {
                sums[r][c] = _mm512_fmadd_ps(weight, term[c], sums[r][c]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            unsafe {
                let start = out.as_mut_ptr().add(r * width + column + c * LANES);
                _mm512_mask_storeu_ps(start, masks[c], *sum);
            }
        }
    }
    columns
}
