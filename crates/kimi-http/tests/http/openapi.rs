//! The description of the API, held against what the server really takes and gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::dialects::events;
use crate::harness::{Server, Setup, chunks, hello, hello_with, saying};

const ANSWER: &str = "h</think>Hé<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}\
    <|tool_call_end|><|tool_calls_section_end|><|im_end|>";

/// One pixel: an image, and a video of one frame.
const PIXEL: &str = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==";

/// The description, and which of its operations were held against a good answer.
struct Description {
    document: Value,
    checked: BTreeSet<String>,
}

impl Description {
    async fn of(server: &Server) -> Self {
        let (status, document) = server.get_json("/openapi.json").await;
        assert_eq!(status, 200);
        Self { document, checked: BTreeSet::new() }
    }

    fn validator(&self, content: &Value, kind: &str) -> Validator {
        let reference = content[kind]["schema"]["$ref"].as_str().unwrap();
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        let mut components = self.document["components"].clone();
        // These two are described in part.
        if name != "Health" && name != "OpenApi" {
            close(&mut components["schemas"][name]);
        }
        jsonschema::validator_for(&json!({"$ref": reference, "components": components})).unwrap()
    }

    /// Holds an answer against the description of its operation.
    fn check(&mut self, method: &str, path: &str, kind: &str, status: u16, answer: &Value) {
        let responses = &self.document["paths"][path][method]["responses"];
        let response = match responses.get(status.to_string()) {
            Some(response) => response,
            None => &responses["default"],
        };
        let validator = self.validator(&response["content"], kind);
        let errors: Vec<String> = validator
            .iter_errors(answer)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{method} {path} {status}: {errors:?} in {answer}");
        if status == 200 {
            self.checked.insert(format!("{method} {path} {kind}"));
        }
    }

    /// Holds a request that the server takes against the description.
    fn check_request(&self, path: &str, body: &Value) {
        let content = &self.document["paths"][path]["post"]["requestBody"]["content"];
        let reference = content["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = json!({"$ref": reference, "components": self.document["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator.iter_errors(body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?} in {body}");
    }

    async fn post(&mut self, server: &Server, path: &str, body: &Value, expected: u16) {
        let (status, answer) = server.post_json(path, body).await;
        assert_eq!(status, expected, "{path} {body}: {answer}");
        self.check("post", path, "application/json", status, &answer);
        if status == 200 {
            self.check_request(path, body);
        }
    }

    async fn get(&mut self, server: &Server, described: &str, path: &str, expected: u16) {
        let (status, answer) = server.get_json(path).await;
        assert_eq!(status, expected, "{path}: {answer}");
        self.check("get", described, "application/json", status, &answer);
    }

    async fn stream(&mut self, server: &Server, path: &str, body: &Value) {
        let response = server.client.post(format!("{}{path}", server.url)).json(body).send().await.unwrap();
        let transcript = response.text().await.unwrap();
        assert!(transcript.ends_with("data: [DONE]\n\n"), "{transcript}");
        for chunk in chunks(&transcript) {
            self.check("post", path, "text/event-stream", 200, &chunk);
        }
    }
}

/// Every object may have the described keys only.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            if object.get("properties").is_some_and(Value::is_object) {
                // What is beside a choice belongs to each of its variants.
                let variants = object.get_mut("oneOf").and_then(Value::as_array_mut);
                let key = if variants.is_some() { "unevaluatedProperties" } else { "additionalProperties" };
                for variant in variants.into_iter().flatten() {
                    variant.as_object_mut().unwrap().remove("additionalProperties");
                }
                object.entry(key).or_insert(json!(false));
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(close),
        _ => {}
    }
}

#[tokio::test]
async fn answers_are_as_described() {
    let mut setup = Setup::seeing(saying(ANSWER));
    setup.config.render_metrics = Some(Arc::new(|| "kimi_up 1\n".to_owned()));
    let server = setup.serve().await;
    let mut api = Description::of(&server).await;

    let chat = "/v1/chat/completions";
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let full = hello_with(
        json!({"n": 2, "logprobs": true, "top_logprobs": 1, "return_token_ids": true, "tools": tools,
        "stop": ["x"], "model": "kimi-k2.6-thinking", "stream_options": {"include_usage": true}, "tool_choice": "auto",
        "thinking": {"type": "enabled", "keep": "all"}, "user": "u", "metadata": {"a": "b"}}),
    );
    let parts = hello_with(json!({"stop": "x", "messages": [{"role": "developer", "content": "c"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": PIXEL},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}, {"type": "video_url", "video_url": PIXEL}]},
        {"role": "assistant", "content": null, "reasoning": "r", "tool_calls": [{"id": "a", "type": "function",
            "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "1"}]}));
    for body in [&hello(), &full, &parts] {
        api.post(&server, chat, body, 200).await;
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        api.stream(&server, chat, &streamed).await;
    }
    for wrong in
        [json!({"messages": []}), json!({"messages": [{"role": "user", "content": "x".repeat(9000)}]})]
    {
        api.post(&server, chat, &hello_with(wrong), 400).await;
    }
    api.post(&server, chat, &hello_with(json!({"model": "gpt-4"})), 404).await;

    let raw = json!({"model": "kimi-k2.6", "prompt": ["a", [98]], "echo": true, "return_token_ids": true, "stream_options":
        {"include_usage": true}});
    let logprobs = json!({"model": "kimi-k2.6", "prompt": "a", "logprobs": 2});
    for body in [&raw, &logprobs] {
        api.post(&server, "/v1/completions", body, 200).await;
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        api.stream(&server, "/v1/completions", &streamed).await;
    }
    api.post(&server, "/v1/completions", &json!({"model": "kimi-k2.6", "prompt": ""}), 400).await;
    api.post(&server, "/v1/tokenizers/estimate-token-count", &full, 200).await;
    api.post(&server, "/tokenize", &json!({"prompt": "a", "return_token_strs": true}), 200).await;
    api.post(&server, "/tokenize", &json!({"messages": hello()["messages"]}), 200).await;
    api.post(&server, "/tokenize", &json!({}), 400).await;
    api.post(&server, "/detokenize", &json!({"tokens": [97]}), 200).await;
    for path in ["/v1/models", "/v1/users/me/balance", "/health", "/load", "/version", "/openapi.json"] {
        api.get(&server, path, path, 200).await;
    }
    api.get(&server, "/v1/models/{name}", "/v1/models/moonshotai/Kimi-K2.6", 200).await;
    api.get(&server, "/v1/models/{name}", "/v1/models/gpt-4", 404).await;
    messages(&server, &mut api).await;
    responses(&server, &mut api).await;
    files(&server, &mut api).await;

    let described = api.document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
        operations.as_object().unwrap().iter().flat_map(move |(method, operation)| {
            let kinds = operation["responses"]["200"]["content"].as_object().unwrap().keys();
            kinds.map(move |kind| format!("{method} {path} {kind}"))
        })
    });
    assert_eq!(api.checked, described.collect(), "every operation is tried here");
}

/// A streamed answer of typed events.
async fn typed_stream(server: &Server, api: &mut Description, path: &str, body: &Value) {
    for (_, event) in events(&server.stream(path, body.clone()).await) {
        api.check("post", path, "text/event-stream", 200, &event);
    }
}

async fn messages(server: &Server, api: &mut Description) {
    let hello =
        json!({"model": "kimi-k2.6", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]});
    let mut full = hello.clone();
    full["system"] = json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]);
    full["tools"] = json!([{"name": "f", "description": "d", "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search"}]);
    full["tool_choice"] = json!({"type": "auto", "disable_parallel_tool_use": true});
    full["thinking"] = json!({"type": "adaptive"});
    full["stop_sequences"] = json!(["x"]);
    full["messages"] = json!([{"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": ""},
            {"type": "redacted_thinking", "data": "x"}, {"type": "server_tool_use", "id": "s"},
            {"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text",
            "text": "1"}], "is_error": true}]}, {"role": "system", "content": "Go on."}]);
    for route in ["/v1/messages", "/anthropic/v1/messages"] {
        for body in [&hello, &full] {
            api.post(server, route, body, 200).await;
            typed_stream(server, api, route, body).await;
            api.post(server, &format!("{route}/count_tokens"), body, 200).await;
        }
        api.post(server, route, &json!({"model": "gpt-4", "messages": []}), 404).await;
        api.post(server, &format!("{route}/count_tokens"), &json!({}), 400).await;
    }
}

async fn responses(server: &Server, api: &mut Description) {
    let hello = json!({"model": "kimi-k2.6", "input": "Hi"});
    let mut full = hello.clone();
    full["instructions"] = json!("Be brief.");
    full["tools"] =
        json!([{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}]);
    full["tool_choice"] = json!("auto");
    full["reasoning"] = json!({"effort": "high", "summary": "auto"});
    full["text"] = json!({"format": {"type": "text"}});
    full["include"] = json!(["message.output_text.logprobs"]);
    full["metadata"] = json!({"a": "b"});
    full["input"] = json!([{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}], "content": null},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"}]);
    for body in [&hello, &full] {
        api.post(server, "/v1/responses", body, 200).await;
        typed_stream(server, api, "/v1/responses", body).await;
    }
    // An answer that the limit cuts.
    full["max_output_tokens"] = json!(3);
    typed_stream(server, api, "/v1/responses", &full).await;
    full["previous_response_id"] = json!("resp_1");
    api.post(server, "/v1/responses", &full, 400).await;
}

async fn files(server: &Server, api: &mut Description) {
    let body = "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nimage\r\n--X\r\nContent-Disposition: \
        form-data; name=\"file\"; filename=\"a.gif\"\r\n\r\nGIF89a...\r\n--X--\r\n";
    let url = format!("{}/v1/files", server.url);
    let request =
        server.client.post(&url).header("content-type", "multipart/form-data; boundary=X").body(body);
    let file: Value = request.send().await.unwrap().json().await.unwrap();
    api.check("post", "/v1/files", "application/json", 200, &file);
    api.post(server, "/v1/files", &json!({}), 400).await;
    let id = file["id"].as_str().unwrap();
    api.get(server, "/v1/files", "/v1/files", 200).await;
    api.get(server, "/v1/files/{id}", &format!("/v1/files/{id}"), 200).await;
    let content = server.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(content.bytes().await.unwrap().as_ref(), b"GIF89a...");
    api.checked.insert("get /v1/files/{id}/content */*".to_owned());
    let deleted = server.client.delete(format!("{url}/{id}")).send().await.unwrap().json().await.unwrap();
    api.check("delete", "/v1/files/{id}", "application/json", 200, &deleted);
    api.get(server, "/v1/files/{id}", &format!("/v1/files/{id}"), 404).await;
    assert_eq!(server.get("/metrics").await.status(), 200);
    api.checked.insert("get /metrics text/plain".to_owned());
    let page = server.get("/").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    api.checked.insert("get / text/html".to_owned());
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_so_as_described() {
    let server = Setup::new(saying("ok")).load().await;
    let mut api = Description::of(&server).await;
    api.get(&server, "/health", "/health", 503).await;
    api.get(&server, "/load", "/load", 503).await;
    api.post(&server, "/v1/chat/completions", &hello(), 503).await;
}

#[tokio::test]
async fn requests_that_the_server_refuses_to_read_are_not_described() {
    let server = Setup::new(saying("ok")).serve().await;
    let api = Description::of(&server).await;
    let chat = [
        json!({"messages": 7}),
        json!({"messages": [{"content": "no role"}]}),
        json!({"temperature": "hot"}),
        json!({"stop": {"a": 1}}),
        json!({"tools": [{"type": "function"}]}),
        json!({"tool_choice": "must"}),
        json!({"thinking": {"type": "maybe"}}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a.b/c.png"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///a"}}]}]}),
    ];
    let said = |content: Value| json!({"max_tokens": 9, "messages": [{"role": "user", "content": content}]});
    let messages = [
        json!({"max_tokens": 9, "messages": [{"role": "tool", "content": ""}]}),
        said(json!(7)),
        said(json!([{"text": "no type"}])),
        said(json!([{"type": "text"}])),
        said(json!([{"type": "image", "source": {"type": "disk"}}])),
        said(json!([{"type": "tool_result", "content": "no id"}])),
        said(json!([{"type": "tool_result", "tool_use_id": "t", "content": [7]}])),
    ];
    let responses = [
        json!({"input": 7}),
        json!({"input": [{"type": "message", "content": "no role"}]}),
        json!({"input": [{"type": "item_reference", "id": "i"}]}),
        json!({"input": [{"type": "function_call", "name": "no id"}]}),
        json!({"input": "Hi", "tool_choice": {"type": "function"}}),
        json!({"input": "Hi", "tool_choice": "must"}),
        json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
    ];
    for (path, name, wrong) in [
        ("/v1/chat/completions", "ChatCompletionRequest", &chat[..]),
        ("/v1/messages", "MessagesRequest", &messages[..]),
        ("/v1/responses", "ResponsesRequest", &responses[..]),
    ] {
        let reference = format!("#/components/schemas/{name}");
        let schema = json!({"$ref": reference, "components": api.document["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap();
        for extra in wrong {
            let body = hello_with(extra.clone());
            assert_eq!(server.post_json(path, &body).await.0, 400, "{body}");
            assert!(!validator.is_valid(&body), "{body}");
        }
    }
}
