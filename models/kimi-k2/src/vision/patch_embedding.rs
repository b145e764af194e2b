//! From patches to the residual stream: a product with each patch's numbers, and where and when the patch is.

use candle_core::Tensor;
use kimi_kernels::{Activation, Activations, add_assign, add_bias};
use kimi_tokens::PatchGrid;

use super::{
    biased_linear::BiasedLinear,
    positions::{PositionTable, time_embedding},
};
use crate::{Checkpoint, ModelError, VisionConfig, tensor_names as names};

#[derive(Debug)]
pub(super) struct PatchEmbedding {
    projection: BiasedLinear,
    positions: PositionTable,
}

impl PatchEmbedding {
    pub(super) fn load(checkpoint: &Checkpoint, config: &VisionConfig) -> Result<Self, ModelError> {
        let window = [3, config.patch_size, config.patch_size];
        Ok(Self {
            projection: BiasedLinear::convolution(
                checkpoint,
                names::PATCH_PROJECTION,
                config.hidden_size,
                window,
            )?,
            positions: PositionTable::load(checkpoint, config)?,
        })
    }

    /// f32 `[patches, 3 · 14 · 14]` to f32 `[patches, width]`.
    pub(super) fn forward(
        &self,
        patches: &Tensor,
        grid: PatchGrid,
        activations: Activations,
    ) -> candle_core::Result<Tensor> {
        let x = self.projection.forward(patches, activations)?; // [patches, width]
        let area = grid.height * grid.width;
        let place = self.positions.at(grid.height, grid.width)?; // [area, width]
        for frame in 0..grid.frames {
            let x = x.narrow(0, frame * area, area)?; // [area, width], a view
            add_assign(&x, &place)?;
            // An image is a clip of one frame, and has no time.
            if grid.frames > 1 {
                add_bias(&x, &time_embedding(frame, x.dim(1)?), Activation::None)?;
            }
        }
        Ok(x)
    }
}
