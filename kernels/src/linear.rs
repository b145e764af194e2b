//! `y = x · Wᵀ` for weights as they are stored.
//!
//! Whole weights are never converted: see `product.rs` for how a few output features are computed.

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Tensor};

use crate::{
    Weight,
    cpu::{RowsMut, RowsRef, expect_size},
    output::{Output, Place, UNIT, in_parts},
    product::{Features, multiply},
    rounded_rows::RoundedRows,
    weight_rows::WeightRows,
};

/// How exactly activations meet weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// f32, as they are.
    #[default]
    F32,
    /// Rounded to what the CPU multiplies. For 4-bit weights: to 8 bits with a scale for each 32 columns, where there is
    /// AVX2, AVX-512 VNNI or ARM's `dotprod` and the weight's rows are whole blocks of 128 columns with bf16 scales. For bf16 weights: to bf16,
    /// where there is AVX-512 BF16. Everything else stays f32.
    Rounded,
}

/// `out[.., o] = Σ_i x[.., i] * W[o, i]`. `x` is f32 `[.., in]`, `out` is f32 `[.., out]`.
///
/// # Errors
/// When shapes do not fit the weight or its byte counts do not fit its shape.
pub fn linear(x: &Tensor, weight: &Weight, activations: Activations, out: &Tensor) -> Result<()> {
    linears(x, &[weight], activations, out)
}

/// [`linear`] for several weights of the same width, whose results lie side by side: `out` is f32 `[.., Σ out]`. `x` is rounded once,
/// and threads meet once.
///
/// # Errors
/// As `linear`.
pub fn linears(x: &Tensor, weights: &[&Weight], activations: Activations, out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &Linears { weights, activations })
}

/// Reference of [`linear`]: the whole weight in f32 and one `matmul`. Returns f32 `[rows, out]`; `x` is `[rows, in]`.
pub fn linear_reference(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    x.matmul(&dequantize(weight)?.t()?)
}

/// Reference of [`Activations::Rounded`] for 4-bit weights: each group of 32 columns rounded to 8 bits, as f32 again. `x` is `[rows, in]`.
pub fn round_to_int8_reference(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let groups = x.reshape((rows, columns / 32, 32))?;
    let largest = groups.abs()?.max_keepdim(2)?; // [rows, columns / 32, 1]
    // Adding 1.5 * 2^23 leaves no bits for fractions: to the nearest, ties to even.
    let codes = ((groups.broadcast_mul(&(largest.recip()? * 127.0)?)? + 12_582_912.0)? - 12_582_912.0)?;
    codes.broadcast_mul(&(largest / 127.0)?)?.reshape((rows, columns))
}

/// Reference of [`Activations::Rounded`] for bf16 weights: each number as the nearest bf16, as f32 again.
pub fn round_to_bf16_reference(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::BF16)?.to_dtype(DType::F32)
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

struct Linears<'a> {
    weights: &'a [&'a Weight],
    activations: Activations,
}

impl InplaceOp2 for Linears<'_> {
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
        for weight in self.weights {
            expect_size(self.name(), "width of x", x.width, weight.in_features)?;
        }
        let width = self.weights.iter().map(|weight| weight.out_features).sum();
        expect_size(self.name(), "width of the output", out.width, width)?;
        expect_size(self.name(), "rows of the output", out.rows, x.rows)?;
        let weights: Vec<_> =
            self.weights.iter().map(|weight| WeightRows::new(weight)).collect::<Result<_>>()?;
        linear_rows(x, &weights, self.activations, &mut out);
        Ok(())
    }
}

/// [`linears`] on rows whose sizes were checked.
pub(crate) fn linear_rows(
    x: RowsRef<'_>,
    weights: &[WeightRows<'_>],
    activations: Activations,
    out: &mut RowsMut<'_>,
) {
    if x.rows == 0 || out.width == 0 {
        return;
    }
    let rounded = RoundedRows::new(x, activations, weights.iter().copied());
    let inputs = rounded.pick(0..x.rows);
    let work = x.rows * out.width * x.width;
    let outputs = Output::by_row(out).split(weights.iter().map(|weight| weight.rows()));
    let features = |place: Place| Features { weight: weights[place.index], first: place.first };
    in_parts(outputs, UNIT, work, |here, out, next| {
        multiply(&inputs, features(here), out, next.map(features));
    });
}
