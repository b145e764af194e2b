//! What the engine answers: a stream of token events per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kimi_scheduler::Finished;
use kimi_tokens::TokenId;
use tokio::sync::mpsc;

use crate::EngineFailure;

/// One step in the life of a generation. `Finished` or `Failed` is the last one and always comes.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEvent {
    /// How likely the next tokens of the prompt were, from its second one on; before any `Token`, and only when it was asked for.
    Prompt(Vec<TokenLogprobs>),
    /// A token was sampled.
    Token(SampledToken),
    /// The generation ended as asked.
    Finished(Finished),
    /// The generation could not go on; the others of the batch are not affected unless the engine itself died.
    Failed(EngineFailure),
}

/// A token with what was asked about its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// The id that was drawn.
    pub id: TokenId,
    /// Present when the request asked for log probabilities.
    pub logprobs: Option<Arc<TokenLogprobs>>,
}

/// Natural-log probabilities at one position, from the unfiltered distribution (before temperature and filters).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token itself.
    pub token: f32,
    /// Of the most likely tokens, descending; as many as the request asked for.
    pub top: Vec<(TokenId, f32)>,
}

/// The events of one request, in order. Dropping it cancels the request within one step.
#[derive(Debug)]
pub struct GenerationStream {
    pub(crate) events: mpsc::UnboundedReceiver<TokenEvent>,
    pub(crate) started: Arc<AtomicBool>,
}

impl GenerationStream {
    /// Whether the request has had its turn: before it does, it only waits. Once true, it stays so.
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// The next event, or `None` after the last.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        self.events.recv().await
    }

    /// The next event for callers without a runtime, or `None` after the last.
    pub fn blocking_next(&mut self) -> Option<TokenEvent> {
        self.events.blocking_recv()
    }
}
