//! What streamed answers say, and that they say the same as whole ones.

use std::time::Duration;

use kimi_engine::FakeRunner;
use serde_json::{Value, json};

use crate::harness::{Setup, VOCABULARY, chunks, hello, hello_with, saying};

#[tokio::test]
async fn a_transcript() {
    let server = Setup::new(saying(
        "h</think>Hi<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}\
         <|tool_call_end|><|tool_calls_section_end|><|im_end|>",
    ))
    .serve()
    .await;
    let response = server.post(&hello_with(json!({"stream": true}))).send().await.unwrap();
    for (header, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(response.headers()[header], value);
    }
    let transcript = response.text().await.unwrap();
    let chunks = chunks(&transcript);
    let usage = chunks.last().unwrap()["choices"][0]["usage"].clone();
    let prompt = usage["prompt_tokens"].as_u64().unwrap();

    let head = &chunks[0];
    let (id, created) = (head["id"].as_str().unwrap(), head["created"].as_u64().unwrap());
    let delta = |delta: &str| {
        format!(
            r#"data: {{"id":"{id}","object":"chat.completion.chunk","created":{created},"model":"kimi-k2.6","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
        )
    };
    let expected = [
        delta(r#"{"role":"assistant","content":""}"#),
        delta(r#"{"reasoning_content":"h"}"#),
        delta(r#"{"content":"H"}"#),
        delta(r#"{"content":"i"}"#),
        delta(
            r#"{"tool_calls":[{"index":0,"id":"functions.f:0","type":"function","function":{"name":"f","arguments":""}}]}"#,
        ),
        delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#),
        delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}"#),
        format!(
            r#"data: {{"id":"{id}","object":"chat.completion.chunk","created":{created},"model":"kimi-k2.6","choices":[{{"index":0,"delta":{{}},"finish_reason":"tool_calls","usage":{{"prompt_tokens":{prompt},"completion_tokens":25,"total_tokens":{},"cached_tokens":0,"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":1}}}}}}]}}"#,
            prompt + 25
        ),
        "data: [DONE]".to_owned(),
        String::new(),
    ];
    assert_eq!(transcript.split("\n\n").collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn usage_comes_in_both_places_when_asked_for() {
    let server = Setup::new(saying("</think>Hi<|im_end|>")).serve().await;
    let asked = hello_with(json!({"stream_options": {"include_usage": true}}));
    let transcript = server.transcript(asked.clone()).await;
    assert!(transcript.ends_with("data: [DONE]\n\n"));
    let chunks = chunks(&transcript);
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 4);
    assert_eq!(before.last().unwrap()["choices"][0]["usage"], last["usage"]);
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    let (status, _) = server.chat(&asked).await;
    assert_eq!(status, 200, "without stream the option means nothing");
}

/// The message, the end and the log probabilities that a stream adds up to.
fn fold(transcript: &str) -> Value {
    let mut message = json!({"role": null, "content": ""});
    let mut calls: Vec<Value> = Vec::new();
    let (mut logprobs, mut end) = (Vec::new(), json!(null));
    for chunk in chunks(transcript) {
        let choice = &chunk["choices"][0];
        if let Some(role) = choice["delta"].get("role") {
            message["role"] = role.clone();
        }
        for key in ["content", "reasoning_content"] {
            if let Some(text) = choice["delta"].get(key).and_then(Value::as_str) {
                let so_far = message[key].as_str().unwrap_or_default().to_owned();
                message[key] = json!(so_far + text);
            }
        }
        for call in choice["delta"].get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(json!({"id": call["id"], "type": call["type"],
                    "function": {"name": call["function"]["name"], "arguments": ""}}));
            }
            let arguments = calls[index]["function"]["arguments"].as_str().unwrap().to_owned();
            let more = call["function"]["arguments"].as_str().unwrap();
            calls[index]["function"]["arguments"] = json!(arguments + more);
        }
        if let Some(more) = choice.get("logprobs") {
            logprobs.extend(more["content"].as_array().unwrap().iter().cloned());
        }
        if !choice["finish_reason"].is_null() {
            end = json!({"reason": choice["finish_reason"], "usage": choice["usage"]});
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    json!({"message": message, "end": end, "logprobs": logprobs})
}

/// The same for a whole answer.
fn of_whole(answer: &Value) -> Value {
    let choice = &answer["choices"][0];
    let mut message = choice["message"].clone();
    if message.get("reasoning_content").is_some_and(|text| text == "") {
        message.as_object_mut().unwrap().remove("reasoning_content");
    }
    let logprobs = choice.get("logprobs").map_or(json!([]), |logprobs| logprobs["content"].clone());
    json!({"message": message, "logprobs": logprobs,
        "end": {"reason": choice["finish_reason"], "usage": answer["usage"]}})
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole_answer() {
    let scripts = [
        "hmm</think>Héllo 👋 wörld<|im_end|>",
        "</think><|im_end|>",
        "never ends thinking",
        "a</think>b<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"x\":\"é\"}\
         <|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|>\
         <|tool_calls_section_end|><|im_end|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"cut\": tr",
        "x</think>stop STOP more<|im_end|>",
    ];
    for script in scripts {
        let server = Setup::new(saying(script)).serve().await;
        let body =
            hello_with(json!({"max_tokens": 120, "stop": "STOP", "logprobs": true, "top_logprobs": 1}));
        let (status, whole) = server.chat(&body).await;
        assert_eq!(status, 200);
        assert_eq!(fold(&server.transcript(body).await), of_whole(&whole), "{script}");
    }
}

/// Random bytes and markers, so that every kind of malformed output comes by.
#[tokio::test]
async fn a_stream_of_noise_adds_up_to_the_whole_answer() {
    let server = Setup::new(FakeRunner::hashed(269)).serve().await;
    for seed in 0..60 {
        let body = hello_with(json!({"max_tokens": 200, "seed": seed, "ignore_eos": seed % 2 == 0}));
        let (status, whole) = server.chat(&body).await;
        assert_eq!(status, 200);
        assert_eq!(fold(&server.transcript(body).await), of_whole(&whole), "seed {seed}");
    }
    assert!(VOCABULARY.len() >= 269, "the noise contains every marker");
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let mut setup = Setup::new(saying("</think>Hi<|im_end|>").with_step_time(Duration::from_millis(150)));
    setup.config.keep_alive = Duration::from_millis(40);
    let transcript = setup.serve().await.transcript(hello()).await;
    assert!(transcript.contains("\n\n: keep-alive\n\n"), "{transcript}");
    assert!(transcript.ends_with("data: [DONE]\n\n"));
    assert_eq!(fold(&transcript)["message"]["content"], "Hi", "comments lose nothing");
}

#[tokio::test]
async fn a_failure_in_the_middle_is_an_error_event_without_done() {
    let server = Setup::new(saying("</think>Hello<|im_end|>").with_non_finite(0, 3)).serve().await;
    let transcript = server.transcript(hello()).await;
    assert!(!transcript.contains("[DONE]"));
    let chunks = chunks(&transcript);
    assert_eq!(chunks[1]["choices"][0]["delta"]["content"], "H");
    let error = &chunks.last().unwrap()["error"];
    assert_eq!(error["type"], "server_error");
    assert!(error["message"].as_str().unwrap().contains("request id"), "{error}");
    // The next request is not affected.
    let (status, _) = server.chat(&hello()).await;
    assert_eq!(status, 200);
}
