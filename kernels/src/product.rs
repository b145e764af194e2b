//! Products of some rows with some of a weight's output features: what threads do, and where the CPU's features decide.
//!
//! With AVX-512, weights are widened, or multiplied as they are, in registers. On other CPUs a weight row is widened to
//! f32 in a buffer that stays in the nearest cache and is used at once: few rows take one dot product each, in an order
//! that does not depend on how many there are; many rows take a matrix product.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::avx512::{Avx512, Rows};
use crate::{
    cpu::RowsRef,
    matmul::{Matrix, MatrixMut, Sum, matmul},
    output::Output,
    quantized_rows::{Block, QuantizedRows},
    vectorized::dot,
    weight_rows::WeightRows,
};

/// Up to this many rows, dot products beat a matrix product, where there is no AVX-512, and each row gets the numbers it
/// gets alone, to the last bit. With AVX-512 it always does.
pub const FEW_ROWS: usize = 16;
/// Features whose weights are widened at a time: at K2.6's width about half of a core's second-level cache.
const FEATURES: usize = 16;

/// Rows to multiply, wherever they lie.
pub(crate) struct Inputs<'a> {
    rows: Vec<&'a [f32]>,
    /// The same rows in 8 bits; empty when nothing needs them.
    blocks: Vec<&'a [Block]>,
}

impl<'a> Inputs<'a> {
    /// The rows of `x` that `picks` names.
    pub(crate) fn new(
        x: RowsRef<'a>,
        quantized: Option<&'a QuantizedRows>,
        picks: impl Iterator<Item = usize> + Clone,
    ) -> Self {
        let blocks = quantized.map(|rows| picks.clone().map(|row| rows.row(row)).collect());
        Self { rows: picks.map(|row| x.row(row)).collect(), blocks: blocks.unwrap_or_default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// `out[row, f] = x[row] · W[first + f]`. `x` must not be empty.
pub(crate) fn multiply(x: &Inputs<'_>, weight: WeightRows<'_>, first: usize, mut out: Output<'_>) {
    let features = first..first + out.features();
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = Avx512::detect() {
        return in_registers(avx512, x, weight, features, out);
    }
    let columns = weight.columns();
    let many = if x.len() > FEW_ROWS { x.rows.concat() } else { Vec::new() };
    let mut products = vec![0.0; many.len().min(1) * FEATURES * x.len()]; // [FEATURES, rows]
    for_widened(weight, features, |first, widened| {
        let count = widened.len() / columns.max(1);
        if !many.is_empty() {
            let rows = Matrix::new(&many, x.len(), columns, columns).transposed();
            let widened = Matrix::new(widened, count, columns, columns);
            let mut out = MatrixMut { data: &mut products, row_stride: x.len() };
            matmul(&mut out, Sum::Overwrite, widened, rows, 1.0);
        }
        for feature in 0..count {
            for (row, numbers) in x.rows.iter().enumerate() {
                let product = match products.get(feature * x.len() + row) {
                    Some(product) => *product,
                    None => dot(numbers, &widened[feature * columns..][..columns]),
                };
                out.put((row, first + feature), &[[product]]);
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
fn in_registers(
    avx512: Avx512,
    x: &Inputs<'_>,
    weight: WeightRows<'_>,
    features: Range<usize>,
    mut out: Output<'_>,
) {
    if !x.blocks.is_empty()
        && let Some(codes) = weight.code_blocks()
    {
        return avx512.multiply_codes(&x.blocks, codes.features(features), out);
    }
    if let Some(bytes) = weight.bf16() {
        let row_bytes = weight.columns() * 2;
        let bytes = &bytes[features.start * row_bytes..features.end * row_bytes];
        return avx512.multiply(&x.rows, Rows::Bf16(bytes), out);
    }
    for_widened(weight, features, |first, widened| {
        let count = widened.len() / weight.columns().max(1);
        avx512.multiply(&x.rows, Rows::F32(widened), out.part(first..first + count));
    });
}

/// Calls `run` with some features' weights in f32, and the first one's place among `features`.
fn for_widened(weight: WeightRows<'_>, features: Range<usize>, mut run: impl FnMut(usize, &[f32])) {
    let columns = weight.columns();
    let mut widened = vec![0.0; FEATURES.min(features.len()) * columns];
    for first in features.clone().step_by(FEATURES) {
        let widened = &mut widened[..FEATURES.min(features.end - first) * columns];
        for (feature, row) in widened.chunks_mut(columns.max(1)).enumerate() {
            weight.read(first + feature, row);
        }
        run(first - features.start, widened);
    }
}
