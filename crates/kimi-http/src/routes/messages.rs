//! The Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`, both also below `/anthropic`.

use axum::Json;
use axum::response::Response;
use kimi_api::anthropic::{MessagesRequest, TokenCount};

use super::exchange::Asked;
use crate::ApiError;
use crate::anthropic::{MessageEvents, Translated, to_chat};
use crate::dialect::Spoken;
use crate::validate::check;

/// Answers a message, whole or streamed. Everything but the words is the chat route's.
pub(crate) async fn create_message(
    Asked(request, exchange): Asked<MessagesRequest>,
) -> Result<Response, ApiError> {
    if request.max_tokens.is_none() {
        return Err(ApiError::invalid(
            "Invalid request: max_tokens is required: say how many tokens the answer may have",
        ));
    }
    let Translated { request, ignored } = to_chat(request)?;
    let mut job = check(request, &exchange.rules())?;
    job.notices.ignored_all(ignored);
    let events = MessageEvents::new(exchange.request_id.clone(), job.style.model.clone());
    exchange.answer(job, Spoken::new(events)).await
}

/// How many tokens a message's prompt has.
pub(crate) async fn count_tokens(
    Asked(request, exchange): Asked<MessagesRequest>,
) -> Result<Json<TokenCount>, ApiError> {
    let input_tokens = exchange.count(to_chat(request)?.request).await?;
    Ok(Json(TokenCount { input_tokens }))
}
