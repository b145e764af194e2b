//! The second tier with engine, runner and model: what came back from disk is what would have been computed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use kimi_engine::{
    CacheScope, EngineHandle, EngineThread, GenerateRequest, SchedulerConfig, Speculation, TokenEvent,
};
use kimi_runner::{CacheDtype, DiskTierConfig, RunnerConfig, UNIFORM_ROWS};
use kimi_tokens::TokenId;

/// An engine whose cache holds one conversation, with or without a disk.
fn engine(cache_dtype: CacheDtype, disk: Option<&Path>) -> (EngineHandle, EngineThread) {
    let config = RunnerConfig {
        block_size: 4,
        max_batch_tokens: 16,
        cache_dtype,
        disk: disk.map(|path| DiskTierConfig { directory: path.to_owned(), max_bytes: 1 << 20 }),
        ..support::exact(1, 64)
    };
    let speculation = Some(Speculation { max_draft: 4, max_rows: UNIFORM_ROWS, eager: true });
    support::start(&support::checkpoint("golden/tiny-int4"), &config, |scheduler| SchedulerConfig {
        max_sequences: 4,
        speculation,
        ..scheduler
    })
}

fn request(prompt: u32) -> GenerateRequest {
    let prompt = (0..50).map(|index| (index * 31 + prompt * 97) % 1_792).collect();
    GenerateRequest { cache_scope: Some(CacheScope([1; 32])), ..support::greedy(prompt, 10) }
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
