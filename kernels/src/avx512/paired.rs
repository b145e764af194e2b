//! Products of rows with a matrix that many of them share and that is then dropped: both products of expanded attention.

use std::{
    arch::x86_64::{
        __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
        _mm512_cvtneps_pbh, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_slli_epi32, _mm512_store_si512, _mm512_storeu_ps,
    },
    mem::transmute,
};

use super::{Avx512, bf16::add_pairs, peak::pairs_are_slow, transpose::transpose, widened};
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
    /// The same in f32, where the CPU multiplies pairs slowly.
    widened: Vec<[[f32; 2]; LANES]>,
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
        if pairs_are_slow() {
            widen(proof, &self.x, &mut self.widened);
            self.all_rows::<ADD, Widened>(proof, &self.widened, out);
        } else {
            self.all_rows::<ADD, Dots>(proof, &self.x, out);
        }
    }

    fn all_rows<const ADD: bool, P: Products>(&self, proof: Avx512, x: &[[P::Pair; LANES]], out: &mut [f32]) {
        let rows = out.len() / self.columns.max(1);
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                6.. => self.some_rows::<ADD, 6, P>(proof, row, x, out),
                3..6 => self.some_rows::<ADD, 3, P>(proof, row, x, out),
                _ => self.some_rows::<ADD, 1, P>(proof, row, x, out),
            };
        }
    }

    /// `R` rows from `first`. Returns `R`.
    fn some_rows<const ADD: bool, const R: usize, P: Products>(
        &self,
        _: Avx512,
        first: usize,
        x: &[[P::Pair; LANES]],
        out: &mut [f32],
    ) -> usize {
        let row_vectors = self.rows.div_ceil(2 * LANES);
        let x: [&[P::Pair]; R] =
            std::array::from_fn(|r| x[(first + r) * row_vectors..][..row_vectors].as_flattened());
        let mut out = Out { rows: &mut out[first * self.columns..], width: self.columns, column: 0 };
        let pairs = self.rows.div_ceil(2);
        for panel in self.vectors.chunks(PANEL * pairs.max(1)) {
            // SAFETY: the caller proved the CPU's features.
            unsafe {
                match panel.len() / pairs {
                    4 => tile::<ADD, R, 4, P>(x, panel, &mut out),
                    3 => tile::<ADD, R, 3, P>(x, panel, &mut out),
                    2 => tile::<ADD, R, 2, P>(x, panel, &mut out),
                    _ => tile::<ADD, R, 1, P>(x, panel, &mut out),
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

/// Rounded pairs in f32.
fn widen(_: Avx512, pairs: &[[u32; LANES]], out: &mut Vec<[[f32; 2]; LANES]>) {
    out.resize(pairs.len(), [[0.0; 2]; LANES]);
    for (pairs, numbers) in pairs.iter().zip(out) {
        // SAFETY: the caller proved the CPU's features; there are as many bytes as are read and written.
        unsafe {
            let [first, second] = widened::in_order_of(_mm512_loadu_si512(pairs.as_ptr().cast()));
            let place: *mut f32 = numbers.as_mut_ptr().cast();
            _mm512_storeu_ps(place, first);
            _mm512_storeu_ps(place.add(LANES), second);
        }
    }
}

/// How a pair of a row meets those of many columns.
trait Products {
    /// A row's pair.
    type Pair: Copy;
    /// What is multiplied at a time.
    type Vector: Copy;
    /// Multiplications of a pair.
    const STEPS: usize;

    /// # Safety
    /// This and the others: the CPU must have AVX-512 with the dot products of bf16.
    unsafe fn of_columns(pairs: __m512i, step: usize) -> Self::Vector;

    /// In every lane.
    unsafe fn of_row(pair: Self::Pair, step: usize) -> Self::Vector;

    unsafe fn add(sums: __m512, x: Self::Vector, columns: Self::Vector) -> __m512;
}

/// The CPU's dot products.
enum Dots {}

impl Products for Dots {
    type Pair = u32;
    type Vector = __m512i;
    const STEPS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn of_columns(pairs: __m512i, _: usize) -> __m512i {
        pairs
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn of_row(pair: u32, _: usize) -> __m512i {
        _mm512_set1_epi32(pair.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add(sums: __m512, x: __m512i, columns: __m512i) -> __m512 {
        add_pairs(sums, x, columns)
    }
}

/// Two multiplications of f32 for a pair, second number first: see `wide_bf16.rs`.
enum Widened {}

impl Products for Widened {
    type Pair = [f32; 2];
    type Vector = __m512;
    const STEPS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn of_columns(pairs: __m512i, step: usize) -> __m512 {
        if step == 0 { widened::odd(pairs) } else { widened::even(pairs) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn of_row(pair: [f32; 2], step: usize) -> __m512 {
        _mm512_set1_ps(pair[1 - step])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add(sums: __m512, x: __m512, columns: __m512) -> __m512 {
        _mm512_fmadd_ps(x, columns, sums)
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
fn tile<const ADD: bool, const R: usize, const C: usize, P: Products>(
    x: [&[P::Pair]; R],
    panel: &[Pairs],
    out: &mut Out<'_>,
) {
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
        for step in 0..P::STEPS {
            // A loop: what is given to a function of the standard library is compiled apart, for other CPU features.
            let mut columns =
                [unsafe { P::of_columns(_mm512_load_si512(vectors[0].0.as_ptr().cast()), step) }; C];
            for c in 1..C {
                columns[c] = unsafe { P::of_columns(_mm512_load_si512(vectors[c].0.as_ptr().cast()), step) };
            }
            for r in 0..R {
                let x = unsafe { P::of_row(*x[r].get_unchecked(pair), step) };
                for c in 0..C {
                    sums[r][c] = unsafe { P::add(sums[r][c], x, columns[c]) };
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widened_pairs_have_the_sums_of_dot_products() {
        let Some(proof) = Avx512::detect().filter(|avx512| avx512.has_bf16()) else { return };
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) % 4001) as f32 / 2000.0 - 1.0;
        for (rows, inner, columns) in [(1, 5, 3), (3, 64, 16), (7, 33, 100), (13, 96, 64)] {
            let numbers: Vec<f32> = (0..(rows + columns) * inner).map(number).collect();
            let part = |first: usize, rows: usize| RowsRef {
                data: &numbers[first * inner..][..rows * inner],
                rows,
                width: inner,
                stride: inner,
            };
            let (mut matrix, mut x, mut widened) = (Paired::default(), Vec::new(), Vec::new());
            matrix.set_columns(proof, part(rows, columns));
            round_pairs(proof, part(0, rows), &mut x);
            widen(proof, &x, &mut widened);
            let mut found = [(); 2].map(|()| (0..rows * columns).map(|i| number(i + 9)).collect::<Vec<_>>());
            matrix.all_rows::<true, Dots>(proof, &x, &mut found[0]);
            matrix.all_rows::<true, Widened>(proof, &widened, &mut found[1]);
            // To the last bit where they take the place of dot products; other CPUs may round a pair once.
            let tolerance = if pairs_are_slow() { 0.0 } else { 1e-4 };
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
            assert!(found[0].iter().zip(&found[1]).all(near), "{rows} rows of {inner}: {found:?}");
        }
    }
}
