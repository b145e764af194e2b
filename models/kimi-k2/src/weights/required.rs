//! The tensors that a configuration requires, in the order of the forward pass.

use crate::{ModelConfig, VisionConfig, tensor_names as names};

/// Something that a checkpoint must have.
pub(super) enum Required {
    /// A tensor of 16- or 32-bit numbers, by its name.
    Dense { tensor: String, shape: Vec<usize> },
    /// A linear layer in any supported format, by the name of its module.
    Linear { module: String, out_features: usize, in_features: usize },
}

/// Calls `visit` with everything that the model of `config` needs.
pub(super) fn for_each(config: &ModelConfig, mut visit: impl FnMut(Required)) {
    let hidden = config.hidden_size;
    visit(linear(names::EMBED_TOKENS, config.vocab_size, hidden));
    for layer in 0..config.num_layers {
        visit(vector(names::layer(layer, names::INPUT_NORM), hidden));
        attention(config, layer, &mut visit);
        visit(vector(names::layer(layer, names::POST_ATTENTION_NORM), hidden));
        if config.is_moe_layer(layer) {
            experts(config, layer, &mut visit);
        } else {
            let name = |projection: &str| names::mlp(layer, names::MLP, projection);
            mlp(name, config.intermediate_size, hidden, &mut visit);
        }
    }
    visit(vector(names::FINAL_NORM, hidden));
    visit(linear(names::LM_HEAD, config.vocab_size, hidden));
    if let Some(vision) = &config.vision {
        vision_tower(vision, &mut visit);
        projector(vision, &mut visit);
    }
}

fn attention(config: &ModelConfig, layer: usize, visit: &mut impl FnMut(Required)) {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let name = |part: &str| names::layer(layer, part);
    let queries = heads * config.qk_head_dim();
    if let Some(rank) = config.q_lora_rank {
        visit(linear(name(names::Q_A_PROJ), rank, hidden));
        visit(vector(name(names::Q_A_NORM), rank));
        visit(linear(name(names::Q_B_PROJ), queries, rank));
    } else {
        visit(linear(name(names::Q_PROJ), queries, hidden));
    }
    visit(linear(name(names::KV_A_PROJ), config.cache_width(), hidden));
    visit(vector(name(names::KV_A_NORM), config.kv_lora_rank));
    let keys_and_values = heads * (config.qk_nope_head_dim + config.v_head_dim);
    visit(linear(name(names::KV_B_PROJ), keys_and_values, config.kv_lora_rank));
    visit(linear(name(names::O_PROJ), hidden, heads * config.v_head_dim));
}

fn experts(config: &ModelConfig, layer: usize, visit: &mut impl FnMut(Required)) {
    let hidden = config.hidden_size;
    visit(linear(names::layer(layer, names::ROUTER), config.n_routed_experts, hidden));
    visit(vector(names::layer(layer, names::CORRECTION_BIAS), config.n_routed_experts));
    if config.n_shared_experts > 0 {
        let name = |projection: &str| names::mlp(layer, names::SHARED_EXPERTS, projection);
        mlp(name, config.shared_intermediate_size(), hidden, visit);
    }
    for expert in 0..config.n_routed_experts {
        let name = |projection: &str| names::expert(layer, expert, projection);
        mlp(name, config.moe_intermediate_size, hidden, visit);
    }
}

fn mlp(name: impl Fn(&str) -> String, inner: usize, hidden: usize, visit: &mut impl FnMut(Required)) {
    visit(linear(name(names::GATE_PROJ), inner, hidden));
    visit(linear(name(names::UP_PROJ), inner, hidden));
    visit(linear(name(names::DOWN_PROJ), hidden, inner));
}

fn vision_tower(config: &VisionConfig, visit: &mut impl FnMut(Required)) {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    visit(dense(names::weight(names::PATCH_PROJECTION), &[width, 3, config.patch_size, config.patch_size]));
    visit(vector(names::bias(names::PATCH_PROJECTION), width));
    let positions = [config.pos_emb_height, config.pos_emb_width, width];
    visit(dense(names::PATCH_POSITIONS.to_owned(), &positions));
    for block in 0..config.num_layers {
        let name = |part: &str| names::vision_block(block, part);
        layer_norm(&name(names::VISION_ATTENTION_NORM), width, visit);
        biased_linear(&name(names::VISION_QKV), [3 * width, width], visit);
        biased_linear(&name(names::VISION_OUTPUT), [width, width], visit);
        layer_norm(&name(names::VISION_MLP_NORM), width, visit);
        biased_linear(&name(names::VISION_UP), [inner, width], visit);
        biased_linear(&name(names::VISION_DOWN), [width, inner], visit);
    }
    layer_norm(names::VISION_FINAL_NORM, width, visit);
}

fn projector(config: &VisionConfig, visit: &mut impl FnMut(Required)) {
    let merged = config.merged_size();
    layer_norm(names::PROJECTOR_NORM, config.hidden_size, visit);
    biased_linear(names::PROJECTOR_INNER, [merged, merged], visit);
    biased_linear(names::PROJECTOR_OUTER, [config.text_hidden_size, merged], visit);
}

fn layer_norm(module: &str, width: usize, visit: &mut impl FnMut(Required)) {
    visit(vector(names::weight(module), width));
    visit(vector(names::bias(module), width));
}

fn biased_linear(module: &str, [out_features, in_features]: [usize; 2], visit: &mut impl FnMut(Required)) {
    visit(linear(module, out_features, in_features));
    visit(vector(names::bias(module), out_features));
}

fn vector(tensor: impl Into<String>, len: usize) -> Required {
    dense(tensor.into(), &[len])
}

fn dense(tensor: String, shape: &[usize]) -> Required {
    Required::Dense { tensor, shape: shape.to_vec() }
}

fn linear(module: impl Into<String>, out_features: usize, in_features: usize) -> Required {
    Required::Linear { module: module.into(), out_features, in_features }
}
