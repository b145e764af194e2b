//! Root-mean-square normalization with a learned weight.

use candle_core::{Device, Tensor};
use kimi_kernels::KeptTensor;

use crate::{Checkpoint, ModelError};

/// `x / sqrt(mean(x²) + eps) * weight`.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// f32 `[width]`.
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        tensor: &str,
        width: usize,
        eps: f64,
    ) -> Result<Self, ModelError> {
        let weight = Tensor::from_vec(checkpoint.vector_f32(tensor, width)?, width, &Device::Cpu)?;
        Ok(Self { weight, eps })
    }

    /// f32 `[rows, width]`, a view into wider rows perhaps, to a new f32 `[rows, width]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<KeptTensor> {
        let out = KeptTensor::new(x.shape())?;
        kimi_kernels::rms_norm(x, &self.weight, self.eps, &out)?;
        Ok(out)
    }
}
