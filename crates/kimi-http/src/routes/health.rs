//! `GET /health`, `GET /version` and `GET /load`: whether, what and how much.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kimi_api::{LoadInfo, VersionInfo};
use kimi_engine::EngineState;
use serde_json::{Value, json};

use crate::state::{LoadProgress, ReadyService, ServerState};
use crate::{ApiError, App, AppConfig};

/// 200 when requests are served; else 503 with the reason, and with the progress while the model is loading.
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let (status, body) = match app.state() {
        ServerState::Ready(service) => describe_ready(&app, &service),
        ServerState::Loading { progress, since } => {
            (StatusCode::SERVICE_UNAVAILABLE, describe_loading(&progress, since))
        }
        ServerState::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "draining", "running": app.running().len()}))
        }
        ServerState::Failed(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "failed", "reason": reason}))
        }
    };
    (status, Json(body))
}

fn describe_ready(app: &App, service: &ReadyService) -> (StatusCode, Value) {
    match service.engine.state() {
        EngineState::Serving => {
            let load = service.engine.load();
            let body = json!({
                "status": "ok",
                "model": service.model.names.first(),
                "uptime_seconds": app.started().elapsed().as_secs(),
                "load": {
                    "running": load.running,
                    "waiting": load.waiting,
                    "cache_blocks_used": load.blocks_used,
                    "cache_blocks_free": load.blocks_free,
                    "preemptions": load.preemptions,
                },
            });
            (StatusCode::OK, body)
        }
        EngineState::Failed(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "failed", "reason": reason}))
        }
        EngineState::Draining | EngineState::Ended => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "draining"}))
        }
    }
}

fn describe_loading(progress: &LoadProgress, since: Instant) -> Value {
    let LoadProgress { phase, bytes_done, bytes_total } = progress;
    let fraction = (*bytes_total > 0).then(|| *bytes_done as f64 / *bytes_total as f64);
    // As fast as it went so far.
    let seconds_left = fraction
        .filter(|fraction| *fraction > 0.0)
        .map(|fraction| (since.elapsed().as_secs_f64() * (1.0 / fraction - 1.0)).round());
    json!({
        "status": "loading",
        "phase": phase,
        "progress": fraction,
        "bytes_done": bytes_done,
        "bytes_total": bytes_total,
        "eta_s": seconds_left,
    })
}

/// Which server this is and which rules it follows.
pub(crate) async fn version(State(app): State<App>) -> Json<VersionInfo> {
    let AppConfig { version, contract, .. } = app.config();
    Json(VersionInfo { name: "kimi-serve", version, contract: contract.to_string() })
}

/// How busy the engine is, for load balancers.
pub(crate) async fn load(State(app): State<App>) -> Result<Json<LoadInfo>, ApiError> {
    let load = app.service()?.engine.load();
    Ok(Json(LoadInfo {
        server_load: load.running + load.waiting,
        running: load.running,
        waiting: load.waiting,
        cache_blocks_used: load.blocks_used,
        cache_blocks_free: load.blocks_free,
        preemptions: load.preemptions,
    }))
}
