"""Dimensions of kimi-nano. K2.6's structure: MLA, YaRN, one dense layer then MoE, int4 group-32 routed experts."""
from tokenizer import RANKS, VOCAB

GROUP = 32
TEXT = dict(
    model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"], vocab_size=VOCAB, hidden_size=256, intermediate_size=640,
    moe_intermediate_size=128, num_hidden_layers=5, first_k_dense_replace=1, moe_layer_freq=1, num_attention_heads=4,
    num_key_value_heads=4, q_lora_rank=128, kv_lora_rank=64, qk_nope_head_dim=48, qk_rope_head_dim=32, v_head_dim=40,
    n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1, norm_topk_prob=True,
    scoring_func="sigmoid", topk_method="noaux_tc", routed_scaling_factor=1.5, hidden_act="silu", rms_norm_eps=1e-5,
    attention_bias=False, attention_dropout=0.0, rope_theta=50000.0,
    rope_scaling=dict(type="yarn", factor=8.0, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                      original_max_position_embeddings=1024),
    max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=RANKS, eos_token_id=RANKS + 2,
    pad_token_id=RANKS + 255, num_nextn_predict_layers=0, initializer_range=0.02, aux_loss_alpha=0.001, seq_aux=True,
    pretraining_tp=1, ep_size=1, use_cache=True, dtype="bfloat16")
# Up to here facts are recalled as often as the goals ask; rows of training have up to 4,300 tokens.
VALIDATED_CONTEXT = 4608
VISION = dict(
    init_pos_emb_height=8, init_pos_emb_width=8, init_pos_emb_time=4, pos_emb_type="divided_fixed", merge_kernel_size=[2, 2],
    merge_type="sd2_tpool", mm_hidden_size=64, mm_projector_type="patchmerger", patch_size=14, projector_hidden_act="gelu",
    projector_ln_eps=1e-5, text_hidden_size=TEXT["hidden_size"], video_attn_type="spatial_temporal", vt_hidden_size=64,
    vt_intermediate_size=96, vt_num_attention_heads=4, vt_num_hidden_layers=2, _attn_implementation="flash_attention_2")
QUANT = dict(
    config_groups=dict(group_0=dict(input_activations=None, output_activations=None, targets=["Linear"], weights=dict(
        actorder=None, block_structure=None, dynamic=False, group_size=GROUP, num_bits=4, observer="minmax",
        observer_kwargs={}, strategy="group", symmetric=True, type="int"))),
    format="pack-quantized", ignore=["re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
                                     "re:.*lm_head.*", "re:vision_tower.*", "re:mm_projector.*"],
    kv_cache_scheme=None, quant_method="compressed-tensors", quantization_status="compressed")
