//! What streamed answers say, and that they say the same as whole ones.

use std::time::Duration;

use kimi_engine::FakeRunner;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
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

/// What a stream adds up to, in the form of [`of_whole`].
fn fold(transcript: &str) -> Value {
    let chunks = chunks(transcript);
    let count =
        chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).map(index).max().unwrap();
    let mut choices = vec![
        json!({"message": {"content": ""}, "reason": null, "logprobs": [], "token_ids": []});
        count as usize + 1
    ];
    let mut usage = json!(null);
    for chunk in &chunks {
        for choice in chunk["choices"].as_array().unwrap() {
            add(&mut choices[index(choice) as usize], choice);
            if usage.is_null() && !choice["usage"].is_null() {
                usage = choice["usage"].clone();
            }
        }
        if !chunk["usage"].is_null() {
            usage = chunk["usage"].clone();
        }
    }
    json!({"choices": choices, "usage": usage, "prompt_token_ids": chunks[0]["prompt_token_ids"]})
}

fn index(value: &Value) -> u64 {
    value["index"].as_u64().unwrap()
}

/// Adds a chunk's part of a choice to what came before.
fn add(sum: &mut Value, choice: &Value) {
    let message = &mut sum["message"];
    if let Some(role) = choice["delta"].get("role") {
        assert!(message.get("role").is_none(), "the role comes once");
        message["role"] = role.clone();
    }
    for key in ["content", "reasoning_content"] {
        if let Some(text) = choice["delta"].get(key).and_then(Value::as_str) {
            let so_far = message[key].as_str().unwrap_or_default().to_owned();
            message[key] = json!(so_far + text);
        }
    }
    for call in choice["delta"].get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        let at = index(call) as usize;
        if call.get("id").is_some() {
            let new = json!({"id": call["id"], "type": call["type"],
                "function": {"name": call["function"]["name"], "arguments": ""}});
            message
                .as_object_mut()
                .unwrap()
                .entry("tool_calls")
                .or_insert(json!([]))
                .as_array_mut()
                .unwrap()
                .push(new);
        }
        let arguments = &mut message["tool_calls"][at]["function"]["arguments"];
        *arguments =
            json!(arguments.as_str().unwrap().to_owned() + call["function"]["arguments"].as_str().unwrap());
    }
    for (key, more) in [("logprobs", &choice["logprobs"]["content"]), ("token_ids", &choice["token_ids"])] {
        let more = more.as_array().into_iter().flatten().cloned();
        sum[key].as_array_mut().unwrap().extend(more);
    }
    if !choice["finish_reason"].is_null() {
        assert_eq!(sum["reason"], json!(null), "the end comes once");
        sum["reason"] = choice["finish_reason"].clone();
    }
}

/// A whole answer without what a stream cannot say: reasoning that is empty.
fn of_whole(answer: &Value) -> Value {
    let choices = answer["choices"].as_array().unwrap().iter().map(|choice| {
        let mut message = choice["message"].clone();
        if message.get("reasoning_content").is_some_and(|text| text == "") {
            message.as_object_mut().unwrap().remove("reasoning_content");
        }
        let list = |value: &Value| value.as_array().map_or(json!([]), |list| json!(list));
        json!({"message": message, "reason": choice["finish_reason"],
            "logprobs": list(&choice["logprobs"]["content"]), "token_ids": list(&choice["token_ids"])})
    });
    json!({"choices": choices.collect::<Vec<_>>(), "usage": answer["usage"],
        "prompt_token_ids": answer["prompt_token_ids"]})
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

fn shape() -> impl Strategy<Value = Value> {
    let flag = proptest::bool::ANY;
    let extras = (flag, flag, flag, flag, proptest::option::of(0..3), flag);
    (any::<i64>(), 1..=3, 1..200, 0..4_usize, extras).prop_map(|(seed, n, max_tokens, ending, extras)| {
        let (ignore_eos, return_token_ids, include_stop, thinks, top, one_call) = extras;
        let user = json!({"role": "user", "content": "Hi"});
        let ending = match ending {
            0 => json!([user]),
            1 => json!([user, {"role": "assistant", "content": "So", "partial": true}]),
            2 => json!([user, {"role": "assistant", "content": "", "reasoning_content": "R", "partial": true}]),
            _ => json!([user, {"role": "assistant", "content": null, "partial": true}]),
        };
        json!({"model": "kimi-k2.6", "messages": ending, "seed": seed, "n": n, "max_tokens": max_tokens,
            "ignore_eos": ignore_eos, "return_token_ids": return_token_ids, "stop": ["ab", "e", "0"],
            "include_stop_str_in_output": include_stop, "thinking": {"type": if thinks { "enabled" } else { "disabled" }},
            "logprobs": top.is_some(), "top_logprobs": top, "parallel_tool_calls": !one_call,
            "tools": [{"type": "function", "function": {"name": "f"}}], "stream_options": {"include_usage": true}})
    })
}

/// Random bytes and markers, so that every kind of malformed output comes by, for every shape of request.
#[test]
fn a_stream_of_noise_adds_up_to_the_whole_answer() {
    assert!(VOCABULARY.len() >= 269, "the noise contains every marker");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Setup::new(FakeRunner::hashed(269)).serve());
    let mut proptest = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
    let outcome = proptest.run(&shape(), |body| {
        let (status, whole) = runtime.block_on(server.chat(&body));
        prop_assert_eq!(status, 200, "{}", whole);
        prop_assert_eq!(fold(&runtime.block_on(server.transcript(body))), of_whole(&whole));
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let mut setup = Setup::new(saying("</think>Hi<|im_end|>").with_step_time(Duration::from_millis(150)));
    setup.config.keep_alive = Duration::from_millis(40);
    let transcript = setup.serve().await.transcript(hello()).await;
    assert!(transcript.contains("\n\n: keep-alive\n\n"), "{transcript}");
    assert!(transcript.ends_with("data: [DONE]\n\n"));
    assert_eq!(fold(&transcript)["choices"][0]["message"]["content"], "Hi", "comments lose nothing");
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
