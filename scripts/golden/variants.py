"""The golden checkpoints: what each one is for, and its config.json."""

# Every size differs from every other one of its layer where the architecture allows, so that mixing two up shows.
COMMON = dict(
    vocab_size=512, moe_layer_freq=1, norm_topk_prob=True, scoring_func="sigmoid", topk_method="noaux_tc",
    hidden_act="silu", attention_bias=False, attention_dropout=0.0, rope_theta=50000.0, tie_word_embeddings=False,
    bos_token_id=480, eos_token_id=482, pad_token_id=511, num_nextn_predict_layers=0, initializer_range=0.02,
)

INT4 = dict(
    quant_method="compressed-tensors", format="pack-quantized", quantization_status="compressed", kv_cache_scheme=None,
    ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    config_groups=dict(group_0=dict(
        targets=["Linear"], input_activations=None, output_activations=None,
        weights=dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32, dynamic=False,
                     actorder=None, block_structure=None, observer="minmax", observer_kwargs={}),
    )),
)

FP8 = dict(quant_method="fp8", fmt="e4m3", weight_block_size=[128, 128], activation_scheme="dynamic")


def yarn(factor, beta_fast, original):
    return dict(type="yarn", factor=factor, beta_fast=beta_fast, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                original_max_position_embeddings=original)


VARIANTS = {
    # Moonlight: no query bottleneck, plain rotary embedding, two shared experts, bf16 throughout.
    "moonlight-bf16": dict(
        COMMON, model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"], dtype="bfloat16",
        hidden_size=96, intermediate_size=160, moe_intermediate_size=48, num_hidden_layers=3, first_k_dense_replace=1,
        num_attention_heads=3, num_key_value_heads=3, q_lora_rank=None, kv_lora_rank=40, qk_nope_head_dim=20,
        qk_rope_head_dim=12, v_head_dim=28, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, n_group=1,
        topk_group=1, routed_scaling_factor=2.446, rms_norm_eps=1e-5, rope_scaling=None, max_position_embeddings=8192,
    ),
    # K2-Thinking: int4 experts in a flat config; group-limited routing, two dense layers, equal YaRN betas.
    "grouped-int4": dict(
        COMMON, model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"], dtype="bfloat16",
        hidden_size=96, intermediate_size=144, moe_intermediate_size=64, num_hidden_layers=4, first_k_dense_replace=2,
        num_attention_heads=3, num_key_value_heads=3, q_lora_rank=56, kv_lora_rank=48, qk_nope_head_dim=16,
        qk_rope_head_dim=24, v_head_dim=36, n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, n_group=4,
        topk_group=2, routed_scaling_factor=2.827, rms_norm_eps=1e-6, rope_scaling=yarn(32.0, 1.0, 4096),
        max_position_embeddings=131072, quantization_config=INT4,
    ),
    # K2-Instruct: fp8 with 128 x 128 blocks that do not divide the matrices, two shards with an index.
    "instruct-fp8": dict(
        COMMON, model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"], dtype="bfloat16",
        hidden_size=160, intermediate_size=272, moe_intermediate_size=136, num_hidden_layers=3, first_k_dense_replace=1,
        num_attention_heads=2, num_key_value_heads=2, q_lora_rank=72, kv_lora_rank=64, qk_nope_head_dim=40,
        qk_rope_head_dim=16, v_head_dim=24, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=1,
        topk_group=1, routed_scaling_factor=2.827, rms_norm_eps=1e-6, rope_scaling=yarn(32.0, 1.0, 4096),
        max_position_embeddings=131072, quantization_config=FP8,
    ),
}
