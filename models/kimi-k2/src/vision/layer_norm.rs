//! Layer normalization with its learned weight and bias.

use candle_core::{DType, Device, Tensor};
use kimi_kernels::LayerNormWeights;

use crate::{Checkpoint, CheckpointError, tensor_names as names};

/// `(x − mean) / sqrt(variance + eps) · weight + bias`.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

impl LayerNorm {
    /// `module` is the name without `.weight` and `.bias`.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        module: &str,
        width: usize,
        eps: f64,
    ) -> Result<Self, CheckpointError> {
        let weight = checkpoint.vector_f32(&names::weight(module), width)?;
        let bias = checkpoint.vector_f32(&names::bias(module), width)?;
        Ok(Self { weight, bias, eps })
    }

    /// f32 `[.., width]` to a new tensor of this shape.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let out = Tensor::zeros(x.shape(), DType::F32, &Device::Cpu)?;
        let weights = LayerNormWeights { weight: &self.weight, bias: &self.bias, eps: self.eps };
        kimi_kernels::layer_norm(x, weights, &out)?;
        Ok(out)
    }
}
