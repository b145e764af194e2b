//! The two products of attention: scores of queries and keys, and sums of values by weight.

#[cfg(target_arch = "x86_64")]
use crate::avx512::{Avx512, Rows};
use crate::{
    cpu::RowsRef,
    matmul::{Matrix, MatrixMut, Output, matmul},
    product::FEW_ROWS,
    vectorized::{add_scaled_rows, dot},
};

/// `out[query, key] = queries[query] · keys[key]`. Queries lie one after the other.
pub(crate) fn score(queries: &[f32], keys: &[&[f32]], out: &mut [f32]) {
    let Some(width) = keys.first().map(|key| key.len()) else { return };
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.multiply(keys, Rows::F32(queries), out);
    }
    let rows = queries.len() / width;
    if rows > FEW_ROWS {
        let keys = keys.concat();
        return matmul(
            &mut MatrixMut { data: out, row_stride: keys.len() / width },
            Output::Overwrite,
            Matrix::new(queries, rows, width, width),
            Matrix::new(&keys, keys.len() / width, width, width).transposed(),
            1.0,
        );
    }
    for (query, out) in queries.chunks_exact(width).zip(out.chunks_exact_mut(keys.len())) {
        for (key, out) in keys.iter().zip(out) {
            *out = dot(query, key);
        }
    }
}

/// `out[row] += Σ_t weights[row][t] * values[t]`, in the order of the values. `out` is `[weights.rows, values.width]`.
pub(crate) fn add_weighted(out: &mut [f32], weights: RowsRef<'_>, values: RowsRef<'_>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return avx512.add_product(out, weights, values);
    }
    if weights.rows > FEW_ROWS {
        return matmul(
            &mut MatrixMut { data: out, row_stride: values.width },
            Output::Add,
            Matrix::new(weights.data, weights.rows, weights.width, weights.stride),
            Matrix::new(values.data, values.rows, values.width, values.stride),
            1.0,
        );
    }
    for (row, out) in out.chunks_exact_mut(values.width).enumerate() {
        add_scaled_rows(out, weights.row(row), values.data, values.stride);
    }
}
