//! The two products of attention: scores of queries and keys, and sums of values by weight.

use crate::{
    avx512::{Avx512, Rows},
    cpu::RowsRef,
    matmul::{Matrix, MatrixMut, Sum, matmul},
    output::Output,
    product::FEW_ROWS,
    vectorized::{add_scaled, dot},
};

/// `out[query, key] = queries[query] · keys[key]`. Queries lie one after the other.
pub(crate) fn score(queries: &[f32], keys: &[&[f32]], out: &mut [f32]) {
    let Some(width) = keys.first().map(|key| key.len()) else { return };
    if let Some(avx512) = Avx512::detect() {
        return avx512.multiply(keys, Rows::F32(queries), Output::by_feature(out, keys.len()), None);
    }
    let rows = queries.len() / width;
    if rows > FEW_ROWS {
        let keys = keys.concat();
        return matmul(
            &mut MatrixMut { data: out, row_stride: keys.len() / width },
            Sum::Overwrite,
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

/// `out[row] += Σ_t weights[row][t] * values[t][..width]`, in the order of the values. `out` is `[weights.rows, width]`.
pub(crate) fn add_weighted((out, width): (&mut [f32], usize), weights: RowsRef<'_>, values: &[&[f32]]) {
    if let Some(avx512) = Avx512::detect() {
        return avx512.add_product((out, width), weights, values);
    }
    if weights.rows > FEW_ROWS {
        let values: Vec<f32> = values.iter().flat_map(|value| &value[..width]).copied().collect();
        return matmul(
            &mut MatrixMut { data: out, row_stride: width },
            Sum::Add,
            Matrix::new(weights.data, weights.rows, weights.width, weights.stride),
            Matrix::new(&values, weights.width, width, width),
            1.0,
        );
    }
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        for (weight, value) in weights.row(row).iter().zip(values) {
            add_scaled(out, *weight, &value[..width]);
        }
    }
}
