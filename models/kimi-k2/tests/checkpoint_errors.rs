//! Bad checkpoints: each gives one clear line that names the file, the tensor, what was expected and what is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kimi_k2::{Checkpoint, CheckpointError, CheckpointFiles, inspect};
use kimi_kernels::{DenseDtype, WeightData};
use proptest::prelude::*;
use safetensors::{SafeTensors, tensor::Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const LAYER: &str = "language_model.model.layers.1";

/// The tiny checkpoint in memory, to be damaged and written.
struct Tiny {
    config: Value,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/tiny-int4")
}

impl Tiny {
    fn load() -> Self {
        let config = serde_json::from_slice(&fs::read(golden().join("config.json")).unwrap()).unwrap();
        let file = fs::read(golden().join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let stored = |view: TensorView<'_>| Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        Self { config, tensors: tensors.iter().map(|(name, view)| (name.to_owned(), stored(view))).collect() }
    }

    fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.get_mut(name).unwrap_or_else(|| panic!("{name}"))
    }

    /// Renames every tensor.
    fn rename(&mut self, name: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().map(|(old, stored)| (name(&old), stored)).collect();
    }

    fn write(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), self.config.to_string()).unwrap();
        write_shard(&directory.path().join("model.safetensors"), self.tensors.iter());
        directory
    }

    /// Two shards with arbitrary names, and an index.
    fn write_sharded(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), self.config.to_string()).unwrap();
        let shard_of =
            |name: &str| if name.contains("experts") { "experts.safetensors" } else { "a.safetensors" };
        let map: BTreeMap<&String, &str> = self.tensors.keys().map(|name| (name, shard_of(name))).collect();
        for shard in ["experts.safetensors", "a.safetensors"] {
            let part = self.tensors.iter().filter(|(name, _)| shard_of(name) == shard);
            write_shard(&directory.path().join(shard), part);
        }
        let index = json!({ "metadata": {}, "weight_map": map });
        fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        directory
    }

    fn open(&self) -> Result<Checkpoint, CheckpointError> {
        // The directory may go: what is mapped stays mapped.
        open(&self.write())
    }
}

fn write_shard<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Stored)>) {
    let views = tensors.map(|(name, stored)| {
        (name, TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn open(directory: &TempDir) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(CheckpointFiles::Directory(directory.path().to_owned()))
}

/// The error's text, which must be one line and contain `parts`.
fn line<T>(result: Result<T, CheckpointError>, parts: &[&str]) -> String {
    let line = result.err().expect("this checkpoint is bad").to_string();
    assert!(!line.contains('\n'), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    line
}

#[test]
fn good_checkpoint_in_every_layout() {
    let tiny = Tiny::load();
    let without_prefix = |name: &str| name.replacen("language_model.", "", 1);
    let without_model = |name: &str| name.replacen("language_model.model.", "language_model.", 1);
    let layouts: [&dyn Fn(&str) -> String; 3] = [&str::to_owned, &without_prefix, &without_model];
    for layout in layouts {
        let mut tiny = Tiny { config: tiny.config.clone(), tensors: tiny.tensors.clone() };
        tiny.rename(layout);
        for directory in [tiny.write(), tiny.write_sharded()] {
            let checkpoint = open(&directory).unwrap();
            let expert = checkpoint.linear("model.layers.1.mlp.experts.3.down_proj", 128, 64).unwrap();
            let WeightData::Int4Group32 { packed, scales, scale_dtype } = expert.data else { panic!("int4") };
            assert_eq!((packed.len(), scales.len(), scale_dtype), (128 * 32, 128 * 2 * 2, DenseDtype::Bf16));
            let attention = checkpoint.linear("model.layers.1.self_attn.o_proj", 128, 80).unwrap();
            assert!(matches!(attention.data, WeightData::Dense { .. }));
            assert!(inspect(&checkpoint).parts.iter().all(|size| size.part.name() != "unused"));
            let head = checkpoint.linear("lm_head", 2048, 128).unwrap();
            let WeightData::Dense { bytes, .. } = head.data else { panic!("dense") };
            let stored = tiny.tensors.iter().find(|(name, _)| name.ends_with("lm_head.weight")).unwrap().1;
            assert_eq!(&*bytes, &stored.bytes[..]);
            assert_eq!(checkpoint.vector_f32("model.norm.weight", 128).unwrap().len(), 128);
        }
    }
}

#[test]
fn embedded_files_are_used_where_they_lie() {
    static WEIGHTS: &[u8] = include_bytes!("../../golden/tiny-int4/model.safetensors");
    static FILES: &[(&str, &[u8])] = &[
        ("model.safetensors", WEIGHTS),
        ("config.json", include_bytes!("../../golden/tiny-int4/config.json")),
    ];
    let files = CheckpointFiles::Embedded(FILES);
    assert_eq!(files.list().unwrap(), ["config.json", "model.safetensors"]);
    assert!(!files.exists("tiktoken.model"));
    line(files.read("tiktoken.model"), &["missing file", "embedded tiktoken.model"]);
    let checkpoint = Checkpoint::open(files).unwrap();
    let weight = checkpoint.linear("model.embed_tokens", 2048, 128).unwrap();
    let WeightData::Dense { bytes, .. } = weight.data else { panic!("dense") };
    assert!(WEIGHTS.as_ptr_range().contains(&bytes.as_ptr()), "not copied");
}

#[test]
fn prefetching_reads_all_files() {
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(golden().join("../../kimi-nano"))).unwrap();
    let mut heard = Vec::new();
    checkpoint.prefetch(&mut |done, total| heard.push((done, total)));
    let (first, last) = (heard[0], *heard.last().unwrap());
    assert!(first.0 == 0 && last.0 == last.1 && last.1 == checkpoint.total_bytes(), "{heard:?}");
    assert!(heard.is_sorted());
}

#[test]
fn locked_weights_stay_or_the_limit_is_named() {
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(golden().join("../../kimi-nano"))).unwrap();
    if let Err(error) = checkpoint.lock() {
        let (bytes, text) = (checkpoint.total_bytes().to_string(), error.to_string());
        assert!(
            ["model-00001", "ulimit -l", "--mlock", &bytes].iter().all(|part| text.contains(part)),
            "{text}"
        );
    } else if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")?.strip_suffix("kB")).unwrap();
        assert!(locked.trim().parse::<u64>().unwrap() * 1024 >= checkpoint.total_bytes(), "{locked} kB");
    }
}

#[test]
fn missing_tensors_are_named_and_counted() {
    let mut tiny = Tiny::load();
    for name in ["input_layernorm.weight", "mlp.experts.7.up_proj.weight_packed", "mlp.gate.weight"] {
        tiny.tensors.remove(&format!("{LAYER}.{name}")).unwrap();
    }
    let name = format!("{LAYER}.input_layernorm.weight");
    line(
        tiny.open(),
        &["missing tensor", "model.safetensors", &name, "[128]", "nothing", "2 more", "download"],
    );
}

#[test]
fn every_part_of_an_int4_weight_is_required() {
    for part in ["weight_packed", "weight_scale", "weight_shape"] {
        let mut tiny = Tiny::load();
        let name = format!("{LAYER}.mlp.experts.0.gate_proj.{part}");
        tiny.tensors.remove(&name).unwrap();
        line(tiny.open(), &["missing tensor", &name]);
    }
}

#[test]
fn wrong_shape_and_wrong_dtype() {
    let mut tiny = Tiny::load();
    tiny.tensor(&format!("{LAYER}.self_attn.kv_a_proj_with_mqa.weight")).shape = vec![128, 48];
    line(tiny.open(), &["wrong shape", "kv_a_proj_with_mqa.weight", "expected [48, 128]", "found [128, 48]"]);

    let mut tiny = Tiny::load();
    let name = format!("{LAYER}.input_layernorm.weight");
    *tiny.tensor(&name) = Stored { dtype: Dtype::I32, shape: vec![128], bytes: vec![0; 512] };
    line(tiny.open(), &["wrong dtype", &name, "BF16 or F16 or F32", "found I32"]);

    let mut tiny = Tiny::load();
    tiny.config["text_config"]["vocab_size"] = json!(2049);
    line(tiny.open(), &["wrong shape", "embed_tokens.weight", "[2049, 128]", "[2048, 128]", "1 more"]);
}

#[test]
fn incomplete_and_impossible_vision_towers() {
    let broken = |change: &dyn Fn(&mut Tiny), parts: &[&str]| {
        let mut tiny = Tiny::load();
        change(&mut tiny);
        line(tiny.open(), parts);
    };
    for name in [
        "vision_tower.encoder.blocks.1.mlp.fc0.bias",
        "vision_tower.patch_embed.proj.weight",
        "mm_projector.proj.2.weight",
    ] {
        broken(&|tiny| drop(tiny.tensors.remove(name)), &["missing tensor", name]);
    }
    let shapes: &dyn Fn(&mut Tiny) = &|tiny| tiny.config["vision_config"]["init_pos_emb_height"] = json!(16);
    broken(shapes, &["wrong shape", "pos_emb.weight", "[16, 8, 64]", "[8, 8, 64]"]);
    for (field, value, part) in [
        ("vt_num_attention_heads", json!(3), "found 3"),
        ("vt_num_attention_heads", json!(32), "divides vt_hidden_size, 64"),
        ("text_hidden_size", json!(64), "from 128 to 128"),
        ("patch_size", json!(16), "expected 14"),
        ("merge_type", json!("mean"), "sd2_tpool"),
    ] {
        broken(&|tiny| tiny.config["vision_config"][field] = value.clone(), &[field, part]);
    }
    let mut without = Tiny::load();
    without.config["vision_config"] = Value::Null;
    without.tensors.retain(|name, _| !name.starts_with("vision_tower") && !name.starts_with("mm_projector"));
    without.open().unwrap();
}

/// K2.5's list of exceptions does not name it.
#[test]
fn vision_is_never_quantized() {
    let mut tiny = Tiny::load();
    let ignore = tiny.config["text_config"]["quantization_config"]["ignore"].as_array_mut().unwrap();
    ignore.retain(|pattern| {
        !pattern.as_str().unwrap().contains("vision") && !pattern.as_str().unwrap().contains("mm_")
    });
    tiny.open().unwrap();
}

#[test]
fn damaged_files() {
    let tiny = Tiny::load();
    let directory = tiny.write();
    let path = directory.path().join("model.safetensors");
    let file = fs::read(&path).unwrap();

    fs::write(&path, &file[..file.len() - 1000]).unwrap();
    let whole = format!("expected {} bytes", file.len());
    line(open(&directory), &["truncated file", "model.safetensors", &whole, "found", "download"]);

    fs::write(&path, &file[..500]).unwrap();
    line(open(&directory), &["truncated file", "a header of", "492 bytes"]);

    fs::write(&path, &file[..5]).unwrap();
    line(open(&directory), &["truncated file", "5 bytes"]);

    fs::write(&path, [&file[..], b"more"].concat()).unwrap();
    line(open(&directory), &["longer than its header says"]);

    fs::write(&path, b"<html>this is an error page, not weights</html>").unwrap();
    line(open(&directory), &["not a safetensors file", "header length"]);

    let overlapping = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    fs::write(&path, [&(overlapping.len() as u64).to_le_bytes()[..], overlapping, &[0; 12]].concat())
        .unwrap();
    line(open(&directory), &["damaged safetensors header", "offset"]);

    fs::remove_file(&path).unwrap();
    line(open(&directory), &["no weights", "model.safetensors.index.json", "config.json"]);

    let nowhere = CheckpointFiles::Directory("/nowhere/at all".into());
    line(Checkpoint::open(nowhere), &["missing file", "/nowhere/at all/config.json"]);
}

#[test]
fn damaged_shards_and_index() {
    let tiny = Tiny::load();
    let directory = tiny.write_sharded();
    fs::remove_file(directory.path().join("experts.safetensors")).unwrap();
    line(open(&directory), &["missing file", "experts.safetensors", "download"]);

    let directory = tiny.write_sharded();
    let shard = directory.path().join("experts.safetensors");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    line(open(&directory), &["truncated file", "experts.safetensors"]);

    let directory = tiny.write_sharded();
    let index = directory.path().join("model.safetensors.index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["weight_map"]["language_model.model.norm.weight"] = json!("experts.safetensors");
    fs::write(&index, value.to_string()).unwrap();
    line(
        open(&directory),
        &["missing tensor", "experts.safetensors", "language_model.model.norm.weight", "index"],
    );

    value["weight_map"]["language_model.model.norm.weight"] = json!("../../etc/passwd");
    fs::write(&index, value.to_string()).unwrap();
    line(open(&directory), &["outside the checkpoint"]);

    fs::write(&index, "{\"weight_map\": [").unwrap();
    line(open(&directory), &["malformed JSON", "model.safetensors.index.json"]);
}

#[test]
fn wrong_configurations() {
    let tiny = Tiny::load();
    let directory = tiny.write();
    let path = directory.path().join("config.json");
    let config = path.display().to_string();

    fs::write(&path, "{\"model_type\": ").unwrap();
    line(open(&directory), &["malformed JSON", &config]);

    for (pointer, value, parts) in [
        ("/model_type", json!("qwen3"), ["unknown model_type", "qwen3"]),
        ("/text_config/quantization_config/quant_method", json!("awq"), ["unknown quantization", "awq"]),
        ("/text_config/num_attention_heads", json!(0), ["num_attention_heads", "found 0"]),
        ("/text_config/quantization_config", Value::Null, ["disagree", "experts.0.gate_proj"]),
        ("/text_config/quantization_config/ignore", json!([]), ["disagree", "self_attn.q_a_proj"]),
        ("/text_config/quantization_config/ignore", json!(["re:.*"]), ["disagree", "experts.0.gate_proj"]),
    ] {
        let mut config = tiny.config.clone();
        *config.pointer_mut(pointer).unwrap() = value;
        fs::write(&path, config.to_string()).unwrap();
        line(open(&directory), &parts);
    }
}

#[test]
fn numbers_that_are_not_finite_name_their_tensor() {
    let mut tiny = Tiny::load();
    let scale = format!("{LAYER}.mlp.experts.2.up_proj.weight_scale");
    tiny.tensor(&scale).bytes[10..12].copy_from_slice(&[0xc0, 0x7f]);
    let norm = "language_model.model.norm.weight";
    let wide = tiny.tensor(norm).bytes.len() / 128;
    let infinity = if wide == 4 { f32::INFINITY.to_le_bytes().to_vec() } else { vec![0x80, 0x7f] };
    tiny.tensor(norm).bytes[..wide].copy_from_slice(&infinity);
    let checkpoint = tiny.open().unwrap();
    let linear = checkpoint.linear("model.layers.1.mlp.experts.2.up_proj", 64, 128);
    line(linear, &["not a finite number", &scale, "NaN at position 5"]);
    line(
        checkpoint.vector_f32("model.norm.weight", 128),
        &["not a finite number", norm, "inf at position 0"],
    );
}

#[test]
fn packed_weights_of_another_shape_are_refused() {
    let mut tiny = Tiny::load();
    let name = format!("{LAYER}.mlp.experts.0.gate_proj.weight_shape");
    let stored = tiny.tensor(&name);
    let other = [64_i64, 96];
    *stored = Stored {
        dtype: Dtype::I64,
        shape: vec![2],
        bytes: other.iter().flat_map(|number| number.to_le_bytes()).collect(),
    };
    let checkpoint = tiny.open().unwrap();
    line(
        checkpoint.linear("model.layers.1.mlp.experts.0.gate_proj", 64, 128),
        &[&name, "[64, 128]", "[64, 96]"],
    );
}

#[test]
fn fp8_blocks_where_stored_and_a_tied_head() {
    let mut tiny = Tiny::load();
    tiny.config["text_config"]["quantization_config"] =
        json!({ "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128] });
    tiny.config["text_config"]["tie_word_embeddings"] = json!(true);
    tiny.tensors.remove("language_model.lm_head.weight");
    let fp8 = |dtype, shape: &[usize], size: usize| Stored {
        dtype,
        shape: shape.to_vec(),
        bytes: vec![0; shape.iter().product::<usize>() * size],
    };
    let packed: Vec<String> = tiny
        .tensors
        .keys()
        .filter_map(|name| Some(name.strip_suffix(".weight_packed")?.to_owned()))
        .collect();
    for module in packed {
        for part in ["weight_packed", "weight_scale", "weight_shape"] {
            tiny.tensors.remove(&format!("{module}.{part}"));
        }
        let shape = if module.ends_with("down_proj") { [128, 64] } else { [64, 128] };
        tiny.tensors.insert(format!("{module}.weight"), fp8(Dtype::F8_E4M3, &shape, 1));
        tiny.tensors.insert(format!("{module}.weight_scale_inv"), fp8(Dtype::F32, &[1, 1], 4));
    }
    let checkpoint = tiny.open().unwrap();
    let expert = checkpoint.linear("model.layers.2.mlp.experts.0.gate_proj", 64, 128).unwrap();
    assert!(matches!(expert.data, WeightData::Fp8Block128 { .. }));
    let attention = checkpoint.linear("model.layers.2.self_attn.o_proj", 128, 80).unwrap();
    assert!(matches!(attention.data, WeightData::Dense { .. }));
    assert!(matches!(checkpoint.linear("lm_head", 2048, 128).unwrap().data, WeightData::Dense { .. }));

    let scale = format!("{LAYER}.mlp.experts.0.gate_proj.weight_scale_inv");
    tiny.tensors.remove(&scale);
    line(tiny.open(), &["missing tensor", &scale]);
}

#[test]
fn inspection_counts_logical_parameters() {
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(golden())).unwrap();
    let inspection = inspect(&checkpoint);
    let parameters =
        |name: &str| inspection.parts.iter().find(|size| size.part.name() == name).unwrap().parameters;
    assert_eq!(parameters("embeddings"), 2048 * 128);
    assert_eq!(parameters("routed experts"), 2 * 12 * 3 * 64 * 128);
    assert_eq!(parameters("shared experts"), 2 * 3 * 64 * 128);
    assert_eq!(parameters("dense MLP"), 3 * 192 * 128);
    assert_eq!(parameters("router"), 2 * (12 * 128 + 12));
    assert_eq!(parameters("norms"), 3 * (128 + 128 + 48 + 32) + 128);
    let attention = 3 * (48 * 128 + 4 * 40 * 48 + 48 * 128 + 4 * 44 * 32 + 128 * 80);
    assert_eq!(parameters("attention"), attention);
    let text_without_experts = attention + 3 * 192 * 128 + 2 * 3 * 64 * 128 + 2 * 1548 + 1136;
    assert_eq!(inspection.active_parameters, text_without_experts + 2 * 3 * 3 * 64 * 128 + 2048 * 128);
    assert_eq!(inspection.cache_bytes_per_token(), 3 * 48 * 2);
    assert_eq!(inspection.memory_bytes(1000) - inspection.weight_bytes, 288_000);
    let table = inspection.to_string();
    assert!(table.contains("vision tower") && table.contains("int4"), "{table}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to the beginning or the length of a file, opening it ends with a checkpoint or with one line.
    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((0_usize..40_000, any::<u8>()), 0..4),
        first in 0_usize..12,
        length in prop::option::of(0_usize..60_000),
    ) {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(golden().join("config.json"), directory.path().join("config.json")).unwrap();
        let mut file = fs::read(golden().join("model.safetensors")).unwrap();
        for (position, byte) in changes {
            // Every case also touches the length of the header or what follows it.
            file[position] = byte;
            file[first] ^= byte;
        }
        if let Some(length) = length {
            file.truncate(length);
        }
        fs::write(directory.path().join("model.safetensors"), &file).unwrap();
        if let Err(error) = open(&directory) {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(error.file.is_some(), "{}", error);
        }
    }
}
