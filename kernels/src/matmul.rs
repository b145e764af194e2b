//! Matrix products on borrowed f32 slices, by the `gemm` crate that candle uses too.

use gemm::{Parallelism, gemm};

/// A matrix to read: element `(r, c)` is `data[r * row_stride + c * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows that lie `row_stride` apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn span(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// Where a product goes: rows `row_stride` apart, each contiguous.
pub(crate) struct MatrixMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) row_stride: usize,
}

/// What becomes of the output's old value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Overwrite,
    Add,
}

/// `out = factor * lhs · rhs`, or `out += …`, on the caller's thread.
///
/// # Panics
/// When inner sizes differ or a slice is too short for its matrix: a bug of the calling op.
pub(crate) fn matmul(out: &mut MatrixMut<'_>, old: Sum, lhs: Matrix<'_>, rhs: Matrix<'_>, factor: f32) {
    let (rows, columns, inner) = (lhs.rows, rhs.columns, lhs.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert_eq!(inner, rhs.rows, "inner sizes of a matrix product");
    assert!(lhs.span() <= lhs.data.len() && rhs.span() <= rhs.data.len(), "operand outside its slice");
    assert!(out.row_stride >= columns, "overlapping output rows");
    assert!((rows - 1) * out.row_stride + columns <= out.data.len(), "output outside its slice");
    #[expect(unsafe_code, reason = "gemm takes raw pointers")]
    // SAFETY: the assertions above keep every element that gemm computes an address for inside its slice, and the
    // output, borrowed mutably, overlaps neither operand nor itself.
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            old == Sum::Add,
            lhs.data.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
