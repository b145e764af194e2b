//! Options of how the model is computed, over real HTTP with kimi-nano.

use serde_json::{Value, json};

use crate::harness::Server;

#[tokio::test]
async fn rounded_weights_still_know_how_to_multiply() {
    let server = Server::start(&["--dense", "int8", "--threads", "1", "--prefetch"]);
    let body = json!({
        "model": "kimi-k2.6", "messages": [{"role": "user", "content": "What is 17 × 23?"}], "temperature": 0,
    });
    let answer: Value = server.post("/chat/completions", &body).send().await.unwrap().json().await.unwrap();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.contains("391"), "{answer}");
    let log = server.kill();
    assert!(log.contains("weights that every token uses, in memory"), "nothing was rounded: {log}");
}
