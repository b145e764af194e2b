#![doc = include_str!("../README.md")]

mod collective_threads;
mod config;
mod disk_tier;
mod error;
mod filters;
mod gather;
mod image_cache;
mod kv_sizing;
mod live_media;
mod logprobs;
mod memory;
mod numa;
mod rank;
mod rank_group;
mod sample_step;
mod sampler;
mod score;
mod softmax;

pub use config::RunnerConfig;
pub use disk_tier::{DiskTierConfig, DiskTierError};
pub use error::{ScoreError, StartError};
pub use kimi_k2::{Activations, CacheDtype, UNIFORM_ROWS};
pub use kv_sizing::{KvMemory, KvSizing, KvSizingError, available_memory};
pub use memory::{MemoryTable, VisionBytes};
pub use rank_group::RankGroup;
pub use sampler::SequenceSampler;
pub use score::{ScoredToken, Scores, score, score_in_chunks};
