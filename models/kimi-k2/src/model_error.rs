//! What can go wrong between a batch and its logits.

use thiserror::Error;

use crate::CheckpointError;

/// Loading or a forward pass failed.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The checkpoint lacks something or holds something impossible.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The batch contradicts itself, the vocabulary or the cache. A bug of the caller.
    #[error("impossible batch: {0}")]
    Batch(String),
    /// An image or clip that the vision tower cannot look at, or there is no tower.
    #[error("impossible medium: {0}")]
    Medium(String),
    /// Not so many ranks can share this model, or one of them is gone.
    #[error("{0}")]
    Ranks(String),
    /// An operation refused its arguments. A bug of this crate or of the kernels.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
