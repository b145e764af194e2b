//! A checkpoint with the names, shapes and 64 files of K2.6, whose 595 GB are holes in sparse files.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{collections::BTreeMap, fs, io::Write, path::Path, time::Instant};

use kimi_k2::{Checkpoint, CheckpointFiles, inspect};
use serde_json::{Value, json};

const LAYERS: usize = 61;
const PREFIX: &str = "language_model.model";

/// Tensors of one file: name, dtype, shape.
type Tensors = Vec<(String, &'static str, Vec<usize>)>;

fn config() -> Value {
    json!({
        "model_type": "kimi_k25",
        "text_config": {
            "model_type": "kimi_k2", "vocab_size": 163_840, "hidden_size": 7168, "num_hidden_layers": LAYERS,
            "first_k_dense_replace": 1, "moe_layer_freq": 1, "intermediate_size": 18432,
            "moe_intermediate_size": 2048, "n_routed_experts": 384, "n_shared_experts": 1,
            "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827,
            "num_attention_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 50000.0,
            "max_position_embeddings": 262_144,
            "quantization_config": {
                "quant_method": "compressed-tensors", "format": "pack-quantized",
                "config_groups": { "group_0": { "targets": ["Linear"], "weights": {
                    "num_bits": 4, "group_size": 32, "type": "int", "symmetric": true, "strategy": "group" } } },
                "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*",
                    "re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "re:.*lm_head.*",
                    "re:vision_tower.*", "re:mm_projector.*"]
            }
        }
    })
}

fn layer(layer: usize) -> Tensors {
    let mut tensors = Tensors::new();
    let name = |part: &str| format!("{PREFIX}.layers.{layer}.{part}");
    for (part, shape) in [
        ("input_layernorm", vec![7168]),
        ("post_attention_layernorm", vec![7168]),
        ("self_attn.q_a_proj", vec![1536, 7168]),
        ("self_attn.q_a_layernorm", vec![1536]),
        ("self_attn.q_b_proj", vec![12288, 1536]),
        ("self_attn.kv_a_proj_with_mqa", vec![576, 7168]),
        ("self_attn.kv_a_layernorm", vec![512]),
        ("self_attn.kv_b_proj", vec![16384, 512]),
        ("self_attn.o_proj", vec![7168, 8192]),
    ] {
        tensors.push((name(&format!("{part}.weight")), "BF16", shape));
    }
    let projections = |inner: usize| {
        [("gate_proj", [inner, 7168]), ("up_proj", [inner, 7168]), ("down_proj", [7168, inner])]
    };
    let dense = if layer == 0 { ("mlp", 18432) } else { ("mlp.shared_experts", 2048) };
    for (projection, shape) in projections(dense.1) {
        tensors.push((name(&format!("{}.{projection}.weight", dense.0)), "BF16", shape.to_vec()));
    }
    if layer > 0 {
        tensors.push((name("mlp.gate.weight"), "BF16", vec![384, 7168]));
        tensors.push((name("mlp.gate.e_score_correction_bias"), "F32", vec![384]));
        for expert in 0..384 {
            for (projection, [rows, columns]) in projections(2048) {
                let part = |part: &str| name(&format!("mlp.experts.{expert}.{projection}.{part}"));
                tensors.push((part("weight_packed"), "I32", vec![rows, columns / 8]));
                tensors.push((part("weight_scale"), "BF16", vec![rows, columns / 32]));
                tensors.push((part("weight_shape"), "I32", vec![2]));
            }
        }
    }
    tensors
}

/// Writes the header and leaves a hole for the weights.
fn write(path: &Path, tensors: &Tensors) {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, dtype, shape) in tensors {
        let size = if *dtype == "BF16" { 2 } else { 4 } * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, end + size] }),
        );
        end += size;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

#[test]
#[ignore = "makes sparse files of 594 GB; run it where the file system has them"]
fn opens_in_seconds_and_adds_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut map = BTreeMap::new();
    let mut add = |number: usize, tensors: &Tensors| {
        let file = format!("model-{number:05}-of-000064.safetensors");
        write(&directory.path().join(&file), tensors);
        map.extend(tensors.iter().map(|(name, ..)| (name.clone(), file.clone())));
    };
    (0..LAYERS).for_each(|number| add(number + 1, &layer(number)));
    let ends = [(format!("{PREFIX}.embed_tokens.weight"), vec![163_840, 7168])]
        .into_iter()
        .chain([(format!("{PREFIX}.norm.weight"), vec![7168])])
        .chain([("language_model.lm_head.weight".to_owned(), vec![163_840, 7168])]);
    add(62, &ends.map(|(name, shape)| (name, "BF16", shape)).collect());
    let index = json!({ "weight_map": map }).to_string();
    fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    fs::write(directory.path().join("config.json"), config().to_string()).unwrap();

    let start = Instant::now();
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory.path().to_owned())).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let inspection = inspect(&checkpoint);
    println!("opened in {seconds:.2} s\n{inspection}");
    assert!(seconds < 10.0, "opening took {seconds} s");
    assert_eq!(inspection.cache_bytes_per_token(), 70_272);
    let trillions = inspection.total_parameters as f64 / 1e12;
    let active_billions = inspection.active_parameters as f64 / 1e9;
    assert!((1.02..1.03).contains(&trillions), "{trillions}");
    assert!((31.0..32.5).contains(&active_billions), "{active_billions}");
}
