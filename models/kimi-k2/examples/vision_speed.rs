//! Prints how long a vision tower of K2.6's size takes to look at images, with random weights:
//! `cargo run --release -p kimi-k2 --example vision_speed`.
//!
//! It needs the golden checkpoint, whose text model stands behind the tower, and 0.9 GB in the directory for temporary files.

use std::{collections::BTreeMap, io::Write as _, path::Path, time::Instant};

use kimi_k2::{Activations, Checkpoint, CheckpointFiles, KimiModel, ModelOptions};
use kimi_tokens::{ContentHash, Medium, PATCH_BYTES, PatchGrid};
use safetensors::{SafeTensors, tensor::Dtype, tensor::TensorView};
use serde_json::Value;

type AnyError = Box<dyn std::error::Error>;
type Stored = (Dtype, Vec<usize>, Vec<u8>);

const WIDTH: usize = 1152;
const INNER: usize = 4304;
const BLOCKS: usize = 27;
/// Of the golden checkpoint; K2.6's is 7168, which makes the projector's last layer larger.
const TEXT: usize = 128;

fn main() -> Result<(), AnyError> {
    let directory = tempfile::tempdir()?;
    write_checkpoint(directory.path())?;
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory.path().to_owned()))?;
    let mut model = KimiModel::load(&checkpoint, &mut |_, _| {})?;
    for (what, height, width) in [("640 × 480", 36, 46), ("1024 × 1024", 74, 74)] {
        let grid = PatchGrid { frames: 1, height, width };
        let pixels = (0..grid.patches() * PATCH_BYTES).map(|index| (index * 31 % 251) as u8).collect();
        let medium = Medium { grid, pixels, hash: ContentHash([0; 32]) };
        for activations in [Activations::Rounded, Activations::F32] {
            model = model.with_options(ModelOptions { activations, ..ModelOptions::default() });
            let start = Instant::now();
            model.encode_medium(&medium)?;
            let (seconds, tokens) = (start.elapsed().as_secs_f64(), grid.tokens());
            writeln!(
                std::io::stdout(),
                "{what}, {} patches, {tokens} tokens, {activations:?}: {seconds:.2} s, {:.0} tokens/s",
                grid.patches(),
                tokens as f64 / seconds
            )?;
        }
    }
    Ok(())
}

/// The golden checkpoint with another tower.
fn write_checkpoint(directory: &Path) -> Result<(), AnyError> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/tiny-int4");
    let mut config: Value = serde_json::from_slice(&std::fs::read(golden.join("config.json"))?)?;
    // Absent fields have the values of K2.6.
    config["vision_config"] = serde_json::json!({ "text_hidden_size": TEXT });
    std::fs::write(directory.join("config.json"), config.to_string())?;
    let file = std::fs::read(golden.join("model.safetensors"))?;
    let text = SafeTensors::deserialize(&file)?;
    let own = |name: &str| !name.starts_with("vision_tower.") && !name.starts_with("mm_projector.");
    let mut tensors: BTreeMap<String, Stored> = text
        .iter()
        .filter(|(name, _)| own(name))
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    add_tower(&mut tensors);
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<_, AnyError>>()?;
    Ok(safetensors::serialize_to_file(views, None, &directory.join("model.safetensors"))?)
}

fn add_tower(tensors: &mut BTreeMap<String, Stored>) {
    let mut add = |name: String, shape: &[usize]| {
        let count: usize = shape.iter().product();
        // Small numbers of both signs; what they are does not matter for the time.
        let bits = |index: usize| 0x3c00 | ((index * 2_654_435_761) >> 9 & 0x807f) as u16;
        let bytes = (0..count).flat_map(|index| bits(index).to_le_bytes()).collect();
        tensors.insert(name, (Dtype::BF16, shape.to_vec(), bytes));
    };
    let mut linear = |module: &str, shape: &[usize]| {
        add(format!("{module}.weight"), shape);
        add(format!("{module}.bias"), &shape[..1]);
    };
    linear("vision_tower.patch_embed.proj", &[WIDTH, 3, 14, 14]);
    for block in 0..BLOCKS {
        let name = |part: &str| format!("vision_tower.encoder.blocks.{block}.{part}");
        linear(&name("norm0"), &[WIDTH]);
        linear(&name("norm1"), &[WIDTH]);
        linear(&name("wqkv"), &[3 * WIDTH, WIDTH]);
        linear(&name("wo"), &[WIDTH, WIDTH]);
        linear(&name("mlp.fc0"), &[INNER, WIDTH]);
        linear(&name("mlp.fc1"), &[WIDTH, INNER]);
    }
    linear("vision_tower.encoder.final_layernorm", &[WIDTH]);
    linear("mm_projector.pre_norm", &[WIDTH]);
    linear("mm_projector.proj.0", &[4 * WIDTH, 4 * WIDTH]);
    linear("mm_projector.proj.2", &[TEXT, 4 * WIDTH]);
    add("vision_tower.patch_embed.pos_emb.weight".to_owned(), &[64, 64, WIDTH]);
}
