use serde_json::{Value, json};

use super::*;

/// A flat configuration in the shape of Moonlight.
fn moonlight() -> Value {
    json!({
        "model_type": "deepseek_v3", "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 4,
        "first_k_dense_replace": 2, "moe_layer_freq": 1, "intermediate_size": 96, "moe_intermediate_size": 32,
        "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2,
        "norm_topk_prob": true, "routed_scaling_factor": 2.446, "num_attention_heads": 4, "q_lora_rank": null,
        "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "rope_theta": 50000.0, "rope_scaling": null,
        "torch_dtype": "bfloat16", "eos_token_id": [299, 298], "pad_token_id": -1
    })
}

fn parse(value: &Value) -> Result<ModelConfig, CheckpointError> {
    ModelConfig::parse(value.to_string().as_bytes(), None)
}

fn with(field: &str, value: Value) -> Value {
    let mut config = moonlight();
    config[field] = value;
    config
}

#[test]
fn flat_configuration_without_query_bottleneck_and_scaling() {
    let config =
        ModelConfig::parse(moonlight().to_string().as_bytes(), Some(br#"{"eos_token_id": 297}"#)).unwrap();
    assert_eq!(config.model_type, ModelType::DeepseekV3);
    assert_eq!((config.q_lora_rank, config.rope_scaling, config.pad_token_id), (None, None, None));
    assert_eq!(config.eos_token_ids, [297, 298, 299]);
    assert_eq!(config.dtype, Some(DenseDtype::Bf16));
    assert!((config.mla_norm_eps - 1e-6).abs() < 1e-12);
    assert_eq!(
        (0..4).map(|layer| config.is_moe_layer(layer)).collect::<Vec<_>>(),
        [false, false, true, true]
    );
    assert_eq!((config.qk_head_dim(), config.cache_width(), config.shared_intermediate_size()), (24, 40, 64));
}

#[test]
fn what_was_validated_is_at_most_what_there_are_positions_for() {
    let validated = |generation: Option<&[u8]>| {
        let config = ModelConfig::parse(moonlight().to_string().as_bytes(), generation);
        config.map(|config| config.validated_context)
    };
    assert_eq!(validated(None).unwrap(), 8192);
    assert_eq!(validated(Some(b"{}")).unwrap(), 8192);
    assert_eq!(validated(Some(br#"{"max_length": 5000}"#)).unwrap(), 5000);
    assert_eq!(validated(Some(br#"{"max_length": 262144}"#)).unwrap(), 8192);
    let error = validated(Some(br#"{"max_length": 0}"#)).unwrap_err().to_string();
    assert!(error.contains("generation_config.json") && error.contains("max_length"), "{error}");
}

#[test]
fn nested_configuration_of_k2_6() {
    let text = include_bytes!("../../../golden/tiny-int4/config.json");
    let config = ModelConfig::parse(text, None).unwrap();
    assert_eq!(config.model_type, ModelType::KimiK25);
    assert_eq!((config.q_lora_rank, config.num_layers, config.n_routed_experts), (Some(48), 3, 12));
    let yarn = config.rope_scaling.unwrap();
    assert_eq!((yarn.factor, yarn.original_max_position_embeddings), (64.0, 4096));
    assert_eq!(config.media_placeholder_token_id, Some(1813));
    assert_eq!(config.vision.unwrap().hidden_size, 64);
    assert!(matches!(config.quantization, Quantization::Int4Group32 { .. }));
}

#[test]
fn rope_parameters_of_newer_writers() {
    let mut config = moonlight();
    config.as_object_mut().unwrap().remove("rope_theta");
    config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 50000.0 });
    let plain = parse(&config).unwrap();
    assert_eq!((plain.rope_theta, plain.rope_scaling), (50000.0, None));
    config["rope_parameters"] = json!({ "rope_type": "yarn", "rope_theta": 50000.0, "factor": 32, "beta_fast": 1.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096 });
    let yarn = parse(&config).unwrap().rope_scaling.unwrap();
    assert_eq!((yarn.factor, yarn.beta_fast, yarn.beta_slow), (32.0, 1.0, 1.0));
}

#[test]
fn every_complaint_names_field_expectation_and_finding() {
    let cases = [
        ("model_type", json!("llama"), "llama"),
        ("num_attention_heads", json!(0), "found 0"),
        ("num_experts_per_tok", json!(9), "from 1 to 8"),
        ("num_experts_per_tok", json!(5), "at most 4"),
        ("qk_rope_head_dim", json!(7), "even"),
        ("n_group", json!(3), "divisor of n_routed_experts, 8"),
        ("n_group", json!(8), "groups of at least 2"),
        ("topk_group", json!(5), "from 1 to 4"),
        ("hidden_size", json!("64"), "found \"64\""),
        ("hidden_size", json!(-1), "found -1"),
        ("vocab_size", Value::Null, "found nothing"),
        ("intermediate_size", json!(0), "from 1"),
        ("num_hidden_layers", json!(1_000_000_000_000_u64), "to 4096"),
        ("scoring_func", json!("softmax"), "sigmoid"),
        ("topk_method", json!("greedy"), "noaux_tc"),
        ("attention_bias", json!(true), "expected false"),
        ("rope_scaling", json!({ "type": "linear", "factor": 2.0 }), "linear"),
        (
            "rope_scaling",
            json!({ "type": "yarn", "factor": 0.5, "original_max_position_embeddings": 9 }),
            "0.5",
        ),
        ("quantization_config", json!({ "quant_method": "gptq" }), "gptq"),
        ("quantization_config", json!({ "quant_method": "fp8", "weight_block_size": [64, 64] }), "[64,64]"),
    ];
    for (field, value, part) in cases {
        let line = parse(&with(field, value)).unwrap_err().to_string();
        assert!(line.contains(field) && line.contains(part) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn int4_variants_that_would_be_read_wrongly_are_refused() {
    let base: Value =
        serde_json::from_slice(include_bytes!("../../../golden/tiny-int4/config.json")).unwrap();
    let weights = "/text_config/quantization_config/config_groups/group_0/weights";
    for (pointer, value) in [
        (format!("{weights}/num_bits"), json!(8)),
        (format!("{weights}/group_size"), json!(128)),
        (format!("{weights}/symmetric"), json!(false)),
        (format!("{weights}/actorder"), json!("group")),
        ("/text_config/quantization_config/format".to_owned(), json!("int-quantized")),
        ("/text_config/quantization_config/kv_cache_scheme".to_owned(), json!({ "num_bits": 8 })),
    ] {
        let mut config = base.clone();
        *config.pointer_mut(&pointer).unwrap() = value;
        let line = parse(&config).unwrap_err().to_string();
        assert!(line.contains(pointer.rsplit('/').next().unwrap()), "{line}");
    }
}

#[test]
fn patterns_match_as_python_does() {
    let matches = |pattern: &str, module: &str| ModulePattern::new(pattern).unwrap().matches(module);
    let dense_mlp = r"re:.*mlp\.(gate|up|gate_up|down)_proj.*";
    assert!(matches(dense_mlp, "language_model.model.layers.0.mlp.gate_proj"));
    assert!(!matches(dense_mlp, "language_model.model.layers.1.mlp.experts.0.gate_proj"));
    assert!(matches("re:vision_tower.*", "vision_tower.encoder"));
    assert!(!matches("re:tower.*", "vision_tower.encoder"), "anchored at the start");
    assert!(matches("re:a|b", "b.c"), "the anchor holds for every alternative");
    assert!(!matches("re:a|b", "cb"));
    assert!(matches("lm_head", "language_model.lm_head") && !matches("head", "lm_head"));
    assert!(matches("self_attn", "model.layers.0.self_attn.o_proj"));
    assert!(ModulePattern::new("re:(?!x)y").is_err());
}
