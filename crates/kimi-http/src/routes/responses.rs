//! `POST /v1/responses`, without stored state.

use axum::response::Response;
use kimi_api::responses::ResponsesRequest;

use super::exchange::Asked;
use super::seconds_since_1970;
use crate::ApiError;
use crate::dialect::Spoken;
use crate::responses::{ResponseEvents, Translated, to_chat};
use crate::validate::check;

/// Answers a request, whole or streamed. Everything but the words is the chat route's.
pub(crate) async fn create_response(
    Asked(request, exchange): Asked<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let Translated { request, echo, ignored } = to_chat(request)?;
    let mut job = check(request, &exchange.rules())?;
    job.notices.ignored_all(ignored);
    let (temperature, top_p) = (job.sampling.temperature, job.sampling.top_p);
    let id = exchange.request_id.clone();
    let events = ResponseEvents::new(echo, id, seconds_since_1970(), temperature, top_p);
    exchange.answer(job, Spoken::new(events)).await
}
