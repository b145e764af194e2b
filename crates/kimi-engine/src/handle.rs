//! How the rest of the program speaks to the engine.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use kimi_scheduler::Load;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};
use tracing::Span;

use crate::drain_rate::DrainRate;
use crate::media;
use crate::metrics::{EngineMetrics, Outcome};
use crate::{EngineLimits, GenerateRequest, GenerationStream, SubmitError, TokenEvent};

/// The engine as callers see it. Cheap to clone; when the last clone is dropped, the engine finishes what it accepted and
/// its thread ends, as after [`drain`](Self::drain).
#[derive(Clone)]
pub struct EngineHandle {
    /// Unbounded as a channel, bounded by `slots`: whoever sends a request holds one of them.
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// One permit for each request that may be accepted and not ended. Closed when no more are taken.
    pub(crate) slots: Arc<Semaphore>,
    /// How many permits there are in all.
    pub(crate) capacity: usize,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) state: Arc<watch::Sender<EngineState>>,
    pub(crate) limits: EngineLimits,
    pub(crate) takes_media: bool,
    pub(crate) metrics: Arc<EngineMetrics>,
}

/// What the engine thread tells its handles at every step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Status {
    pub(crate) load: Load,
    pub(crate) drain_rate: DrainRate,
}

/// What reaches the engine thread.
pub(crate) enum Message {
    Generate(Box<Submission>),
    Drain,
    Abort,
}

/// A request on its way to the engine thread.
pub(crate) struct Submission {
    pub(crate) request: GenerateRequest,
    pub(crate) events: mpsc::UnboundedSender<TokenEvent>,
    pub(crate) slot: OwnedSemaphorePermit,
    /// Becomes true with the first step.
    pub(crate) started: Arc<AtomicBool>,
    pub(crate) submitted: Instant,
    pub(crate) span: Span,
}

/// Where the engine is in its life. It only ever moves forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Requests are accepted.
    Serving,
    /// No more requests are accepted; those that were are finished.
    Draining,
    /// The engine thread has ended as it was asked to.
    Ended,
    /// The engine died. Every stream was failed with this message; the process should end.
    Failed(String),
}

impl EngineHandle {
    /// Hop 4 of 9. Gives a request to the engine thread. Never waits, so it can be called from anywhere.
    ///
    /// The events arrive on the returned stream; dropping it cancels the request before the next step.
    pub fn generate(&self, request: GenerateRequest) -> Result<GenerationStream, SubmitError> {
        self.submit(request).inspect_err(|error| {
            self.metrics.count(match error {
                SubmitError::Busy { .. } => Outcome::Busy,
                SubmitError::Stopping => Outcome::Stopping,
                SubmitError::TooLong { .. } => Outcome::TooLong,
                SubmitError::Empty => Outcome::Empty,
                SubmitError::Media(_) => Outcome::Media,
            });
        })
    }

    fn submit(&self, request: GenerateRequest) -> Result<GenerationStream, SubmitError> {
        let prompt_tokens = request.prompt.tokens.len();
        let limit = self.limits.max_prompt_tokens;
        if prompt_tokens == 0 {
            return Err(SubmitError::Empty);
        }
        if prompt_tokens > limit {
            return Err(SubmitError::TooLong { prompt_tokens, limit });
        }
        media::check(&request.prompt, self.takes_media).map_err(SubmitError::Media)?;
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::Closed => SubmitError::Stopping,
            TryAcquireError::NoPermits => self.busy(),
        })?;
        let (sender, events) = mpsc::unbounded_channel();
        let started = Arc::new(AtomicBool::new(false));
        let submission = Submission {
            request,
            events: sender,
            slot,
            started: Arc::clone(&started),
            submitted: Instant::now(),
            span: Span::current(),
        };
        self.inbox.send(Message::Generate(Box::new(submission))).map_err(|_| SubmitError::Stopping)?;
        Ok(GenerationStream { events, started })
    }

    fn busy(&self) -> SubmitError {
        let queued = self.capacity.saturating_sub(self.load().running);
        SubmitError::Busy { queued, retry_after: self.time_for(queued) }
    }

    /// How long so many requests take to end, as fast as they ended lately. At least a second.
    pub fn time_for(&self, requests: usize) -> Duration {
        self.status.borrow().drain_rate.time_for(requests)
    }

    /// How busy the engine was at its last step.
    pub fn load(&self) -> Load {
        self.status.borrow().load
    }

    /// How long a request may be.
    pub fn limits(&self) -> EngineLimits {
        self.limits
    }

    /// Whether prompts may carry images and clips.
    pub fn takes_media(&self) -> bool {
        self.takes_media
    }

    /// Whether requests are accepted, and why not.
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Refuses new requests, finishes those that were accepted, then ends the engine thread. Returns at once;
    /// [`EngineThread::ended`](crate::EngineThread::ended) tells when it is done.
    pub fn drain(&self) {
        self.stop_with(Message::Drain);
    }

    /// Refuses new requests, fails those that were accepted before the next step, then ends the engine thread.
    pub fn abort(&self) {
        self.stop_with(Message::Abort);
    }

    fn stop_with(&self, message: Message) {
        self.slots.close();
        self.state.send_if_modified(|state| {
            let serving = *state == EngineState::Serving;
            if serving {
                *state = EngineState::Draining;
            }
            serving
        });
        // An engine that is gone has stopped already.
        let _ = self.inbox.send(message);
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EngineHandle")
            .field("state", &self.state())
            .field("load", &self.load())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
