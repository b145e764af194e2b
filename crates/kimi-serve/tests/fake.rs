//! `serve --fake` over real HTTP: a scripted model, and everything else as it is.
#![expect(clippy::unwrap_used, reason = "the tests' helpers may panic like the tests themselves")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

/// A running server, ended with the test.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(fake: &str, more: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kimi-serve"))
            .args(["serve", "--port", "0", "--fake", fake])
            .args(more)
            .env_remove("KIMI_MODEL")
            .env_remove("KIMI_API_KEYS")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let line = lines.next().expect("a line").expect("UTF-8");
        let url = line.strip_prefix("ready: ").expect("the ready line").to_owned();
        Self { process, url }
    }

    fn play(script: &Value, more: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script.to_string()).unwrap();
        Self::start(file.path().to_str().unwrap(), more)
    }

    async fn post(&self, body: &Value) -> reqwest::Response {
        let url = format!("{}/chat/completions", self.url);
        reqwest::Client::new().post(url).json(body).send().await.expect("an answer")
    }

    /// The message of the answer.
    async fn ask(&self, messages: &Value, extra: &Value) -> Value {
        let mut body = json!({"model": "kimi-k2.6", "messages": messages, "tools": [WEATHER.clone()]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let response = self.post(&body).await;
        assert_eq!(response.status(), 200);
        let mut answer: Value = response.json().await.unwrap();
        answer["choices"][0]["message"].take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

static WEATHER: std::sync::LazyLock<Value> = std::sync::LazyLock::new(
    || json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}),
);

#[tokio::test]
async fn a_script_drives_a_tool_loop() {
    let server = Server::play(
        &json!({"turns": [
            {"match": "Oslo", "reasoning": "Ask.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
            {"match": "rain", "content": "It rains."},
            {"text": "Hm.</think>First <|im_end|>"},
            {"content": "Second"},
        ]}),
        &[],
    );
    let question = json!({"role": "user", "content": "How is Oslo?"});
    let call = server.ask(&json!([question]), &json!({})).await;
    let expected = json!({"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [
        {"id": "functions.weather:0", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]});
    assert_eq!(call, expected);
    // The loop goes on from the result, and the next call of the conversation counts on.
    let result = json!({"role": "tool", "tool_call_id": "functions.weather:0", "content": "rain"});
    let answer = server.ask(&json!([question, call, result]), &json!({})).await;
    assert_eq!((&answer["content"], &answer["reasoning_content"]), (&json!("It rains."), &json!("")));
    let again = server
        .ask(&json!([question, call, result, question]), &json!({"thinking": {"type": "disabled"}}))
        .await;
    assert_eq!(again["tool_calls"][0]["id"], "functions.weather:1");
    assert_eq!(again.get("reasoning_content"), None, "reasoning is left out when the request does not think");
    // What nobody asked for in particular comes in turn.
    for content in ["First ", "Second", "First "] {
        let answer = server.ask(&json!([{"role": "user", "content": "Hi"}]), &json!({})).await;
        assert_eq!(answer["content"], content);
    }
}

#[tokio::test]
async fn pace_limits_and_failures_are_as_ordered() {
    let server = Server::play(
        &json!({"token_ms": 20, "turns": [
            {"match": "slow", "content": "a b c d e f", "first_token_ms": 150},
            {"match": "endless", "text": "</think>ab", "endless": true, "token_ms": 0},
            {"match": "sick", "content": "a b c d e f", "fail": {"after": 3, "kind": "non_finite"}},
            {"match": "fatal", "content": "a b c d e f", "fail": {"after": 2, "kind": "panic"}},
        ]}),
        &[],
    );
    let body = |text: &str, stream: bool| json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": text}], "max_tokens": 9, "stream": stream});
    let started = std::time::Instant::now();
    let slow = server.post(&body("slow", true)).await.text().await.unwrap();
    assert!(slow.ends_with("data: [DONE]\n\n") && started.elapsed().as_millis() >= 150 + 5 * 20, "{slow}");

    let endless: Value = server.post(&body("endless", false)).await.json().await.unwrap();
    let choice = &endless["choices"][0];
    let content = choice["message"]["content"].as_str().unwrap();
    assert_eq!((content.replace("ab", "").as_str(), content.starts_with("abab")), ("", true), "{content}");
    assert_eq!(choice["finish_reason"], "length");

    assert_eq!(server.post(&body("sick", false)).await.status(), 500);
    let sick = server.post(&body("sick", true)).await.text().await.unwrap();
    assert!(sick.contains("\"error\"") && !sick.contains("[DONE]"), "{sick}");
    let other: Value = server.post(&body("other", false)).await.json().await.unwrap();
    let content = &other["choices"][0]["message"]["content"];
    assert!(
        content.as_str().unwrap().starts_with("No turn"),
        "a request nobody wrote for is told so: {content}"
    );

    // The engine's death ends the process with an error.
    assert_eq!(server.post(&body("fatal", false)).await.status(), 500);
    let mut server = server;
    let status = tokio::task::spawn_blocking(move || server.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn hashed_answers_follow_from_the_prompt() {
    let server = Server::start("hash", &["--max-context", "1000"]);
    let ask = async |text: &str| {
        server.ask(&json!([{"role": "user", "content": text}]), &json!({"temperature": 0})).await
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
        let output = Command::new(env!("CARGO_BIN_EXE_kimi-serve"))
            .args(["serve", "--port", "0", "--fake", path])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with("error: ")).expect("an error line");
        assert!(line.contains(path) && line.contains(wanted), "{line}");
    }
}
