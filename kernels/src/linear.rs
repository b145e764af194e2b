//! `y = x · Wᵀ` for weights as they are stored.
//!
//! A weight row is widened to f32 in a buffer that stays in the nearest cache and is used at once; whole weights
//! are never converted. Few rows of `x`: one dot product for each, in an order that does not depend on how many
//! there are, so that a sequence's numbers do not change when others join the batch. Many rows: tiles of output
//! features go through a matrix product.

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::{
    Weight,
    cpu::{PARALLEL_WORK, RowsMut, RowsRef, expect_size},
    matmul::{Matrix, MatrixMut, Output, Threads, matmul},
    vectorized::dot_rows,
    weight_rows::WeightRows,
};

/// Up to this many rows of `x`, dot products beat widening into tiles, and each row gets the numbers it gets alone, to the
/// last bit.
pub const FEW_ROWS: usize = 16;
/// f32 numbers in a tile of widened weights: 512 KiB, about half of a core's second-level cache.
const TILE_NUMBERS: usize = 1 << 17;

/// `out[.., o] = Σ_i x[.., i] * W[o, i]`. `x` is f32 `[.., in]`, `out` is f32 `[.., out]`.
///
/// # Errors
/// When shapes do not fit the weight or its byte counts do not fit its shape.
pub fn linear(x: &Tensor, weight: &Weight, out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &Linear { weight })
}

/// Reference of [`linear`]: the whole weight in f32 and one `matmul`. Returns f32 `[rows, out]`; `x` is `[rows, in]`.
pub fn linear_reference(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    x.matmul(&dequantize(weight)?.t()?)
}

/// The whole weight as an f32 tensor `[out, in]`. For references and tests: a large model does not fit in memory so.
pub fn dequantize(weight: &Weight) -> Result<Tensor> {
    let rows = WeightRows::new(weight)?;
    let mut data = vec![0.0; rows.rows() * rows.columns()];
    for (row, out) in data.chunks_mut(rows.columns().max(1)).enumerate() {
        rows.read(row, out);
    }
    Tensor::from_vec(data, (rows.rows(), rows.columns()), &Device::Cpu)
}

struct Linear<'a> {
    weight: &'a Weight,
}

impl InplaceOp2 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let x = RowsRef::new(self.name(), (x, x_layout))?;
        let mut out = RowsMut::new(self.name(), out, layout)?;
        expect_size(self.name(), "width of x", x.width, self.weight.in_features)?;
        expect_size(self.name(), "width of the output", out.width, self.weight.out_features)?;
        expect_size(self.name(), "rows of the output", out.rows, x.rows)?;
        linear_rows(x, WeightRows::new(self.weight)?, &mut out);
        Ok(())
    }
}

/// [`linear`] on rows whose sizes were checked.
pub(crate) fn linear_rows(x: RowsRef<'_>, weight: WeightRows<'_>, out: &mut RowsMut<'_>) {
    if x.rows == 0 || weight.rows() == 0 {
        return;
    }
    if x.rows <= FEW_ROWS { by_dot_products(x, weight, out) } else { by_tiles(x, weight, out) }
}

fn by_dot_products(x: RowsRef<'_>, weight: WeightRows<'_>, out: &mut RowsMut<'_>) {
    // Threads split the output features, so they write the transposed result and each owns a contiguous part.
    let features = weight.rows();
    let mut transposed = vec![0.0; features * x.rows]; // [features, rows]
    let run = |first: usize, part: &mut [f32]| {
        let mut weight_row = vec![0.0; weight.columns()];
        for (feature, results) in part.chunks_mut(x.rows).enumerate() {
            weight.read(first + feature, &mut weight_row);
            dot_rows(&weight_row, x.data, x.stride, results);
        }
    };
    let work = x.rows * features * weight.columns();
    if work < PARALLEL_WORK {
        run(0, &mut transposed);
    } else {
        // More parts than threads: a thread that loses its core to another process does not hold up the rest.
        let part = features.div_ceil(rayon::current_num_threads() * 4);
        transposed.par_chunks_mut(part * x.rows).enumerate().for_each(|(index, out)| run(index * part, out));
    }
    for row in 0..x.rows {
        for (out, results) in out.row(row).iter_mut().zip(transposed.chunks_exact(x.rows)) {
            *out = results[row];
        }
    }
}

fn by_tiles(x: RowsRef<'_>, weight: WeightRows<'_>, out: &mut RowsMut<'_>) {
    let columns = weight.columns();
    let tile_rows = (TILE_NUMBERS / columns.max(1)).clamp(1, weight.rows());
    let threads =
        if x.rows * weight.rows() * columns < PARALLEL_WORK { Threads::Caller } else { Threads::Pool };
    let mut tile = vec![0.0; tile_rows * columns];
    for first in (0..weight.rows()).step_by(tile_rows) {
        let rows = tile_rows.min(weight.rows() - first);
        widen_tile(weight, first, &mut tile[..rows * columns], threads);
        matmul(
            &mut MatrixMut { data: &mut out.data[first..], row_stride: out.stride },
            Output::Overwrite,
            Matrix::new(x.data, x.rows, columns, x.stride),
            Matrix::new(&tile, rows, columns, columns).transposed(),
            1.0,
            threads,
        );
    }
}

fn widen_tile(weight: WeightRows<'_>, first: usize, tile: &mut [f32], threads: Threads) {
    let columns = weight.columns();
    match threads {
        Threads::Caller => {
            tile.chunks_mut(columns).enumerate().for_each(|(row, out)| weight.read(first + row, out));
        }
        Threads::Pool => {
            tile.par_chunks_mut(columns)
                .with_min_len(16)
                .enumerate()
                .for_each(|(row, out)| weight.read(first + row, out));
        }
    }
}
