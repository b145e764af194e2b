//! The one error a client can see: a status, a class for programs, a sentence for people.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kimi_api::{ErrorBody, ErrorDetail};
use kimi_chat::{MediaError, PromptError};
use kimi_engine::{EngineFailure, SubmitError};

/// Seconds after which a client may try again when the model is loading or the server stops.
const RETRY_WHEN_UNAVAILABLE: u64 = 5;

/// An answer that is an error. Becomes `{"error": {"message", "type", "code"?}}` with its status.
///
/// Clients match on some of the texts; they are quoted from the hosted service and tested word for word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The class of the error.
    pub kind: &'static str,
    /// What was wrong, the limit, the way out.
    pub message: String,
    /// The exact cause, where it has a name.
    pub code: Option<&'static str>,
    /// Seconds after which it makes sense to try again.
    pub retry_after: Option<u64>,
    /// The numbers of a prompt that is too long, for dialects with a sentence of their own.
    pub(crate) overflow: Option<Overflow>,
}

/// A prompt that is too long, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// A prompt and its answer may have together.
    pub(crate) limit: usize,
    /// The prompt has.
    pub(crate) requested: usize,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), code: None, retry_after: None, overflow: None }
    }

    /// 400: something in the request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400: the prompt leaves no room for an answer. Clients recognise the text and the code and shorten the conversation.
    pub fn context_overflow(limit: usize, requested: usize) -> Self {
        let message = format!(
            "Invalid request: Your request exceeded model token limit: {limit} (requested: {requested})"
        );
        let overflow = Some(Overflow { limit, requested });
        Self { code: Some("context_length_exceeded"), overflow, ..Self::invalid(message) }
    }

    /// 401: no key, or a header that is none.
    pub fn no_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", "Invalid Authentication")
    }

    /// 401: a key this server does not know.
    pub fn wrong_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "incorrect_api_key_error", "Incorrect API key provided")
    }

    /// 403: who asks may not, key or no key.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_denied_error", message)
    }

    /// 404: a model this server does not answer for.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("Not found the model {model} or Permission denied");
        Self::new(StatusCode::NOT_FOUND, "resource_not_found_error", message)
    }

    /// 404: a file that does not exist, or is somebody else's.
    pub fn file_not_found(id: &str) -> Self {
        let message = format!("Not found the file {id} or Permission denied");
        Self::new(StatusCode::NOT_FOUND, "resource_not_found_error", message)
    }

    /// 404: no such route.
    pub fn route_not_found(method: &str, path: &str) -> Self {
        let message = format!("There is no {method} {path} on this server");
        Self::new(StatusCode::NOT_FOUND, "resource_not_found_error", message)
    }

    /// 405: the route exists for other methods.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Invalid request: {path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// 408: the request did not arrive in time.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: the body may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// 414: the URL has more than `limit` bytes.
    pub fn url_too_long(limit: usize) -> Self {
        let message = format!("Invalid request: the URL may have at most {limit} bytes");
        Self::new(StatusCode::URI_TOO_LONG, "invalid_request_error", message)
    }

    /// 431: the headers have more than `limit` bytes.
    pub fn head_too_large(limit: usize) -> Self {
        let message = format!("Invalid request: the headers may have at most {limit} bytes");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error", message)
    }

    /// 415: the body is not announced as JSON.
    pub fn wrong_content_type(found: &str) -> Self {
        let message = format!("Invalid request: the content type must be application/json, not {found}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// 429: the queue is full, for about as long as `retry_after`.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "engine_overloaded_error", message);
        Self { retry_after: Some(retry_after.as_secs().max(1)), ..error }
    }

    /// 500: our fault. The text names the request so that the operator finds it in the log, and nothing internal.
    pub fn internal(request_id: &str, what: &str) -> Self {
        let message = format!("{what} (request id {request_id})");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// 503: loading, draining or dead.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_unavailable", message);
        Self { retry_after: Some(RETRY_WHEN_UNAVAILABLE), ..error }
    }

    /// The engine did not take the request. `context` is the most tokens a prompt and its answer may have.
    pub(crate) fn from_submit(error: &SubmitError, context: usize) -> Self {
        match error {
            SubmitError::Busy { retry_after, .. } => {
                Self::overloaded(format!("The engine is currently overloaded: {error}"), *retry_after)
            }
            SubmitError::Stopping => Self::unavailable("The server is stopping and takes no new requests"),
            SubmitError::TooLong { prompt_tokens, .. } => Self::context_overflow(context, *prompt_tokens),
            SubmitError::Empty => Self::invalid("Invalid request: the prompt is empty"),
            SubmitError::Media(why) => Self::invalid(format!("Invalid request: {why}")),
        }
    }

    /// An image or a video is not taken. `context` is the most tokens a prompt and its answer may have.
    pub(crate) fn from_media(error: &MediaError, context: usize) -> Self {
        match error {
            MediaError::TooManyTokens { tokens, .. } => Self::context_overflow(context, *tokens),
            error => Self::invalid(format!("Invalid request: {error}")),
        }
    }

    /// A generation broke off.
    pub(crate) fn from_failure(failure: &EngineFailure, request_id: &str) -> Self {
        match failure {
            EngineFailure::NonFiniteLogits => Self::internal(
                request_id,
                "The model produced numbers that are not finite for this request; it was stopped",
            ),
            EngineFailure::Guide(error) => {
                Self::invalid(format!("Invalid request: the format of the answer is too complex: {error}"))
            }
            EngineFailure::Engine(_) => {
                Self::internal(request_id, "The engine stopped before the answer was done")
            }
        }
    }

    /// The body of the answer.
    pub fn body(self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message,
                kind: self.kind.into(),
                code: self.code.map(Into::into),
            },
        }
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::invalid(format!("Invalid request: {error}"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.kind, self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self.clone().body())).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Routes that speak another dialect say it again in their own words.
        response.extensions_mut().insert(self);
        response
    }
}
