//! An engine over a checkpoint of this repository.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use kimi_engine::{
    Constraint, EngineConfig, EngineHandle, EngineThread, GenerateRequest, Sampling, SchedulerConfig,
    Standing,
};
use kimi_k2::{Checkpoint, CheckpointFiles};
use kimi_runner::{Activations, CacheDtype, KvMemory, RankGroup, RunnerConfig};
use kimi_tokens::TokenId;

/// One of `models`.
pub(crate) fn checkpoint(name: &str) -> Arc<Checkpoint> {
    let directory: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../models", name].iter().collect();
    Arc::new(Checkpoint::open(CheckpointFiles::Directory(directory)).unwrap())
}

/// One rank that rounds nothing, for so many sequences of so many tokens.
pub(crate) fn exact(max_sequences: usize, max_context: usize) -> RunnerConfig {
    RunnerConfig {
        block_size: 16,
        max_context,
        max_sequences,
        kv_memory: KvMemory::Bytes(256 << 20),
        cache_dtype: CacheDtype::F32,
        max_batch_tokens: 512,
        disk: None,
        activations: Activations::F32,
        ranks: NonZeroUsize::MIN,
        dense_int8: false,
    }
}

/// What a scheduler must know of the runner, changed by `with`.
pub(crate) fn start(
    model: &Arc<Checkpoint>,
    config: &RunnerConfig,
    with: impl FnOnce(SchedulerConfig) -> SchedulerConfig,
) -> (EngineHandle, EngineThread) {
    let runner = RankGroup::start(config, model, |_, _| {}).unwrap();
    let scheduler = SchedulerConfig {
        block_size: config.block_size,
        block_count: runner.block_count(),
        max_batch_tokens: config.max_batch_tokens,
        max_sequences: config.max_sequences,
        max_context: config.max_context,
        speculation: None,
    };
    let engine = EngineConfig { scheduler: with(scheduler), max_waiting: 64 };
    kimi_engine::start(engine, Box::new(runner))
}

/// An answer of so many tokens, the likeliest ones, that nobody's cache helps with.
pub(crate) fn greedy(prompt: Vec<TokenId>, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.into(),
        sampling: Sampling::greedy(),
        max_tokens,
        stop_tokens: vec![],
        logprobs: None,
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: None,
        standing: Standing::default(),
    }
}
