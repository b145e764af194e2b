//! Answers as server-sent events: what is the same whatever the events look like.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kimi_api::Usage;
use serde::Serialize;

use crate::ApiError;
use crate::choices::{ChoiceEvent, Choices};

/// How one route writes the events of its answers: one by one, where every method appends whole server-sent events, or
/// added up.
pub(crate) trait Framing: Send + 'static {
    /// The whole of the answers, as JSON.
    type Whole: Serialize;

    /// Reads all answers to their ends and adds them up. The caller's future owns them: when the client leaves, all are
    /// dropped.
    fn collect(self, choices: Choices) -> impl Future<Output = Result<Self::Whole, ApiError>> + Send;

    /// Before the first event.
    fn begin(&mut self, choices: &Choices, out: &mut Vec<u8>);
    /// Hop 9b of 9. One event.
    fn event(&mut self, event: ChoiceEvent, out: &mut Vec<u8>);
    /// After the last event of the last answer. `usage` is that of all of them.
    fn end(&mut self, usage: Usage, out: &mut Vec<u8>);
    /// Nothing has happened for a while. A long prompt can be silent for minutes; proxies give up after one.
    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": keep-alive\n\n");
    }
    /// A failure in the middle, after which nothing comes: clients raise on the `error` key, and the missing end says
    /// that the answer is not whole.
    fn error(&mut self, error: ApiError, out: &mut Vec<u8>) {
        write_data(&error.body(), out);
    }
}

/// Streams answers. The body owns them: when the client leaves, both are dropped.
pub(crate) fn respond(choices: Choices, framing: impl Framing, keep_alive: Duration) -> Response {
    let stream = EventStream { choices, framing, keep_alive, stage: Stage::Greeting };
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Tells nginx and its kind not to hold chunks back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}

enum Stage {
    Greeting,
    Speaking,
    Done,
}

struct EventStream<F> {
    choices: Choices,
    framing: F,
    keep_alive: Duration,
    stage: Stage,
}

impl<F: Framing> EventStream<F> {
    /// The next bytes to send, never none at all, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(256);
        while out.is_empty() {
            match self.stage {
                Stage::Done => return None,
                Stage::Greeting => {
                    self.stage = Stage::Speaking;
                    self.framing.begin(&self.choices, &mut out);
                }
                Stage::Speaking => self.speak(&mut out).await,
            }
        }
        Some(out.into())
    }

    async fn speak(&mut self, out: &mut Vec<u8>) {
        match tokio::time::timeout(self.keep_alive, self.choices.next()).await {
            Err(_elapsed) => self.framing.keep_alive(out),
            Ok(Some(Ok(event))) => self.framing.event(event, out),
            Ok(Some(Err(error))) => {
                self.stage = Stage::Done;
                self.framing.error(error, out);
            }
            Ok(None) => {
                self.stage = Stage::Done;
                self.framing.end(self.choices.usage(), out);
            }
        }
    }
}

/// One `data:` line.
pub(crate) fn write_data(value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, value)
        .expect("invariant: wire types serialize and memory takes every write");
    out.extend_from_slice(b"\n\n");
}

/// The last line of OpenAI's streams, and the only sign that the answer is whole.
pub(crate) fn write_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}
