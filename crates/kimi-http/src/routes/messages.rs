//! The Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`, both also below `/anthropic`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kimi_api::anthropic::{MessagesRequest, TokenCount};

use super::chat::{rules, with_notices};
use crate::anthropic::{MessageEvents, MessageFold, Translated, to_chat};
use crate::auth::Caller;
use crate::choices::Choices;
use crate::dialect::{Spoken, collect};
use crate::prepare::encode;
use crate::sse::respond;
use crate::telemetry::RequestId;
use crate::validate::{Prompt, check, conversation_of};
use crate::{ApiError, App, json_body};

/// Answers a message, whole or streamed. Everything but the words is the chat route's.
pub(crate) async fn create_message(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let running = app.running().token();
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: MessagesRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    if request.max_tokens.is_none() {
        service.names.check(&request.model)?;
        return Err(ApiError::invalid(
            "Invalid request: max_tokens is required: say how many tokens the answer may have",
        ));
    }
    let Translated { request, ignored } = to_chat(request)?;
    let mut job = check(request, &rules(&app, &service, caller))?;

    let mut notices = std::mem::take(&mut job.notices);
    for what in ignored {
        notices.ignored(what);
    }
    let stream = job.style.stream;
    let events = MessageEvents::new(request_id.clone(), job.style.model.clone());
    let choices = Choices::start(job, &service, request_id.clone(), running).await?;
    let response = if stream {
        respond(choices, Spoken::new(events), app.config().keep_alive)
    } else {
        let mut fold = MessageFold::default();
        collect(choices, events, |event| fold.take(event)).await?;
        let whole = fold.finish().ok_or_else(|| ApiError::internal(&request_id, "The answer broke off"))?;
        Json(whole).into_response()
    };
    Ok(with_notices(response, &notices))
}

/// How many tokens a message's prompt has: built by the same code, so exactly what its usage will say.
pub(crate) async fn count_tokens(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<TokenCount>, ApiError> {
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: MessagesRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    service.names.check(&request.model)?;
    let Translated { request, .. } = to_chat(request)?;
    let prompt = Prompt::Chat(Box::new(conversation_of(request, app.policy())?));
    let input_tokens = encode(prompt, &service, &request_id).await?.tokens.len();
    Ok(Json(TokenCount { input_tokens }))
}
