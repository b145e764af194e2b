//! Attention of all patches of a medium to each other.

use candle_core::{DType, Device, Tensor};
use kimi_kernels::{Activations, add_assign, full_attention, rope_grid};

use super::{NORM_EPS, biased_linear::BiasedLinear, layer_norm::LayerNorm, rows::pieces};
use crate::{Checkpoint, CheckpointError, VisionConfig, tensor_names as names};

/// Base of the rotary frequencies.
const ROPE_THETA: f32 = 10_000.0;

/// The frequencies with which heads are turned.
#[derive(Debug)]
pub(super) struct GridRope {
    /// Radians a patch, one for each two pairs of a head.
    inv_freq: Vec<f32>,
}

impl GridRope {
    /// For heads of `width` numbers.
    pub(super) fn new(width: usize) -> Self {
        let exponent = |pair: usize| 4.0 * pair as f32 / width as f32;
        Self { inv_freq: (0..width / 4).map(|pair| ROPE_THETA.powf(exponent(pair)).recip()).collect() }
    }

    /// For patches at these `[column, row]`.
    pub(super) fn at<'a>(&'a self, places: &'a [[u32; 2]]) -> Rotation<'a> {
        Rotation { inv_freq: &self.inv_freq, places }
    }
}

/// How queries and keys of a medium's patches are turned.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    inv_freq: &'a [f32],
    places: &'a [[u32; 2]],
}

#[derive(Debug)]
pub(super) struct Attention {
    norm: LayerNorm,
    qkv: BiasedLinear,
    output: BiasedLinear,
    heads: usize,
}

impl Attention {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &VisionConfig,
        block: usize,
    ) -> Result<Self, CheckpointError> {
        let width = config.hidden_size;
        let name = |part| names::vision_block(block, part);
        Ok(Self {
            norm: LayerNorm::load(checkpoint, &name(names::VISION_ATTENTION_NORM), width, NORM_EPS)?,
            qkv: BiasedLinear::load(checkpoint, &name(names::VISION_QKV), [3 * width, width])?,
            output: BiasedLinear::load(checkpoint, &name(names::VISION_OUTPUT), [width, width])?,
            heads: config.num_attention_heads,
        })
    }

    /// Adds to the residual stream `x`, f32 `[patches, width]`, in place.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        rotation: Rotation<'_>,
        activations: Activations,
    ) -> candle_core::Result<()> {
        let (patches, width) = x.dims2()?;
        let qkv = Tensor::zeros((patches, 3 * width), DType::F32, &Device::Cpu)?; // [patches, 3 * width]
        for rows in pieces(patches) {
            let normed = self.norm.forward(&x.narrow(0, rows.start, rows.len())?)?; // [rows, width]
            self.qkv.forward_into(&normed, activations, &qkv.narrow(0, rows.start, rows.len())?)?;
        }
        rope_grid(&qkv.narrow(1, 0, 2 * width)?, rotation.places, rotation.inv_freq)?;
        let attended = x.zeros_like()?; // [patches, width]
        full_attention(&qkv, self.heads, activations, &attended)?;
        for rows in pieces(patches) {
            let attended = attended.narrow(0, rows.start, rows.len())?;
            let out = self.output.forward(&attended, activations)?; // [rows, width]
            add_assign(&x.narrow(0, rows.start, rows.len())?, &out)?;
        }
        Ok(())
    }
}
