//! Layer normalization with a learned weight and bias.

use candle_core::{CpuStorage, D, Device, InplaceOp2, Layout, Result, Tensor};

use crate::{
    cpu::{RowsMut, RowsRef, expect_size},
    vectorized::{dot, sum, vectorized},
};

/// What [`layer_norm`] scales and moves normalized rows with.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormWeights<'a> {
    /// `[width]`.
    pub weight: &'a [f32],
    /// `[width]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f64,
}

/// `out = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias` over the last dimension. `x` and `out` are f32 `[.., width]`;
/// `out` has no gaps between its rows.
///
/// # Errors
/// When shapes do not fit each other.
pub fn layer_norm(x: &Tensor, weights: LayerNormWeights<'_>, out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &LayerNorm(weights))
}

/// Reference of [`layer_norm`] in candle's own ops.
pub fn layer_norm_reference(x: &Tensor, weights: LayerNormWeights<'_>) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let [weight, bias] = [weights.weight, weights.bias].map(|numbers| Tensor::new(numbers, &Device::Cpu));
    centred.broadcast_div(&(variance + weights.eps)?.sqrt()?)?.broadcast_mul(&weight?)?.broadcast_add(&bias?)
}

struct LayerNorm<'a>(LayerNormWeights<'a>);

impl InplaceOp2 for LayerNorm<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let x = RowsRef::new(self.name(), (x, x_layout))?;
        let out = RowsMut::new(self.name(), out, layout)?;
        let LayerNormWeights { weight, bias, eps } = self.0;
        expect_size(self.name(), "rows of the output", out.rows, x.rows)?;
        expect_size(self.name(), "width of the output", out.width, x.width)?;
        expect_size(self.name(), "width of the weight", weight.len(), x.width)?;
        expect_size(self.name(), "width of the bias", bias.len(), x.width)?;
        out.for_each_row(|row, out| {
            let (x, width) = (x.row(row), out.len() as f32);
            let mean = sum(x) / width;
            centre(x, mean, out);
            let variance = dot(out, out) / width;
            scale_and_move(out, 1.0 / (variance + eps as f32).sqrt(), weight, bias);
        });
        Ok(())
    }
}

vectorized! {
    fn centre(x: &[f32], mean: f32, out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x - mean;
        }
    }

    fn scale_and_move(x: &mut [f32], factor: f32, weight: &[f32], bias: &[f32]) {
        for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
            *x = *x * factor * weight + bias;
        }
    }
}
