//! What whole answers say.

use std::sync::{Arc, Mutex};

use kimi_engine::{FakeRunner, Sampling};
use serde_json::{Value, json};

use crate::harness::{Setup, hello, hello_with, saying, tokens};

const CALLS: &str = "look</think>I will.<|tool_calls_section_begin|>\
    <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|>\
    <|tool_call_begin|>functions.f:1<|tool_call_argument_begin|>{\"a\": 2}<|tool_call_end|>\
    <|tool_calls_section_end|><|im_end|>";

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}])
}

#[tokio::test]
async fn thinking_comes_apart_from_the_answer() {
    let server = Setup::new(saying("hmm</think>Hello!<|im_end|>")).serve().await;
    let (status, answer) = server.chat(&hello()).await;
    assert_eq!(status, 200);
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "kimi-k2.6");
    assert_eq!(
        answer["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "Hello!", "reasoning_content": "hmm"},
            "finish_reason": "stop"}])
    );
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 2);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": prompt, "completion_tokens": 11, "total_tokens": prompt + 11, "cached_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 3}})
    );
}

#[tokio::test]
async fn every_spelling_turns_thinking_off() {
    let server = Setup::new(saying("Hello!<|im_end|>")).serve().await;
    for switch in [
        json!({"thinking": {"type": "disabled"}}),
        json!({"chat_template_kwargs": {"thinking": false}}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"enable_thinking": false}),
        json!({"reasoning": {"enabled": false}}),
        json!({"reasoning": {"effort": "none"}}),
        json!({"reasoning_effort": "none"}),
    ] {
        let (status, answer) = server.chat(&hello_with(switch.clone())).await;
        assert_eq!(status, 200, "{switch}: {answer}");
        assert_eq!(
            answer["choices"][0]["message"],
            json!({"role": "assistant", "content": "Hello!"}),
            "{switch}"
        );
    }
}

#[tokio::test]
async fn no_spelling_is_passed_over_in_silence() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let notice = async |extra: &Value| {
        let response = server.post(&hello_with(extra.clone())).send().await.unwrap();
        assert_eq!(response.status(), 200, "{extra}");
        response.headers().get("x-kimi-notice").map(|notice| notice.to_str().unwrap().to_owned())
    };
    for (extra, ignored) in [
        (json!({"think": false}), "ignored think"),
        (json!({"enableThinking": false}), "ignored enableThinking"),
        (json!({"include_reasoning": false}), "ignored include_reasoning"),
        (json!({"extra_body": {"thinking": {"type": "disabled"}}}), "ignored extra_body"),
        (json!({"chat_template_kwargs": {"think": false, "x": 1}}), "ignored chat_template_kwargs.think"),
        (json!({"reasoning": {"thinking": "off"}}), "ignored reasoning.thinking"),
        (json!({"thinking": {"type": "enabled", "effort": "low"}}), "ignored thinking.effort"),
    ] {
        assert_eq!(notice(&extra).await.as_deref(), Some(ignored), "{extra}");
    }
    // What cannot be a header is not said back, nor is more than a few.
    assert_eq!(notice(&json!({"think\r\nx: y": 1, "häßlich-think": 1, ("think".repeat(20)): 1})).await, None);
    let many: serde_json::Map<_, _> = (0..100).map(|n| (format!("think{n}"), json!(1))).collect();
    assert_eq!(notice(&many.into()).await.unwrap().matches("ignored").count(), 8);
    // A switch that cannot be read is a mistake.
    for extra in [
        json!({"thinking": false}),
        json!({"thinking": {"type": "off"}}),
        json!({"reasoning_effort": "off"}),
        json!({"enable_thinking": "false"}),
    ] {
        assert_eq!(server.chat(&hello_with(extra.clone())).await.0, 400, "{extra}");
    }
}

#[tokio::test]
async fn the_alias_for_reasoning_goes_only_to_who_reads_it() {
    let server = Setup::new(saying("hmm</think>Hello!<|im_end|>")).serve().await;
    let (_, plain) = server.chat(&hello()).await;
    assert!(plain["choices"][0]["message"].get("reasoning").is_none());
    let (_, alias) = server.chat(&hello_with(json!({"model": "Kimi-K2.6-Thinking"}))).await;
    assert_eq!(alias["model"], "Kimi-K2.6-Thinking", "the name is echoed as asked");
    assert_eq!(alias["choices"][0]["message"]["reasoning"], "hmm");
    let (_, hidden) = server.chat(&hello_with(json!({"reasoning": {"exclude": true}}))).await;
    assert_eq!(hidden["choices"][0]["message"], json!({"role": "assistant", "content": "Hello!"}));
    assert_eq!(hidden["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);

    let mut setup = Setup::new(saying("hmm</think>Hello!<|im_end|>"));
    setup.config.reasoning_alias = true;
    let (_, always) = setup.serve().await.chat(&hello()).await;
    assert_eq!(always["choices"][0]["message"]["reasoning"], "hmm");
}

#[tokio::test]
async fn tool_calls_wait_for_their_results() {
    let server = Setup::new(saying(CALLS)).serve().await;
    let (status, answer) = server.chat(&hello_with(json!({"tools": tools()}))).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"],
        json!([
            {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
            {"id": "functions.f:1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 2}"}},
        ])
    );
    assert_eq!(answer["choices"][0]["message"]["content"], "I will.");
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");

    let one = hello_with(json!({"tools": tools(), "parallel_tool_calls": false}));
    let (_, answer) = server.chat(&one).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn limits_and_stop_texts_end_the_answer() {
    let server = Setup::new(saying("a</think>one two three<|im_end|>")).serve().await;
    let (_, cut) = server.chat(&hello_with(json!({"max_tokens": 5}))).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"]["content"], "one");
    assert_eq!(cut["usage"]["completion_tokens"], 5);
    // The newer name wins.
    let (_, cut) = server.chat(&hello_with(json!({"max_tokens": 5, "max_completion_tokens": 4}))).await;
    assert_eq!(cut["usage"]["completion_tokens"], 4);

    for stop in [json!(" two"), json!(["never", " two"])] {
        let (_, stopped) = server.chat(&hello_with(json!({"stop": stop}))).await;
        assert_eq!(stopped["choices"][0]["message"]["content"], "one");
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    }
    server.wait_for_running(0).await;

    let space = u32::from(b' ');
    let (_, stopped) = server.chat(&hello_with(json!({"stop_token_ids": [space]}))).await;
    assert_eq!(stopped["choices"][0]["message"]["content"], "one");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn ignore_eos_goes_on_to_the_limit() {
    let runner = FakeRunner::scripted(vec![tokens("</think>a<|im_end|>b<|im_end|>cd")]);
    let server = Setup::new(runner).serve().await;
    let (_, answer) = server.chat(&hello_with(json!({"ignore_eos": true, "max_tokens": 7}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "abcd");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 7);
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_content() {
    let server = Setup::new(saying("hmm</think>Hé<|im_end|>")).serve().await;
    let (_, answer) = server.chat(&hello_with(json!({"logprobs": true, "top_logprobs": 2}))).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 3, "three bytes, no reasoning, no markers");
    assert_eq!(
        content[0],
        json!({"token": "H", "logprob": -0.25, "bytes": [72], "top_logprobs": [
            {"token": "H", "logprob": -0.25, "bytes": [72]}, {"token": "\0", "logprob": -1.25, "bytes": [0]}]})
    );
    assert_eq!(content[1]["bytes"], json!([0xC3]));
    let (_, answer) = server.chat(&hello()).await;
    assert!(answer["choices"][0].get("logprobs").is_none());
}

/// What reaches the sampler when the client says nothing, and when it says something.
#[tokio::test]
async fn defaults_are_those_the_model_was_tuned_with() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    let runner = FakeRunner::answering(move |sequence| {
        recorder.lock().unwrap().push(sequence.sampling.clone());
        tokens("</think>ok<|im_end|>")
    });
    let server = Setup::new(runner).serve().await;
    let sampling = async |extra: Value| {
        assert_eq!(server.chat(&hello_with(extra)).await.0, 200);
        seen.lock().unwrap().pop().expect("the engine saw the request")
    };
    let thinking = sampling(json!({})).await;
    let tuned = Sampling { temperature: 1.0, top_p: 0.95, seed: thinking.seed, ..Sampling::greedy() };
    assert_eq!(thinking, tuned);
    assert_ne!(sampling(json!({})).await.seed, thinking.seed, "no seed means another one each time");

    let instant = sampling(json!({"thinking": {"type": "disabled"}, "seed": 9})).await;
    assert_eq!(instant, Sampling { temperature: 0.6, top_p: 0.95, seed: 9, ..Sampling::greedy() });

    let asked = json!({"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.2, "seed": 1,
        "frequency_penalty": 0.3, "repetition_penalty": 1.5, "logit_bias": {"65": -5}, "tools": tools(),
        "tool_choice": "none"});
    let expected = Sampling {
        temperature: 0.5,
        top_p: 0.9,
        top_k: Some(7),
        min_p: 0.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.3,
        repetition_penalty: 1.5,
        logit_bias: vec![(65, -5.0)],
        seed: 1,
    };
    assert_eq!(sampling(asked).await, expected);
}

#[tokio::test]
async fn a_seed_makes_answers_repeat() {
    let server = Setup::new(FakeRunner::hashed(256)).serve().await;
    let body =
        |seed: i64| hello_with(json!({"seed": seed, "max_tokens": 20, "thinking": {"type": "disabled"}}));
    let (_, first) = server.chat(&body(-3)).await;
    let (_, again) = server.chat(&body(-3)).await;
    let (_, other) = server.chat(&body(4)).await;
    assert_eq!(first["choices"], again["choices"]);
    assert_ne!(first["choices"], other["choices"]);
}

#[tokio::test]
async fn keys_without_effect_are_named_in_a_header() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let notice = async |body: Value| {
        let response = server.post(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers().get("x-kimi-notice").map(|notice| notice.to_str().unwrap().to_owned())
    };
    assert_eq!(
        notice(hello_with(json!({"user": "u", "prompt_cache_key": "k", "anything": [1]}))).await,
        None
    );
    let silent = json!({"metadata": {"a": "b"}, "safety_identifier": "s", "prediction": {"type": "content", "content": "x"}});
    assert_eq!(notice(hello_with(silent)).await, None);
    let swarm = json!({"agent": {"type": "swarm", "max_agents": 30}, "thinking_budget": 5});
    assert_eq!(notice(hello_with(swarm)).await.as_deref(), Some("ignored agent"));
    assert_eq!(notice(hello_with(json!({"cache_salt": "s", "priority": -1}))).await, None);
    let forgetful = json!({"messages": [{"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "1"}]});
    assert_eq!(
        notice(hello_with(forgetful)).await.as_deref(),
        Some("reasoning_content is missing in assistant tool call message at index 1")
    );
}
