//! `GET /metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::{ApiError, App};

/// All metrics in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let render =
        app.config().render_metrics.as_ref().ok_or_else(|| ApiError::route_not_found("GET", "/metrics"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render()).into_response())
}
