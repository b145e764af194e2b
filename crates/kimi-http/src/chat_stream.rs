//! A streamed answer: events become server-sent events, one `data:` line each.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kimi_api::{
    ChatCompletionChunk, ChoiceLogprobs, ChunkChoice, Delta, FunctionDelta, Role, ToolCallDelta,
    ToolCallKind, Usage,
};
use serde::Serialize;

use crate::ApiError;
use crate::generation::{AnswerEvent, Generation};

/// What every chunk of an answer repeats, and how the answer is written.
#[derive(Clone, Debug)]
pub(crate) struct AnswerHead {
    /// `chatcmpl-…`.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The model's name as the request spelled it.
    pub(crate) model: String,
    /// A last chunk carries the usage, and all others say `"usage": null`.
    pub(crate) include_usage: bool,
    /// The reasoning under its second name, too.
    pub(crate) reasoning_alias: bool,
}

/// Streams a generation. The body owns it: when the client leaves, both are dropped.
pub(crate) fn respond(generation: Generation, head: AnswerHead, keep_alive: Duration) -> Response {
    let stream = ChatStream { generation, head, keep_alive, stage: Stage::Greeting };
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Tells nginx and its kind not to hold chunks back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}

enum Stage {
    Greeting,
    Speaking,
    Done,
}

struct ChatStream {
    generation: Generation,
    head: AnswerHead,
    keep_alive: Duration,
    stage: Stage,
}

impl ChatStream {
    /// The next bytes to send, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(256);
        match self.stage {
            Stage::Done => return None,
            Stage::Greeting => {
                self.stage = Stage::Speaking;
                let delta = Delta { role: Some(Role::Assistant), content: Some(""), ..Delta::default() };
                self.head.write_delta(delta, None, &mut out);
            }
            Stage::Speaking => match tokio::time::timeout(self.keep_alive, self.generation.next()).await {
                // A long prompt can be silent for minutes; proxies give up after one.
                Err(_elapsed) => out.extend_from_slice(b": keep-alive\n\n"),
                Ok(Some(Ok(event))) => {
                    if matches!(event, AnswerEvent::Finished { .. }) {
                        self.stage = Stage::Done;
                    }
                    frame(&self.head, event, &mut out);
                }
                Ok(Some(Err(error))) => {
                    self.stage = Stage::Done;
                    write_error(error, &mut out);
                }
                Ok(None) => return None,
            },
        }
        Some(out.into())
    }
}

/// Hop 9b of 9. Writes one event as `data:` lines. The last event is followed by the usage, when it was asked for, and
/// by `[DONE]`.
pub(crate) fn frame(head: &AnswerHead, event: AnswerEvent, out: &mut Vec<u8>) {
    match event {
        AnswerEvent::Reasoning(text) => {
            let reasoning = head.reasoning_alias.then_some(text.as_str());
            head.write_delta(
                Delta { reasoning_content: Some(&text), reasoning, ..Delta::default() },
                None,
                out,
            );
        }
        AnswerEvent::Content { text, logprobs } => {
            let logprobs = logprobs.map(|content| ChoiceLogprobs { content });
            head.write_delta(Delta { content: Some(&text), ..Delta::default() }, logprobs, out);
        }
        AnswerEvent::ToolCallStarted { index, id, name } => {
            let function = FunctionDelta { name: Some(&name), arguments: "" };
            let call = ToolCallDelta { index, id: Some(&id), kind: Some(ToolCallKind::Function), function };
            head.write_delta(Delta { tool_calls: Some([call]), ..Delta::default() }, None, out);
        }
        AnswerEvent::ToolArguments { index, json } => {
            let function = FunctionDelta { name: None, arguments: &json };
            let call = ToolCallDelta { index, id: None, kind: None, function };
            head.write_delta(Delta { tool_calls: Some([call]), ..Delta::default() }, None, out);
        }
        AnswerEvent::Finished { reason, usage } => {
            let last =
                ChunkChoice { finish_reason: Some(reason), usage: Some(usage), ..ChunkChoice::default() };
            head.write_chunk(&[last], None, out);
            if head.include_usage {
                head.write_chunk(&[], Some(usage), out);
            }
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }
}

impl AnswerHead {
    fn write_delta(&self, delta: Delta<'_>, logprobs: Option<ChoiceLogprobs>, out: &mut Vec<u8>) {
        self.write_chunk(&[ChunkChoice { delta, logprobs, ..ChunkChoice::default() }], None, out);
    }

    fn write_chunk(&self, choices: &[ChunkChoice<'_>], usage: Option<Usage>, out: &mut Vec<u8>) {
        let chunk = ChatCompletionChunk {
            id: &self.id,
            object: ChatCompletionChunk::OBJECT,
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        write_data(&chunk, out);
    }
}

/// A failure in the middle: clients raise on the `error` key, and the missing `[DONE]` says that the answer is not whole.
fn write_error(error: ApiError, out: &mut Vec<u8>) {
    write_data(&error.body(), out);
}

fn write_data(value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, value)
        .expect("invariant: wire types serialize and memory takes every write");
    out.extend_from_slice(b"\n\n");
}
