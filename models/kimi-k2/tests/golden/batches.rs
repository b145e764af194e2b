//! Batches that must be refused, and numbers that must not spread.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kimi_k2::{AttentionForm, Batch, CacheDtype, FeatureRows, KvPool, ModelError, SequenceSpan};

use super::harness::{Sequence, advance, load, models};

fn batch(token_ids: &[u32], spans: &[(std::ops::Range<usize>, usize, &[u32])], sample_rows: &[u32]) -> Batch {
    let span = |(rows, start, table): &(std::ops::Range<usize>, usize, &[u32])| SequenceSpan {
        rows: rows.clone(),
        start: *start,
        block_table: (*table).into(),
    };
    Batch {
        token_ids: token_ids.to_vec(),
        spans: spans.iter().map(span).collect(),
        sample_rows: sample_rows.to_vec(),
        features: vec![],
    }
}

#[test]
fn impossible_batches_are_refused_by_name() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let mut kv = KvPool::new(model.config(), 4, 2, CacheDtype::F32).unwrap();
    let cases = [
        (batch(&[], &[], &[]), "no rows"),
        (batch(&[2048], &[(0..1, 0, &[0])], &[]), "token id 2048 is outside the vocabulary of 2048"),
        (batch(&[1, 2], &[(0..1, 0, &[0])], &[]), "cover 1 of 2 rows"),
        (batch(&[1, 2], &[(1..2, 0, &[0])], &[]), "row 0 is next"),
        (batch(&[1], &[(0..1, 0, &[0]), (1..1, 0, &[1])], &[]), "row 1 is next"),
        (batch(&[1], &[(0..1, 2, &[0])], &[]), "3 positions need 2 blocks, not 1"),
        (batch(&[1], &[(0..1, 2, &[0, 4])], &[]), "block 4 of 4"),
        (batch(&[1], &[(0..1, 0, &[0])], &[1]), "sampled row 1 of 1"),
    ];
    for (batch, message) in cases {
        let error = model.forward(&batch, &mut kv).unwrap_err();
        assert!(matches!(error, ModelError::Batch(_)) && error.to_string().contains(message), "{error}");
    }
}

#[test]
fn impossible_features_are_refused_by_name() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let mut kv = KvPool::new(model.config(), 4, 2, CacheDtype::F32).unwrap();
    let features = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let good = features(&[3, 128], DType::F32);
    let cases: [(&[_], &str); 6] = [
        (&[(1..1, good.clone(), 0)], "rows 1..1"),
        (&[(2..4, good.clone(), 0)], "rows 2..4 of 3"),
        (&[(0..2, good.clone(), 0), (1..2, good.clone(), 0)], "rows 1..2 of 3, where 2 is next"),
        (&[(0..2, good, 2)], "features 2..4"),
        (&[(0..2, features(&[3, 64], DType::F32), 0)], "not of F32 [3, 64]"),
        (&[(0..2, features(&[3, 128], DType::BF16), 0)], "not of BF16"),
    ];
    for (rows, message) in cases {
        let mut batch = batch(&[1, 2, 3], &[(0..3, 0, &[0, 1])], &[]);
        let feature_rows = |(rows, features, first): &(std::ops::Range<usize>, Tensor, usize)| FeatureRows {
            rows: rows.clone(),
            features: features.clone(),
            first: *first,
        };
        batch.features = rows.iter().map(feature_rows).collect();
        let error = model.forward(&batch, &mut kv).unwrap_err();
        assert!(matches!(error, ModelError::Batch(_)) && error.to_string().contains(message), "{error}");
    }
}

#[test]
fn a_batch_that_samples_nothing_still_fills_the_cache() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let mut kv = KvPool::new(model.config(), 4, 2, CacheDtype::F32).unwrap();
    let logits = model.forward(&batch(&[1, 2], &[(0..2, 0, &[3])], &[]), &mut kv).unwrap();
    assert_eq!(logits.dims(), [0, 2048]);
    let after = model.forward(&batch(&[3], &[(0..1, 2, &[3, 0])], &[0]), &mut kv).unwrap();
    let mut fresh = KvPool::new(model.config(), 2, 2, CacheDtype::F32).unwrap();
    let whole = model.forward(&batch(&[1, 2, 3], &[(0..3, 0, &[0, 1])], &[2]), &mut fresh).unwrap();
    assert_eq!(after.to_vec2::<f32>().unwrap(), whole.to_vec2::<f32>().unwrap());
}

/// Copies the tiny checkpoint with NaN in the embedding of `token`.
fn break_embedding(token: usize, directory: &Path) {
    let source = models().join("golden/tiny-int4");
    std::fs::copy(source.join("config.json"), directory.join("config.json")).unwrap();
    let mut bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let tensor = &header["language_model.model.embed_tokens.weight"];
    assert_eq!(tensor["dtype"], "F32");
    let width = tensor["shape"][1].as_u64().unwrap() as usize;
    let start = 8 + header_len + tensor["data_offsets"][0].as_u64().unwrap() as usize + token * width * 4;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(directory.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn one_broken_sequence_leaves_the_others_alone() {
    const BROKEN: u32 = 77;
    let directory = tempfile::tempdir().unwrap();
    break_embedding(BROKEN as usize, directory.path());
    let model = load(directory.path(), AttentionForm::Auto);
    let healthy: Vec<u32> = (100..108).collect();
    let run = |others: &[Vec<u32>]| {
        let mut kv = KvPool::new(model.config(), 64, 1, CacheDtype::Bf16).unwrap();
        let all = std::iter::once(&healthy).chain(others);
        let mut sequences: Vec<Sequence> = (0_u32..)
            .zip(all)
            .map(|(index, ids)| Sequence {
                ids: ids.clone(),
                computed: 0,
                block_table: (index * 20..index * 20 + 8).collect(),
            })
            .collect();
        let counts = vec![4; sequences.len()];
        (0..2).map(|_| advance(&model, &mut kv, &mut sequences, &counts)).collect::<Vec<_>>()
    };
    let broken = vec![5, BROKEN, 6, 7, 8, 9, 10, 11];
    let (alone, together) = (run(&[]), run(&[broken]));
    for (alone, together) in alone.iter().zip(&together) {
        let numbers = |first| together.narrow(0, first, 4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(numbers(0), alone.to_vec2::<f32>().unwrap(), "the healthy sequence changed");
        assert!(
            numbers(4)[1..].iter().flatten().all(|logit| logit.is_nan()),
            "the broken one went unnoticed"
        );
    }
}
