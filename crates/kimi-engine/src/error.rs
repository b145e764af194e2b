//! What can go wrong between a request and its tokens.

use std::time::Duration;

use thiserror::Error;

use crate::GuideError;

/// The engine did not take the request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// The queue is full; try again later.
    #[error("the queue is full ({queued} requests wait); retry later")]
    Busy {
        /// Requests that wait.
        queued: usize,
        /// When the queue will have drained, as fast as requests ended lately. At least a second.
        retry_after: Duration,
    },
    /// The server is shutting down or the engine has died.
    #[error("the server is stopping and takes no new requests")]
    Stopping,
    /// The prompt can never fit.
    #[error("the prompt has {prompt_tokens} tokens; this server accepts {limit}")]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The largest prompt that leaves room for one token.
        limit: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    Empty,
    /// An image or clip that cannot be computed: the reason.
    #[error("{0}")]
    Media(&'static str),
}

/// A generation ended without a proper finish.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EngineFailure {
    /// The model computed NaN or infinite logits for this request.
    #[error("the model produced non-finite numbers for this request")]
    NonFiniteLogits,
    /// What constrains the answer could not go on.
    #[error("the answer could not be constrained any further: {0}")]
    Guide(#[from] GuideError),
    /// The engine died; the process is about to end.
    #[error("the engine failed: {0}")]
    Engine(String),
}
