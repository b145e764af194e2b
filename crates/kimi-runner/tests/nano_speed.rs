//! How much of a step is not the model: kimi-nano with and without engine, scheduler, channels and sampling.
//!
//! `cargo test --release -p kimi-runner --test nano_speed -- --ignored --nocapture`
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::PathBuf, sync::Arc, time::Instant};

use kimi_engine::{Constraint, EngineConfig, GenerateRequest, Sampling, SchedulerConfig};
use kimi_k2::{Batch, Checkpoint, CheckpointFiles, KimiModel, KvPool, SequenceSpan};
use kimi_runner::{CacheDtype, KvMemory, RankGroup, RunnerConfig};
use kimi_tokens::EncodedPrompt;

const BLOCK_SIZE: usize = 16;
const PROMPT: usize = 32;
const ANSWER: usize = 128;

fn checkpoint() -> Checkpoint {
    let directory: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../models/kimi-nano"].iter().collect();
    Checkpoint::open(CheckpointFiles::Directory(directory)).unwrap()
}

/// Milliseconds of one decode step of the model alone.
fn model_step(streams: usize) -> f64 {
    let model = KimiModel::load(&checkpoint(), &mut |_, _| {}).unwrap();
    let blocks = (PROMPT + ANSWER).div_ceil(BLOCK_SIZE);
    let mut kv = KvPool::new(model.config(), blocks * streams, BLOCK_SIZE, CacheDtype::F32).unwrap();
    let tables: Vec<Arc<[u32]>> = (0..streams)
        .map(|stream| (0..blocks).map(|block| (stream * blocks + block) as u32).collect())
        .collect();
    let start = Instant::now();
    for position in PROMPT..PROMPT + ANSWER {
        let spans = tables.iter().enumerate();
        let spans = spans.map(|(row, table)| SequenceSpan {
            rows: row..row + 1,
            start: position,
            block_table: table.clone(),
        });
        let batch = Batch {
            token_ids: vec![(position % 100) as u32; streams],
            spans: spans.collect(),
            sample_rows: (0..streams as u32).collect(),
        };
        model.forward(&batch, &mut kv).unwrap();
    }
    start.elapsed().as_secs_f64() * 1e3 / ANSWER as f64
}

/// Milliseconds of one step when the engine drives it.
fn engine_step(streams: usize, sampling: &Sampling) -> f64 {
    let max_context = PROMPT + ANSWER;
    let config = RunnerConfig {
        block_size: BLOCK_SIZE,
        max_context,
        max_sequences: streams,
        kv_memory: KvMemory::Bytes(256 << 20),
        cache_dtype: CacheDtype::F32,
    };
    let runner = RankGroup::start(config, Arc::new(checkpoint()), |_, _| {}).unwrap();
    let scheduler = SchedulerConfig {
        block_size: BLOCK_SIZE,
        block_count: runner.block_count(),
        max_batch_tokens: 4096,
        max_sequences: streams,
        max_context,
        speculation: None,
    };
    let (engine, _thread) =
        kimi_engine::start(EngineConfig { scheduler, max_waiting: streams }, Box::new(runner));
    let streams: Vec<_> = (0..streams)
        .map(|stream| {
            let request = GenerateRequest {
                prompt: EncodedPrompt { tokens: vec![stream as u32 + 5; PROMPT] },
                sampling: Sampling { seed: stream as u64, ..sampling.clone() },
                max_tokens: ANSWER,
                stop_tokens: vec![],
                logprobs: None,
                constraint: Constraint::default(),
                cache_scope: None,
                standing: kimi_engine::Standing::default(),
            };
            engine.generate(request).unwrap()
        })
        .collect();
    let mut start = None;
    for mut stream in streams {
        while stream.blocking_next().is_some() {
            start.get_or_insert_with(Instant::now);
        }
    }
    start.unwrap().elapsed().as_secs_f64() * 1e3 / (ANSWER - 1) as f64
}

#[test]
#[ignore = "prints timings; run it alone"]
fn step_speed() {
    let top_p = Sampling { temperature: 1.0, top_p: 0.95, ..Sampling::greedy() };
    println!("streams  model ms  engine greedy ms  engine top-p ms  tok/s");
    for streams in [1, 4, 16, 32] {
        let (model, greedy) = (model_step(streams), engine_step(streams, &Sampling::greedy()));
        let sampled = engine_step(streams, &top_p);
        println!(
            "{streams:7}  {model:8.3}  {greedy:16.3}  {sampled:15.3}  {:6.0}",
            streams as f64 / greedy * 1e3
        );
    }
}
