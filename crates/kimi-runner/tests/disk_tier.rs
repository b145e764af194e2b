//! The second tier with engine, runner and model: what came back from disk is what would have been computed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, sync::Arc};

use kimi_engine::{
    CacheScope, Constraint, EngineConfig, EngineHandle, EngineThread, GenerateRequest, Sampling,
    SchedulerConfig, Speculation, Standing, TokenEvent,
};
use kimi_k2::{Checkpoint, CheckpointFiles};
use kimi_runner::{Activations, CacheDtype, DiskTierConfig, KvMemory, RankGroup, RunnerConfig, UNIFORM_ROWS};
use kimi_tokens::TokenId;

const BLOCK_SIZE: usize = 4;
const MAX_CONTEXT: usize = 64;

/// An engine whose cache holds one conversation, with or without a disk.
fn engine(cache_dtype: CacheDtype, disk: Option<&Path>) -> (EngineHandle, EngineThread) {
    let model = [env!("CARGO_MANIFEST_DIR"), "../../models/golden/tiny-int4"].iter().collect();
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(model)).unwrap();
    let config = RunnerConfig {
        block_size: BLOCK_SIZE,
        max_context: MAX_CONTEXT,
        max_batch_tokens: 16,
        max_sequences: 1,
        kv_memory: KvMemory::Bytes(64 << 20),
        cache_dtype,
        activations: Activations::F32,
        dense_int8: false,
        ranks: std::num::NonZeroUsize::MIN,
        disk: disk.map(|path| DiskTierConfig { directory: path.to_owned(), max_bytes: 1 << 20 }),
    };
    let runner = RankGroup::start(&config, &Arc::new(checkpoint), |_, _| {}).unwrap();
    let scheduler = SchedulerConfig {
        block_size: BLOCK_SIZE,
        block_count: runner.block_count(),
        max_batch_tokens: 16,
        max_sequences: 4,
        max_context: MAX_CONTEXT,
        speculation: Some(Speculation { max_draft: 4, max_rows: UNIFORM_ROWS, eager: true }),
    };
    kimi_engine::start(EngineConfig { scheduler, max_waiting: 8 }, Box::new(runner))
}

fn request(prompt: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: (0..50).map(|index| (index * 31 + prompt * 97) % 1_792).collect::<Vec<_>>().into(),
        sampling: Sampling::greedy(),
        max_tokens: 10,
        stop_tokens: vec![],
        logprobs: None,
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: Some(CacheScope([1; 32])),
        standing: Standing::default(),
    }
}

/// The text of a prompt and how much of it was cached.
fn ask(engine: &EngineHandle, prompt: u32) -> (Vec<TokenId>, usize) {
    let mut stream = engine.generate(request(prompt)).unwrap();
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().unwrap() {
            TokenEvent::Token(token) => tokens.push(token.id),
            TokenEvent::Finished(finished) => return (tokens, finished.cached_tokens),
            TokenEvent::Failed(failure) => panic!("{failure}"),
            TokenEvent::Prompt(_) => unreachable!("nobody asked"),
        }
    }
}

#[test]
fn evicted_prefixes_come_back_in_every_format_and_in_the_next_process() {
    for dtype in [CacheDtype::F32, CacheDtype::Bf16, CacheDtype::Fp8] {
        let directory = tempfile::tempdir().unwrap();
        let (plain, _thread) = engine(dtype, None);
        let expected: Vec<_> = (0..3).map(|prompt| ask(&plain, prompt).0).collect();
        for life in 0..2 {
            let (engine, thread) = engine(dtype, Some(directory.path()));
            // Each takes the whole cache, so each finds nothing of itself in memory when it is asked again.
            for round in 0..2 {
                for prompt in 0..3 {
                    let (tokens, cached) = ask(&engine, prompt);
                    assert_eq!(tokens, expected[prompt as usize], "{dtype:?}, life {life}, round {round}");
                    let first_time = life == 0 && round == 0;
                    assert_eq!(cached, if first_time { 0 } else { 48 }, "{dtype:?}, life {life}");
                }
            }
            engine.drain();
            thread.join().unwrap();
        }
        // Another format is another cache.
        let other = if dtype == CacheDtype::F32 { CacheDtype::Bf16 } else { CacheDtype::F32 };
        let (engine, _thread) = engine(other, Some(directory.path()));
        assert_eq!(ask(&engine, 0).1, 0);
    }
}
