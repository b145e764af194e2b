//! Products of some rows with some of a weight's output features: what threads do, and where the CPU's features decide.
//!
//! With AVX-512, weights are widened, or multiplied as they are, in registers; with AVX2 and on ARM, codes are. Otherwise a weight
//! row is widened to f32 in a buffer that stays in the nearest cache and is used at once: few rows take one dot product each, in an order
//! that does not depend on how many there are; many rows take a matrix product.

use std::ops::Range;

use crate::{
    avx512::{Avx512, Rows},
    matmul::{Matrix, MatrixMut, Sum, matmul},
    output::Output,
    rounded_rows::Inputs,
    vectorized::dot,
    weight_rows::{Product, WeightRows},
};

/// Up to this many rows, dot products beat a matrix product, where there is no AVX-512, and each row gets the numbers it
/// gets alone, to the last bit. With AVX-512 it always does.
pub const FEW_ROWS: usize = 16;
/// Features whose weights are widened at a time: at K2.6's width about half of a core's second-level cache.
const FEATURES: usize = 16;

/// A weight's features, from one on.
#[derive(Clone, Copy)]
pub(crate) struct Features<'a> {
    pub(crate) weight: WeightRows<'a>,
    pub(crate) first: usize,
}

/// `out[row, f] = x[row] · W[first + f]`. `x` must not be empty. `next` is what this thread multiplies afterwards: its memory is
/// asked for towards the end.
pub(crate) fn multiply(
    x: &Inputs<'_>,
    Features { weight, first }: Features<'_>,
    out: Output<'_>,
    next: Option<Features<'_>>,
) {
    let features = first..first + out.features();
    let row_bytes = weight.columns() * 2;
    let bytes = features.start * row_bytes..features.end * row_bytes;
    let next = next.map(|next| next.weight.stored().after(next.first));
    match weight.product(x.activations) {
        Product::Codes(kernels, codes) => kernels.multiply(&x.int8, codes.features(features), out, next),
        Product::Bf16Pairs(avx512, all) => {
            avx512.multiply_bf16(&x.bf16, (&all[bytes], weight.columns()), out, next);
        }
        Product::Bf16(avx512, all) => avx512.multiply(&x.exact, Rows::Bf16(&all[bytes]), out, next),
        Product::Widened => multiply_widened(x, weight, features, out),
    }
}

fn multiply_widened(x: &Inputs<'_>, weight: WeightRows<'_>, features: Range<usize>, mut out: Output<'_>) {
    let columns = weight.columns();
    if let Some(avx512) = Avx512::detect() {
        return for_widened(weight, features, |first, widened| {
            let count = widened.len() / columns.max(1);
            avx512.multiply(&x.exact, Rows::F32(widened), out.part(first..first + count), None);
        });
    }
    let many = if x.len() > FEW_ROWS { x.exact.concat() } else { Vec::new() };
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
            for (row, numbers) in x.exact.iter().enumerate() {
                let product = match products.get(feature * x.len() + row) {
                    Some(product) => *product,
                    None => dot(numbers, &widened[feature * columns..][..columns]),
                };
                out.put((row, first + feature), &[[product]]);
            }
        }
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
