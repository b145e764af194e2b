//! From a prepared job to the events of one answer: submit, parse. Streamed and whole answers read the same events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use kimi_api::{FinishReason, TokenLogprob, TopLogprob, Usage};
use kimi_chat::{OutputEvent, ParsedOutcome, TokenRole, Vocabulary};
use kimi_engine::{
    EngineFailure, EngineHandle, EngineState, Finished, GenerationStream, SampledToken, TokenEvent,
    TokenLogprobs,
};
use kimi_guide::CutFlag;
use kimi_tokens::TokenId;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use crate::patience::Patience;
use crate::prepare::{AnswerParser, Prepared};
use crate::state::ReadyService;
use crate::validate::PromptReport;
use crate::{ApiError, metrics};

/// A log probability of zero probability, since JSON has no infinity.
const LOWEST_LOGPROB: f32 = -9999.0;

/// One step of an answer, in the order in which clients see it. `Finished` is the last.
#[derive(Debug, PartialEq)]
pub(crate) enum AnswerEvent {
    /// How likely the prompt's next tokens were, from its second one on; first of all, and only when it was asked for.
    Prompt(Vec<TokenLogprob>),
    /// More of the reasoning.
    Reasoning(String),
    /// More of the answer, with the log probabilities of the tokens that completed it when they were asked for.
    Content { text: String, logprobs: Option<Vec<TokenLogprob>> },
    /// A call begins.
    ToolCallStarted { index: usize, id: String, name: String },
    /// More of a call's arguments.
    ToolArguments { index: usize, json: String },
    /// The end, and the stop string that was it.
    Finished { reason: FinishReason, usage: Usage, stop: Option<String> },
}

/// A running answer. Dropping it cancels the request within one step of the engine, so whoever writes the response must
/// own it: the handler's future for whole answers, the body for streamed ones.
pub(crate) struct Generation {
    /// `None` once the answer has ended; dropping it is what cancels.
    tokens: Option<GenerationStream>,
    patience: Patience,
    /// Whether a format was closed because the tokens ran out.
    cut: CutFlag,
    /// Taken when the answer ends.
    parser: Option<AnswerParser>,
    /// Events that are parsed and not yet read.
    ready: VecDeque<AnswerEvent>,
    /// Reused for every token.
    parsed: Vec<OutputEvent>,
    /// Log probabilities of content whose text the parser still holds back; `None` when not asked for.
    logprobs: Option<Vec<TokenLogprob>>,
    /// Tokens since the last event that was read; `None` when not asked for.
    token_ids: Option<Vec<TokenId>>,
    hidden_tokens: Vec<TokenId>,
    /// Tokens of the prompt that nothing was said of yet; empty when not asked for.
    unscored: std::vec::IntoIter<TokenId>,
    /// Whether the one token that comes with it is shown.
    prompt_report: PromptReport,
    one_tool_call: bool,
    hide_reasoning: bool,
    has_content: bool,
    /// The stop string that came.
    stop: Option<String>,
    vocabulary: Arc<Vocabulary>,
    engine: EngineHandle,
    log: RequestLog,
    /// Keeps a draining server alive until this answer ended.
    _running: TaskTrackerToken,
}

impl Generation {
    /// Submits the prepared job as the choice with this index.
    pub(crate) fn start(
        prepared: &Prepared,
        choice: usize,
        service: &ReadyService,
        request_id: String,
        running: TaskTrackerToken,
    ) -> Result<Self, ApiError> {
        let (request, cut) = prepared.request(choice);
        let tokens = service
            .engine
            .generate(request)
            .map_err(|error| ApiError::from_submit(&error, service.engine.limits().max_context))?;
        let scored = prepared.prompt_report.logprobs.and_then(|_| prepared.prompt_tokens().get(1..));
        let unscored = scored.unwrap_or_default().to_vec();
        Ok(Self {
            tokens: Some(tokens),
            patience: Patience::new(service.queue_wait),
            cut,
            parser: Some(prepared.parser(service)),
            ready: VecDeque::new(),
            parsed: Vec::new(),
            logprobs: prepared.logprobs.map(|_| Vec::new()),
            token_ids: prepared.return_token_ids.then(Vec::new),
            hidden_tokens: prepared.hidden_tokens.clone(),
            unscored: unscored.into_iter(),
            prompt_report: prepared.prompt_report,
            one_tool_call: prepared.one_tool_call,
            hide_reasoning: prepared.hide_reasoning,
            has_content: false,
            stop: None,
            vocabulary: Arc::clone(&service.vocabulary),
            engine: service.engine.clone(),
            log: RequestLog::new(request_id, prepared.prompt_tokens().len()),
            _running: running,
        })
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.log.prompt_tokens
    }

    /// The next event, or `None` after the last. Safe to cancel: no event is lost.
    pub(crate) async fn next(&mut self) -> Option<Result<AnswerEvent, ApiError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let tokens = self.tokens.as_mut()?;
            let event = tokio::select! {
                biased;
                event = tokens.next() => event,
                () = self.patience.ends() => {
                    if self.patience.is_lost(tokens) {
                        return Some(Err(self.give_up()));
                    }
                    continue;
                }
            };
            match event {
                Some(TokenEvent::Prompt(scores)) => self.score(&scores),
                Some(TokenEvent::Token(token)) => self.take(&token),
                Some(TokenEvent::Finished(finished)) => self.finish(Some(finished)),
                Some(TokenEvent::Failed(failure)) => return Some(Err(self.fail(&failure))),
                None => {
                    let gone = EngineFailure::Engine("the engine is gone".into());
                    return Some(Err(self.fail(&gone)));
                }
            }
        }
    }

    /// The tokens behind the event that was read last, when ids were asked for: all since the event before.
    pub(crate) fn take_token_ids(&mut self) -> Option<Vec<TokenId>> {
        self.token_ids.as_mut().map(std::mem::take)
    }

    /// Names the prompt's tokens that these belong to.
    fn score(&mut self, scores: &[TokenLogprobs]) {
        let tokens = scores.iter().zip(self.unscored.by_ref());
        let scored = tokens.map(|(score, token)| token_logprob(&self.vocabulary, token, score)).collect();
        self.ready.push_back(AnswerEvent::Prompt(scored));
    }

    /// Parses one token into events.
    fn take(&mut self, token: &SampledToken) {
        if self.prompt_report.is_all {
            return;
        }
        self.log.completion_tokens += 1;
        if let Some(ids) = &mut self.token_ids {
            ids.push(token.id);
        }
        if self.hidden_tokens.contains(&token.id) {
            return;
        }
        let Some(parser) = &mut self.parser else { return };
        let role = parser.push(token.id, &mut self.parsed);
        if let (TokenRole::Content, Some(collected), Some(logprobs)) =
            (role, &mut self.logprobs, &token.logprobs)
        {
            collected.push(token_logprob(&self.vocabulary, token.id, logprobs));
        }
        if self.publish() {
            self.finish(None);
        }
    }

    /// Moves parsed events to the ready ones. Returns whether the answer ends here, before the model ended it.
    fn publish(&mut self) -> bool {
        let mut ends = false;
        for event in self.parsed.drain(..) {
            let event = match event {
                OutputEvent::Reasoning(_) if self.hide_reasoning => continue,
                OutputEvent::Reasoning(text) => AnswerEvent::Reasoning(text),
                OutputEvent::Content(text) => {
                    self.has_content = true;
                    AnswerEvent::Content { text, logprobs: self.logprobs.as_mut().map(std::mem::take) }
                }
                OutputEvent::ToolCallStarted { index, id, name } => {
                    AnswerEvent::ToolCallStarted { index, id, name }
                }
                OutputEvent::ToolArguments { index, json } => AnswerEvent::ToolArguments { index, json },
                OutputEvent::ToolCallFinished { .. } if self.one_tool_call => {
                    ends = true;
                    break;
                }
                OutputEvent::ToolCallFinished { .. } => continue,
                OutputEvent::StopStringHit { stop } => {
                    self.stop = Some(stop);
                    ends = true;
                    break;
                }
            };
            self.ready.push_back(event);
        }
        ends
    }

    /// Ends the answer: flushes the parser and decides the reason. `finished` is `None` when the answer ended before the
    /// model did, at a stop string or after the one call that was allowed.
    fn finish(&mut self, finished: Option<Finished>) {
        self.tokens = None;
        let Some(parser) = self.parser.take() else { return };
        let outcome = parser.finish(&mut self.parsed);
        self.publish();
        let reason = if self.prompt_report.is_all {
            FinishReason::Length
        } else {
            finish_reason(finished, &outcome, self.cut.is_set())
        };
        let usage = Usage::new(
            self.log.prompt_tokens,
            finished
                .filter(|_| !self.prompt_report.is_all)
                .map_or(self.log.completion_tokens, |finished| finished.completion_tokens),
            finished.map_or(0, |finished| finished.cached_tokens),
            outcome.reasoning_tokens,
        );
        self.count(&outcome, reason);
        self.log.end(reason, usage);
        self.ready.push_back(AnswerEvent::Finished { reason, usage, stop: self.stop.take() });
    }

    fn count(&self, outcome: &ParsedOutcome, reason: FinishReason) {
        if outcome.malformed > 0 {
            ::metrics::counter!(metrics::TOOL_PARSE_ERRORS_TOTAL).increment(outcome.malformed as u64);
        }
        if reason == FinishReason::Stop && !self.has_content && !outcome.stop_string_hit {
            ::metrics::counter!(metrics::EMPTY_ANSWERS_TOTAL).increment(1);
        }
    }

    /// The request waited too long; it leaves the queue with this.
    fn give_up(&mut self) -> ApiError {
        self.tokens = None;
        self.log.outcome = "overdue";
        let retry_after = self.engine.time_for(self.engine.load().waiting);
        let waited = self.log.started.elapsed().as_secs();
        ApiError::overloaded(
            format!(
                "The engine is currently overloaded: the request waited {waited} seconds for its turn; retry later"
            ),
            retry_after,
        )
    }

    fn fail(&mut self, failure: &EngineFailure) -> ApiError {
        self.tokens = None;
        if matches!(self.engine.state(), EngineState::Draining | EngineState::Ended) {
            self.log.outcome = "stopped";
            return ApiError::unavailable("The server stopped before the answer was done");
        }
        self.log.fail(failure);
        ApiError::from_failure(failure, &self.log.request_id)
    }
}

/// A limit beats calls, since the last one may be cut; calls beat everything else, since they wait for their results.
fn finish_reason(finished: Option<Finished>, outcome: &ParsedOutcome, cut: bool) -> FinishReason {
    if cut || finished.is_some_and(|finished| finished.reason == kimi_engine::FinishReason::Length) {
        FinishReason::Length
    } else if outcome.tool_calls > 0 {
        FinishReason::ToolCalls
    } else {
        FinishReason::Stop
    }
}

fn token_logprob(vocabulary: &Vocabulary, id: TokenId, logprobs: &TokenLogprobs) -> TokenLogprob {
    let (token, bytes) = spell(vocabulary, id);
    let top = logprobs.top.iter().map(|(id, logprob)| {
        let (token, bytes) = spell(vocabulary, *id);
        TopLogprob { token, logprob: logprob.max(LOWEST_LOGPROB), bytes }
    });
    TokenLogprob { token, logprob: logprobs.token.max(LOWEST_LOGPROB), bytes, top_logprobs: top.collect() }
}

fn spell(vocabulary: &Vocabulary, id: TokenId) -> (String, Vec<u8>) {
    let bytes = vocabulary.bytes(id);
    (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec())
}

/// One line in the log for each request that reached the engine, written when it ends, however it ends. No text of the
/// prompt or the answer.
struct RequestLog {
    request_id: String,
    span: Span,
    started: Instant,
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: usize,
    outcome: &'static str,
}

impl RequestLog {
    fn new(request_id: String, prompt_tokens: usize) -> Self {
        Self {
            request_id,
            span: Span::current(),
            started: Instant::now(),
            prompt_tokens,
            completion_tokens: 0,
            cached_tokens: 0,
            // What it is when nobody waits for the rest: the client left.
            outcome: "cancelled",
        }
    }

    fn end(&mut self, reason: FinishReason, usage: Usage) {
        self.completion_tokens = usage.completion_tokens;
        self.cached_tokens = usage.cached_tokens;
        self.outcome = match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        };
    }

    fn fail(&mut self, failure: &EngineFailure) {
        self.outcome = "failed";
        self.span.in_scope(|| tracing::error!(%failure, "the generation failed"));
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.span.in_scope(|| {
            tracing::info!(
                outcome = self.outcome,
                prompt_tokens = self.prompt_tokens,
                cached_tokens = self.cached_tokens,
                completion_tokens = self.completion_tokens,
                milliseconds = self.started.elapsed().as_millis() as u64,
                "generation ended"
            );
        });
    }
}
