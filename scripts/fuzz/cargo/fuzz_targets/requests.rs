//! Any body at any route: the first byte chooses the route, the rest is the body. From parsing to the last event of the
//! answer everything is real but the model. No answer may be a 5xx, and every refusal has the documented form.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use kimi_engine::{EngineConfig, FakeRunner, SchedulerConfig, Speculation};
use kimi_fuzz::{VOCABULARY, markers};
use kimi_http::{AllowedHosts, ApiKeys, App, AppConfig, Contract, FileLimits, Limits, ModelCard, Service};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

const ROUTES: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/tokenizers/estimate-token-count",
    "/tokenize",
    "/detokenize",
];

/// Of tokens: long enough for every template, short enough to be fast.
const MAX_CONTEXT: usize = 1024;

static SERVER: LazyLock<(Runtime, Router)> = LazyLock::new(|| {
    let scheduler = SchedulerConfig {
        block_size: 16,
        block_count: 10 * MAX_CONTEXT / 16,
        max_batch_tokens: 4096,
        max_sequences: 16,
        max_context: MAX_CONTEXT,
        speculation: Some(Speculation { max_draft: 4, max_rows: 4096, eager: true }),
    };
    let answer = VOCABULARY.encode_with_specials("so</think>ok<|im_end|>");
    let runner = FakeRunner::scripted(vec![answer]).keeping_constraints();
    let (engine, _thread) = kimi_engine::start(EngineConfig { scheduler, max_waiting: 64 }, Box::new(runner));
    let app = App::new(AppConfig {
        contract: Contract::Open,
        api_keys: ApiKeys::none(),
        prefix_cache: true,
        cache_secret: None,
        max_n: AppConfig::MAX_N,
        reasoning_alias: false,
        cors: false,
        version: "fuzz",
        render_metrics: None,
        keep_alive: Duration::from_secs(60),
        chat_body_limit: AppConfig::CHAT_BODY_LIMIT,
        files: FileLimits::DEFAULT,
        remote_media: None,
        allowed_hosts: AllowedHosts::Any,
        limits: Limits::default(),
    });
    app.ready(Service {
        engine,
        vocabulary: Arc::clone(&VOCABULARY),
        markers: markers(),
        model: ModelCard { names: vec!["k".into()], owned_by: "fuzz".into(), created: 0, vision: true },
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, app.router())
});

fuzz_target!(init: kimi_fuzz::let_decoders_panic(), |data: &[u8]| {
    let [route, body @ ..] = data else { return };
    let path = ROUTES[usize::from(*route) % ROUTES.len()];
    let (runtime, router) = &*SERVER;
    let request = Request::post(path).body(Body::from(body.to_vec())).expect("a request");
    let (status, answer) = runtime.block_on(async {
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        (status, to_bytes(response.into_body(), usize::MAX).await.expect("a whole answer"))
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(status < 500 && !answer.contains("\"server_error\""), "{path} {status}: {answer}");
    if status != 200 {
        let told: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(told["error"]["message"].is_string() && told["error"]["type"].is_string(), "{told}");
    }
});
