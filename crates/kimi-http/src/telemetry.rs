//! Around every request: an id, a span, a metric, and a JSON answer even for a bug.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::{ApiError, anthropic, metrics};

/// Names a request in answers, error texts and the log.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Gives the request its id and observes the answer.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().simple().to_string();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));

    let span = tracing::info_span!("request", id);
    let started = Instant::now();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let response = answer.unwrap_or_else(|_panic| {
        // The panic hook has printed where; the client must still get an answer.
        ApiError::internal(&id, "The server has a bug that this request found").into_response()
    });

    let mut response = anthropic::adapt(&path, &id, response);

    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    span.in_scope(
        || tracing::info!(%method, path, status, milliseconds = elapsed.as_millis() as u64, "answered"),
    );
    // Unknown paths share one label, or anybody could fill the recorder's memory.
    let route = route.unwrap_or_else(|| "unknown".into());
    ::metrics::counter!(metrics::HTTP_REQUESTS_TOTAL, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    ::metrics::histogram!(metrics::HTTP_RESPONSE_SECONDS, "route" => route).record(elapsed.as_secs_f64());

    let id = HeaderValue::try_from(id).expect("invariant: hexadecimal digits are a header value");
    response.headers_mut().insert(HeaderName::from_static("x-trace-id"), id.clone());
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    response
}
