//! Products of rows with a matrix that many of them share and that is then dropped: both products of expanded attention.

use std::{
    arch::x86_64::{
        __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
        _mm512_cvtneps_pbh, _mm512_load_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_or_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_store_si512,
    },
    mem::transmute,
};

use super::{Avx512, bf16::add_pairs, transpose::transpose};
use crate::cpu::RowsRef;

/// Numbers of a vector of f32; pairs of one of bf16.
pub(super) const LANES: usize = 16;
/// Vectors of a panel: so many columns have their sums in registers together.
const PANEL: usize = 4;

/// Pairs of bf16, the first number of a pair below.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pairs([u32; LANES]);

/// A matrix in bf16. Its rows lie in pairs, number beside number, cut into panels of 64 columns.
#[derive(Default)]
pub(crate) struct Paired {
    /// `[panel, pair of rows, vector]`; the last panel may have fewer vectors. Beyond the matrix are zeros.
    vectors: Vec<Pairs>,
    rows: usize,
    columns: usize,
    /// Rows that are multiplied with it, as pairs: `[row, vector]`.
    x: Vec<[u32; LANES]>,
}

impl Paired {
    /// Becomes the matrix of these rows.
    pub(crate) fn set_rows(&mut self, proof: Avx512, rows: RowsRef<'_>) {
        assert!(proof.has_bf16());
        self.resize(rows.rows, rows.width);
        for pair in 0..rows.rows.div_ceil(2) {
            let first = rows.row(2 * pair);
            let second = if 2 * pair + 1 < rows.rows { rows.row(2 * pair + 1) } else { &[] };
            for vector in 0..rows.width.div_ceil(LANES) {
                let at = self.place(pair, vector);
                // SAFETY: the caller proved the CPU's features.
                unsafe { self.vectors[at].set(interleave(first, second, vector * LANES)) };
            }
        }
    }

    /// Becomes the matrix of these columns.
    pub(crate) fn set_columns(&mut self, proof: Avx512, columns: RowsRef<'_>) {
        assert!(proof.has_bf16());
        self.resize(columns.width, columns.rows);
        let pairs = columns.width.div_ceil(2);
        for vector in 0..columns.rows.div_ceil(LANES) {
            for first in (0..pairs).step_by(LANES) {
                let sixteen: [&[f32]; LANES] = std::array::from_fn(|lane| {
                    let column = vector * LANES + lane;
                    if column < columns.rows { columns.row(column) } else { &[] }
                });
                // SAFETY: the caller proved the CPU's features.
                let turned = unsafe { transpose(sixteen.map(|column| neighbours(column, 2 * first))) };
                for (pair, turned) in (first..pairs).zip(turned) {
                    let at = self.place(pair, vector);
                    // SAFETY: as above.
                    unsafe { self.vectors[at].set(turned) };
                }
            }
        }
    }

    /// `out[row, column] = x[row] · matrix[column]`, added to what is there if `ADD`. `x` is rounded to bf16; sums are f32, over
    /// pairs in order. `out` is `[x.rows, columns]`.
    pub(crate) fn multiply<const ADD: bool>(&mut self, proof: Avx512, x: RowsRef<'_>, out: &mut [f32]) {
        assert!(proof.has_bf16() && x.width == self.rows && out.len() == x.rows * self.columns);
        round_pairs(proof, x, &mut self.x);
        let mut row = 0;
        while row < x.rows {
            row += match x.rows - row {
                6.. => self.some_rows::<ADD, 6>(proof, row, out),
                3..6 => self.some_rows::<ADD, 3>(proof, row, out),
                _ => self.some_rows::<ADD, 1>(proof, row, out),
            };
        }
    }

    /// `R` rows from `first`. Returns `R`.
    fn some_rows<const ADD: bool, const R: usize>(&self, _: Avx512, first: usize, out: &mut [f32]) -> usize {
        let row_vectors = self.rows.div_ceil(2 * LANES);
        let x: [&[u32]; R] =
            std::array::from_fn(|r| self.x[(first + r) * row_vectors..][..row_vectors].as_flattened());
        let mut out = Out { rows: &mut out[first * self.columns..], width: self.columns, column: 0 };
        let pairs = self.rows.div_ceil(2);
        for panel in self.vectors.chunks(PANEL * pairs.max(1)) {
            // SAFETY: the caller proved the CPU's features.
            unsafe {
                match panel.len() / pairs {
                    4 => tile::<ADD, R, 4>(x, panel, &mut out),
                    3 => tile::<ADD, R, 3>(x, panel, &mut out),
                    2 => tile::<ADD, R, 2>(x, panel, &mut out),
                    _ => tile::<ADD, R, 1>(x, panel, &mut out),
                }
            }
        }
        R
    }

    fn resize(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        self.vectors.resize(rows.div_ceil(2) * columns.div_ceil(LANES), Pairs([0; LANES]));
    }

    /// Where a vector of a pair of rows lies.
    fn place(&self, pair: usize, vector: usize) -> usize {
        let panel = vector / PANEL * PANEL;
        let panel_vectors = PANEL.min(self.columns.div_ceil(LANES) - panel);
        panel * self.rows.div_ceil(2) + pair * panel_vectors + (vector - panel)
    }
}

/// Rows in bf16, as pairs of neighbours: `[row, vector]`. Behind a row's last number are zeros.
pub(super) fn round_pairs(proof: Avx512, rows: RowsRef<'_>, out: &mut Vec<[u32; LANES]>) {
    assert!(proof.has_bf16());
    out.clear();
    for row in 0..rows.rows {
        for vector in 0..rows.width.div_ceil(2 * LANES) {
            let mut pairs = Pairs([0; LANES]);
            // SAFETY: the assertion above.
            unsafe { pairs.set(neighbours(rows.row(row), 2 * LANES * vector)) };
            out.push(pairs.0);
        }
    }
}

/// Rows of results, from the next column to be written.
struct Out<'a> {
    rows: &'a mut [f32],
    width: usize,
    column: usize,
}

/// `out[r][c] (+)= x[r] · panel[c]` for `C` vectors of columns.
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile<const ADD: bool, const R: usize, const C: usize>(x: [&[u32]; R], panel: &[Pairs], out: &mut Out<'_>) {
    let (panel, rest) = panel.as_chunks::<C>();
    assert!(rest.is_empty());
    assert!(x.iter().all(|x| x.len() >= panel.len()));
    let columns = (out.width - out.column).min(C * LANES);
    assert!(columns > (C - 1) * LANES && out.rows.len() >= (R - 1) * out.width + out.column + columns);
    let masks: [u16; C] =
        std::array::from_fn(|c| if c + 1 == C { u16::MAX >> (C * LANES - columns) } else { u16::MAX });
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    if ADD {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                // SAFETY, here and below: the assertions above; what the mask leaves out is not touched.
                *sum = unsafe {
                    let start = out.rows.as_ptr().add(r * out.width + out.column + c * LANES);
                    _mm512_maskz_loadu_ps(masks[c], start)
                };
            }
        }
    }
    for (pair, vectors) in panel.iter().enumerate() {
        let vectors: [__m512i; C] =
            std::array::from_fn(|c| unsafe { _mm512_load_si512(vectors[c].0.as_ptr().cast()) });
        for r in 0..R {
            let x = _mm512_set1_epi32(unsafe { *x[r].get_unchecked(pair) }.cast_signed());
            for c in 0..C {
                sums[r][c] = add_pairs(sums[r][c], x, vectors[c]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            unsafe {
                let start = out.rows.as_mut_ptr().add(r * out.width + out.column + c * LANES);
                _mm512_mask_storeu_ps(start, masks[c], *sum);
            }
        }
    }
    out.column += columns;
}

/// 32 numbers from the `first`-th, as pairs of neighbours; zeros behind the last one.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn neighbours(numbers: &[f32], first: usize) -> __m512i {
    let (low, high) = (some_of(numbers, first), some_of(numbers, first + LANES));
    // SAFETY: both types are 512 bits of anything.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Sixteen numbers of each from the `column`-th, as pairs of one of each; zeros behind the last ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn interleave(first: &[f32], second: &[f32], column: usize) -> __m512i {
    let [low, high] = [first, second].map(|numbers| {
        let rounded = _mm512_cvtneps_pbh(some_of(numbers, column));
        // SAFETY: both types are 256 bits of anything.
        _mm512_cvtepu16_epi32(unsafe { transmute::<__m256bh, __m256i>(rounded) })
    });
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
}

/// Sixteen numbers from the `first`-th; zeros behind the last one.
#[inline]
#[target_feature(enable = "avx512f")]
fn some_of(numbers: &[f32], first: usize) -> __m512 {
    let numbers = numbers.get(first..).unwrap_or_default();
    let mask = u16::MAX.checked_shr((LANES - numbers.len().min(LANES)) as u32).unwrap_or(0);
    // SAFETY: what the mask leaves out is not read.
    unsafe { _mm512_maskz_loadu_ps(mask, numbers.as_ptr()) }
}

impl Pairs {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn set(&mut self, pairs: __m512i) {
        // SAFETY: it has the 64 bytes that are written, aligned.
        unsafe { _mm512_store_si512(self.0.as_mut_ptr().cast(), pairs) };
    }
}
