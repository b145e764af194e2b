//! Reading a request's body: its size, its type, its JSON. Every failure is a JSON answer with the path of the mistake.
//! Keys that nobody knows are counted and otherwise ignored; those that were meant to switch thinking are named.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{ApiError, ModelNames, blocking, json_depth, metrics, paced_body};

/// Bodies above this many bytes are parsed off the threads that serve everybody else.
const PARSE_INLINE: usize = 256 * 1024;

/// How long the rest of a body that is too large is read and thrown away, so that the client gets the answer instead of
/// a reset connection.
const DISCARD_FOR: Duration = Duration::from_secs(10);

/// Bytes that are reserved before anything has arrived.
const RESERVE_AT_MOST: usize = 1 << 20;

/// Reads a JSON body of at most `limit` bytes. A missing content type is taken for JSON.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    check_content_type(request.headers())?;
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = request.into_body().into_data_stream();
    if announced.is_some_and(|length: usize| length > limit) {
        discard(body, limit).await;
        return Err(ApiError::body_too_large(limit));
    }
    // A length is only a promise; memory is given for what arrives.
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(RESERVE_AT_MOST));
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| paced_body::read_error(&error))?;
        if bytes.len() + piece.len() > limit {
            discard(body, limit).await;
            return Err(ApiError::body_too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or("something unreadable");
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json { Ok(()) } else { Err(ApiError::wrong_content_type(value)) }
}

async fn discard(mut body: axum::body::BodyDataStream, limit: usize) {
    let rest = async {
        let mut seen = 0;
        while let Some(Ok(piece)) = body.next().await {
            seen += piece.len();
            if seen > limit {
                break;
            }
        }
    };
    // Best effort: whoever sends more or slower than that gets the connection closed.
    let _ = timeout(DISCARD_FOR, rest).await;
}

/// A body as a value.
pub(crate) struct Parsed<T> {
    pub(crate) value: T,
    /// Keys that look like thinking switches and are none that this server knows.
    pub(crate) unknown_switches: Vec<String>,
}

/// Reads `body` as a request to a model, on the blocking pool when it is large.
pub(crate) async fn parse_request<T>(
    body: Bytes,
    names: &ModelNames,
    request_id: &str,
) -> Result<Parsed<T>, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    if body.len() <= PARSE_INLINE {
        return parse_for_model(&body, names);
    }
    let names = names.clone();
    let reading = move || parse_for_model(&body, &names);
    blocking::run(request_id, "The request could not be read", reading).await
}

/// When some value has the wrong type, an unknown model is still what the client hears of first.
fn parse_for_model<T: DeserializeOwned>(body: &[u8], names: &ModelNames) -> Result<Parsed<T>, ApiError> {
    #[derive(Deserialize)]
    struct ModelOnly {
        model: String,
    }
    parse(body).or_else(|error: ApiError| {
        if let Ok(ModelOnly { model }) = serde_json::from_slice(body) {
            names.check(&model)?;
        }
        Err(error)
    })
}

/// Reads `bytes` as JSON of the type `T`.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Parsed<T>, ApiError> {
    json_depth::check(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = 0;
    let mut unknown_switches = Vec::new();
    let mut ignored = |path: serde_ignored::Path<'_>| {
        unknown += u64::from(is_top_level(&path));
        unknown_switches.extend(thinking_switch(&path));
    };
    let noticing = serde_ignored::Deserializer::new(&mut deserializer, &mut ignored);
    let value = serde_path_to_error::deserialize(noticing).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            ApiError::invalid(format!("Invalid request: the body is not valid JSON: {error}"))
        } else if path == "." {
            ApiError::invalid(format!("Invalid request: {error}"))
        } else {
            ApiError::invalid(format!("Invalid request: {path}: {error}"))
        }
    })?;
    deserializer.end().map_err(|error| {
        ApiError::invalid(format!("Invalid request: the body is not valid JSON: {error}"))
    })?;
    if unknown > 0 {
        // Without their names: those are the client's to choose, and each would be a series of its own for ever.
        ::metrics::counter!(metrics::UNKNOWN_PARAMS_TOTAL).increment(unknown);
    }
    Ok(Parsed { value, unknown_switches })
}

/// Whether `path` is a key of the body itself. Known keys whose value is not looked at are found below an `Option`.
fn is_top_level(path: &serde_ignored::Path<'_>) -> bool {
    matches!(path, serde_ignored::Path::Map { parent: serde_ignored::Path::Root, .. })
}

/// `path` if it is a key with which somebody may have meant to switch thinking: by its name, or because it holds what SDKs
/// put into the body itself.
fn thinking_switch(path: &serde_ignored::Path<'_>) -> Option<String> {
    const HOLDERS: [&str; 3] = ["thinking", "reasoning", "chat_template_kwargs"];
    let path = path.to_string();
    // An `Option` on the way is a question mark.
    let keys: Vec<&str> = path.split('.').filter(|key| *key != "?").collect();
    let key = match keys[..] {
        [key] => key,
        [holder, key] if HOLDERS.contains(&holder) => key,
        _ => return None,
    };
    let name = key.to_ascii_lowercase();
    let is_switch = name == "extra_body" || ["think", "reason"].iter().any(|part| name.contains(part));
    is_switch.then(|| keys.join("."))
}
