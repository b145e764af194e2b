//! From the tower's width to the text model's.

use candle_core::Tensor;
use kimi_kernels::Activations;

use super::{biased_linear::BiasedLinear, layer_norm::LayerNorm};
use crate::{Checkpoint, CheckpointError, VisionConfig, tensor_names as names};

/// Each of four merged patches normalized, then two layers over all four with the exact GELU between them.
#[derive(Debug)]
pub(super) struct Projector {
    norm: LayerNorm,
    inner: BiasedLinear,
    outer: BiasedLinear,
}

impl Projector {
    pub(super) fn load(checkpoint: &Checkpoint, config: &VisionConfig) -> Result<Self, CheckpointError> {
        let (width, merged) = (config.hidden_size, config.merged_size());
        let eps = config.projector_ln_eps;
        Ok(Self {
            norm: LayerNorm::load(checkpoint, names::PROJECTOR_NORM, width, eps)?,
            inner: BiasedLinear::load(checkpoint, names::PROJECTOR_INNER, [merged, merged])?,
            outer: BiasedLinear::load(checkpoint, names::PROJECTOR_OUTER, [config.text_hidden_size, merged])?,
        })
    }

    /// f32 `[tokens, 4, width]` to f32 `[tokens, text hidden]`.
    pub(super) fn forward(&self, merged: &Tensor, activations: Activations) -> candle_core::Result<Tensor> {
        let normed = self.norm.forward(merged)?.flatten_from(1)?; // [tokens, 4 * width]
        let inner = self.inner.forward(&normed, activations)?.gelu_erf()?;
        self.outer.forward(&inner, activations)
    }
}
