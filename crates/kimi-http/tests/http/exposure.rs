//! What must not get in or out: strangers, templates, other protocols, formats that take for ever, texts in the log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kimi_http::ApiKeys;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::dialects::listening;
use crate::harness::{Setup, hello_with, saying};

const OK: &str = "</think>ok<|im_end|>";

#[tokio::test]
async fn everything_that_is_described_wants_a_key_but_health_and_the_page() {
    let mut setup = Setup::new(saying(OK));
    setup.config.api_keys = ApiKeys::new(["sk-a".to_owned()]);
    let server = setup.serve().await;
    let document = server.client.get(format!("{}/openapi.json", server.url)).bearer_auth("sk-a").send();
    let document: Value = document.await.unwrap().json().await.unwrap();
    let mut open = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let url = format!("{}{}", server.url, path.replace(['{', '}'], ""));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let response = server.client.request(method, url).send().await.unwrap();
            if response.status() != 401 {
                open.push(path.as_str());
            }
        }
    }
    assert_eq!(open, ["/", "/health"]);
}

#[tokio::test]
async fn clients_bring_no_templates_and_set_none_of_their_variables_but_four() {
    let (runner, prompts) = listening(OK);
    let server = Setup::new(runner).serve().await;
    for extra in [
        json!({}),
        json!({"chat_template": "{{ ''.__class__ }}"}),
        json!({"chat_template_kwargs": {"tokenize": true, "messages": [], "tools": [7], "chat_template": "x",
            "add_generation_prompt": false, "continue_final_message": true}}),
    ] {
        assert_eq!(server.chat(&hello_with(extra)).await.0, 200);
    }
    let prompts = prompts.lock().unwrap();
    assert!(prompts.len() == 3 && prompts.iter().all(|prompt| *prompt == prompts[0]));
}

#[tokio::test]
async fn only_http_1_is_spoken() {
    let server = Setup::new(saying(OK)).serve().await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    // The preface of HTTP/2 and an empty SETTINGS frame.
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), connection.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn formats_that_take_long_to_compile_keep_nobody_waiting() {
    let server = Setup::new(saying(OK)).serve().await;
    let hostile = ["(.*a){30}", "((((((a{100}){100}){100}){100}){100}){100})"].map(|regex| {
        let body = hello_with(json!({"structured_outputs": {"regex": regex}, "max_tokens": 50}));
        tokio::spawn(server.post(&body).send())
    });
    // One thread serves them all: if it compiled, nobody else would be answered before that is done.
    let mut answered = 0;
    while !hostile.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(server.chat(&hello_with(json!({}))).await.0, 200);
        answered += 1;
    }
    assert!(answered >= 3, "{answered}");
    for request in hostile {
        assert!(request.await.unwrap().unwrap().status().as_u16() < 500);
    }
}

/// Keeps what is logged if it holds the secret.
#[derive(Clone, Default)]
struct Leaks(Arc<Mutex<Vec<String>>>);

const SECRET: &str = "zanzibar";

impl Write for Leaks {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.contains(SECRET) || text.contains("generation ended") {
            self.0.lock().unwrap().push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_texts_nor_keys_are_logged() {
    let leaks = Leaks::default();
    let writer = leaks.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process, since the engine's thread logs, too; other tests say nothing secret.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut setup = Setup::new(saying(&format!("{SECRET}</think>{SECRET}<|im_end|>")));
    let key = format!("sk-{SECRET}");
    setup.config.api_keys = ApiKeys::new([key.clone()]);
    let server = setup.serve().await;
    let good = hello_with(
        json!({"messages": [{"role": "user", "name": SECRET, "content": SECRET}], "user": SECRET,
        "safety_identifier": SECRET, "metadata": {SECRET: SECRET}, "cache_salt": SECRET, SECRET: SECRET,
        "tools": [{"type": "function", "function": {"name": SECRET, "description": SECRET}}], "stop": "zan"}),
    );
    let bad = hello_with(json!({"messages": [{"role": SECRET, "content": SECRET}]}));
    let worse = hello_with(json!({"structured_outputs": {"regex": format!("{SECRET}(")}}));
    for (body, key, status) in
        [(&good, &key, 200), (&bad, &key, 400), (&worse, &key, 400), (&good, &format!("{key}2"), 401)]
    {
        let response = server.post(body).bearer_auth(key).send().await.unwrap();
        assert_eq!(response.status(), status);
        let answer = response.text().await.unwrap();
        assert!(status != 200 || answer.contains(SECRET));
    }
    let kept = leaks.0.lock().unwrap();
    assert!(kept.iter().any(|line| line.contains("generation ended")), "the log is heard");
    let leaks: Vec<&String> = kept.iter().filter(|line| line.contains(SECRET)).collect();
    // The client is in this process, too, and knows what it sends.
    assert!(
        leaks.iter().all(|line| line.contains("reqwest") || line.contains("hyper_util::client")),
        "{leaks:?}"
    );
}
