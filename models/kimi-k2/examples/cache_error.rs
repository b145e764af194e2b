//! Prints what rounding the cache does to the logits of a checkpoint, against a cache of f32:
//! `cargo run --release -p kimi-k2 --example cache_error -- models/kimi-nano ids.json`. Without ids, random tokens.

use std::{io::Write as _, path::PathBuf};

use kimi_k2::{Batch, CacheDtype, Checkpoint, CheckpointFiles, KimiModel, KvPool, SequenceSpan};

const BLOCK_SIZE: usize = 16;
const CHUNK: usize = 64;
const RANDOM_TOKENS: usize = 1024;

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(|| PathBuf::from("models/kimi-nano"), PathBuf::from);
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory))?;
    let model = KimiModel::load(&checkpoint, &mut |_, _| {})?;
    let ids: Vec<u32> = match arguments.next() {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => random_ids(model.config().vocab_size as u64),
    };
    let exact = logits(&model, &ids, CacheDtype::F32)?;
    writeln!(
        std::io::stdout(),
        "{} positions; against f32, {} bytes a token",
        ids.len(),
        bytes(&model, CacheDtype::F32)
    )?;
    writeln!(
        std::io::stdout(),
        "cache  bytes/token  max |delta|  mean |delta|  median KL   mean KL     max KL      same first token"
    )?;
    for dtype in [CacheDtype::Bf16, CacheDtype::Fp8] {
        let rounded = logits(&model, &ids, dtype)?;
        report(dtype, bytes(&model, dtype), &exact, &rounded)?;
    }
    Ok(())
}

fn bytes(model: &KimiModel, dtype: CacheDtype) -> usize {
    KvPool::bytes_per_token(model.config(), dtype)
}

/// From a linear congruential generator: the same on every machine.
fn random_ids(vocabulary: u64) -> Vec<u32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % vocabulary
    };
    (0..RANDOM_TOKENS).map(|_| next() as u32).collect()
}

/// Logits of every position, computed in chunks, so that what is read was rounded.
fn logits(model: &KimiModel, ids: &[u32], dtype: CacheDtype) -> Result<Vec<Vec<f32>>, AnyError> {
    let blocks = ids.len().div_ceil(BLOCK_SIZE);
    let mut kv = KvPool::new(model.config(), blocks, BLOCK_SIZE, dtype)?;
    let mut rows = Vec::with_capacity(ids.len());
    for (chunk, ids) in ids.chunks(CHUNK).enumerate() {
        let block_table = (0..blocks as u32).collect();
        let span = SequenceSpan { rows: 0..ids.len(), start: chunk * CHUNK, block_table };
        let sample_rows = (0..ids.len() as u32).collect();
        let batch = Batch { token_ids: ids.to_vec(), spans: vec![span], sample_rows, ..Batch::default() };
        rows.extend(model.forward(&batch, &mut kv)?.to_vec2::<f32>()?);
    }
    Ok(rows)
}

fn report(dtype: CacheDtype, bytes: usize, exact: &[Vec<f32>], rounded: &[Vec<f32>]) -> Result<(), AnyError> {
    let pairs = || exact.iter().zip(rounded);
    let deltas = || pairs().flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())));
    let mut divergences: Vec<f64> = pairs().map(|(a, b)| divergence(a, b)).collect();
    let mean = divergences.iter().sum::<f64>() / divergences.len() as f64;
    divergences.sort_by(f64::total_cmp);
    let same = pairs().filter(|(a, b)| first(a) == first(b)).count();
    writeln!(
        std::io::stdout(),
        "{:<6} {bytes:>11}  {:>11.4}  {:>12.5}  {:<10.2e}  {mean:<10.2e}  {:<10.2e}  {:.2} %",
        dtype.name(),
        deltas().fold(0.0, f64::max),
        deltas().sum::<f64>() / deltas().count() as f64,
        divergences[divergences.len() / 2],
        divergences[divergences.len() - 1],
        100.0 * same as f64 / exact.len() as f64
    )?;
    Ok(())
}

/// The Kullback-Leibler divergence of the second distribution from the first, in nats.
fn divergence(exact: &[f32], rounded: &[f32]) -> f64 {
    let (p, q) = (log_softmax(exact), log_softmax(rounded));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    logits.iter().map(|logit| f64::from(*logit) - largest - sum.ln()).collect()
}

fn first(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
}
