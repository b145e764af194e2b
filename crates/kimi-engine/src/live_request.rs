//! One accepted request on the engine thread, from its arrival to its last event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kimi_scheduler::{FinishReason, Finished};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{Span, debug, warn};

use crate::metrics::{EngineMetrics, Outcome};
use crate::{EngineFailure, NewSequence, SampledToken, TokenEvent, TokenLogprobs};

/// Where a request's events go, and what its timings are measured from. Ends by exactly one of [`finish`](Self::finish),
/// [`fail`](Self::fail) and [`cancel`](Self::cancel), each of which frees its place among the accepted requests.
pub(crate) struct LiveRequest {
    /// Unbounded, since the engine must never wait for a slow reader; `max_tokens` bounds what can lie in it.
    pub(crate) events: mpsc::UnboundedSender<TokenEvent>,
    /// What the runner must know of it, until the first step that has it told so.
    pub(crate) introduction: Option<NewSequence>,
    /// What the stream tells its caller.
    pub(crate) has_started: Arc<AtomicBool>,
    pub(crate) submitted: Instant,
    /// When its first step began.
    pub(crate) started: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
    pub(crate) last_token: Option<Instant>,
    /// The caller's span, so that what is logged here is found with the request.
    pub(crate) span: Span,
    /// Held for its `Drop`.
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl LiveRequest {
    /// Whether the caller dropped its stream.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// What the runner must be told with the first step, once.
    pub(crate) fn introduce(&mut self, metrics: &EngineMetrics) -> Option<NewSequence> {
        let introduction = self.introduction.take()?;
        let now = Instant::now();
        self.started = Some(now);
        self.has_started.store(true, Ordering::Relaxed);
        metrics.queue_seconds.record(now - self.submitted);
        Some(introduction)
    }

    /// Sends what is known of the prompt's next tokens.
    pub(crate) fn prompt(&self, scores: Vec<TokenLogprobs>) {
        let _ = self.events.send(TokenEvent::Prompt(scores));
    }

    /// Sends a token. A reader that has just gone is noticed before the next step.
    pub(crate) fn token(&mut self, token: SampledToken, now: Instant, metrics: &EngineMetrics) {
        match self.last_token.replace(now) {
            None => {
                self.first_token = Some(now);
                metrics.first_token_seconds.record(now - self.submitted);
                if let Some(started) = self.started {
                    metrics.prefill_seconds.record(now - started);
                }
            }
            Some(last) => metrics.inter_token_seconds.record(now - last),
        }
        metrics.generation_tokens.increment(1);
        let _ = self.events.send(TokenEvent::Token(token));
    }

    /// Sends the end of a generation that went as asked.
    pub(crate) fn finish(self, finished: Finished, metrics: &EngineMetrics) {
        metrics.count(match finished.reason {
            FinishReason::Stop => Outcome::Stop,
            FinishReason::Length => Outcome::Length,
        });
        metrics.prompt_tokens.increment(finished.prompt_tokens as u64);
        metrics.cached_tokens.increment(finished.cached_tokens as u64);
        metrics.request_seconds.record(self.submitted.elapsed());
        metrics.request_prompt_tokens.record(finished.prompt_tokens as f64);
        metrics.request_generation_tokens.record(finished.completion_tokens as f64);
        if let (Some(first), Some(last)) = (self.first_token, self.last_token) {
            metrics.decode_seconds.record(last - first);
        }
        self.span.in_scope(|| {
            debug!(
                reason = ?finished.reason,
                prompt_tokens = finished.prompt_tokens,
                cached_tokens = finished.cached_tokens,
                completion_tokens = finished.completion_tokens,
                "generation finished"
            );
        });
        let _ = self.events.send(TokenEvent::Finished(finished));
    }

    /// Sends the end of a generation that could not go on.
    pub(crate) fn fail(self, failure: EngineFailure, metrics: &EngineMetrics) {
        metrics.count(Outcome::Failed);
        if failure == EngineFailure::NonFiniteLogits {
            metrics.non_finite_logits.increment(1);
        }
        self.span.in_scope(|| warn!(%failure, "generation failed"));
        let _ = self.events.send(TokenEvent::Failed(failure));
    }

    /// Forgets a request that nobody listens to.
    pub(crate) fn cancel(self, metrics: &EngineMetrics) {
        metrics.count(Outcome::Cancelled);
        self.span.in_scope(|| debug!("generation cancelled"));
    }
}
