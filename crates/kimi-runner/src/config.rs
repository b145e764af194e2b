//! What a runner is told before it starts.

use std::num::NonZeroUsize;

use kimi_k2::{Activations, CacheDtype};

use crate::{DiskTierConfig, KvMemory};

/// Everything a rank needs beside the checkpoint.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Positions in one cache block; the scheduler must be told the same.
    pub block_size: usize,
    /// Tokens of the longest sequence, prompt and answer together.
    pub max_context: usize,
    /// Tokens computed in one step at most; what a step needs beside weights and cache follows from it.
    pub max_batch_tokens: usize,
    /// Sequences that run at once at most.
    pub max_sequences: usize,
    /// How much memory the cache may take.
    pub kv_memory: KvMemory,
    /// The number format of the cache. On CPUs its memory is given by the system when a block is first written.
    pub cache_dtype: CacheDtype,
    /// Where blocks that leave the cache are kept, if anywhere.
    pub disk: Option<DiskTierConfig>,
    /// How exactly activations meet 4-bit weights.
    pub activations: Activations,
    /// Ranks that share the model: each holds a part of every layer, a cache of its own, and its part of the threads.
    pub ranks: NonZeroUsize,
    /// Whether weights that every token uses are kept in 8 bits, in memory of their own.
    pub dense_int8: bool,
}
