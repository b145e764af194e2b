//! `POST /v1/chat/completions`.

use axum::response::Response;
use kimi_api::ChatCompletionRequest;

use super::exchange::Asked;
use super::seconds_since_1970;
use crate::ApiError;
use crate::chat_stream::AnswerHead;
use crate::validate::check;

/// Hop 1 of 9. Takes a chat request and answers it, whole or streamed.
pub(crate) async fn create_chat_completion(
    Asked(request, exchange): Asked<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    let job = check(request, &exchange.rules())?;
    let head = AnswerHead {
        id: format!("chatcmpl-{}", exchange.request_id),
        created: seconds_since_1970(),
        model: job.style.model.clone(),
        include_usage: job.style.include_usage,
        reasoning_alias: job.style.reasoning_alias,
    };
    exchange.answer(job, head).await
}
