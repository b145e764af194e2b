//! The vision tower's dimensions.

use super::fields::Fields;
use crate::CheckpointError;

/// The MoonViT tower and its projector. Absent fields have the values of K2.6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width of the tower.
    pub hidden_size: usize,
    /// Its blocks.
    pub num_layers: usize,
    /// Its attention heads.
    pub num_attention_heads: usize,
    /// Inner width of a block's MLP.
    pub intermediate_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Patches merged to one token: height, width.
    pub merge_kernel_size: [usize; 2],
    /// Rows of the table of positions.
    pub pos_emb_height: usize,
    /// Its columns.
    pub pos_emb_width: usize,
    /// Frames that share one pass.
    pub pos_emb_time: usize,
    /// Width of the text model, to which the projector leads.
    pub text_hidden_size: usize,
    /// Epsilon of the projector's norm.
    pub projector_ln_eps: f64,
}

impl VisionConfig {
    /// Reads `vision_config`, in Moonshot's field names or in those of transformers.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, CheckpointError> {
        let size = |moonshot: &str, transformers: &str, default: usize| {
            Ok(fields.optional_usize(moonshot)?.or(fields.optional_usize(transformers)?).unwrap_or(default))
        };
        Ok(Self {
            hidden_size: size("vt_hidden_size", "hidden_size", 1152)?,
            num_layers: size("vt_num_hidden_layers", "num_hidden_layers", 27)?,
            num_attention_heads: size("vt_num_attention_heads", "num_attention_heads", 16)?,
            intermediate_size: size("vt_intermediate_size", "intermediate_size", 4304)?,
            patch_size: fields.usize_or("patch_size", 14)?,
            merge_kernel_size: fields.usizes("merge_kernel_size")?.unwrap_or([2, 2]),
            pos_emb_height: size("init_pos_emb_height", "pos_emb_height", 64)?,
            pos_emb_width: size("init_pos_emb_width", "pos_emb_width", 64)?,
            pos_emb_time: size("init_pos_emb_time", "pos_emb_time", 4)?,
            text_hidden_size: size("text_hidden_size", "projection_hidden_size", 7168)?,
            projector_ln_eps: fields.f64_or("projector_ln_eps", 1e-5)?,
        })
    }
}
