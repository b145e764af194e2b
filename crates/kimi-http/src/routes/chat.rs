//! `POST /v1/chat/completions`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kimi_api::ChatCompletionRequest;

use crate::auth::Caller;
use crate::chat_collect::collect;
use crate::chat_stream::AnswerHead;
use crate::choices::Choices;
use crate::sse::respond;
use crate::state::ReadyService;
use crate::telemetry::RequestId;
use crate::validate::{ChatJob, Notices, Rules, check};
use crate::{ApiError, App, json_body};

/// Hop 1 of 9. Takes a chat request and answers it, whole or streamed.
///
/// Nothing here is spawned and left alone: this future owns the generations of whole answers and the returned body owns
/// those of streamed ones, so a client that leaves cancels its request.
pub(crate) async fn create_chat_completion(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the state is read: a drain that begins now waits for this request.
    let running = app.running().token();
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: ChatCompletionRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    let mut job = check(request, &rules(&app, &service, caller))?;

    let notices = std::mem::take(&mut job.notices);
    let (head, stream) = (head(&job, &request_id), job.style.stream);
    let choices = Choices::start(job, &service, request_id, running).await?;
    let response = if stream {
        respond(choices, head, app.config().keep_alive)
    } else {
        Json(collect(choices, head).await?).into_response()
    };
    Ok(with_notices(response, &notices))
}

/// Says in a header what had no effect.
pub(super) fn with_notices(mut response: Response, notices: &Notices) -> Response {
    if let Some(notice) = notices.header().and_then(|notice| HeaderValue::try_from(notice).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-kimi-notice"), notice);
    }
    response
}

/// What requests are checked against.
pub(super) fn rules<'a>(app: &App, service: &'a ReadyService, caller: Caller) -> Rules<'a> {
    Rules {
        policy: app.policy(),
        names: &service.names,
        vocabulary: &service.vocabulary,
        tenant: app.tenant(caller),
        max_n: app.config().max_n,
        reasoning_alias: app.config().reasoning_alias,
    }
}

fn head(job: &ChatJob, request_id: &str) -> AnswerHead {
    AnswerHead {
        id: format!("chatcmpl-{request_id}"),
        created: seconds_since_1970(),
        model: job.style.model.clone(),
        include_usage: job.style.include_usage,
        reasoning_alias: job.style.reasoning_alias,
    }
}

/// Now.
pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
