//! `GET /metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::{ApiError, App, vllm_names};

/// All metrics in Prometheus' text format, then those that vLLM has, too, once more under its names.
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let render =
        app.config().render_metrics.as_ref().ok_or_else(|| ApiError::route_not_found("GET", "/metrics"))?;
    let mut text = render();
    let service = app.service().ok();
    let model = service.as_ref().and_then(|service| service.model.names.first()).map_or("", String::as_str);
    let translated = vllm_names::translate(&text, model);
    text.push_str(&translated);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
