//! What an engine is started with and what it tells callers about its limits.

use kimi_scheduler::SchedulerConfig;

/// The sizes of an engine. Resolved once by the binary; nothing changes them afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sizes of the batch and of the cache. The cache's must be those the runner was built with.
    pub scheduler: SchedulerConfig,
    /// Requests that are accepted beyond the `max_sequences` that run at once. Any more are answered
    /// [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
}

impl EngineConfig {
    /// What callers must know of it.
    pub fn limits(&self) -> EngineLimits {
        EngineLimits {
            max_context: self.scheduler.context_limit(),
            max_prompt_tokens: self.scheduler.max_prompt_tokens(),
        }
    }
}

/// How long a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens of prompt and answer together. A generation that reaches it finishes with `Length`.
    pub max_context: usize,
    /// The largest prompt that leaves room for one token.
    pub max_prompt_tokens: usize,
}
