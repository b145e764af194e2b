//! Why a sequence is not accepted.

use thiserror::Error;

/// The prompt can never be served, whatever else runs.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// The prompt leaves no room for a generated token.
    #[error(
        "the prompt has {prompt_tokens} tokens; at most {limit} fit: shorten it or raise the context or cache size"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// [`SchedulerConfig::max_prompt_tokens`](crate::SchedulerConfig::max_prompt_tokens).
        limit: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty; at least one token is needed")]
    Empty,
}
