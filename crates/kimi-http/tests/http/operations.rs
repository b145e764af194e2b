//! Health, models, keys, unknown routes, metrics.

use std::sync::Arc;

use kimi_http::{ApiKeys, LoadProgress};
use serde_json::json;

use crate::harness::{Server, Setup, hello, read, saying};

fn ok() -> Setup {
    Setup::new(saying("</think>ok<|im_end|>"))
}

#[tokio::test]
async fn the_listener_is_open_before_the_model_is_loaded() {
    let server = ok().load().await;
    let (status, body) = server.get_json("/health").await;
    assert_eq!((status, &body["status"], &body["progress"]), (503, &json!("loading"), &json!(null)));

    server.app.loading(LoadProgress { phase: "load weights".into(), bytes_done: 25, bytes_total: 100 });
    let (status, body) = server.get_json("/health").await;
    assert_eq!(status, 503);
    assert_eq!((&body["phase"], &body["progress"]), (&json!("load weights"), &json!(0.25)));
    assert_eq!((&body["bytes_done"], &body["bytes_total"]), (&json!(25), &json!(100)));
    assert!(body["eta_s"].is_number());

    let response = server.post(&hello()).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "5");
    let (status, body) = read(response).await;
    assert_eq!((status, &body["error"]["type"]), (503, &json!("server_unavailable")));
    assert_eq!(server.get_json("/v1/models").await.0, 503);
    assert_eq!(server.get_json("/version").await.0, 200);

    server.app.ready(server.service());
    let (status, body) = server.get_json("/health").await;
    assert_eq!((status, &body["status"], &body["load"]["running"]), (200, &json!("ok"), &json!(0)));
    // A late report does not close the API again.
    server.app.loading(LoadProgress::default());
    assert_eq!(server.chat(&hello()).await.0, 200);

    server.app.failed("no such file".into());
    assert_eq!(
        server.get_json("/health").await,
        (503, json!({"status": "failed", "reason": "no such file"}))
    );
}

#[tokio::test]
async fn a_dead_engine_is_not_healthy() {
    let server = Setup::new(saying("</think>ok").with_fatal_step(2, "out of memory at 0x7f")).serve().await;
    let (status, body) = server.chat(&hello()).await;
    assert_eq!((status, &body["error"]["type"]), (500, &json!("server_error")));
    assert!(!body.to_string().contains("0x7f"), "nothing internal reaches clients: {body}");
    let (status, body) = server.get_json("/health").await;
    assert_eq!((status, &body["status"]), (503, &json!("failed")));
    assert_eq!(server.chat(&hello()).await.0, 503);
}

#[tokio::test]
async fn models_answer_to_all_their_names() {
    let server = ok().serve().await;
    let model = |id: &str| {
        json!({"id": id, "object": "model", "created": 7, "owned_by": "test", "context_length": 4096,
            "max_model_len": 4096, "supports_image_in": false, "supports_video_in": false, "supports_reasoning": true})
    };
    let (status, list) = server.get_json("/v1/models").await;
    assert_eq!((status, list), (200, json!({"object": "list", "data": [model("kimi-nano")]})));
    for name in [
        "kimi-k2.6",
        "KIMI-K2.6",
        "kimi-k2.6-thinking",
        "kimi-k2-6",
        "moonshot/kimi-k2.6",
        "moonshotai/Kimi-K2.6",
        "@cf/moonshotai/kimi-k2.6",
        "kimi-nano",
        "local/kimi-nano",
    ] {
        assert_eq!(server.get_json(&format!("/v1/models/{name}")).await, (200, model(name)), "{name}");
        let mut body = hello();
        body["model"] = json!(name);
        let (status, answer) = server.chat(&body).await;
        assert_eq!((status, &answer["model"]), (200, &json!(name)));
    }
    let (status, body) = server.get_json("/v1/models/gpt-4").await;
    assert_eq!(status, 404);
    assert_eq!(
        body,
        json!({"error": {"message": "Not found the model gpt-4 or Permission denied", "type": "resource_not_found_error"}})
    );
    // An encoded slash is still a slash.
    assert_eq!(server.get_json("/v1/models/moonshotai%2FKimi-K2.6").await.0, 200);
}

#[tokio::test]
async fn keys_guard_everything_but_health() {
    let mut setup = ok();
    setup.config.api_keys = ApiKeys::new(["sk-a".to_owned(), "sk-b".to_owned()]);
    let server = setup.serve().await;
    let ask = async |authorization: Option<&str>| {
        let mut request = server.post(&hello());
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        read(request.send().await.unwrap()).await
    };
    let missing =
        json!({"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}});
    for garbled in [None, Some(""), Some("sk-a"), Some("Basic sk-a"), Some("Bearer ")] {
        assert_eq!(ask(garbled).await, (401, missing.clone()), "{garbled:?}");
    }
    let wrong =
        json!({"error": {"message": "Incorrect API key provided", "type": "incorrect_api_key_error"}});
    assert_eq!(ask(Some("Bearer sk-c")).await, (401, wrong));
    assert_eq!(ask(Some("Bearer sk-a")).await.0, 200);
    assert_eq!(ask(Some("bearer sk-b")).await.0, 200);
    for (path, status) in [
        ("/health", 200),
        ("/health/nothing", 404),
        ("/version", 401),
        ("/metrics", 401),
        ("/v1/models", 401),
        ("/nowhere", 401),
    ] {
        assert_eq!(server.get_json(path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json_too() {
    let server = ok().serve().await;
    let (status, body) = server.get_json("/v1/caching").await;
    assert_eq!((status, &body["error"]["type"]), (404, &json!("resource_not_found_error")));
    let (status, body) = server.get_json("/v1/chat/completions").await;
    assert_eq!(
        (status, body),
        (
            405,
            json!({"error": {"message": "Invalid request: /v1/chat/completions does not take GET",
                "type": "invalid_request_error"}})
        )
    );
    let (status, body) = server.get_json("/version").await;
    assert_eq!((status, body), (200, json!({"name": "kimi-serve", "version": "1.2.3", "contract": "open"})));
}

#[tokio::test]
async fn metrics_are_what_the_binary_renders() {
    let server = ok().serve().await;
    assert_eq!(server.get_json("/metrics").await.0, 404);
    let mut setup = ok();
    setup.config.render_metrics = Some(Arc::new(|| "kimi_up 1\nkimi_requests_waiting 0\n".to_owned()));
    let response = setup.serve().await.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert_eq!(
        response.text().await.unwrap(),
        "kimi_up 1\nkimi_requests_waiting 0\nvllm:num_requests_waiting{model_name=\"kimi-nano\"} 0\n"
    );
}

#[test]
fn the_readme_lists_every_metric() {
    let readme = include_str!("../../README.md");
    for metric in kimi_http::metrics::METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let row = format!("| `{}` | {kind} | {} |", metric.name, metric.help);
        assert!(readme.contains(&row), "the README lacks: {row}");
    }
}

#[tokio::test]
async fn web_pages_may_ask_only_when_the_operator_says_so() {
    let closed = ok().serve().await;
    let preflight = async |server: &Server| {
        let url = format!("{}/v1/chat/completions", server.url);
        let request =
            server.client.request(reqwest::Method::OPTIONS, url).header("origin", "http://a.example");
        request.header("access-control-request-method", "POST").send().await.unwrap()
    };
    assert!(preflight(&closed).await.headers().get("access-control-allow-origin").is_none());
    let mut setup = ok();
    setup.config.cors = true;
    setup.config.api_keys = ApiKeys::new(["sk-a".to_owned()]);
    let open = setup.serve().await;
    let response = preflight(&open).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["access-control-allow-origin"]),
        (200, &"*".parse().unwrap())
    );
}
