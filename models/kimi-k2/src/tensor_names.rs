//! Every name of the model's tensors, in one place.
//!
//! Names are canonical, as in a flat checkpoint (`model.layers.0.…`, `lm_head`). [`crate::Checkpoint`] finds them under
//! the prefixes that other layouts put in front. A *module* is a linear layer without its `.weight`; a *tensor* is
//! complete.

/// Module: token embedding `[vocab, hidden]`.
pub const EMBED_TOKENS: &str = "model.embed_tokens";
/// Module: output head `[vocab, hidden]`.
pub const LM_HEAD: &str = "lm_head";
/// Tensor: final norm `[hidden]`.
pub const FINAL_NORM: &str = "model.norm.weight";

/// Module of a layer: queries `[heads · (nope + rope), hidden]`, when there is no query bottleneck.
pub const Q_PROJ: &str = "self_attn.q_proj";
/// Module of a layer: query bottleneck `[q_lora, hidden]`.
pub const Q_A_PROJ: &str = "self_attn.q_a_proj";
/// Module of a layer: queries from the bottleneck `[heads · (nope + rope), q_lora]`.
pub const Q_B_PROJ: &str = "self_attn.q_b_proj";
/// Module of a layer: latent and rotary key `[kv_lora + rope, hidden]`.
pub const KV_A_PROJ: &str = "self_attn.kv_a_proj_with_mqa";
/// Module of a layer: keys and values from the latent `[heads · (nope + v), kv_lora]`.
pub const KV_B_PROJ: &str = "self_attn.kv_b_proj";
/// Module of a layer: attention output `[hidden, heads · v]`.
pub const O_PROJ: &str = "self_attn.o_proj";
/// Module of an MoE layer: router `[routed experts, hidden]`, never quantized.
pub const ROUTER: &str = "mlp.gate";
/// Block of a dense layer, for [`mlp`].
pub const MLP: &str = "mlp";
/// Block of an MoE layer, for [`mlp`].
pub const SHARED_EXPERTS: &str = "mlp.shared_experts";
/// Projection of an MLP `[inner, hidden]` whose output passes through `SiLU`.
pub const GATE_PROJ: &str = "gate_proj";
/// Projection of an MLP `[inner, hidden]`.
pub const UP_PROJ: &str = "up_proj";
/// Projection of an MLP `[hidden, inner]`.
pub const DOWN_PROJ: &str = "down_proj";

/// Tensor of a layer: norm before attention `[hidden]`.
pub const INPUT_NORM: &str = "input_layernorm.weight";
/// Tensor of a layer: norm before the MLP `[hidden]`.
pub const POST_ATTENTION_NORM: &str = "post_attention_layernorm.weight";
/// Tensor of a layer: norm of the query bottleneck `[q_lora]`.
pub const Q_A_NORM: &str = "self_attn.q_a_layernorm.weight";
/// Tensor of a layer: norm of the latent `[kv_lora]`.
pub const KV_A_NORM: &str = "self_attn.kv_a_layernorm.weight";
/// Tensor of an MoE layer: what is added to the scores before experts are chosen `[routed experts]`.
pub const CORRECTION_BIAS: &str = "mlp.gate.e_score_correction_bias";

/// Prefix of the vision tower's names.
pub const VISION_TOWER: &str = "vision_tower.";
/// Prefix of the projector's names.
pub const PROJECTOR: &str = "mm_projector.";
/// Module with a bias: the convolution over a patch `[width, 3, patch, patch]`.
pub const PATCH_PROJECTION: &str = "vision_tower.patch_embed.proj";
/// Tensor: the learned place of a patch `[rows, columns, width]`.
pub const PATCH_POSITIONS: &str = "vision_tower.patch_embed.pos_emb.weight";
/// Norm with a bias behind the tower's blocks `[width]`.
pub const VISION_FINAL_NORM: &str = "vision_tower.encoder.final_layernorm";
/// Norm of a block of the tower, before attention `[width]`.
pub const VISION_ATTENTION_NORM: &str = "norm0";
/// Module of a block of the tower: all queries, then keys, then values `[3 · width, width]`.
pub const VISION_QKV: &str = "wqkv";
/// Module of a block of the tower: attention output `[width, width]`.
pub const VISION_OUTPUT: &str = "wo";
/// Norm of a block of the tower, before the MLP `[width]`.
pub const VISION_MLP_NORM: &str = "norm1";
/// Module of a block of the tower `[inner, width]` whose output passes through GELU.
pub const VISION_UP: &str = "mlp.fc0";
/// Module of a block of the tower `[width, inner]`.
pub const VISION_DOWN: &str = "mlp.fc1";
/// Norm of each of four merged patches `[width]`.
pub const PROJECTOR_NORM: &str = "mm_projector.pre_norm";
/// Module `[4 · width, 4 · width]` whose output passes through GELU.
pub const PROJECTOR_INNER: &str = "mm_projector.proj.0";
/// Module `[hidden, 4 · width]`.
pub const PROJECTOR_OUTER: &str = "mm_projector.proj.2";

/// A norm or module of a block of the vision tower.
pub fn vision_block(block: usize, part: &str) -> String {
    format!("vision_tower.encoder.blocks.{block}.{part}")
}

/// Whether a module belongs to the vision tower or its projector.
pub fn is_vision(module: &str) -> bool {
    module.starts_with(VISION_TOWER) || module.starts_with(PROJECTOR)
}

/// The weight of a module or norm.
pub fn weight(module: &str) -> String {
    format!("{module}.weight")
}

/// The bias of a module or norm.
pub fn bias(module: &str) -> String {
    format!("{module}.bias")
}

/// A module or tensor of a layer.
pub fn layer(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// A projection of a layer's dense MLP ([`MLP`]) or of its shared experts ([`SHARED_EXPERTS`]).
pub fn mlp(layer: usize, block: &str, projection: &str) -> String {
    format!("model.layers.{layer}.{block}.{projection}")
}

/// A projection of one routed expert.
pub fn expert(layer: usize, expert: usize, projection: &str) -> String {
    format!("model.layers.{layer}.mlp.experts.{expert}.{projection}")
}
