//! An answer's events as the Messages API streams them: blocks that begin, grow and end.

use kimi_api::anthropic::{BlockDelta, Message, MessageDelta, OutputBlock, StopReason, StreamEvent, Usage};
use serde_json::json;

use super::errors;
use super::fold::MessageFold;
use crate::ApiError;
use crate::dialect::Dialect;
use crate::generation::AnswerEvent;

/// Tells one answer.
#[derive(Debug)]
pub(crate) struct MessageEvents {
    request_id: String,
    model: String,
    /// The kind of the block that is open.
    open: Option<Kind>,
    /// Blocks that have ended.
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse,
}

impl MessageEvents {
    pub(crate) fn new(request_id: String, model: String) -> Self {
        Self { request_id, model, open: None, index: 0 }
    }

    /// Makes sure that a block of this kind is open.
    fn enter(&mut self, kind: Kind, block: impl FnOnce() -> OutputBlock, out: &mut Vec<StreamEvent>) {
        if self.open != Some(kind) {
            self.start(kind, block(), out);
        }
    }

    fn start(&mut self, kind: Kind, content_block: OutputBlock, out: &mut Vec<StreamEvent>) {
        self.stop(out);
        self.open = Some(kind);
        out.push(StreamEvent::ContentBlockStart { index: self.index, content_block });
    }

    fn stop(&mut self, out: &mut Vec<StreamEvent>) {
        let Some(kind) = self.open.take() else { return };
        if kind == Kind::Thinking {
            // Clients wait for a signature and echo it. Nothing is signed: the text itself is all this server needs.
            self.delta(BlockDelta::SignatureDelta { signature: String::new() }, out);
        }
        out.push(StreamEvent::ContentBlockStop { index: self.index });
        self.index += 1;
    }

    fn delta(&self, delta: BlockDelta, out: &mut Vec<StreamEvent>) {
        out.push(StreamEvent::ContentBlockDelta { index: self.index, delta });
    }
}

impl Dialect for MessageEvents {
    type Event = StreamEvent;
    type Fold = MessageFold;

    fn name(event: &StreamEvent) -> &'static str {
        event.name()
    }

    fn begin(&mut self, prompt_tokens: usize, out: &mut Vec<StreamEvent>) {
        let message = Message {
            id: format!("msg_{}", self.request_id),
            kind: Message::TYPE,
            role: Message::ROLE,
            model: self.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            // How much of it the cache holds is known at the end, where the count comes again.
            usage: Usage { input_tokens: prompt_tokens, ..Usage::default() },
        };
        out.push(StreamEvent::MessageStart { message });
    }

    fn tell(&mut self, event: AnswerEvent, out: &mut Vec<StreamEvent>) {
        match event {
            // Only the route for plain text asks for it.
            AnswerEvent::Prompt(_) => {}
            AnswerEvent::Reasoning(thinking) => {
                let empty = || OutputBlock::Thinking { thinking: String::new(), signature: String::new() };
                self.enter(Kind::Thinking, empty, out);
                self.delta(BlockDelta::ThinkingDelta { thinking }, out);
            }
            AnswerEvent::Content { text, .. } => {
                self.enter(Kind::Text, || OutputBlock::Text { text: String::new() }, out);
                self.delta(BlockDelta::TextDelta { text }, out);
            }
            AnswerEvent::ToolCallStarted { id, name, .. } => {
                self.start(Kind::ToolUse, OutputBlock::ToolUse { id, name, input: json!({}) }, out);
            }
            AnswerEvent::ToolArguments { json: partial_json, .. } => {
                self.delta(BlockDelta::InputJsonDelta { partial_json }, out);
            }
            AnswerEvent::Finished { reason, usage, stop } => {
                self.stop(out);
                let stop_reason = stop_reason(reason, stop.is_some());
                let stop_sequence = stop.filter(|_| stop_reason == StopReason::StopSequence);
                let delta = MessageDelta { stop_reason, stop_sequence };
                out.push(StreamEvent::MessageDelta { delta, usage: usage_of(usage) });
                out.push(StreamEvent::MessageStop);
            }
        }
    }

    fn fail(&mut self, error: ApiError, out: &mut Vec<StreamEvent>) {
        let request_id = self.request_id.clone();
        out.push(StreamEvent::Error { error: errors::detail(error), request_id });
    }

    fn ping(&mut self) -> Option<StreamEvent> {
        Some(StreamEvent::Ping)
    }
}

fn stop_reason(reason: kimi_api::FinishReason, at_stop_sequence: bool) -> StopReason {
    match reason {
        kimi_api::FinishReason::Stop if at_stop_sequence => StopReason::StopSequence,
        kimi_api::FinishReason::Stop => StopReason::EndTurn,
        kimi_api::FinishReason::Length => StopReason::MaxTokens,
        kimi_api::FinishReason::ToolCalls => StopReason::ToolUse,
    }
}

fn usage_of(usage: kimi_api::Usage) -> Usage {
    Usage {
        input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: usage.cached_tokens,
        output_tokens: usage.completion_tokens,
    }
}
