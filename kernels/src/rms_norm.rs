//! Root-mean-square normalization.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};

use crate::{
    cpu::{RowsMut, RowsRef, expect_size},
    vectorized::{dot, vectorized},
};

/// `out = x / sqrt(mean(x²) + eps) * weight` over the last dimension. `x` and `out` are f32 `[.., width]`, `weight` f32 `[width]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, out: &Tensor) -> Result<()> {
    out.inplace_op3(x, weight, &RmsNorm { eps })
}

/// Reference of [`rms_norm`] in candle's own ops.
pub fn rms_norm_reference(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(candle_core::D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

struct RmsNorm {
    eps: f64,
}

impl InplaceOp3 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<()> {
        let x = RowsRef::new(self.name(), (x, x_layout))?;
        let weight = RowsRef::new(self.name(), (weight, weight_layout))?;
        let out = RowsMut::new(self.name(), out, layout)?;
        expect_size(self.name(), "rows of the output", out.rows, x.rows)?;
        expect_size(self.name(), "width of the output", out.width, x.width)?;
        expect_size(self.name(), "width of the weight", weight.width, x.width)?;
        out.for_each_row(|row, out| {
            let x = x.row(row);
            let mean_square = dot(x, x) / x.len() as f32;
            scaled_product(x, 1.0 / (mean_square + self.eps as f32).sqrt(), weight.data, out);
        });
        Ok(())
    }
}

vectorized! {
    fn scaled_product(x: &[f32], factor: f32, weight: &[f32], out: &mut [f32]) {
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }
}
