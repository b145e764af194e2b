//! The Messages API: what is asked, what is answered, and what goes wrong, in its own words.

use std::time::Duration;

use kimi_http::ApiKeys;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::dialects::{events, listening, streamed_is_whole};
use crate::harness::{Server, Setup, extended, hello_with, read, saying};

const PATH: &str = "/v1/messages";
const CALL: &str = "look</think>I will.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0\
    <|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_calls_section_end|><|im_end|>";

fn hello() -> Value {
    json!({"model": "kimi-k2.6", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]})
}

fn with(extra: Value) -> Value {
    extended(hello(), extra)
}

fn tools() -> Value {
    json!([{"name": "f", "description": "Does it.", "input_schema": {"type": "object", "properties": {}},
        "cache_control": {"type": "ephemeral"}}])
}

#[tokio::test]
async fn a_transcript() {
    let server = Setup::new(saying(CALL)).serve().await;
    let transcript = server.stream(PATH, with(json!({"tools": tools()}))).await;
    let events = events(&transcript);
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    assert_eq!(
        names,
        [&["message_start"][..], &block, &block, &block, &["message_delta", "message_stop"]].concat()
    );

    let data: Vec<&Value> = events.iter().map(|(_, data)| data).collect();
    let start = &data[0]["message"];
    assert!(start["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!((&start["role"], &start["content"]), (&json!("assistant"), &json!([])));
    assert!(start["stop_reason"].is_null() && start["usage"]["input_tokens"].as_u64().unwrap() > 2);
    assert_eq!(data[1]["content_block"], json!({"type": "thinking", "thinking": "", "signature": ""}));
    assert_eq!(data[2]["delta"], json!({"type": "thinking_delta", "thinking": "l"}));
    assert_eq!(data[6]["delta"], json!({"type": "signature_delta", "signature": ""}));
    assert_eq!(*data[7], json!({"type": "content_block_stop", "index": 0}));
    assert_eq!(data[9]["delta"], json!({"type": "text_delta", "text": "I"}));
    let call = json!({"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {}});
    assert_eq!(*data[17], json!({"type": "content_block_start", "index": 2, "content_block": call}));
    assert_eq!(data[18]["delta"], json!({"type": "input_json_delta", "partial_json": "{"}));
    let end = data[data.len() - 2];
    assert_eq!(end["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert_eq!(end["usage"]["input_tokens"], start["usage"]["input_tokens"]);
}

#[tokio::test]
async fn a_whole_message() {
    let server = Setup::new(saying(CALL)).serve().await;
    for path in [PATH, "/anthropic/v1/messages", "/v1/messages?beta=true"] {
        let (status, message) = server.post_json(path, &with(json!({"tools": tools()}))).await;
        assert_eq!(status, 200, "{message}");
        assert_eq!(
            message["content"],
            json!([
                {"type": "thinking", "thinking": "look", "signature": ""},
                {"type": "text", "text": "I will."},
                {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {"a": 1}},
            ])
        );
        assert_eq!((&message["type"], &message["stop_reason"]), (&json!("message"), &json!("tool_use")));
        assert_eq!(message["usage"]["cache_creation_input_tokens"], 0);
        assert!(message["usage"]["output_tokens"].as_u64().unwrap() > 10);
    }
}

#[tokio::test]
async fn an_answer_says_why_it_ended() {
    let server = Setup::new(saying("a</think>one STOP two<|im_end|>")).serve().await;
    for (extra, reason, sequence, text) in [
        (json!({}), "end_turn", json!(null), "one STOP two"),
        (json!({"stop_sequences": ["never", "STOP"]}), "stop_sequence", json!("STOP"), "one "),
        (json!({"max_tokens": 5}), "max_tokens", json!(null), "one"),
    ] {
        let (_, message) = server.post_json(PATH, &with(extra)).await;
        assert_eq!(message["stop_reason"], reason);
        assert_eq!(message["stop_sequence"], sequence);
        assert_eq!(message["content"][1]["text"], text);
    }
}

/// The message that a stream adds up to, as a client would add.
fn fold(transcript: &str) -> Value {
    let mut message = Value::Null;
    let mut json_text = String::new();
    for (name, data) in events(transcript) {
        match name.as_str() {
            "message_start" => message = data["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(data["index"], content.len(), "blocks are numbered");
                content.push(data["content_block"].clone());
                json_text.clear();
            }
            "content_block_delta" => {
                let block =
                    &mut message["content"][usize::try_from(data["index"].as_u64().unwrap()).unwrap()];
                let delta = &data["delta"];
                for key in ["text", "thinking", "signature"] {
                    if let Some(more) = delta[key].as_str() {
                        block[key] = json!(format!("{}{more}", block[key].as_str().unwrap()));
                    }
                }
                json_text.push_str(delta["partial_json"].as_str().unwrap_or_default());
            }
            "content_block_stop" => {
                let block = message["content"].as_array_mut().unwrap().last_mut().unwrap();
                if let Ok(input @ Value::Object(_)) = serde_json::from_str(&json_text) {
                    block["input"] = input;
                }
                json_text.clear();
            }
            "message_delta" => {
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["stop_sequence"] = data["delta"]["stop_sequence"].clone();
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => message["complete"] = json!(true),
            other => panic!("{other}"),
        }
    }
    assert_eq!(message["complete"], true);
    message.as_object_mut().unwrap().remove("complete");
    message
}

#[test]
fn a_stream_adds_up_to_the_whole_message() {
    let body = with(json!({"max_tokens": 80, "stop_sequences": ["STOP"], "tools": tools()}));
    streamed_is_whole(PATH, &body, |whole, transcript| {
        let (mut whole, mut folded) = (whole.clone(), fold(transcript));
        for message in [&mut whole, &mut folded] {
            message.as_object_mut().unwrap().remove("id");
        }
        prop_assert_eq!(whole, folded);
        Ok(())
    });
}

/// Both requests must give the same prompt.
async fn same_prompt(messages: Value, chat: Value) {
    let (runner, prompts) = listening("</think>ok<|im_end|>");
    let server = Setup::new(runner).serve().await;
    let (status, answer) = server.post_json(PATH, &with(messages)).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = server.chat(&hello_with(chat)).await;
    assert_eq!(status, 200, "{answer}");
    let prompts = prompts.lock().unwrap();
    let spelled = |ids: &[u32]| crate::harness::VOCABULARY.decode(ids);
    assert_eq!(spelled(&prompts[0]), spelled(&prompts[1]));
}

#[tokio::test]
async fn a_tool_loop_with_foreign_ids_and_echoed_thoughts_is_the_chat_loop() {
    let messages = json!({"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [tools()[0], {"type": "web_search_20250305", "name": "web_search"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Go"}, {"type": "text", "text": ""}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "echoed"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "I will."},
                {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"z": 1, "a": "é"}},
                {"type": "tool_use", "id": "toolu_02", "name": "f", "input": {}}]},
            {"role": "system", "content": "Hurry."},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_02", "is_error": true,
                    "content": [{"type": "text", "text": "no such thing"}]},
                {"type": "tool_result", "tool_use_id": "toolu_01"},
                {"type": "text", "text": "And?"}]}]});
    let tool = json!({"type": "function", "function": {"name": "f", "description": "Does it.",
        "parameters": {"type": "object", "properties": {}}}});
    let call = |k: usize, arguments: &str| json!({"id": format!("functions.f:{k}"), "type": "function", "function": {"name": "f", "arguments": arguments}});
    let chat = json!({"tools": [tool], "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "reasoning_content": "hm", "content": "I will.",
            "tool_calls": [call(0, "{\"z\": 1, \"a\": \"é\"}"), call(1, "{}")]},
        {"role": "system", "content": "Hurry."},
        {"role": "tool", "tool_call_id": "functions.f:1", "content": "Error: no such thing"},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "(no output)"},
        {"role": "user", "content": "And?"}]});
    same_prompt(messages, chat).await;
}

#[tokio::test]
async fn a_last_message_of_the_assistant_is_continued() {
    let turn =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is ("}]);
    let mut chat = turn.clone();
    chat[1]["partial"] = json!(true);
    same_prompt(json!({"messages": turn}), json!({"messages": chat})).await;
    let server = Setup::new(saying("B)<|im_end|>")).serve().await;
    let (_, message) = server.post_json(PATH, &with(json!({"messages": turn}))).await;
    assert_eq!(message["content"], json!([{"type": "text", "text": "B)"}]), "only the continuation");
}

#[tokio::test]
async fn every_thinking_switch_means_what_it_says() {
    for (thinking, on) in [
        (json!(null), true),
        (json!({"type": "enabled", "budget_tokens": 1024}), true),
        (json!({"type": "adaptive", "display": "omitted"}), true),
        (json!({"type": "disabled"}), false),
    ] {
        let kind = if on { "enabled" } else { "disabled" };
        let chat = json!({"thinking": {"type": kind}});
        for contract in [Setup::new, |runner| Setup { runner, ..Setup::moonshot() }] {
            let (runner, prompts) = listening("</think>ok<|im_end|>");
            let server = contract(runner).serve().await;
            let (status, answer) = server.post_json(PATH, &with(json!({"thinking": thinking}))).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(server.chat(&hello_with(chat.clone())).await.0, 200);
            let prompts = prompts.lock().unwrap();
            assert_eq!(prompts[0], prompts[1], "{thinking}");
        }
    }
}

#[tokio::test]
async fn counting_tokens_says_what_the_answer_will_cost() {
    let server = Setup::new(saying(CALL)).serve().await;
    let mut body = with(json!({"system": "Be brief.", "tools": tools()}));
    let (_, message) = server.post_json(PATH, &body).await;
    body.as_object_mut().unwrap().remove("max_tokens");
    for path in ["/v1/messages/count_tokens", "/anthropic/v1/messages/count_tokens"] {
        let (status, count) = server.post_json(path, &body).await;
        assert_eq!((status, &count), (200, &json!({"input_tokens": message["usage"]["input_tokens"]})));
    }
}

#[tokio::test]
async fn a_silent_stream_gets_pings() {
    let mut setup = Setup::new(saying("</think>Hi<|im_end|>").with_step_time(Duration::from_millis(150)));
    setup.config.keep_alive = Duration::from_millis(40);
    let transcript = setup.serve().await.stream(PATH, hello()).await;
    assert!(transcript.contains("event: ping\ndata: {\"type\":\"ping\"}\n\n"), "{transcript}");
    assert!(transcript.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}

async fn refused(server: &Server, body: &Value, status: u16, kind: &str) -> String {
    let response = server.client.post(format!("{}{PATH}", server.url)).json(body).send().await.unwrap();
    let id = response.headers()["request-id"].to_str().unwrap().to_owned();
    let (found, error) = read(response).await;
    assert_eq!(
        (found, &error["type"], &error["error"]["type"]),
        (status, &json!("error"), &json!(kind)),
        "{error}"
    );
    assert_eq!(error["request_id"], id);
    error["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn mistakes_are_told_in_its_own_form() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    for (extra, part) in [
        (json!({"max_tokens": null}), "max_tokens is required"),
        (json!({"max_tokens": 0}), "max_tokens must be at least 1"),
        (json!({"messages": []}), "must not be empty"),
        (json!({"messages": [{"role": "narrator", "content": "x"}]}), "messages[0].role: unknown variant"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0]: missing",
        ),
        (json!({"messages": [{"role": "user", "content": [{"type": "document"}]}]}), "\"document\""),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9",
            "content": "x"}]}]}),
            "tool_call_id toolu_9 not found",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image",
            "source": {"type": "url", "url": "https://example.com/x.png"}}]}]}),
            "unsupported image url",
        ),
        (json!({"tools": [{"description": "nameless"}]}), "must have a name"),
        (json!({"tool_choice": {"type": "tool"}, "tools": tools()}), "must have the tool's name"),
        (json!({"output_config": {"format": {"type": "xml"}}}), "output_config.format"),
        (json!({"thinking": {"type": "maybe"}}), "thinking.type"),
    ] {
        let message = refused(&server, &with(extra), 400, "invalid_request_error").await;
        assert!(message.contains(part), "{part}: {message}");
    }
    let long = with(json!({"messages": [{"role": "user", "content": "x".repeat(9000)}]}));
    let message = refused(&server, &long, 400, "invalid_request_error").await;
    assert!(
        message.starts_with("prompt is too long: 90") && message.ends_with(" > 4096 maximum"),
        "{message}"
    );
    refused(&server, &with(json!({"model": "gpt-4"})), 404, "not_found_error").await;
    // Whatever else is wrong, the model is what the client hears of first.
    refused(&server, &with(json!({"model": "gpt-4", "max_tokens": null})), 404, "not_found_error").await;
    refused(
        &server,
        &with(json!({"model": "gpt-4", "tools": [{"type": "bash_20250124"}]})),
        404,
        "not_found_error",
    )
    .await;
    for (request, status, kind) in [
        (server.client.get(format!("{}{PATH}", server.url)), 405, "invalid_request_error"),
        (server.client.get(format!("{}/anthropic/v1/nothing", server.url)), 404, "not_found_error"),
        (server.client.post(format!("{}{PATH}", server.url)).body("{"), 400, "invalid_request_error"),
    ] {
        let (found, error) = read(request.send().await.unwrap()).await;
        assert_eq!((found, &error["error"]["type"]), (status, &json!(kind)));
    }
    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.chat_body_limit = 50;
    let message = refused(&setup.serve().await, &hello(), 413, "request_too_large").await;
    assert!(message.starts_with("Request entity too large"));
}

#[tokio::test]
async fn an_overloaded_or_absent_engine_is_told_in_its_own_form() {
    let mut setup = Setup::new(saying("</think>aaaa").with_step_time(Duration::from_millis(20)));
    (setup.max_sequences, setup.max_waiting) = (1, 1);
    let server = setup.serve().await;
    let running = tokio::spawn(server.post(&hello_with(json!({"n": 2}))).send());
    server.wait_for_running(1).await;
    let response = server.client.post(format!("{}{PATH}", server.url)).json(&hello()).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let (status, error) = read(response).await;
    assert_eq!((status, &error["error"]["type"]), (529, &json!("overloaded_error")));
    running.abort();

    let runner = saying("</think>Hello<|im_end|>").with_non_finite(0, 3);
    let transcript = Setup::new(runner).serve().await.stream(PATH, hello()).await;
    let events = events(&transcript);
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("api_error")));
    assert!(events.iter().all(|(name, _)| name != "message_stop"), "the end is missing");
}

#[tokio::test]
async fn the_key_may_come_in_either_header() {
    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.api_keys = ApiKeys::new(["sk-one".to_owned()]);
    let server = setup.serve().await;
    for (headers, status, kind) in [
        (vec![], 401, "authentication_error"),
        (vec![("x-api-key", "sk-two")], 401, "authentication_error"),
        (vec![("x-api-key", "sk-one")], 200, ""),
        (vec![("authorization", "Bearer sk-one")], 200, ""),
        // Claude Code sends both when a key of another service lies in its environment.
        (vec![("authorization", "Bearer sk-one"), ("x-api-key", "sk-two")], 200, ""),
    ] {
        let mut request = server.client.post(format!("{}{PATH}", server.url)).json(&hello());
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let (found, body) = read(request.send().await.unwrap()).await;
        assert_eq!(
            (found, body["error"]["type"].as_str().unwrap_or_default()),
            (status, kind),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn what_has_no_counterpart_is_named_in_a_header() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let body = with(json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "metadata": {"user_id": "u"}, "context_management": {"edits": []}, "output_config": {"effort": "high"},
        "messages": [{"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "text", "text": "Found."}]},
            {"role": "user", "content": "And?"}]}));
    let response = server.client.post(format!("{}{PATH}", server.url)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["x-kimi-notice"],
        "ignored blocks of other services; ignored tools of other services"
    );
}

#[tokio::test]
async fn what_the_cache_holds_is_counted_apart() {
    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.prefix_cache = true;
    let server = setup.serve().await;
    let long = with(json!({"system": "Be brief. ".repeat(20)}));
    let (_, first) = server.post_json(PATH, &long).await;
    let (_, second) = server.post_json(PATH, &long).await;
    let (first, second) = (&first["usage"], &second["usage"]);
    assert_eq!(first["cache_read_input_tokens"], 0);
    let cached = second["cache_read_input_tokens"].as_u64().unwrap();
    assert!(cached >= 200, "{second}");
    let rest = second["input_tokens"].as_u64().unwrap();
    assert_eq!(first["input_tokens"], rest + cached, "the prompt is the sum");
}
