//! `POST /v1/responses`, without stored state.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kimi_api::responses::{Event, ResponsesRequest};

use super::chat::{rules, seconds_since_1970, with_notices};
use crate::auth::Caller;
use crate::choices::Choices;
use crate::dialect::{Spoken, collect};
use crate::responses::{ResponseEvents, Translated, to_chat};
use crate::sse::respond;
use crate::telemetry::RequestId;
use crate::validate::check;
use crate::{ApiError, App, json_body};

/// Answers a request, whole or streamed. Everything but the words is the chat route's.
pub(crate) async fn create_response(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let running = app.running().token();
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: ResponsesRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    service.names.check(&request.model)?;
    let Translated { request, echo, ignored } = to_chat(request)?;
    let mut job = check(request, &rules(&app, &service, caller))?;

    let mut notices = std::mem::take(&mut job.notices);
    for what in ignored {
        notices.ignored(what);
    }
    let (stream, sampling) = (job.style.stream, &job.sampling);
    let (temperature, top_p) = (sampling.temperature, sampling.top_p);
    let events = ResponseEvents::new(echo, request_id.clone(), seconds_since_1970(), temperature, top_p);
    let choices = Choices::start(job, &service, request_id.clone(), running).await?;
    let response = if stream {
        respond(choices, Spoken::new(events), app.config().keep_alive)
    } else {
        let mut whole = None;
        collect(choices, events, |event| {
            if let Event::Completed { response } | Event::Incomplete { response } = event.event {
                whole = Some(response);
            }
        })
        .await?;
        Json(whole.ok_or_else(|| ApiError::internal(&request_id, "The answer broke off"))?).into_response()
    };
    Ok(with_notices(response, &notices))
}
