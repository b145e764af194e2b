//! `serve --fake` over real HTTP: a scripted model, and everything else as it is.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::harness::{Server, failure, with};

/// A server that plays this script.
pub(crate) fn play(script: &Value) -> Server {
    play_with(script, &[])
}

pub(crate) fn play_with(script: &Value, arguments: &[&str]) -> Server {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script.to_string()).unwrap();
    Server::start(&[&["--fake", file.path().to_str().unwrap()], arguments].concat())
}

async fn chat(server: &Server, body: &Value) -> reqwest::Response {
    server.post("/chat/completions", body).send().await.expect("an answer")
}

/// The message of the answer.
async fn ask(server: &Server, messages: &Value, extra: &Value) -> Value {
    let body = json!({"model": "kimi-k2.6", "messages": messages, "tools": [WEATHER.clone()]});
    let response = chat(server, &with(body, extra)).await;
    assert_eq!(response.status(), 200);
    let mut answer: Value = response.json().await.unwrap();
    answer["choices"][0]["message"].take()
}

static WEATHER: LazyLock<Value> = LazyLock::new(
    || json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}),
);

#[tokio::test]
async fn a_scripted_model_takes_images() {
    let server = play(
        &json!([{"match": "image<|media_content|><|media_pad|><|media_end|>\nWhat?", "content": "A dot."}]),
    );
    // One pixel.
    let dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==";
    let content =
        json!([{"type": "image_url", "image_url": {"url": dot}}, {"type": "text", "text": "What?"}]);
    let message = ask(&server, &json!([{"role": "user", "content": content}]), &json!({})).await;
    assert_eq!(message["content"], "A dot.");
}

#[tokio::test]
async fn a_script_drives_a_tool_loop() {
    let server = play(&json!({"turns": [
        {"match": "Oslo", "reasoning": "Ask.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
        {"match": "rain", "content": "It rains."},
        {"text": "Hm.</think>First <|im_end|>"},
        {"content": "Second"},
    ]}));
    let question = json!({"role": "user", "content": "How is Oslo?"});
    let call = ask(&server, &json!([question]), &json!({})).await;
    let expected = json!({"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [
        {"id": "functions.weather:0", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]});
    assert_eq!(call, expected);
    // The loop goes on from the result, and the next call of the conversation counts on.
    let result = json!({"role": "tool", "tool_call_id": "functions.weather:0", "content": "rain"});
    let answer = ask(&server, &json!([question, call, result]), &json!({})).await;
    assert_eq!((&answer["content"], &answer["reasoning_content"]), (&json!("It rains."), &json!("")));
    let again =
        ask(&server, &json!([question, call, result, question]), &json!({"thinking": {"type": "disabled"}}))
            .await;
    assert_eq!(again["tool_calls"][0]["id"], "functions.weather:1");
    assert_eq!(again.get("reasoning_content"), None, "reasoning is left out when the request does not think");
    // What nobody asked for in particular comes in turn.
    for content in ["First ", "Second", "First "] {
        let answer = ask(&server, &json!([{"role": "user", "content": "Hi"}]), &json!({})).await;
        assert_eq!(answer["content"], content);
    }
}

#[tokio::test]
async fn pace_limits_and_failures_are_as_ordered() {
    let server = play(&json!({"token_ms": 20, "turns": [
        {"match": "slow", "content": "a b c d e f", "first_token_ms": 150},
        {"match": "endless", "text": "</think>ab", "endless": true, "token_ms": 0},
        {"match": "sick", "content": "a b c d e f", "fail": {"after": 3, "kind": "non_finite"}},
        {"match": "fatal", "content": "a b c d e f", "fail": {"after": 2, "kind": "panic"}},
    ]}));
    let body = |text: &str, stream: bool| json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": text}], "max_tokens": 9, "stream": stream});
    let started = std::time::Instant::now();
    let slow = chat(&server, &body("slow", true)).await.text().await.unwrap();
    assert!(slow.ends_with("data: [DONE]\n\n") && started.elapsed().as_millis() >= 150 + 5 * 20, "{slow}");

    let endless: Value = chat(&server, &body("endless", false)).await.json().await.unwrap();
    let choice = &endless["choices"][0];
    let content = choice["message"]["content"].as_str().unwrap();
    assert_eq!((content.replace("ab", "").as_str(), content.starts_with("abab")), ("", true), "{content}");
    assert_eq!(choice["finish_reason"], "length");

    assert_eq!(chat(&server, &body("sick", false)).await.status(), 500);
    let sick = chat(&server, &body("sick", true)).await.text().await.unwrap();
    assert!(sick.contains("\"error\"") && !sick.contains("[DONE]"), "{sick}");
    let other: Value = chat(&server, &body("other", false)).await.json().await.unwrap();
    let content = &other["choices"][0]["message"]["content"];
    assert!(
        content.as_str().unwrap().starts_with("No turn"),
        "a request nobody wrote for is told so: {content}"
    );

    // The engine's death ends the process with an error.
    assert_eq!(chat(&server, &body("fatal", false)).await.status(), 500);
    let mut server = server;
    let status = tokio::task::spawn_blocking(move || server.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn hashed_answers_follow_from_the_prompt() {
    let server = Server::start(&["--fake", "hash", "--max-context", "1000"]);
    let ask = async |text: &str| {
        ask(&server, &json!([{"role": "user", "content": text}]), &json!({"temperature": 0})).await
    };
    let (first, second, other) = (ask("one").await, ask("one").await, ask("two").await);
    assert_eq!(first, second);
    assert_ne!(first["content"], other["content"]);
    assert!(first["reasoning_content"].as_str().unwrap().len() > 16);
}

#[test]
fn a_bad_script_is_one_clear_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (script, wanted) in [
        ("{\"turns\": []}", "no turns"),
        ("[{\"content\": \"a\", \"text\": \"b\"}]", "turn 0: it must say exactly one of"),
        ("[{\"contents\": \"a\"}]", "unknown field `contents`"),
    ] {
        std::fs::write(file.path(), script).unwrap();
        let line = failure(&["serve", "--port", "0", "--fake", path]);
        assert!(line.contains(path) && line.contains(wanted), "{line}");
    }
}

#[tokio::test]
async fn scripted_answers_are_speculated_on_like_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"[{"text": "</think>again and ", "endless": true, "token_ms": 2}]"#)
        .unwrap();
    let body =
        json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200});
    let mut answers = Vec::new();
    for speculation in ["off", "on"] {
        let server = Server::start(&["--fake", file.path().to_str().unwrap(), "--speculation", speculation]);
        let answer: Value = chat(&server, &body).await.json().await.unwrap();
        let drafts = server.metric("kimi_spec_decode_num_accepted_tokens_total").await;
        assert_eq!(drafts > 0.0, speculation == "on", "{drafts}");
        answers.push(answer["choices"].clone());
    }
    assert_eq!(answers[0], answers[1]);
}
