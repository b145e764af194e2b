//! The vision tower, and prompts with images and clips.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kimi_k2::{AttentionForm, Batch, CacheDtype, FeatureRows, KimiModel, KvPool, ModelError, SequenceSpan};
use kimi_tokens::{ContentHash, Medium, PATCH_BYTES, PatchGrid};

use super::harness::{Golden, TOLERANCE, assert_close, load, models};

fn tiny(attention: AttentionForm) -> (KimiModel, Golden) {
    let golden = models().join("golden");
    (load(&golden.join("tiny-int4"), attention), Golden::open(&golden.join("tiny-golden.safetensors")))
}

/// Grids and patches of the images (`img.`) or clips (`vid.`), and their features one after the other.
fn encoded(model: &KimiModel, golden: &Golden, prefix: &str) -> Tensor {
    let patches = golden.floats(&format!("{prefix}px")).flatten_from(1).unwrap();
    let grids = golden.ids(&format!("{prefix}grid"));
    let mut first = 0;
    let features = grids.as_chunks::<3>().0.iter().map(|grid| {
        let [frames, height, width] = grid.map(|side| side as usize);
        let grid = PatchGrid { frames, height, width };
        let own = patches.narrow(0, first, grid.patches()).unwrap();
        first += grid.patches();
        let features = model.encode_patches(&own, grid).unwrap();
        assert_eq!(features.dims(), [grid.tokens(), model.config().hidden_size]);
        features
    });
    let features: Vec<_> = features.collect();
    assert_eq!(first, patches.dim(0).unwrap());
    Tensor::cat(&features, 0).unwrap()
}

/// Grids of the table's size and of others, and clips of four and of two frames.
#[test]
fn features_of_images_and_clips() {
    let (model, golden) = tiny(AttentionForm::Auto);
    for prefix in ["img.", "vid."] {
        let expected = golden.floats(&format!("{prefix}features"));
        assert_close(prefix, &encoded(&model, &golden, prefix), &expected, TOLERANCE);
    }
}

/// Computes `ids` in pieces of `chunk` tokens, with `features` at the positions of the placeholder.
fn logits(model: &KimiModel, ids: &[u32], features: &Tensor, chunk: usize) -> Tensor {
    let placeholder = model.config().media_placeholder_token_id.unwrap();
    let mut kv = KvPool::new(model.config(), 1, ids.len(), CacheDtype::F32).unwrap();
    let mut seen = 0;
    let parts = ids.chunks(chunk).enumerate().map(|(index, tokens)| {
        let mut batch = Batch {
            token_ids: tokens.to_vec(),
            spans: vec![SequenceSpan {
                rows: 0..tokens.len(),
                start: index * chunk,
                block_table: [0].into(),
            }],
            sample_rows: (0..tokens.len() as u32).collect(),
            features: vec![],
        };
        for row in (0..tokens.len()).filter(|row| tokens[*row] == placeholder) {
            batch.features.push(FeatureRows { rows: row..row + 1, features: features.clone(), first: seen });
            seen += 1;
        }
        model.forward(&batch, &mut kv).unwrap().copy().unwrap()
    });
    let parts: Vec<_> = parts.collect();
    assert_eq!(seen, features.dim(0).unwrap());
    Tensor::cat(&parts, 0).unwrap()
}

#[test]
fn logits_of_a_prompt_with_images_and_clips() {
    for (form, chunk) in
        [(AttentionForm::Expanded, 100), (AttentionForm::Absorbed, 100), (AttentionForm::Auto, 7)]
    {
        let (model, golden) = tiny(form);
        let features =
            Tensor::cat(&[encoded(&model, &golden, "img."), encoded(&model, &golden, "vid.")], 0).unwrap();
        let found = logits(&model, &golden.ids("mm.ids"), &features, chunk);
        assert_close(&format!("{form:?} {chunk}"), &found, &golden.floats("mm.logits"), TOLERANCE);
    }
}

fn medium(frames: usize, height: usize, width: usize, pixels: Vec<u8>) -> Arc<Medium> {
    Arc::new(Medium { grid: PatchGrid { frames, height, width }, pixels, hash: ContentHash([0; 32]) })
}

#[test]
fn bytes_are_numbers_from_minus_one_to_one() {
    let (model, _) = tiny(AttentionForm::Auto);
    let pixels: Vec<u8> = (0..8 * PATCH_BYTES).map(|index| (index * 7 % 256) as u8).collect();
    let numbers: Vec<f32> = pixels.iter().map(|byte| (f32::from(*byte) / 255.0 - 0.5) * 2.0).collect();
    assert!(numbers.contains(&-1.0) && numbers.contains(&1.0));
    let medium = medium(1, 2, 4, pixels);
    let patches = Tensor::from_vec(numbers, (8, PATCH_BYTES), &Device::Cpu).unwrap();
    let expected = model.encode_patches(&patches, medium.grid).unwrap();
    assert_close("bytes", &model.encode_medium(&medium).unwrap(), &expected, 0.0);
}

#[test]
fn impossible_media_are_refused_by_name() {
    let (model, _) = tiny(AttentionForm::Auto);
    let refused = |model: &KimiModel, medium: &Medium, part: &str| {
        let error = model.encode_medium(medium).unwrap_err();
        assert!(matches!(error, ModelError::Medium(_)) && error.to_string().contains(part), "{error}");
    };
    let sized =
        |frames, height, width| medium(frames, height, width, vec![0; frames * height * width * PATCH_BYTES]);
    refused(&model, &sized(5, 2, 2), "5 frames; from 1 to 4");
    refused(&model, &sized(1, 3, 2), "3 × 2 patches");
    refused(&model, &sized(1, 2, 514), "2 × 514 patches");
    refused(&model, &sized(1, 0, 2), "0 × 2 patches");
    refused(&model, &medium(1, 2, 2, vec![0; 7]), "7 bytes");
    let without = load(&models().join("golden/grouped-int4"), AttentionForm::Auto);
    assert!(model.takes_media() && !without.takes_media());
    refused(&without, &sized(1, 2, 2), "no vision tower");
}
