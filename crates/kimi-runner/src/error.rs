//! What can go wrong before the first step, and while scoring.

use kimi_k2::ModelError;
use kimi_tokens::TokenId;
use thiserror::Error;

use crate::{DiskTierError, KvSizingError};

/// The runner did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The model could not be loaded, or its cache not be made.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The cache does not fit into memory.
    #[error(transparent)]
    KvSizing(#[from] KvSizingError),
    /// The second tier of the cache cannot be used.
    #[error(transparent)]
    DiskTier(#[from] DiskTierError),
    /// A second tier for several ranks.
    #[error("--kv-disk keeps the cache of one rank; leave it out, or --tensor-parallel")]
    TierOfRanks,
    /// The thread that runs the model ended before it was ready.
    #[error("the model's thread died while loading: {0}")]
    Died(String),
    /// The operating system gave no thread.
    #[error("cannot start the model's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Tokens could not be scored.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An id that the model has no embedding for.
    #[error("token {token} at position {position} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        token: TokenId,
        /// Where it is.
        position: usize,
        /// Ids are below this.
        vocabulary: usize,
    },
    /// The model computed NaN or infinite logits.
    #[error("the model produced non-finite numbers at position {position}")]
    NonFiniteLogits {
        /// Which position's prediction it was.
        position: usize,
    },
}
