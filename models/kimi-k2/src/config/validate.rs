//! Values that have the right type and cannot be right.

use super::{ModelConfig, fields::Fields};
use crate::CheckpointError;

/// Far above any model of this family; keeps sums and products of sizes far below the range of `usize`.
pub(super) const MAX_WIDTH: usize = 1 << 24;
pub(super) const MAX_LAYERS: usize = 4096;
const MAX_EXPERTS: usize = 1 << 16;

/// Checks `config`, read from `fields`, and complains about the first impossible value.
pub(super) fn check(config: &ModelConfig, fields: &Fields<'_>) -> Result<(), CheckpointError> {
    check_sizes(config, fields)?;
    check_attention(config, fields)?;
    if config.n_routed_experts > 0 {
        check_experts(config, fields)?;
    }
    let any_dense = (0..config.num_layers).any(|layer| !config.is_moe_layer(layer));
    if any_dense {
        within(fields, "intermediate_size", config.intermediate_size, 1, MAX_WIDTH)?;
    }
    Ok(())
}

fn check_sizes(config: &ModelConfig, fields: &Fields<'_>) -> Result<(), CheckpointError> {
    within(fields, "vocab_size", config.vocab_size, 1, MAX_WIDTH)?;
    within(fields, "hidden_size", config.hidden_size, 1, MAX_WIDTH)?;
    within(fields, "num_hidden_layers", config.num_layers, 1, MAX_LAYERS)?;
    within(fields, "moe_layer_freq", config.moe_layer_freq, 1, MAX_LAYERS)?;
    within(fields, "n_routed_experts", config.n_routed_experts, 0, MAX_EXPERTS)?;
    within(fields, "n_shared_experts", config.n_shared_experts, 0, MAX_EXPERTS)?;
    length(fields, "max_position_embeddings", config.max_position_embeddings)
}

/// Checks a number of tokens.
pub(super) fn length(fields: &Fields<'_>, name: &str, tokens: usize) -> Result<(), CheckpointError> {
    within(fields, name, tokens, 1, 1 << 31)
}

fn check_attention(config: &ModelConfig, fields: &Fields<'_>) -> Result<(), CheckpointError> {
    within(fields, "num_attention_heads", config.num_attention_heads, 1, MAX_EXPERTS)?;
    within(fields, "q_lora_rank", config.q_lora_rank.unwrap_or(1), 1, MAX_WIDTH)?;
    within(fields, "kv_lora_rank", config.kv_lora_rank, 1, MAX_WIDTH)?;
    within(fields, "qk_nope_head_dim", config.qk_nope_head_dim, 1, MAX_WIDTH)?;
    within(fields, "qk_rope_head_dim", config.qk_rope_head_dim, 2, MAX_WIDTH)?;
    within(fields, "v_head_dim", config.v_head_dim, 1, MAX_WIDTH)?;
    if !config.qk_rope_head_dim.is_multiple_of(2) {
        return Err(fields.impossible("qk_rope_head_dim", "an even number", config.qk_rope_head_dim));
    }
    positive(fields, "rms_norm_eps", config.rms_norm_eps)?;
    positive(fields, "mla_norm_eps", config.mla_norm_eps)?;
    if config.rope_theta <= 1.0 {
        return Err(fields.impossible("rope_theta", "a number above 1", config.rope_theta));
    }
    let Some(yarn) = &config.rope_scaling else { return Ok(()) };
    if yarn.factor < 1.0 {
        return Err(fields.impossible("rope_scaling.factor", "a number, 1 or more", yarn.factor));
    }
    positive(fields, "rope_scaling.beta_slow", yarn.beta_slow)?;
    if yarn.beta_fast < yarn.beta_slow {
        let wanted = format!("at least beta_slow, {}", yarn.beta_slow);
        return Err(fields.impossible("rope_scaling.beta_fast", wanted, yarn.beta_fast));
    }
    let original = yarn.original_max_position_embeddings;
    within(fields, "rope_scaling.original_max_position_embeddings", original, 1, 1 << 31)
}

fn check_experts(config: &ModelConfig, fields: &Fields<'_>) -> Result<(), CheckpointError> {
    let experts = config.n_routed_experts;
    within(fields, "moe_intermediate_size", config.moe_intermediate_size, 1, MAX_WIDTH)?;
    within(fields, "num_experts_per_tok", config.num_experts_per_tok, 1, experts)?;
    within(fields, "n_group", config.n_group, 1, experts)?;
    within(fields, "topk_group", config.topk_group, 1, config.n_group)?;
    positive(fields, "routed_scaling_factor", config.routed_scaling_factor)?;
    if !experts.is_multiple_of(config.n_group) {
        let wanted = format!("a divisor of n_routed_experts, {experts}");
        return Err(fields.impossible("n_group", wanted, config.n_group));
    }
    let group = experts / config.n_group;
    if config.n_group > 1 && group < 2 {
        return Err(fields.impossible("n_group", "groups of at least 2 experts", config.n_group));
    }
    let eligible = config.topk_group * group;
    if config.num_experts_per_tok > eligible {
        let wanted = format!("at most {eligible}, the experts of topk_group groups");
        return Err(fields.impossible("num_experts_per_tok", wanted, config.num_experts_per_tok));
    }
    Ok(())
}

pub(super) fn within(
    fields: &Fields<'_>,
    name: &str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), CheckpointError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(fields.impossible(name, format!("a number from {min} to {max}"), value))
}

pub(super) fn positive(fields: &Fields<'_>, name: &str, value: f64) -> Result<(), CheckpointError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(fields.impossible(name, "a number above 0", value))
}
