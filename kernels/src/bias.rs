//! What follows the products of layers that have a bias.

use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor};

use crate::{
    cpu::{RowsMut, expect_size},
    softmax::exp,
    vectorized::{add_scaled, vectorized},
};

/// What becomes of a number after the bias was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It stays as it is.
    None,
    /// GELU in its tanh approximation: `x · sigmoid(2 · √(2/π) · (x + 0.044715 · x³))`.
    GeluTanh,
}

/// `y = activation(y + bias)` in place. `y` is f32 `[.., width]`, a view into wider rows perhaps, `bias` `[width]`.
///
/// # Errors
/// When the sizes differ.
pub fn add_bias(y: &Tensor, bias: &[f32], activation: Activation) -> Result<()> {
    y.inplace_op1(&AddBias { bias, activation })
}

/// Reference of [`add_bias`] in candle's own ops.
pub fn add_bias_reference(y: &Tensor, bias: &[f32], activation: Activation) -> Result<Tensor> {
    let sum = y.broadcast_add(&Tensor::new(bias, &Device::Cpu)?)?;
    match activation {
        Activation::None => Ok(sum),
        Activation::GeluTanh => sum.gelu(),
    }
}

struct AddBias<'a> {
    bias: &'a [f32],
    activation: Activation,
}

impl InplaceOp1 for AddBias<'_> {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let y = RowsMut::new(self.name(), y, layout)?;
        expect_size(self.name(), "width of the bias", self.bias.len(), y.width)?;
        y.for_each_row(|_, y| {
            add_scaled(y, 1.0, self.bias);
            if self.activation == Activation::GeluTanh {
                gelu_tanh(y);
            }
        });
        Ok(())
    }
}

vectorized! {
    fn gelu_tanh(x: &mut [f32]) {
        for x in x.iter_mut() {
            // √2 · 2/√π = 2 · √(2/π)
            let twice = SQRT_2 * FRAC_2_SQRT_PI * (*x + 0.044_715 * *x * *x * *x);
            *x /= 1.0 + exp(-twice);
        }
    }
}
