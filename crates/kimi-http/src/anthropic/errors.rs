//! Errors in the Messages API's form. Wherever an error arose, it becomes one here, on the way out.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use kimi_api::anthropic::{ErrorBody, ErrorDetail};

use crate::ApiError;

/// What this API answers instead of 429 when the server is too busy; its clients wait and try again.
const OVERLOADED: u16 = 529;

/// Rewrites an error for clients of the Messages API, and gives every answer the header in which they look for its id.
pub(crate) fn adapt(path: &str, request_id: &str, response: Response) -> Response {
    if !is_spoken_at(path) {
        return response;
    }
    let (mut parts, mut body) = response.into_parts();
    if let Some(error) = parts.extensions.remove::<ApiError>() {
        parts.status = status(error.status);
        parts.headers.remove(header::CONTENT_LENGTH);
        let error =
            ErrorBody { kind: ErrorBody::TYPE, error: detail(error), request_id: request_id.to_owned() };
        body = Body::from(serde_json::to_vec(&error).expect("invariant: wire types serialize"));
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        parts.headers.insert(HeaderName::from_static("request-id"), id);
    }
    Response::from_parts(parts, body)
}

/// Whether a path belongs to the Messages API.
pub(crate) fn is_spoken_at(path: &str) -> bool {
    path == "/v1/messages" || path.starts_with("/v1/messages/") || path.starts_with("/anthropic/")
}

fn status(status: StatusCode) -> StatusCode {
    if status == StatusCode::TOO_MANY_REQUESTS {
        StatusCode::from_u16(OVERLOADED).unwrap_or(status)
    } else {
        status
    }
}

/// The error in this API's classes. Clients shorten the conversation when the prompt is "too long".
pub(super) fn detail(error: ApiError) -> ErrorDetail {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    };
    let message = match error.overflow {
        Some(long) => format!("prompt is too long: {} tokens > {} maximum", long.requested, long.limit),
        None => error.message,
    };
    ErrorDetail { kind, message }
}
