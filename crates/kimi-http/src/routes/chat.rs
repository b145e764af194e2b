//! `POST /v1/chat/completions`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use kimi_api::ChatCompletionRequest;
use serde::Deserialize;

use crate::chat_collect::collect;
use crate::chat_stream::{AnswerHead, respond};
use crate::generation::Generation;
use crate::state::ReadyService;
use crate::telemetry::RequestId;
use crate::validate::{ChatJob, Rules, check};
use crate::{ApiError, App, ModelNames, json_body};

/// Bodies above this many bytes are parsed off the threads that serve everybody else.
const PARSE_INLINE: usize = 256 * 1024;

/// Hop 1 of 9. Takes a chat request and answers it, whole or streamed.
///
/// Nothing here is spawned and left alone: this future owns the whole answer's generation and the returned body owns the
/// streamed one's, so a client that leaves cancels its request.
pub(crate) async fn create_chat_completion(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the state is read: a drain that begins now waits for this request.
    let running = app.running().token();
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request = parse(body, &service, &request_id).await?;
    let job = check(request, &rules(&app, &service))?;

    let notice = job.notices.header().and_then(|notice| HeaderValue::try_from(notice).ok());
    let (head, stream) = (head(&job, &request_id), job.style.stream);
    let generation = Generation::start(job, &service, request_id, running).await?;
    let mut response = if stream {
        respond(generation, head, app.config().keep_alive)
    } else {
        Json(collect(generation, head).await?).into_response()
    };
    if let Some(notice) = notice {
        response.headers_mut().insert(HeaderName::from_static("x-kimi-notice"), notice);
    }
    Ok(response)
}

fn rules<'a>(app: &App, service: &'a ReadyService) -> Rules<'a> {
    Rules {
        policy: app.policy(),
        names: &service.names,
        vocabulary: &service.vocabulary,
        markers: &service.markers,
        reasoning_alias: app.config().reasoning_alias,
    }
}

fn head(job: &ChatJob, request_id: &str) -> AnswerHead {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AnswerHead {
        id: format!("chatcmpl-{request_id}"),
        created: now.as_secs(),
        model: job.style.model.clone(),
        include_usage: job.style.include_usage,
        reasoning_alias: job.style.reasoning_alias,
    }
}

async fn parse(
    body: Bytes,
    service: &ReadyService,
    request_id: &str,
) -> Result<ChatCompletionRequest, ApiError> {
    if body.len() <= PARSE_INLINE {
        return parse_request(&body, &service.names);
    }
    let names = service.names.clone();
    tokio::task::spawn_blocking(move || parse_request(&body, &names))
        .await
        .unwrap_or_else(|_panic| Err(ApiError::internal(request_id, "The request could not be read")))
}

/// Reads the request. When some value has the wrong type, an unknown model is still what the client hears of first.
fn parse_request(body: &[u8], names: &ModelNames) -> Result<ChatCompletionRequest, ApiError> {
    #[derive(Deserialize)]
    struct ModelOnly {
        model: String,
    }
    json_body::parse(body).or_else(|error: ApiError| {
        if let Ok(ModelOnly { model }) = json_body::parse(body) {
            names.check(&model)?;
        }
        Err(error)
    })
}
