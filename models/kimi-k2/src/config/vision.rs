//! The vision tower's dimensions.

use serde_json::json;

use super::{
    fields::Fields,
    validate::{MAX_LAYERS, MAX_WIDTH, positive, within},
};
use crate::CheckpointError;

/// Side of a patch that prompts are cut into.
const PATCH_SIZE: usize = 14;

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
    ///
    /// # Errors
    /// A value that is impossible, that means another algorithm, or that does not fit a text model of this width.
    pub(super) fn read(fields: &Fields<'_>, hidden_size: usize) -> Result<Self, CheckpointError> {
        fields.only("pos_emb_type", &json!("divided_fixed"))?;
        fields.only("merge_type", &json!("sd2_tpool"))?;
        fields.only("video_attn_type", &json!("spatial_temporal"))?;
        fields.only("mm_projector_type", &json!("patchmerger"))?;
        fields.only("projector_hidden_act", &json!("gelu"))?;
        fields.only("patch_size", &json!(PATCH_SIZE))?;
        fields.only("merge_kernel_size", &json!([2, 2]))?;
        let size = |moonshot: &str, transformers: &str, default: usize| {
            Ok(fields.optional_usize(moonshot)?.or(fields.optional_usize(transformers)?).unwrap_or(default))
        };
        let config = Self {
            hidden_size: size("vt_hidden_size", "hidden_size", 1152)?,
            num_layers: size("vt_num_hidden_layers", "num_hidden_layers", 27)?,
            num_attention_heads: size("vt_num_attention_heads", "num_attention_heads", 16)?,
            intermediate_size: size("vt_intermediate_size", "intermediate_size", 4304)?,
            patch_size: PATCH_SIZE,
            merge_kernel_size: [2, 2],
            pos_emb_height: size("init_pos_emb_height", "pos_emb_height", 64)?,
            pos_emb_width: size("init_pos_emb_width", "pos_emb_width", 64)?,
            pos_emb_time: size("init_pos_emb_time", "pos_emb_time", 4)?,
            text_hidden_size: size("text_hidden_size", "projection_hidden_size", 7168)?,
            projector_ln_eps: fields.f64_or("projector_ln_eps", 1e-5)?,
        };
        config.check(fields, hidden_size)?;
        Ok(config)
    }

    fn check(&self, fields: &Fields<'_>, hidden_size: usize) -> Result<(), CheckpointError> {
        within(fields, "vt_hidden_size", self.hidden_size, 1, MAX_WIDTH)?;
        within(fields, "vt_num_hidden_layers", self.num_layers, 1, MAX_LAYERS)?;
        within(fields, "vt_intermediate_size", self.intermediate_size, 1, MAX_WIDTH)?;
        within(fields, "init_pos_emb_height", self.pos_emb_height, 1, MAX_LAYERS)?;
        within(fields, "init_pos_emb_width", self.pos_emb_width, 1, MAX_LAYERS)?;
        within(fields, "init_pos_emb_time", self.pos_emb_time, 1, MAX_LAYERS)?;
        within(fields, "text_hidden_size", self.text_hidden_size, hidden_size, hidden_size)?;
        positive(fields, "projector_ln_eps", self.projector_ln_eps)?;
        let heads = self.num_attention_heads;
        within(fields, "vt_num_attention_heads", heads, 1, self.hidden_size)?;
        // Each head has pairs for columns and as many for rows.
        if self.hidden_size.is_multiple_of(4 * heads) {
            return Ok(());
        }
        let wanted = format!("a number whose quadruple divides vt_hidden_size, {}", self.hidden_size);
        Err(fields.impossible("vt_num_attention_heads", wanted, heads))
    }

    /// Numbers that exist at once while a medium of so many patches is looked at, at most: the patches themselves, the residual
    /// stream, what attention gives, queries, keys and values of all of them, and the wide values of some rows.
    pub fn activations(&self, patches: usize) -> usize {
        let pixels = 3 * self.patch_size * self.patch_size;
        let rows = patches.min(crate::vision::ROWS_AT_ONCE);
        let blocks =
            patches * 5 * self.hidden_size + rows * (3 * self.hidden_size + 2 * self.intermediate_size);
        let merged =
            3 * patches * self.hidden_size + patches / 4 * (self.merged_size() + self.text_hidden_size);
        patches * pixels + blocks.max(merged)
    }

    /// Width of the patches that are merged to one token, side by side.
    pub fn merged_size(&self) -> usize {
        self.merge_kernel_size.iter().product::<usize>() * self.hidden_size
    }
}
