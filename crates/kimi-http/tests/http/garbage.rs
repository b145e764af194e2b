//! No request of any kind gets a 5xx: valid ones with random damage, and noise, at every route.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::harness::{Server, Setup, saying};

const PIXEL: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/one_pixel.png");
const MOVING: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/moving.gif");
const CLIP: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/baseline.mov");

fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// Requests that use as much of each route as they can.
fn whole_requests() -> Vec<(&'static str, Value)> {
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "strict": true,
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "enum": ["b"]}}, "required": ["a"]}}});
    let call = json!({"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":\"b\"}"}});
    let image = json!({"type": "image_url", "image_url": {"url": data_url(PIXEL), "detail": "low"}});
    let video = json!({"type": "video_url", "video_url": data_url(MOVING)});
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "name": "u", "content": [{"type": "text", "text": "t"}, image, video]},
        {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "x"},
        {"role": "assistant", "content": "p", "partial": true},
    ]);
    let chat = json!({"model": "kimi-k2.6", "messages": messages, "tools": [tool], "tool_choice": "auto",
        "max_tokens": 5, "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "n": 2, "stop": ["a"], "seed": 1,
        "stream": true, "stream_options": {"include_usage": true}, "presence_penalty": 0.1, "frequency_penalty": 0.1,
        "logprobs": true, "top_logprobs": 2, "logit_bias": {"5": 1.0}, "thinking": {"type": "enabled", "keep": "all"},
        "response_format": {"type": "text"}, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": false,
        "min_tokens": 1, "stop_token_ids": [1], "chat_template_kwargs": {"thinking": true}, "priority": 1,
        "prompt_cache_key": "k", "cache_salt": "s", "parallel_tool_calls": false, "user": "u", "reasoning_effort": "high"});
    let text = json!({"model": "kimi-k2.6", "prompt": "p", "max_tokens": 3, "echo": true, "logprobs": 1, "n": 1,
        "suffix": null, "stream": false, "stop": "x", "temperature": 0});
    vec![
        ("/v1/chat/completions", chat),
        ("/v1/completions", text),
        (
            "/v1/tokenizers/estimate-token-count",
            json!({"model": "kimi-k2.6", "messages": messages, "tools": [tool]}),
        ),
        (
            "/tokenize",
            json!({"model": "kimi-k2.6", "prompt": "p", "messages": messages, "add_special_tokens": true}),
        ),
        ("/detokenize", json!({"model": "kimi-k2.6", "tokens": [1, 2, 3]})),
        (
            "/v1/messages",
            json!({"model": "kimi-k2.6", "max_tokens": 5, "system": "s", "stop_sequences": ["a"],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image", "source":
                {"type": "base64", "media_type": "image/png", "data": STANDARD.encode(PIXEL)}}]}],
            "thinking": {"type": "enabled", "budget_tokens": 5}, "tool_choice": {"type": "auto"},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "kimi-k2.6", "instructions": "i", "max_output_tokens": 5, "stream": true,
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "t"},
                {"type": "input_image", "image_url": data_url(PIXEL)}]}],
            "text": {"format": {"type": "text"}}, "tools": [{"type": "function", "name": "f", "parameters": {}}]}),
        ),
        ("/v1/files", json!({"file": "x", "purpose": "image"})),
    ]
}

/// What no client should send.
fn junk() -> impl Strategy<Value = Value> {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1e308),
        json!(-1e308),
        json!(0.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}"),
        json!("<|im_end|>"),
        json!("a".repeat(5000)),
        json!([]),
        json!({}),
        json!([[[[[[]]]]]]),
        json!({"a": {"b": {"c": null}}}),
        json!([null]),
        json!({"type": "function"}),
        json!({"": ""}),
        json!("data:image/png;base64,AAAA"),
        json!(data_url(&PIXEL[..PIXEL.len() / 2])),
        json!(data_url(&MOVING[..MOVING.len() / 2])),
        json!(data_url(CLIP)),
        json!("ms://file-0"),
        json!({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"$ref": "#"}}}),
        json!("required"),
        json!({"type": "regex", "pattern": "(a*)*b"}),
        json!(vec![1; 3000]),
        json!("none"),
        json!(1_000_000),
    ];
    prop_oneof![
        4 => proptest::sample::select(odd.to_vec()),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ]
}

/// Damage to a request: where, with what, and how.
fn damage() -> impl Strategy<Value = Vec<(Index, Value, u8)>> {
    proptest::collection::vec((any::<Index>(), junk(), 0..4_u8), 1..4)
}

fn apply(body: &mut Value, damage: Vec<(Index, Value, u8)>) {
    for (place, junk, how) in damage {
        let mut places = Vec::new();
        pointers(body, String::new(), &mut places);
        let Some(node) = body.pointer_mut(place.get(&places[..]).as_str()) else { continue };
        match (how, node) {
            (0, Value::Object(object)) => {
                let key = object.keys().nth(place.index(object.len().max(1))).cloned();
                key.map(|key| object.remove(&key));
            }
            (1, Value::Array(array)) => array.push(junk),
            (2, Value::Array(array)) => {
                let copy = array.first().cloned().unwrap_or_default();
                array.extend(vec![copy; 20]);
            }
            (_, node) => *node = junk,
        }
    }
}

/// Where every value of `value` is.
fn pointers(value: &Value, here: String, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            pointers(value, format!("{here}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
        Value::Array(array) => array.iter().take(8).enumerate().for_each(|(index, value)| {
            pointers(value, format!("{here}/{index}"), out);
        }),
        _ => {}
    }
    out.push(here);
}

/// Sends a body and checks that the answer is one a client can use.
async fn check(server: &Server, path: &str, body: Vec<u8>) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
    let request = server.client.post(format!("{}{path}", server.url)).body(body);
    let response = request.header("content-type", "application/json").send().await.expect("an answer");
    let status = response.status().as_u16();
    assert!(status < 500, "{status} from {path} for {shown}");
    let text = response.text().await.expect("a whole answer");
    assert!(!text.contains("server_error") && !text.contains("api_error"), "{path} {shown}: {text}");
    if status >= 400 {
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} {shown}: {text}"));
        assert!(
            answer["error"]["message"].is_string() && answer["error"]["type"].is_string(),
            "{path} {shown}: {text}"
        );
    }
}

#[tokio::test]
async fn damaged_requests_are_the_clients_fault() {
    let mut setup = Setup::seeing(saying("</think>ok<|im_end|>"));
    setup.max_context = 512;
    let server = setup.serve().await;
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let requests = whole_requests();
    for round in 0..1600 {
        let (path, whole) = &requests[round % requests.len()];
        let mut body = whole.clone();
        apply(&mut body, damage().new_tree(&mut runner).expect("a value").current());
        check(&server, path, body.to_string().into_bytes()).await;
    }
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    for round in 0..400 {
        let (path, whole) = &requests[round % requests.len()];
        let mut body = whole.to_string().into_bytes();
        let bytes = noise.new_tree(&mut runner).expect("a value").current();
        // Half are cut somewhere and go on with noise; half are noise alone.
        body.truncate(if round % 2 == 0 { bytes.len() * 3 } else { 0 });
        body.extend(bytes);
        check(&server, path, body).await;
    }
    assert_eq!(server.chat(&crate::harness::hello()).await.0, 200, "the server is as well as before");
}

#[tokio::test]
async fn odd_paths_are_not_found() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    for path in [
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/models/%ff%fe",
        "/v1/models//",
        "/v1/files/../../x",
        "/v1/files/%2e%2e%2fsecret/content",
        "/v1/files/%ff",
        "/health/%ff",
        "//",
        "/%",
        "/v1/chat/completions/",
        "/?a=%ff",
        "/v1/files?limit=-1&after=%ff",
        "/v1/models?x=%00",
    ] {
        let status = server.get(path).await.status().as_u16();
        assert!(status < 500, "{status} for {path}");
    }
}
