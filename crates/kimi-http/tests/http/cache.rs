//! Cached prefixes: found by those who left them and by nobody else, and counted exactly.

use std::sync::Arc;

use kimi_http::ApiKeys;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, hello_with, saying};

async fn server() -> Server {
    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.prefix_cache = true;
    setup.config.api_keys = ApiKeys::new(["one".to_owned(), "two".to_owned()]);
    setup.serve().await
}

/// The tokens of a request with a long prompt, and those that came from the cache, in both spellings.
async fn ask(server: &Server, key: &str, extra: Value) -> (u64, u64) {
    let mut body = hello_with(extra);
    if body["messages"].as_array().is_some_and(|messages| messages.len() == 1) {
        body["messages"][0]["content"] = json!("a".repeat(500));
    }
    let response = server.post(&body).bearer_auth(key).send().await.unwrap();
    let answer: Value = response.json().await.unwrap();
    assert!(answer["error"].is_null(), "{answer}");
    let usage = &answer["usage"];
    assert_eq!(usage["cached_tokens"], usage["prompt_tokens_details"]["cached_tokens"]);
    (usage["prompt_tokens"].as_u64().unwrap(), usage["cached_tokens"].as_u64().unwrap())
}

#[tokio::test]
async fn a_prefix_is_found_by_its_caller_alone() {
    let server = Arc::new(server().await);
    let (tokens, cached) = ask(&server, "one", json!({})).await;
    assert_eq!(cached, 0);
    let found = (tokens - 1) / 16 * 16;
    assert_eq!(ask(&server, "one", json!({})).await.1, found, "all full blocks");
    assert_eq!(ask(&server, "two", json!({})).await.1, 0, "another key");
    assert_eq!(ask(&server, "one", json!({"cache_salt": "a"})).await.1, 0, "another salt");
    assert_eq!(ask(&server, "one", json!({"cache_salt": "a"})).await.1, found);
    assert_eq!(ask(&server, "two", json!({"cache_salt": "a"})).await.1, 0, "another key with the same salt");
}

#[tokio::test]
async fn how_to_answer_does_not_change_what_is_found() {
    let server = server().await;
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let (tokens, _) = ask(&server, "one", json!({"tools": tools})).await;
    let found = (tokens - 1) / 16 * 16;
    for extra in [
        json!({"tools": tools, "tool_choice": "none"}),
        json!({"tools": tools, "temperature": 0.1, "max_tokens": 3, "stop": "x", "seed": 1}),
        json!({"tools": tools, "parallel_tool_calls": false, "logprobs": true}),
    ] {
        assert_eq!(ask(&server, "one", extra.clone()).await.1, found, "{extra}");
    }
}

#[tokio::test]
async fn the_next_turn_of_a_conversation_finds_the_last_one() {
    let server = server().await;
    let long = "b".repeat(300);
    let first = json!([{"role": "user", "content": long}, {"role": "user", "content": "Hi"}]);
    let (tokens, _) = ask(&server, "one", json!({"messages": first})).await;
    let next = json!([{"role": "user", "content": long}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "ok"}, {"role": "user", "content": "And now?"}]);
    let (_, cached) = ask(&server, "one", json!({"messages": next})).await;
    // The first prompt ends with the opening of the answer, `<think>`, which the history closes at once.
    assert!(cached + 16 >= tokens - 1, "{cached} of {tokens}");
}
