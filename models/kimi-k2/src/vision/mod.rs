//! MoonViT, the vision tower, and the projector that leads to the text model: patches in, features of prompt positions out.
//!
//! One medium at a time: an image, or a clip of up to four frames whose patches all attend to each other. Memory grows with
//! the patches, not with their square: residual stream, queries, keys, values and what attention gives exist for all patches,
//! the wide part of a block for some rows.

mod attention;
mod biased_linear;
mod block;
mod layer_norm;
mod patch_embedding;
mod positions;
mod projector;
mod rows;

use candle_core::{Device, Tensor};
use kimi_kernels::Activations;
use kimi_tokens::{Medium, PATCH_BYTES, PatchGrid};

pub(crate) use self::rows::ROWS_AT_ONCE;
use self::{
    attention::GridRope, block::Block, layer_norm::LayerNorm, patch_embedding::PatchEmbedding,
    projector::Projector,
};
use crate::{Checkpoint, ModelError, VisionConfig, tensor_names as names};

/// Epsilon of the tower's norms, in no configuration.
const NORM_EPS: f64 = 1e-5;
/// The longest side of a grid, in patches.
const MAX_SIDE: usize = 512;

/// The tower and its projector. Weights stay in the mapped checkpoint; norms, biases and the table of positions are copied.
#[derive(Debug)]
pub(crate) struct VisionTower {
    max_frames: usize,
    patch_embedding: PatchEmbedding,
    rope: GridRope,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    projector: Projector,
}

impl VisionTower {
    pub(crate) fn load(checkpoint: &Checkpoint, config: &VisionConfig) -> Result<Self, ModelError> {
        let blocks = (0..config.num_layers).map(|block| Block::load(checkpoint, config, block));
        let final_norm = LayerNorm::load(checkpoint, names::VISION_FINAL_NORM, config.hidden_size, NORM_EPS)?;
        Ok(Self {
            max_frames: config.pos_emb_time,
            patch_embedding: PatchEmbedding::load(checkpoint, config)?,
            rope: GridRope::new(config.hidden_size / config.num_attention_heads),
            blocks: blocks.collect::<Result<_, _>>()?,
            final_norm,
            projector: Projector::load(checkpoint, config)?,
        })
    }

    /// Features of a medium's prompt positions, f32 `[tokens, text hidden]`, row by row of the grid. `patches` is f32
    /// `[patches, 3 · 14 · 14]`, numbers from −1 to 1, in the order of [`Medium::pixels`].
    pub(crate) fn encode(
        &self,
        patches: &Tensor,
        grid: PatchGrid,
        activations: Activations,
    ) -> Result<Tensor, ModelError> {
        self.check(patches.dims(), grid)?;
        let x = self.patch_embedding.forward(patches, grid, activations)?; // [patches, width]
        let places = places(grid);
        for block in &self.blocks {
            block.forward(&x, self.rope.at(&places), activations)?;
        }
        let merged = merge(&self.final_norm.forward(&x)?, grid)?; // [tokens, 4, width]
        Ok(self.projector.forward(&merged, activations)?)
    }

    fn check(&self, patches: &[usize], grid: PatchGrid) -> Result<(), ModelError> {
        let PatchGrid { frames, height, width } = grid;
        let refuse = |what: String| Err(ModelError::Medium(what));
        if frames == 0 || frames > self.max_frames {
            return refuse(format!(
                "it has {frames} frames; from 1 to {} are seen together",
                self.max_frames
            ));
        }
        for side in [height, width] {
            if side == 0 || side > MAX_SIDE || !side.is_multiple_of(2) {
                return refuse(format!(
                    "it has {height} × {width} patches; sides are even numbers up to {MAX_SIDE}"
                ));
            }
        }
        if patches != [grid.patches(), PATCH_BYTES] {
            return refuse(format!(
                "its patches have shape {patches:?}, not {:?}",
                [grid.patches(), PATCH_BYTES]
            ));
        }
        Ok(())
    }
}

/// A medium's bytes as the tower sees them: f32 `[patches, 3 · 14 · 14]`, `(byte / 255 − 0.5) · 2`.
pub(crate) fn normalized(medium: &Medium) -> Result<Tensor, ModelError> {
    let shape = (medium.grid.patches(), PATCH_BYTES);
    if medium.pixels.len() != shape.0 * shape.1 {
        let found = medium.pixels.len();
        return Err(ModelError::Medium(format!("it has {found} bytes, not {} · {}", shape.0, shape.1)));
    }
    let number = |byte: &u8| (f32::from(*byte) / 255.0 - 0.5) * 2.0;
    Ok(Tensor::from_vec(medium.pixels.iter().map(number).collect(), shape, &Device::Cpu)?)
}

/// `[column, row]` of each patch; frames repeat them.
fn places(grid: PatchGrid) -> Vec<[u32; 2]> {
    let frame =
        (0..grid.height as u32).flat_map(|row| (0..grid.width as u32).map(move |column| [column, row]));
    let frame: Vec<_> = frame.collect();
    frame.repeat(grid.frames)
}

/// The mean over frames, and squares of 2 × 2 patches side by side: f32 `[patches, width]` to `[tokens, 4, width]`.
fn merge(x: &Tensor, grid: PatchGrid) -> candle_core::Result<Tensor> {
    let PatchGrid { frames, height, width } = grid;
    let x = x.reshape((frames, height * width, ()))?.mean(0)?; // [height * width, width of the tower]
    let squares = x.reshape((height / 2, 2, width / 2, 2, ()))?.permute((0, 2, 1, 3, 4))?;
    squares.reshape((grid.tokens(), 4, ()))
}
