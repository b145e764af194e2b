//! One block of the tower: attention and an MLP, each on normalized input, each added to the residual stream.

use candle_core::Tensor;
use kimi_kernels::{Activations, add_assign};

use super::{
    NORM_EPS,
    attention::{Attention, Rotation},
    biased_linear::BiasedLinear,
    layer_norm::LayerNorm,
    rows::pieces,
};
use crate::{Checkpoint, CheckpointError, VisionConfig, tensor_names as names};

#[derive(Debug)]
pub(super) struct Block {
    attention: Attention,
    mlp_norm: LayerNorm,
    up: BiasedLinear,
    down: BiasedLinear,
}

impl Block {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &VisionConfig,
        block: usize,
    ) -> Result<Self, CheckpointError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part| names::vision_block(block, part);
        Ok(Self {
            attention: Attention::load(checkpoint, config, block)?,
            mlp_norm: LayerNorm::load(checkpoint, &name(names::VISION_MLP_NORM), width, NORM_EPS)?,
            up: BiasedLinear::load(checkpoint, &name(names::VISION_UP), [inner, width])?.then_gelu(),
            down: BiasedLinear::load(checkpoint, &name(names::VISION_DOWN), [width, inner])?,
        })
    }

    /// Updates the residual stream `x`, f32 `[patches, width]`, in place.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        rotation: Rotation<'_>,
        activations: Activations,
    ) -> candle_core::Result<()> {
        self.attention.forward(x, rotation, activations)?;
        for rows in pieces(x.dim(0)?) {
            let x = x.narrow(0, rows.start, rows.len())?; // [rows, width], a view
            let inner = self.up.forward(&self.mlp_norm.forward(&x)?, activations)?; // [rows, inner]
            add_assign(&x, &self.down.forward(&inner, activations)?)?;
        }
        Ok(())
    }
}
