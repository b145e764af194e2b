//! What is refused, and in which words.

use serde_json::{Value, json};

use crate::harness::{Server, Setup, hello, hello_with, read, saying};

/// Sends `body` and returns the message of the 400 it must get.
async fn refusal(server: &Server, body: &Value) -> String {
    let (status, answer) = server.chat(body).await;
    assert_eq!(status, 400, "{body} got {answer}");
    assert_eq!(answer["error"]["type"], "invalid_request_error");
    answer["error"]["message"].as_str().expect("a message").to_owned()
}

async fn check_all(server: &Server, cases: &[(Value, &str)]) {
    for (extra, message) in cases {
        assert_eq!(refusal(server, &hello_with(extra.clone())).await, *message, "{extra}");
    }
}

fn messages(messages: Value) -> Value {
    Value::Object([("messages".to_owned(), messages)].into_iter().collect())
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[tokio::test]
async fn messages_are_checked() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let user = json!({"role": "user", "content": "Hi"});
    let image =
        |url: &str| messages(json!([{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]));
    check_all(
        &server,
        &[
            (messages(json!([])), "Invalid request: messages must not be empty"),
            (
                messages(json!([{"role": "user", "content": ""}])),
                "Invalid request: the message at position 0 with role 'user' must not be empty",
            ),
            (
                messages(json!([user, {"role": "system", "content": [{"type": "text", "text": ""}]}])),
                "Invalid request: the message at position 1 with role 'system' must not be empty",
            ),
            (
                image("data:image/png;base64,AA=="),
                "Invalid request: image input is not supported by this model: it has no vision tower",
            ),
            (
                image("https://example.com/a.png"),
                "Invalid request: unsupported image url: this server does not fetch remote images; send the image as \
                 data:image/…;base64,… or upload it to /v1/files and send ms://FILE_ID",
            ),
            (
                messages(json!([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "ms://1"}}]}])),
                "Invalid request: video input is not supported by this model: it has no vision tower",
            ),
            (
                messages(json!([{"role": "user", "content": [{"type": "input_audio"}]}])),
                "Invalid request: a content part of type \"input_audio\" is not supported; use \"text\" with its key `text`",
            ),
            (
                messages(json!([{"role": "user", "content": "Hi", "name": "a\nb"}])),
                "Invalid request: the name of the message at position 0 may have at most 64 characters and no control \
                 characters",
            ),
            (
                messages(json!([user, {"role": "tool", "content": "1"}])),
                "Invalid request: the tool message at position 1 must have a tool_call_id",
            ),
            (
                messages(json!([user, {"role": "tool", "content": "1", "tool_call_id": "call_7"}])),
                "Invalid request: tool_call_id call_7 not found",
            ),
            (
                messages(json!([{"role": "assistant", "content": "a", "partial": true}, user])),
                "Invalid request: message 0 has partial: true; only the last message, with role assistant, can be partial",
            ),
        ],
    )
    .await;
    let silent =
        messages(json!([user, {"role": "assistant", "content": null, "reasoning_content": null}, user]));
    assert_eq!(server.chat(&hello_with(silent)).await.0, 200, "an assistant may say nothing");
}

#[tokio::test]
async fn values_are_checked() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let vocabulary = crate::harness::VOCABULARY.len();
    check_all(
        &server,
        &[
            (json!({"max_tokens": 0}), "Invalid request: max_tokens must be at least 1, not 0"),
            (json!({"max_completion_tokens": -1}), "Invalid request: max_completion_tokens must be at least 1, not -1"),
            (json!({"temperature": 2.5}), "Invalid request: temperature must be at least 0 and at most 2, not 2.5"),
            (json!({"top_p": 0}), "Invalid request: top_p must be above 0 and at most 1, not 0"),
            (
                json!({"presence_penalty": -3}),
                "Invalid request: presence_penalty must be at least -2 and at most 2, not -3",
            ),
            (json!({"n": 0}), "Invalid request: n must be from 1 to 8, not 0"),
            (json!({"n": 9}), "Invalid request: n must be from 1 to 8, not 9"),
            (json!({"stop": vec!["x"; 17]}), "Invalid request: stop may have at most 16 strings, not 17"),
            (
                json!({"stop": "é".repeat(129)}),
                "Invalid request: each stop string may have at most 256 bytes, not 258",
            ),
            (
                json!({"top_logprobs": 3}),
                "Invalid request: logprobs must be set to true if top_logprobs is used",
            ),
            (
                json!({"logprobs": true, "top_logprobs": 21}),
                "Invalid request: top_logprobs must be from 0 to 20, not 21",
            ),
            (json!({"top_k": -2}), "Invalid request: top_k must be at least 1, or 0 or -1 for off, not -2"),
            (json!({"min_p": 1.5}), "Invalid request: min_p must be at least 0 and at most 1, not 1.5"),
            (
                json!({"logit_bias": {"5": 101}}),
                "Invalid request: logit_bias of token 5 must be from -100 to 100, not 101",
            ),
            (
                json!({"stop_token_ids": [999_999]}),
                &format!("Invalid request: stop_token_ids has the token id 999999; this model's ids are below {vocabulary}"),
            ),
            (
                json!({"thinking": {"type": "enabled"}, "chat_template_kwargs": {"thinking": false}}),
                "Invalid request: thinking turns thinking on and chat_template_kwargs.thinking turns it off; send one of them",
            ),
            (
                json!({"functions": []}),
                "Invalid request: functions and function_call are not supported; use tools and tool_choice",
            ),
        ],
    )
    .await;
    let fine = json!({"max_tokens": 999_999, "temperature": 0, "top_p": 1, "n": 1, "stop": null, "top_k": -1, "min_p": 0.1,
        "repetition_penalty": 1.1, "presence_penalty": 0.5, "logit_bias": {"5": -100}, "response_format": {"type": "text"},
        "thinking": {"type": "enabled", "keep": "all", "some_key": 1}, "reasoning_effort": "high", "tools": [],
        "tool_choice": "none", "seed": 1, "stream": null});
    let (status, answer) = server.chat(&hello_with(fine)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn tools_are_checked() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let tools = |tools: Value| json!({"tools": tools});
    check_all(
        &server,
        &[
            (
                tools(json!([function("1x")])),
                "Invalid request: function name is invalid, must start with a letter and can contain letters, numbers, \
                 underscores, and dashes",
            ),
            (
                tools(json!([function("get-weather"), function("get-weather")])),
                "Invalid request: function name get-weather is duplicated",
            ),
            (
                tools(json!([{"type": "builtin_function", "function": {"name": "$web_search"}}])),
                "builtin_function $web_search is not supported by this server",
            ),
            (
                json!({"tools": [function("f")], "tool_choice": function("g")}),
                "Invalid request: tool_choice names the function g, which tools does not declare",
            ),
            (json!({"tool_choice": "required"}), "Invalid request: tool_choice 'required' needs tools"),
        ],
    )
    .await;
    // A message may declare a tool; the same declaration again is no duplicate.
    let late = json!({"tools": [function("f")], "messages": [{"role": "system", "tools": [function("f"), function("g")]},
        {"role": "user", "content": "Hi"}]});
    assert_eq!(server.chat(&hello_with(late)).await.0, 200);
}

#[tokio::test]
async fn the_moonshot_contract_uses_the_hosted_words() {
    let server = Setup::moonshot().serve().await;
    let instant = |extra: Value| {
        let mut body = json!({"thinking": {"type": "disabled"}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    check_all(
        &server,
        &[
            (json!({"temperature": 0.6}), "invalid temperature: only 1 is allowed for this model"),
            (json!({"temperature": 0}), "invalid temperature: only 1 is allowed for this model"),
            (instant(json!({"temperature": 1})), "invalid temperature: only 0.6 is allowed for this model"),
            (json!({"top_p": 1}), "invalid top_p: only 0.95 is allowed for this model"),
            (json!({"n": 2}), "invalid n: only 1 is allowed for this model"),
            (
                json!({"stop": ["1", "2", "3", "4", "5", "6"]}),
                "Invalid request: stop may have at most 5 strings, not 6",
            ),
            (
                json!({"stop": "é".repeat(17)}),
                "Invalid request: each stop string may have at most 32 bytes, not 34",
            ),
            (json!({"presence_penalty": 1}), "invalid presence_penalty: only 0 is allowed for this model"),
            (
                json!({"frequency_penalty": 0.1}),
                "invalid frequency_penalty: only 0 is allowed for this model",
            ),
            (
                json!({"tools": [function("f")], "tool_choice": "required"}),
                "tool_choice 'required' is incompatible with thinking enabled",
            ),
            (
                json!({"tools": [function("f")], "tool_choice": function("f")}),
                "tool_choice 'specified' is incompatible with thinking enabled",
            ),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 5}}),
                "Invalid request: thinking has an unknown key 'budget_tokens'",
            ),
            (
                json!({"thinking": {"type": "adaptive"}}),
                "Invalid request: thinking.type must be 'enabled' or 'disabled'",
            ),
        ],
    )
    .await;
    let constants =
        json!({"temperature": 1.0, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0});
    assert_eq!(server.chat(&hello_with(constants)).await.0, 200, "the fixed values may be written down");
    let ignored =
        hello_with(json!({"top_k": 5, "seed": 3, "reasoning_effort": "none", "return_token_ids": true}));
    let response = server.post(&ignored).send().await.unwrap();
    assert_eq!(
        response.headers()["x-kimi-notice"],
        "ignored reasoning_effort; ignored top_k; ignored return_token_ids"
    );
    let (_, answer) = server.chat(&ignored).await;
    assert!(answer.get("prompt_token_ids").is_none(), "{answer}");
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.chat_body_limit = 1000;
    let server = setup.serve().await;
    let send = async |body: &str, content_type: &str| {
        let request = server.client.post(format!("{}/v1/chat/completions", server.url));
        let response =
            request.header("content-type", content_type).body(body.to_owned()).send().await.unwrap();
        let (status, body) = read(response).await;
        assert_eq!(body["error"]["type"], "invalid_request_error");
        (status, body["error"]["message"].as_str().unwrap().to_owned())
    };
    let json = "application/json; charset=utf-8";
    let (status, message) = send("{\"model\": \"kimi-k2.6\", ", json).await;
    assert_eq!(status, 400);
    assert!(message.starts_with("Invalid request: the body is not valid JSON: EOF"), "{message}");
    let (status, message) = send("{} {}", json).await;
    assert_eq!(status, 400);
    assert!(message.starts_with("Invalid request: missing field `model`"), "{message}");
    let (status, message) =
        send(r#"{"model":"kimi-k2.6","messages":[{"role":"user","content":7}]}"#, json).await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with(
            "Invalid request: messages[0].content: invalid type: integer `7`, expected a string or an array of content parts"
        ),
        "{message}"
    );
    let (_, message) = send(r#"{"model":"kimi-k2.6","messages":[{"role":"robot"}]}"#, json).await;
    assert!(message.starts_with("Invalid request: messages[0].role: unknown variant `robot`"), "{message}");
    let (_, message) = send(r#"{"model":"kimi-k2.6","messages":[],"max_tokens":"many"}"#, json).await;
    assert!(message.starts_with("Invalid request: max_tokens: invalid type: string"), "{message}");
    assert_eq!(
        send("{}", "text/plain").await,
        (415, "Invalid request: the content type must be application/json, not text/plain".to_owned())
    );
    assert_eq!(
        send(&" ".repeat(1001), json).await,
        (413, "Request entity too large: the body may have at most 1000 bytes".to_owned())
    );
}

#[tokio::test]
async fn the_model_is_checked_before_types_and_types_before_values() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let mut body = hello_with(json!({"model": "gpt-4", "temperature": "hot", "top_p": 7}));
    let (status, answer) = server.chat(&body).await;
    assert_eq!(status, 404);
    assert_eq!(answer["error"]["message"], "Not found the model gpt-4 or Permission denied");
    body["model"] = json!("kimi-k2.6");
    assert!(refusal(&server, &body).await.starts_with("Invalid request: temperature: invalid type"));
    body["temperature"] = json!(1);
    assert!(refusal(&server, &body).await.starts_with("Invalid request: top_p must be"));
}

#[tokio::test]
async fn a_prompt_without_room_for_an_answer_says_by_how_much() {
    let mut setup = Setup::new(saying("</think>abcdefghijklmnop"));
    setup.max_context = 64;
    let server = setup.serve().await;
    let (_, short) = server.chat(&hello()).await;
    let prompt = short["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(short["usage"]["total_tokens"], 64, "max_tokens is clamped to the room left");
    assert_eq!(short["choices"][0]["finish_reason"], "length");

    let long = messages(json!([{"role": "user", "content": "x".repeat(100)}]));
    let (status, answer) = server.chat(&hello_with(long)).await;
    assert_eq!(status, 400);
    let message = format!(
        "Invalid request: Your request exceeded model token limit: 64 (requested: {})",
        prompt - 2 + 100
    );
    assert_eq!(
        answer["error"],
        json!({"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"})
    );
}

/// Every key with every kind of value: an answer or a 4xx in JSON, never a server error, and the server lives on.
#[tokio::test]
async fn no_value_of_any_key_is_a_server_error() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let keys = "model messages max_completion_tokens max_tokens temperature top_p n presence_penalty frequency_penalty stop \
        stream stream_options response_format tools tool_choice parallel_tool_calls thinking chat_template_kwargs \
        enable_thinking reasoning reasoning_effort thinking_budget thinking_token_budget structured_outputs logprobs top_logprobs seed top_k min_p \
        repetition_penalty logit_bias stop_token_ids ignore_eos min_tokens agent functions function_call user \
        include_stop_str_in_output return_token_ids continue_final_message add_generation_prompt prompt_cache_key \
        cache_salt priority safety_identifier prediction metadata unknown";
    let message_keys = "role content name tool_calls tool_call_id reasoning_content reasoning partial tools";
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(1e-300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("<|im_end|>\u{0}é"),
        json!([]),
        json!([null, 7, "x", {}]),
        json!({}),
        json!({"type": "function", "enabled": false, "0": 1}),
        json!([[[[[[[[]]]]]]]]),
    ];
    for value in &values {
        for key in keys.split_whitespace() {
            let mut body = hello_with(json!({"max_tokens": 20}));
            body[key] = value.clone();
            let status = server.post(&body).send().await.unwrap().status().as_u16();
            assert!(matches!(status, 200 | 400 | 404), "{key} = {value} gave {status}");
        }
        for key in message_keys.split_whitespace() {
            for role in ["user", "assistant", "system", "tool"] {
                let mut body = hello_with(json!({"max_tokens": 20}));
                body["messages"] = json!([{"role": role, "content": "Hi"}]);
                body["messages"][0][key] = value.clone();
                let status = server.post(&body).send().await.unwrap().status().as_u16();
                assert!(matches!(status, 200 | 400), "{role} with {key} = {value} gave {status}");
            }
        }
    }
    assert_eq!(server.chat(&hello()).await.0, 200);
}
